// A teacher's likeliest tokens at each learned token of some sequences, made once, stored compactly and read back.
//
// The file, little-endian: 8 bytes "RETORTTK"; u32 length of a JSON header; the header { format: 1, of, vocabSize, k,
// temperature, sequences, tokens }; u32[sequences] learned tokens of each sequence; ids[tokens, k], u16 where vocabSize is
// at most 65536, else u32; float16[tokens, k], their log-probabilities at the temperature; float16[tokens], the log of the
// mass of all other tokens; 32 bytes SHA-256 of everything before. `of` tells which teacher and sequences it is of. A token
// takes 4 k + 2 bytes with a small vocabulary.
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { z } from 'zod';
import { writeAll } from '../checkpoint/atomic.js';
import { fileProblem } from '../checkpoint/files.js';
import { narrow, widen } from '../checkpoint/half.js';
import { linearInto } from '../compute/op/linear/linear.js';
import { LOGITS_BYTES } from '../compute/op/token-logprob/head-logprob.js';
import { matrixShape, viewOf } from '../compute/tensor.js';
import { RetortError } from '../errors.js';
import type { Llama } from '../model/llama.js';
import type { Example } from '../text/dataset.js';
import type { TeacherOf } from './divergence-loss.js';
import { completionHidden, eachPass } from './packing.js';

const MAGIC = 'RETORTTK';
const HASH_BYTES = 32;
/** Less mass than e^-50 is no mass: of it nothing could be learned. */
const LEAST_REST = -50;

const count = z.number().int().min(0);
const header = z.strictObject({
  format: z.literal(1),
  of: z.string(),
  vocabSize: count.min(1),
  k: count.min(1),
  temperature: z.number().positive(),
  sequences: count,
  tokens: count,
});
type Header = z.output<typeof header>;

export interface TopLogits extends Header {
  /** Learned tokens of each sequence. */
  readonly lengths: Uint32Array;
  readonly ids: Uint16Array | Uint32Array;
  /** The bits of float16 numbers. */
  readonly logprobs: Uint16Array;
  readonly rest: Uint16Array;
}

/** What a file of top logits is of: any other teacher, data, k or temperature has another name. */
export function topLogitsName(
  teacher: string,
  sequences: readonly Example[],
  k: number,
  temperature: number,
): string {
  const hash = createHash('sha256').update(JSON.stringify([teacher, k, temperature]));
  for (const { promptIds, completionIds } of sequences)
    hash.update(JSON.stringify([promptIds, completionIds]));
  return hash.digest('hex');
}

/**
 * Asks the teacher at each learned token.
 * @param onProgress is told how many sequences are done
 */
export async function makeTopLogits(
  llama: Llama,
  sequences: readonly Example[],
  { of, k, temperature, batchTokens }: { of: string; k: number; temperature: number; batchTokens: number },
  onProgress: (done: number) => void = () => {},
): Promise<TopLogits> {
  const { device, config } = llama;
  const { vocabSize } = config;
  const lengths = Uint32Array.from(sequences, (s) => s.completionIds.length);
  const tokens = lengths.reduce((a, b) => a + b, 0);
  const ids = vocabSize <= 65536 ? new Uint16Array(tokens * k) : new Uint32Array(tokens * k);
  const logprobs = new Float32Array(tokens * k);
  const rest = new Float32Array(tokens);
  let row = 0;
  let done = 0;
  await eachPass(llama, sequences, batchTokens, (pass) => {
    const hidden = completionHidden({ device, tape: null }, llama, pass);
    const [rows, width] = matrixShape(hidden);
    const most = Math.max(1, Math.floor(LOGITS_BYTES / (4 * vocabSize)));
    const buffer = device.temporary([Math.min(rows, most), vocabSize]);
    for (let first = 0; first < rows; first += most) {
      const chunk = Math.min(most, rows - first);
      const logits = viewOf(buffer, [chunk, vocabSize]);
      linearInto(device, viewOf(hidden, [chunk, width], first * width), llama.head, logits);
      const values = device.floats(logits);
      for (let r = 0; r < chunk; r++, row++) {
        const top = likeliest(values.subarray(r * vocabSize, (r + 1) * vocabSize), k, temperature);
        ids.set(top.ids, row * k);
        logprobs.set(top.logprobs, row * k);
        rest[row] = top.rest;
      }
    }
    done += pass.length;
    onProgress(done);
  });
  const shape = { format: 1, of, vocabSize, k, temperature, sequences: sequences.length, tokens } as const;
  return { ...shape, lengths, ids, logprobs: narrow('F16', logprobs), rest: narrow('F16', rest) };
}

/** The k likeliest of a row, likeliest first, ties by the lower id; `rest` is the log of the others' mass. */
export function likeliest(
  logits: Float32Array,
  k: number,
  temperature: number,
): { ids: number[]; logprobs: number[]; rest: number } {
  const ids: number[] = [];
  for (let i = 0; i < logits.length; i++) {
    if (ids.length === k && !(logits[i] > logits[ids[k - 1]])) continue;
    let at = ids.length;
    while (at > 0 && logits[i] > logits[ids[at - 1]]) at--;
    ids.splice(at, 0, i);
    if (ids.length > k) ids.pop();
  }
  const kept = new Set(ids);
  const peak = logits[ids[0]];
  let inside = 0;
  let outside = 0;
  for (let i = 0; i < logits.length; i++) {
    const e = Math.exp((logits[i] - peak) / temperature);
    if (kept.has(i)) inside += e;
    else outside += e;
  }
  const logSum = Math.log(inside + outside);
  return {
    ids,
    logprobs: ids.map((i) => (logits[i] - peak) / temperature - logSum),
    rest: Math.max(LEAST_REST, Math.log(outside) - logSum),
  };
}

/** The bytes of a file. */
export function encodeTopLogits({ lengths, ids, logprobs, rest, ...shape }: TopLogits): Uint8Array {
  const text = Buffer.from(JSON.stringify(header.parse(shape)));
  const size = Buffer.alloc(4);
  size.writeUInt32LE(text.length);
  const parts = [Buffer.from(MAGIC), size, text, ...[lengths, ids, logprobs, rest].map(bytesOf)];
  const body = Buffer.concat(parts);
  return Buffer.concat([body, createHash('sha256').update(body).digest()]);
}

function bytesOf({ buffer, byteOffset, byteLength }: Uint16Array | Uint32Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** Reads a file's bytes. @throws RetortError bad-data naming what is wrong */
export function decodeTopLogits(bytes: Uint8Array, path: string): TopLogits {
  const wrong = (what: string) =>
    new RetortError('bad-data', `${path}: ${what}; remove the file, and it is made anew`);
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes.length < MAGIC.length + 4 + HASH_BYTES || buffer.toString('latin1', 0, MAGIC.length) !== MAGIC)
    throw wrong('it is no file of top logits');
  const end = bytes.length - HASH_BYTES;
  const hash = createHash('sha256').update(buffer.subarray(0, end)).digest();
  if (!hash.equals(buffer.subarray(end))) throw wrong('its checksum does not fit: it was cut or changed');
  let at = MAGIC.length + 4;
  const headerEnd = at + buffer.readUInt32LE(MAGIC.length);
  if (headerEnd > end) throw wrong('its header is longer than the file');
  let shape: Header;
  try {
    shape = header.parse(JSON.parse(buffer.toString('utf8', at, headerEnd)));
  } catch {
    throw wrong('its header is not one of this version');
  }
  at = headerEnd;
  const { k, tokens, sequences, vocabSize } = shape;
  const idBytes = vocabSize <= 65536 ? 2 : 4;
  if (end - at !== 4 * sequences + tokens * (k * (idBytes + 2) + 2))
    throw wrong(`its header promises ${tokens} tokens of ${k}, and its length is another`);
  const part = (elements: number, each: number) => {
    // Copied: what begins anywhere in the file begins nowhere in particular in memory.
    const copy = buffer.buffer.slice(buffer.byteOffset + at, buffer.byteOffset + at + elements * each);
    at += elements * each;
    return copy;
  };
  const lengths = new Uint32Array(part(sequences, 4));
  const idPart = part(tokens * k, idBytes);
  const ids = idBytes === 2 ? new Uint16Array(idPart) : new Uint32Array(idPart);
  const logprobs = new Uint16Array(part(tokens * k, 2));
  const rest = new Uint16Array(part(tokens, 2));
  if (lengths.reduce((a, b) => a + b, 0) !== tokens) throw wrong('its lengths do not add up to its tokens');
  if (ids.some((id) => id >= vocabSize)) throw wrong('an id lies outside the vocabulary');
  return { ...shape, lengths, ids, logprobs, rest };
}

/** Writes a file whole or not at all. @throws RetortError storage */
export function writeTopLogits(path: string, top: TopLogits): void {
  const next = `${path}.tmp`;
  try {
    const fd = fs.openSync(next, 'w');
    try {
      writeAll(fd, encodeTopLogits(top));
      fs.fsyncSync(fd);
    } finally {
      fs.closeSync(fd);
    }
    fs.renameSync(next, path);
  } catch (error) {
    throw new RetortError('storage', `cannot write ${path}: ${fileProblem(error)}; free space, then go on`, {
      cause: error,
    });
  }
}

/** The file at a path, null where there is none. @throws RetortError bad-data */
export function readTopLogits(path: string): TopLogits | null {
  if (!fs.existsSync(path)) return null;
  let bytes: Uint8Array;
  try {
    bytes = fs.readFileSync(path);
  } catch (error) {
    throw new RetortError('bad-data', `cannot read ${path}: ${fileProblem(error)}`, { cause: error });
  }
  return decodeTopLogits(bytes, path);
}

/** A teacher that says what a file has of it; `sequences` are those that the file was made of, the same objects. */
export function storedTeacher(top: TopLogits, sequences: readonly Example[]): TeacherOf {
  const { k } = top;
  const startOf = new Map<Example, number>();
  let start = 0;
  sequences.forEach((example, i) => {
    startOf.set(example, start);
    start += top.lengths[i];
  });
  return ({ device }, pass) => {
    const rows = pass.reduce((n, e) => n + e.completionIds.length, 0);
    const ids = new Int32Array(rows * k);
    const halves = new Uint16Array(rows * k);
    const restHalves = new Uint16Array(rows);
    let row = 0;
    for (const example of pass) {
      const from = startOf.get(example);
      if (from === undefined)
        throw new RetortError('bad-data', 'a sequence is not among those of the top logits');
      const length = example.completionIds.length;
      ids.set(top.ids.subarray(from * k, (from + length) * k), row * k);
      halves.set(top.logprobs.subarray(from * k, (from + length) * k), row * k);
      restHalves.set(top.rest.subarray(from, from + length), row);
      row += length;
    }
    const [logprobs, rest] = [new Float32Array(rows * k), new Float32Array(rows)];
    widen('F16', halves, logprobs);
    widen('F16', restHalves, rest);
    for (let r = 0; r < rows; r++) normalise(logprobs.subarray(r * k, (r + 1) * k), rest, r);
    return {
      ids: device.upload(ids, 'i32', [rows, k]),
      logprobs: device.upload(logprobs, 'f32', [rows, k]),
      rest: device.upload(rest, 'f32'),
    };
  };
}

/** float16 rounds: the masses are made to add up to 1 again. */
function normalise(logprobs: Float32Array, rest: Float32Array, row: number): void {
  const sum = logprobs.reduce((total, x) => total + Math.exp(x), Math.exp(rest[row]));
  const shift = Math.log(sum);
  // Rounding may leave nothing for the rest, or put a probability above 1; neither may be.
  for (let i = 0; i < logprobs.length; i++) logprobs[i] = Math.min(0, logprobs[i] - shift);
  rest[row] -= shift;
}
