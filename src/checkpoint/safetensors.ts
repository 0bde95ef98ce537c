// Safetensors files: tensors are read by position straight into the caller's memory, and written from it.
import fs from 'node:fs';
import { RetortError, refuse } from '../errors.js';
import { storageError, writeAll } from './atomic.js';
import { fileProblem } from './files.js';
import { widen } from './half.js';
import { elementBytes, MAX_HEADER, parseHeader, type TensorEntry } from './safetensors-header.js';

export type { TensorEntry } from './safetensors-header.js';

/** Memory that a tensor can be read into or written from: F32, I32 and U8. */
export type TensorData = Float32Array | Int32Array | Uint8Array;

/** A named tensor to write; `data` has as many elements as `shape` says. */
export interface NamedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly data: TensorData;
}

/** An open file. Tensors are read one by one; nothing of the data is kept. */
export interface SafetensorsFile {
  readonly path: string;
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  readonly metadata: Readonly<Record<string, string>>;
  /**
   * Reads a tensor into memory of its size: F32, F16, BF16 and I32 into a Float32Array, I32 into an Int32Array, U8
   * into a Uint8Array.
   * @throws RetortError `bad-model` for a missing tensor, another size, another type, or a file cut while open.
   */
  read(name: string, into: TensorData): void;
  close(): void;
}

const remedy = 'name a safetensors file that is there and whole';

/**
 * Opens a safetensors file and checks its header.
 * @throws RetortError `bad-model` naming the file and what is wrong.
 */
export function openSafetensors(path: string): SafetensorsFile {
  let fd: number;
  try {
    // A folder opens, and a pipe would block for ever; both are no tensors.
    if (!fs.statSync(path).isFile())
      throw new RetortError('bad-model', `cannot read ${path}: it is not a file; ${remedy}`);
    fd = fs.openSync(path, 'r');
  } catch (error) {
    if (error instanceof RetortError) throw error;
    throw unreadable(path, error);
  }
  try {
    const { dataStart, header } = readHeader(fd, path);
    return {
      path,
      ...header,
      read(name, into) {
        const entry = header.tensors.get(name);
        if (entry === undefined)
          throw refuse(
            'bad-model',
            `tensor to read from ${path}`,
            name,
            'the file has no tensor of this name',
          );
        checkTarget(entry, into, path);
        readTensor(fd, path, dataStart, entry, into);
      },
      close: () => fs.closeSync(fd),
    };
  } catch (error) {
    fs.closeSync(fd);
    throw error;
  }
}

function readHeader(fd: number, path: string) {
  const size = fs.fstatSync(fd).size;
  const fail = (what: string) =>
    new RetortError(
      'bad-model',
      `${path}: ${what}; the file is damaged or no safetensors file: copy it again`,
    );
  if (size < 10) throw fail(`the file has ${size} bytes, too few for a safetensors header`);
  const lengthBytes = new Uint8Array(8);
  readAt(fd, path, lengthBytes, 0);
  const length = new DataView(lengthBytes.buffer).getBigUint64(0, true);
  if (length < 2n || length > BigInt(MAX_HEADER)) throw fail(`the header claims ${length} bytes`);
  const dataStart = 8 + Number(length);
  if (dataStart > size)
    throw fail(`the header claims ${length} bytes, but only ${size - 8} are there: the file is truncated`);
  const bytes = new Uint8Array(Number(length));
  readAt(fd, path, bytes, 8);
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw fail('the safetensors header is not UTF-8');
  }
  return { dataStart, header: parseHeader(text, size - dataStart, path) };
}

function checkTarget(entry: TensorEntry, into: TensorData, path: string): void {
  const { name, dtype } = entry;
  const count = (entry.end - entry.begin) / elementBytes[dtype]!;
  if (into.length !== count)
    throw refuse(
      'bad-model',
      `memory for tensor ${name} of ${path}`,
      into.length,
      `it has ${count} elements`,
    );
  const fits =
    into instanceof Float32Array
      ? dtype === 'F32' || dtype === 'F16' || dtype === 'BF16' || dtype === 'I32'
      : into instanceof Int32Array
        ? dtype === 'I32'
        : dtype === 'U8';
  if (!fits)
    throw refuse(
      'bad-model',
      `data type of tensor ${name} of ${path}`,
      dtype,
      'convert the file to F32, F16 or BF16',
    );
}

// Elements converted at a time: the only memory beyond the caller's.
const BLOCK = 65536;

function readTensor(fd: number, path: string, dataStart: number, entry: TensorEntry, into: TensorData): void {
  const position = dataStart + entry.begin;
  const { dtype } = entry;
  if (!(into instanceof Float32Array) || dtype === 'F32') {
    readAt(fd, path, new Uint8Array(into.buffer, into.byteOffset, into.byteLength), position);
    return;
  }
  const narrow = dtype === 'I32' ? new Int32Array(BLOCK) : new Uint16Array(BLOCK);
  for (let start = 0; start < into.length; start += BLOCK) {
    const count = Math.min(BLOCK, into.length - start);
    const block = narrow.subarray(0, count);
    readAt(
      fd,
      path,
      new Uint8Array(block.buffer, 0, block.byteLength),
      position + start * block.BYTES_PER_ELEMENT,
    );
    const target = into.subarray(start, start + count);
    if (block instanceof Int32Array) target.set(block);
    else widen(dtype === 'BF16' ? 'BF16' : 'F16', block, target);
  }
}

function readAt(fd: number, path: string, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.length; ) {
    let read: number;
    try {
      read = fs.readSync(fd, bytes, done, bytes.length - done, position + done);
    } catch (error) {
      throw unreadable(path, error);
    }
    if (read === 0)
      throw new RetortError(
        'bad-model',
        `${path} was cut while it was read, at byte ${position + done}; ${remedy}`,
      );
    done += read;
  }
}

function unreadable(path: string, error: unknown): RetortError {
  return new RetortError('bad-model', `cannot read ${path}: ${fileProblem(error)}; ${remedy}`, {
    cause: error,
  });
}

/**
 * Writes tensors in the order given and syncs the file. Float32Array becomes F32, Int32Array I32, Uint8Array U8.
 * @throws RetortError `storage` where the disk refuses, `bad-checkpoint` for a name given twice or a wrong size.
 */
export function writeSafetensors(
  path: string,
  tensors: Iterable<NamedTensor>,
  metadata?: Readonly<Record<string, string>>,
): void {
  const list = [...tensors];
  const header = Buffer.from(headerText(list, metadata));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  try {
    const fd = fs.openSync(path, 'w');
    try {
      writeAll(fd, length);
      writeAll(fd, header);
      for (const { data } of list)
        writeAll(fd, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
      fs.fsyncSync(fd);
    } finally {
      fs.closeSync(fd);
    }
  } catch (error) {
    throw storageError(error, path, 'this file is incomplete, files written before are intact');
  }
}

function headerText(tensors: readonly NamedTensor[], metadata?: Readonly<Record<string, string>>): string {
  const entries: Array<[string, unknown]> = metadata ? [['__metadata__', metadata]] : [];
  const names = new Set(['__metadata__']);
  let offset = 0;
  for (const { name, shape, data } of tensors) {
    if (names.has(name))
      throw refuse('bad-checkpoint', 'name of a tensor to write', name, 'each must be there once');
    names.add(name);
    const count = shape.reduce((product, one) => product * one, 1);
    if (count !== data.length)
      throw refuse(
        'bad-checkpoint',
        `elements of tensor ${name}`,
        data.length,
        `shape [${shape}] has ${count}`,
      );
    const dtype = data instanceof Float32Array ? 'F32' : data instanceof Int32Array ? 'I32' : 'U8';
    entries.push([name, { dtype, shape, data_offsets: [offset, offset + data.byteLength] }]);
    offset += data.byteLength;
  }
  const text = JSON.stringify(Object.fromEntries(entries));
  // Spaces to a multiple of 8, so that the data is aligned for readers that map the file.
  return text + ' '.repeat((8 - (Buffer.byteLength(text) % 8)) % 8);
}
