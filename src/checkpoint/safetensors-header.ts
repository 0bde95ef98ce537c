// The header of a safetensors file: parsed and proved consistent before a byte of tensor data is read.
// Format: 8 bytes length (little-endian), that many bytes of JSON, then the data, in which every byte belongs to
// exactly one tensor (github.com/huggingface/safetensors).
import { RetortError } from '../errors.js';

/** Bytes of one element of each data type of the format. */
export const elementBytes: Readonly<Record<string, number>> = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E5M2: 1,
  F8_E4M3: 1,
  U16: 2,
  I16: 2,
  F16: 2,
  BF16: 2,
  U32: 4,
  I32: 4,
  F32: 4,
  U64: 8,
  I64: 8,
  F64: 8,
};

/** One tensor of a file: its data is the bytes `begin` to `end` of the data part. */
export interface TensorEntry {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

export interface SafetensorsHeader {
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  readonly metadata: Readonly<Record<string, string>>;
}

/** The limit of the format's own library. */
export const MAX_HEADER = 100_000_000;

/**
 * Parses the JSON text of a header and checks every entry.
 * @param dataBytes bytes of the file after the header
 * @throws RetortError `bad-model` naming `path` and the tensor.
 */
export function parseHeader(text: string, dataBytes: number, path: string): SafetensorsHeader {
  const fail = (what: string) =>
    new RetortError('bad-model', `${path}: ${what}; the file is damaged: copy it again from its source`);
  let root: unknown;
  try {
    root = JSON.parse(text);
  } catch (error) {
    throw fail(`the safetensors header is not JSON (${(error as Error).message})`);
  }
  if (!isRecord(root)) throw fail('the safetensors header is not a JSON object');
  const twice = repeatedKey(text);
  if (twice !== null) throw fail(`the name ${show(twice)} is twice in the safetensors header`);
  let metadata: Record<string, string> = {};
  const entries: TensorEntry[] = [];
  for (const [name, value] of Object.entries(root)) {
    if (name === '__metadata__') {
      if (!isRecord(value) || !Object.values(value).every((one) => typeof one === 'string'))
        throw fail('__metadata__ must be an object of strings');
      metadata = value as Record<string, string>;
    } else entries.push(parseEntry(name, value, dataBytes, fail));
  }
  checkCover(entries, dataBytes, fail);
  return { tensors: new Map(entries.map((entry) => [entry.name, entry])), metadata };
}

type Fail = (what: string) => RetortError;

function parseEntry(name: string, value: unknown, dataBytes: number, fail: Fail): TensorEntry {
  const at = `tensor ${show(name)}`;
  if (!isRecord(value)) throw fail(`${at}: its entry is not an object`);
  const { dtype, shape, data_offsets: offsets } = value;
  const bytes =
    typeof dtype === 'string' && Object.hasOwn(elementBytes, dtype) ? elementBytes[dtype] : undefined;
  if (bytes === undefined) throw fail(`${at}: unknown data type ${show(dtype)}`);
  if (!isCounts(shape)) throw fail(`${at}: shape ${show(shape)} is not a list of whole numbers from 0`);
  if (!isCounts(offsets) || offsets.length !== 2)
    throw fail(`${at}: data_offsets ${show(offsets)} is not [begin, end]`);
  const [begin, end] = offsets as [number, number];
  if (begin > end) throw fail(`${at}: data_offsets [${begin}, ${end}] run backwards`);
  if (end > dataBytes)
    throw fail(
      `${at}: data_offsets [${begin}, ${end}] point outside the file, which has ${dataBytes} bytes of data`,
    );
  const size = shape.reduce((product, one) => product * one, bytes);
  if (size !== end - begin)
    throw fail(
      `${at}: shape ${show(shape)} of ${dtype} takes ${size} bytes, data_offsets give ${end - begin}`,
    );
  return { name, dtype: dtype as string, shape, begin, end };
}

// Every byte belongs to one tensor: no overlap, no hole, nothing after the last.
function checkCover(entries: readonly TensorEntry[], dataBytes: number, fail: Fail): void {
  const sorted = [...entries].sort((a, b) => a.begin - b.begin || a.end - b.end);
  let covered = 0;
  for (const { name, begin, end } of sorted) {
    if (begin < covered) throw fail(`tensor ${show(name)}: its data overlaps that of another tensor`);
    if (begin > covered) throw fail(`bytes ${covered} to ${begin} of the data belong to no tensor`);
    covered = end;
  }
  if (covered !== dataBytes) throw fail(`${dataBytes - covered} bytes after the last tensor belong to none`);
}

/** The first key that an object of a valid JSON text holds twice; JSON.parse would keep the last in silence. */
function repeatedKey(json: string): string | null {
  const open: Array<Set<string>> = [];
  for (let at = 0; at < json.length; at++) {
    const character = json[at];
    if (character === '{' || character === '[') open.push(new Set());
    else if (character === '}' || character === ']') open.pop();
    else if (character === '"') {
      const end = stringEnd(json, at);
      if (isFollowedByColon(json, end)) {
        const key = JSON.parse(json.slice(at, end)) as string;
        const keys = open.at(-1)!;
        if (keys.has(key)) return key;
        keys.add(key);
      }
      at = end - 1;
    }
  }
  return null;
}

// By hand, since a regular expression runs out of stack on a string of some megabytes.
function stringEnd(json: string, start: number): number {
  let at = start + 1;
  while (json[at] !== '"') at += json[at] === '\\' ? 2 : 1;
  return at + 1;
}

function isFollowedByColon(json: string, end: number): boolean {
  let at = end;
  while (json[at] === ' ' || json[at] === '\n' || json[at] === '\r' || json[at] === '\t') at++;
  return json[at] === ':';
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((one) => Number.isSafeInteger(one) && one >= 0);
}

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? 'nothing';
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}
