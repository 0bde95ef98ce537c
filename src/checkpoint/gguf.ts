// GGUF files: tensors are read by position and dequantized block by block, and written one at a time.
import fs from 'node:fs';
import { refuse } from '../errors.js';
import { storageError, writeAll } from './atomic.js';
import { checkLength, openBinaryFile, tensorNamed } from './binary-file.js';
import { dequantizers, quantizers } from './gguf-blocks.js';
import {
  blockTypes,
  DEFAULT_ALIGNMENT,
  type GgufMetadata,
  type GgufTensor,
  type GgufValue,
  MAGIC,
  type NumberType,
  type ValueType,
  VERSION,
  valueTypes,
} from './gguf-format.js';
import { readGgufHeader } from './gguf-header.js';
import { widen } from './half.js';

/** An open file. Tensors are read one by one; nothing of the data is kept. */
export interface GgufFile {
  readonly path: string;
  readonly metadata: GgufMetadata;
  readonly tensors: ReadonlyMap<string, GgufTensor>;
  /**
   * Reads a tensor into memory of its size, shared memory too.
   * @throws RetortError `bad-model` for a missing tensor, a type that cannot be read, or a file cut while open.
   */
  read(name: string, into: Float32Array): void;
  close(): void;
}

/** Types of tensors that `read` takes. */
export const readableTypes: readonly string[] = ['F32', 'F16', 'BF16', ...Object.keys(dequantizers)];

/**
 * Opens a GGUF file and checks its header.
 * @throws RetortError `bad-model` naming the file and what is wrong.
 */
export function openGguf(path: string): GgufFile {
  const file = openBinaryFile(path, 'name a GGUF file that is there and whole');
  try {
    const { metadata, tensors, dataStart } = readGgufHeader(file);
    return {
      path,
      metadata,
      tensors,
      read(name, into) {
        const tensor = tensorNamed(tensors, name, path);
        const { type, begin, end } = tensor;
        const count = ((end - begin) / type.bytes) * type.elements;
        checkLength(into, count, name, path);
        if (!readableTypes.includes(type.name))
          throw refuse(
            'bad-model',
            `data type of tensor ${name} of ${path}`,
            type.name,
            `Retort reads ${readableTypes.join(', ')}`,
          );
        // Some blocks at a time: the only memory beyond the caller's.
        const step = Math.max(1, Math.floor(65536 / type.elements));
        const bytes = new Uint8Array(step * type.bytes);
        const values = new Float32Array(step * type.elements);
        for (let block = 0; block * type.elements < count; block += step) {
          const part = values.subarray(0, Math.min(values.length, count - block * type.elements));
          const source = bytes.subarray(0, (part.length / type.elements) * type.bytes);
          file.read(source, dataStart + begin + block * type.bytes);
          decode(type.name, source, part);
          into.set(part, block * type.elements);
        }
      },
      close: () => file.close(),
    };
  } catch (error) {
    file.close();
    throw error;
  }
}

function decode(type: string, bytes: Uint8Array, into: Float32Array): void {
  if (type === 'F32') into.set(new Float32Array(bytes.buffer, 0, into.length));
  else if (type === 'F16' || type === 'BF16')
    widen(type, new Uint16Array(bytes.buffer, 0, into.length), into);
  else dequantizers[type]!(bytes, into);
}

/** A tensor to write; its data is asked for when its turn comes. */
export interface GgufTensorSource {
  readonly name: string;
  /** `[rows, columns]` or `[n]`. */
  readonly shape: readonly number[];
  readonly type: 'F32' | 'F16' | 'Q8_0';
  data(): Float32Array;
}

/**
 * Writes a file and syncs it. Nothing but one tensor is in memory at a time.
 * @throws RetortError `storage` where the disk refuses.
 */
export function writeGguf(path: string, metadata: GgufMetadata, tensors: readonly GgufTensorSource[]): void {
  const placed = placeTensors(tensors);
  const head = headerBytes(metadata, placed);
  try {
    const fd = fs.openSync(path, 'w');
    try {
      writeAll(fd, padded(head));
      for (const { source, bytes } of placed) {
        const data = quantizers[source.type]!(source.data());
        if (data.byteLength !== bytes)
          throw refuse(
            'bad-checkpoint',
            `bytes of tensor ${source.name}`,
            data.byteLength,
            `its shape asks for ${bytes}`,
          );
        writeAll(fd, padded(data));
      }
      fs.fsyncSync(fd);
    } finally {
      fs.closeSync(fd);
    }
  } catch (error) {
    throw storageError(error, path, 'this file is incomplete, files written before are intact');
  }
}

interface Placed {
  readonly source: GgufTensorSource;
  readonly typeId: number;
  readonly bytes: number;
  readonly offset: number;
}

const align = (position: number) => Math.ceil(position / DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT;

function padded(bytes: Uint8Array): Uint8Array {
  const length = align(bytes.byteLength);
  if (length === bytes.byteLength) return bytes;
  const whole = new Uint8Array(length);
  whole.set(bytes);
  return whole;
}

function placeTensors(tensors: readonly GgufTensorSource[]): Placed[] {
  let offset = 0;
  return tensors.map((source) => {
    const type = blockTypes.find(({ name }) => name === source.type)!;
    const count = source.shape.reduce((product, one) => product * one, 1);
    const bytes = (count / type.elements) * type.bytes;
    const placed = { source, typeId: type.id, bytes, offset };
    offset = align(offset + bytes);
    return placed;
  });
}

function headerBytes(metadata: GgufMetadata, tensors: readonly Placed[]): Uint8Array {
  const parts: Uint8Array[] = [];
  const number = (type: NumberType, value: number) => {
    const bytes = Buffer.alloc(8);
    parts.push(bytes.subarray(0, writers[type](bytes, value)));
  };
  const string = (text: string) => {
    const bytes = Buffer.from(text);
    number('uint64', bytes.length);
    parts.push(bytes);
  };
  const type = (name: ValueType) => number('uint32', valueTypes.indexOf(name));
  const one = (of: ValueType, value: number | boolean | string) => {
    if (of === 'string') string(value as string);
    else if (of === 'bool') number('uint8', value ? 1 : 0);
    else number(of as NumberType, value as number);
  };
  number('uint32', MAGIC);
  number('uint32', VERSION);
  number('uint64', tensors.length);
  number('uint64', metadata.size);
  for (const [key, value] of metadata) {
    string(key);
    type(value.type);
    if (value.type !== 'array') one(value.type, value.value);
    else {
      type(value.of);
      number('uint64', value.value.length);
      for (let i = 0; i < value.value.length; i++) one(value.of, value.value[i]!);
    }
  }
  for (const { source, typeId, offset } of tensors) {
    string(source.name);
    number('uint32', source.shape.length);
    for (const size of [...source.shape].reverse()) number('uint64', size);
    number('uint32', typeId);
    number('uint64', offset);
  }
  return Buffer.concat(parts);
}

// Each gives the number of bytes written.
const writers: Readonly<Record<NumberType, (bytes: Buffer, value: number) => number>> = {
  uint8: (bytes, value) => bytes.writeUInt8(value),
  int8: (bytes, value) => bytes.writeInt8(value),
  uint16: (bytes, value) => bytes.writeUInt16LE(value),
  int16: (bytes, value) => bytes.writeInt16LE(value),
  uint32: (bytes, value) => bytes.writeUInt32LE(value),
  int32: (bytes, value) => bytes.writeInt32LE(value),
  float32: (bytes, value) => bytes.writeFloatLE(value),
  uint64: (bytes, value) => bytes.writeBigUInt64LE(BigInt(value)),
  int64: (bytes, value) => bytes.writeBigInt64LE(BigInt(value)),
  float64: (bytes, value) => bytes.writeDoubleLE(value),
};

/** Values of metadata with their types. */
export const gguf = {
  string: (value: string): GgufValue => ({ type: 'string', value }),
  bool: (value: boolean): GgufValue => ({ type: 'bool', value }),
  u32: (value: number): GgufValue => ({ type: 'uint32', value }),
  f32: (value: number): GgufValue => ({ type: 'float32', value }),
  strings: (value: readonly string[]): GgufValue => ({ type: 'array', of: 'string', value }),
  i32s: (value: readonly number[]): GgufValue => ({ type: 'array', of: 'int32', value }),
  f32s: (value: readonly number[]): GgufValue => ({ type: 'array', of: 'float32', value }),
};
