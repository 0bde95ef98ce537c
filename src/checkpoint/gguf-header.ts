// The head of a GGUF file: metadata and tensor infos, proved consistent before a byte of tensor data is read. Nothing
// is allocated for a count or a length before the file is known to be long enough to hold it.
import { RetortError } from '../errors.js';
import type { BinaryFile } from './binary-file.js';
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
  valueBytes,
  valueTypes,
} from './gguf-format.js';

export interface GgufHeader {
  readonly metadata: GgufMetadata;
  readonly tensors: ReadonlyMap<string, GgufTensor>;
  /** Where the data part begins. */
  readonly dataStart: number;
}

/** Longest name of a tensor and of a key, far above those in use. */
const MAX_NAME = 65535;

/** @throws RetortError `bad-model` naming the file and what is wrong with it */
export function readGgufHeader(file: BinaryFile): GgufHeader {
  const cursor = openCursor(file);
  if (file.size < 24) throw cursor.broken(`the file has ${file.size} bytes, too few for a GGUF header`);
  if (cursor.number('uint32') !== MAGIC) throw cursor.broken('it does not begin with the letters GGUF');
  const version = cursor.number('uint32');
  if (version !== VERSION && version !== 2)
    throw new RetortError(
      'bad-model',
      `${file.path}: got GGUF version ${version}; Retort reads versions 2 and 3: convert the model anew`,
    );
  const tensorCount = cursor.count('tensors', 24);
  const keyCount = cursor.count('keys', 13);
  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < keyCount; i++) {
    const key = cursor.string(MAX_NAME);
    if (metadata.has(key)) throw cursor.broken(`the key ${show(key)} is there twice`);
    metadata.set(key, readValue(cursor, key));
  }
  const alignment = alignmentOf(metadata, cursor.broken);
  const infos: { name: string; typeId: number; sizes: number[]; offset: number }[] = [];
  for (let i = 0; i < tensorCount; i++) {
    const name = cursor.string(MAX_NAME);
    const dimensions = cursor.number('uint32');
    if (dimensions > 4) throw cursor.broken(`tensor ${show(name)} has ${dimensions} dimensions`);
    const sizes = Array.from({ length: dimensions }, () => cursor.number('uint64'));
    infos.push({ name, sizes, typeId: cursor.number('uint32'), offset: cursor.number('uint64') });
  }
  const dataStart = Math.ceil(cursor.position() / alignment) * alignment;
  const dataBytes = Math.max(0, file.size - dataStart);
  const tensors = new Map<string, GgufTensor>();
  for (const { name, typeId, sizes, offset } of infos) {
    if (tensors.has(name)) throw cursor.broken(`the tensor ${show(name)} is there twice`);
    tensors.set(name, placeTensor(name, typeId, sizes, offset, { alignment, dataBytes }, cursor.broken));
  }
  checkOverlaps(tensors.values(), cursor.broken);
  return { metadata, tensors, dataStart };
}

type Broken = (what: string) => RetortError;

function alignmentOf(metadata: GgufMetadata, broken: Broken): number {
  const given = metadata.get('general.alignment');
  if (given === undefined) return DEFAULT_ALIGNMENT;
  const { value } = given;
  if (given.type !== 'uint32' || typeof value !== 'number' || value < 8 || value & (value - 1))
    throw broken(`general.alignment is ${show(value)}, not a power of two from 8`);
  return value;
}

function placeTensor(
  name: string,
  typeId: number,
  sizes: readonly number[],
  begin: number,
  { alignment, dataBytes }: { alignment: number; dataBytes: number },
  broken: Broken,
): GgufTensor {
  const at = `tensor ${show(name)}`;
  const type = blockTypes.find(({ id }) => id === typeId);
  if (!type)
    throw broken(`${at} is of type ${typeId}; known are ${blockTypes.map((one) => one.name).join(', ')}`);
  const [columns = 1] = sizes;
  if (columns % type.elements !== 0)
    throw broken(`${at}: rows of ${columns} elements are no whole blocks of ${type.elements} (${type.name})`);
  const count = sizes.reduce((product, one) => product * one, 1);
  const bytes = (count / type.elements) * type.bytes;
  if (begin % alignment !== 0) throw broken(`${at} begins at ${begin}, not at a multiple of ${alignment}`);
  // Not safe integers are far beyond any file.
  if (!(begin + bytes <= dataBytes))
    throw broken(`${at} needs ${bytes} bytes from ${begin} on, but the file has ${dataBytes} of data`);
  return { name, type, shape: [...sizes].reverse(), begin, end: begin + bytes };
}

function checkOverlaps(tensors: Iterable<GgufTensor>, broken: Broken): void {
  let before: GgufTensor | undefined;
  for (const tensor of [...tensors].sort((a, b) => a.begin - b.begin || a.end - b.end)) {
    if (before && tensor.begin < before.end)
      throw broken(`the data of tensor ${show(tensor.name)} overlaps that of ${show(before.name)}`);
    before = tensor;
  }
}

function readValue(cursor: Cursor, key: string): GgufValue {
  const type = cursor.type(key);
  if (type === 'string') return { type, value: cursor.string() };
  if (type === 'bool') return { type, value: cursor.number('uint8') !== 0 };
  if (type !== 'array') return { type, value: cursor.number(type) };
  const of = cursor.type(key);
  if (of === 'array') throw cursor.broken(`the value of ${show(key)} is an array of arrays`);
  const length = cursor.count(`elements in ${show(key)}`, valueBytes[of]);
  if (of === 'string') return { type, of, value: Array.from({ length }, () => cursor.string()) };
  if (of === 'bool') return { type, of, value: Array.from({ length }, () => cursor.number('uint8') !== 0) };
  return { type, of, value: cursor.numbers(of, length) };
}

interface Cursor {
  position(): number;
  /** A count, refused where the rest of the file cannot hold so many of at least `each` bytes. */
  count(what: string, each: number): number;
  type(key: string): ValueType;
  number(type: NumberType): number;
  numbers(type: NumberType, length: number): ArrayLike<number>;
  string(longest?: number): string;
  readonly broken: Broken;
}

const WINDOW = 1 << 20;

/** Reads a file from its beginning on, through a window of it. */
function openCursor(file: BinaryFile): Cursor {
  const utf8 = new TextDecoder('utf-8', { fatal: true });
  let window = Buffer.alloc(0);
  let windowStart = 0;
  let next = 0;
  const broken: Broken = (what) =>
    new RetortError('bad-model', `${file.path}: ${what}; the file is damaged or no GGUF file: copy it again`);

  /** The next bytes as a part of the window: good until the next call. */
  const take = (bytes: number): Buffer => {
    if (bytes > file.size - next)
      throw broken(`it ends at byte ${file.size}, in the middle of its header: it is truncated`);
    if (next + bytes > windowStart + window.length) {
      window = Buffer.alloc(Math.min(Math.max(bytes, WINDOW), file.size - next));
      windowStart = next;
      file.read(window, windowStart);
    }
    const start = next - windowStart;
    next += bytes;
    return window.subarray(start, start + bytes);
  };

  const number = (type: NumberType): number => {
    const value = readers[type](take(valueBytes[type]));
    if (typeof value === 'number') return value;
    const safe = Number(value);
    if (!Number.isSafeInteger(safe)) throw broken(`the number ${value} at byte ${next - 8} is too large`);
    return safe;
  };

  return {
    position: () => next,
    broken,
    number,
    count(what, each) {
      const count = number('uint64');
      if (count > (file.size - next) / each)
        throw broken(`it claims ${count} ${what}, more than the rest of the file can hold`);
      return count;
    },
    type(key) {
      const id = number('uint32');
      const type = valueTypes[id];
      if (type === undefined) throw broken(`the value of ${show(key)} has the unknown type ${id}`);
      return type;
    },
    numbers: (type, length) => Float64Array.from({ length }, () => number(type)),
    string(longest = Number.POSITIVE_INFINITY) {
      const length = number('uint64');
      if (length > longest) throw broken(`a name at byte ${next} claims ${length} bytes`);
      const bytes = take(length);
      const text = bytes.toString('utf8');
      if (!text.includes('\uFFFD')) return text;
      try {
        return utf8.decode(bytes);
      } catch {
        throw broken(`the text at byte ${next - length} is not UTF-8`);
      }
    },
  };
}

const readers: Readonly<Record<NumberType, (bytes: Buffer) => number | bigint>> = {
  uint8: (bytes) => bytes.readUInt8(),
  int8: (bytes) => bytes.readInt8(),
  uint16: (bytes) => bytes.readUInt16LE(),
  int16: (bytes) => bytes.readInt16LE(),
  uint32: (bytes) => bytes.readUInt32LE(),
  int32: (bytes) => bytes.readInt32LE(),
  float32: (bytes) => bytes.readFloatLE(),
  uint64: (bytes) => bytes.readBigUInt64LE(),
  int64: (bytes) => bytes.readBigInt64LE(),
  float64: (bytes) => bytes.readDoubleLE(),
};

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? 'nothing';
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}
