// Safetensors files: tensors are read by position straight into the caller's memory, and written from it.
import fs from 'node:fs';
import { RetortError, refuse } from '../errors.js';
import { storageError, writeAll } from './atomic.js';
import { type BinaryFile, checkLength, openBinaryFile, tensorNamed } from './binary-file.js';
import { narrow, widen } from './half.js';
import { elementBytes, MAX_HEADER, parseHeader, type TensorEntry } from './safetensors-header.js';

export type { TensorEntry } from './safetensors-header.js';

/** Memory that a tensor can be read into or written from: F32, I32 and U8. */
export type TensorData = Float32Array | Int32Array | Uint8Array;

/** Types of floating-point numbers that are written. */
export type FloatType = 'F32' | 'F16' | 'BF16';

/** A named tensor to write; its data may be given when its turn comes, so that not all are in memory at once. */
export interface NamedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly data: TensorData | (() => Float32Array);
  /** How float32 data is stored. Default F32. */
  readonly dtype?: FloatType;
}

/** An open file. Tensors are read one by one; nothing of the data is kept. */
export interface SafetensorsFile {
  readonly path: string;
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  readonly metadata: Readonly<Record<string, string>>;
  /**
   * Reads a tensor into memory of its size, shared memory too: F32, F16, BF16 and I32 into a Float32Array, I32 into an Int32Array, U8
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
  const file = openBinaryFile(path, remedy);
  try {
    const { dataStart, header } = readHeader(file);
    return {
      path,
      ...header,
      read(name, into) {
        const entry = tensorNamed(header.tensors, name, path);
        checkTarget(entry, into, path);
        readTensor(file, dataStart + entry.begin, entry.dtype, into);
      },
      close: () => file.close(),
    };
  } catch (error) {
    file.close();
    throw error;
  }
}

function readHeader(file: BinaryFile) {
  const { path, size } = file;
  const fail = (what: string) =>
    new RetortError(
      'bad-model',
      `${path}: ${what}; the file is damaged or no safetensors file: copy it again`,
    );
  if (size < 10) throw fail(`the file has ${size} bytes, too few for a safetensors header`);
  const lengthBytes = new Uint8Array(8);
  file.read(lengthBytes, 0);
  const length = new DataView(lengthBytes.buffer).getBigUint64(0, true);
  if (length < 2n || length > BigInt(MAX_HEADER)) throw fail(`the header claims ${length} bytes`);
  const dataStart = 8 + Number(length);
  if (dataStart > size)
    throw fail(`the header claims ${length} bytes, but only ${size - 8} are there: the file is truncated`);
  const bytes = new Uint8Array(Number(length));
  file.read(bytes, 8);
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
  checkLength(into, count, name, path);
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

// Bytes read at a time: the only memory beyond the caller's.
const BLOCK = 1 << 18;

function readTensor(file: BinaryFile, position: number, dtype: string, into: TensorData): void {
  const bytes = new Uint8Array(BLOCK);
  const size = elementBytes[dtype]!;
  const step = BLOCK / size;
  for (let start = 0; start < into.length; start += step) {
    const count = Math.min(step, into.length - start);
    file.read(bytes.subarray(0, count * size), position + start * size);
    const part = into.subarray(start, start + count);
    if (dtype === 'F16' || dtype === 'BF16')
      widen(dtype, new Uint16Array(bytes.buffer, 0, count), part as Float32Array);
    else part.set(new arrays[dtype]!(bytes.buffer, 0, count));
  }
}

const arrays: Readonly<Record<string, new (b: ArrayBuffer, start: number, count: number) => TensorData>> = {
  F32: Float32Array,
  I32: Int32Array,
  U8: Uint8Array,
};

/**
 * Writes tensors in the order given and syncs the file. Int32Array becomes I32, Uint8Array U8.
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
      for (const tensor of list) writeAll(fd, bytesOf(tensor));
      fs.fsyncSync(fd);
    } finally {
      fs.closeSync(fd);
    }
  } catch (error) {
    throw storageError(error, path, 'this file is incomplete, files written before are intact');
  }
}

function bytesOf(tensor: NamedTensor): Uint8Array {
  const data = typeof tensor.data === 'function' ? tensor.data() : tensor.data;
  checkCount(tensor, data.length);
  const dtype = dtypeOf(tensor);
  const stored = dtype === 'F16' || dtype === 'BF16' ? narrow(dtype, data as Float32Array) : data;
  return new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength);
}

function checkCount({ name, shape }: NamedTensor, count: number): void {
  const expected = shape.reduce((product, one) => product * one, 1);
  if (count !== expected)
    throw refuse('bad-checkpoint', `elements of tensor ${name}`, count, `shape [${shape}] has ${expected}`);
}

function dtypeOf({ data, dtype = 'F32' }: NamedTensor): FloatType | 'I32' | 'U8' {
  if (data instanceof Int32Array) return 'I32';
  return data instanceof Uint8Array ? 'U8' : dtype;
}

function headerText(tensors: readonly NamedTensor[], metadata?: Readonly<Record<string, string>>): string {
  const entries: Array<[string, unknown]> = metadata ? [['__metadata__', metadata]] : [];
  const names = new Set(['__metadata__']);
  let offset = 0;
  for (const tensor of tensors) {
    const { name, shape, data } = tensor;
    if (names.has(name))
      throw refuse('bad-checkpoint', 'name of a tensor to write', name, 'each must be there once');
    names.add(name);
    if (typeof data !== 'function') checkCount(tensor, data.length);
    const dtype = dtypeOf(tensor);
    const bytes = shape.reduce((product, one) => product * one, elementBytes[dtype]!);
    entries.push([name, { dtype, shape, data_offsets: [offset, offset + bytes] }]);
    offset += bytes;
  }
  const text = JSON.stringify(Object.fromEntries(entries));
  // Spaces to a multiple of 8, so that the data is aligned for readers that map the file.
  return text + ' '.repeat((8 - (Buffer.byteLength(text) % 8)) % 8);
}
