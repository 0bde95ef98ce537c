// The GGUF format: its value types, its tensor types, and the values of its metadata.
// Format: magic, version, counts, key-value pairs, tensor infos, then the aligned data (ggml's gguf.h, version 3).

export const MAGIC = 0x46554747; // "GGUF" as a little-endian number
export const VERSION = 3;
export const DEFAULT_ALIGNMENT = 32;

/** Value types by their number in files. */
export const valueTypes = [
  'uint8',
  'int8',
  'uint16',
  'int16',
  'uint32',
  'int32',
  'float32',
  'bool',
  'string',
  'array',
  'uint64',
  'int64',
  'float64',
] as const;
export type ValueType = (typeof valueTypes)[number];
export type NumberType = Exclude<ValueType, 'bool' | 'string' | 'array'>;

/** Bytes of a value in a file; of a string and an array, the fewest. */
export const valueBytes: Readonly<Record<ValueType, number>> = {
  uint8: 1,
  int8: 1,
  uint16: 2,
  int16: 2,
  uint32: 4,
  int32: 4,
  float32: 4,
  bool: 1,
  string: 8,
  array: 12,
  uint64: 8,
  int64: 8,
  float64: 8,
};

/** A value of the metadata with its type; whole numbers of 64 bits are safe integers. */
export type GgufValue =
  | { readonly type: NumberType; readonly value: number }
  | { readonly type: 'bool'; readonly value: boolean }
  | { readonly type: 'string'; readonly value: string }
  | { readonly type: 'array'; readonly of: NumberType; readonly value: ArrayLike<number> }
  | { readonly type: 'array'; readonly of: 'bool'; readonly value: readonly boolean[] }
  | { readonly type: 'array'; readonly of: 'string'; readonly value: readonly string[] };

export type GgufMetadata = ReadonlyMap<string, GgufValue>;

/** How the elements of a tensor are stored: in blocks of `elements` that take `bytes`. */
export interface BlockType {
  readonly name: string;
  readonly id: number;
  readonly elements: number;
  readonly bytes: number;
}

const block = (name: string, id: number, elements: number, bytes: number): BlockType => ({
  name,
  id,
  elements,
  bytes,
});

/** Every type of tensor whose size is known here; those that can be read are the ones in gguf-blocks.ts. */
export const blockTypes: readonly BlockType[] = [
  block('F32', 0, 1, 4),
  block('F16', 1, 1, 2),
  block('Q4_0', 2, 32, 18),
  block('Q4_1', 3, 32, 20),
  block('Q5_0', 6, 32, 22),
  block('Q5_1', 7, 32, 24),
  block('Q8_0', 8, 32, 34),
  block('Q2_K', 10, 256, 84),
  block('Q3_K', 11, 256, 110),
  block('Q4_K', 12, 256, 144),
  block('Q5_K', 13, 256, 176),
  block('Q6_K', 14, 256, 210),
  block('I8', 24, 1, 1),
  block('I16', 25, 1, 2),
  block('I32', 26, 1, 4),
  block('I64', 27, 1, 8),
  block('F64', 28, 1, 8),
  block('BF16', 30, 1, 2),
];

/** A tensor of a file. */
export interface GgufTensor {
  readonly name: string;
  readonly type: BlockType;
  /** Rows first, as everywhere in Retort; the file has the fastest dimension first. */
  readonly shape: readonly number[];
  /** Bytes of the data part that hold it. */
  readonly begin: number;
  readonly end: number;
}
