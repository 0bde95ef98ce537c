// The elements of GGUF tensors: quantized blocks to float32, and float32 to the types that Retort writes.
// Layouts: ggml's ggml-common.h. A block's elements are scale times a small whole number, some with an offset.
import { narrow, widenHalf } from './half.js';

/** Turns whole blocks into float32, `into.length` elements. */
export type Dequantize = (bytes: Uint8Array, into: Float32Array) => void;

/** Elements of a super-block, the unit of the K types. */
const SUPER = 256;

const half = (bytes: Uint8Array, at: number) => widenHalf(bytes[at]! | (bytes[at + 1]! << 8));

/** Blocks of 32 elements: the low four bits of element i and of i + 16 share a byte. */
function nibbles(
  blockBytes: number,
  element: (bytes: Uint8Array, start: number) => (low: number, i: number) => number,
  quants: number,
): Dequantize {
  return (bytes, into) => {
    for (let block = 0; block * 32 < into.length; block++) {
      const start = block * blockBytes;
      const of = element(bytes, start);
      for (let i = 0; i < 16; i++) {
        const byte = bytes[start + quants + i]!;
        into[block * 32 + i] = of(byte & 15, i);
        into[block * 32 + i + 16] = of(byte >> 4, i + 16);
      }
    }
  };
}

const highBit = (bytes: Uint8Array, at: number, i: number) => ((bytes[at + (i >> 3)]! >> (i & 7)) & 1) << 4;

const q4_0 = nibbles(
  18,
  (bytes, start) => {
    const d = half(bytes, start);
    return (low) => (low - 8) * d;
  },
  2,
);

const q4_1 = nibbles(
  20,
  (bytes, start) => {
    const d = half(bytes, start);
    const m = half(bytes, start + 2);
    return (low) => Math.fround(low * d) + m;
  },
  4,
);

const q5_0 = nibbles(
  22,
  (bytes, start) => {
    const d = half(bytes, start);
    return (low, i) => ((low | highBit(bytes, start + 2, i)) - 16) * d;
  },
  6,
);

const q5_1 = nibbles(
  24,
  (bytes, start) => {
    const d = half(bytes, start);
    const m = half(bytes, start + 2);
    return (low, i) => Math.fround((low | highBit(bytes, start + 4, i)) * d) + m;
  },
  8,
);

const q8_0: Dequantize = (bytes, into) => {
  const signed = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let block = 0; block * 32 < into.length; block++) {
    const d = half(bytes, block * 34);
    for (let i = 0; i < 32; i++) into[block * 32 + i] = signed[block * 34 + 2 + i]! * d;
  }
};

/** Scale and offset of sub-block j of 8, six bits each, packed into 12 bytes. */
function scaleAndMin(bytes: Uint8Array, at: number, j: number): [scale: number, min: number] {
  if (j < 4) return [bytes[at + j]! & 63, bytes[at + j + 4]! & 63];
  const low = bytes[at + j + 4]!;
  return [(low & 15) | ((bytes[at + j - 4]! >> 6) << 4), (low >> 4) | ((bytes[at + j]! >> 6) << 4)];
}

/** Q4_K and Q5_K: 8 sub-blocks of 32 with a scale and an offset each; Q5_K has a fifth bit of every element apart. */
function withMins(blockBytes: number, highBits: number | null, quants: number): Dequantize {
  return (bytes, into) => {
    for (let block = 0; block * SUPER < into.length; block++) {
      const start = block * blockBytes;
      const d = half(bytes, start);
      const dmin = half(bytes, start + 2);
      for (let j = 0; j < 8; j++) {
        const [scale, min] = scaleAndMin(bytes, start + 4, j);
        const factor = Math.fround(d * scale);
        const offset = Math.fround(dmin * min);
        const shift = (j & 1) * 4;
        for (let i = 0; i < 32; i++) {
          let q = (bytes[start + quants + (j >> 1) * 32 + i]! >> shift) & 15;
          if (highBits !== null) q |= ((bytes[start + highBits + i]! >> j) & 1) << 4;
          into[block * SUPER + j * 32 + i] = Math.fround(factor * q) - offset;
        }
      }
    }
  };
}

/** Q6_K: 16 sub-blocks of 16 with a scale each; four bits, then two more, of elements 32 apart share bytes. */
const q6_k: Dequantize = (bytes, into) => {
  const signed = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let block = 0; block * SUPER < into.length; block++) {
    const start = block * 210;
    const d = half(bytes, start + 208);
    for (let i = 0; i < SUPER; i++) {
      const [part, inPart] = [i >> 7, i & 127];
      const low = bytes[start + part * 64 + (inPart & 63)]! >> ((inPart >> 6) * 4);
      const high = bytes[start + 128 + part * 32 + (inPart & 31)]! >> ((inPart >> 5) * 2);
      const q = ((low & 15) | ((high & 3) << 4)) - 32;
      into[block * SUPER + i] = Math.fround(d * signed[start + 192 + (i >> 4)]!) * q;
    }
  }
};

/** Quantized types that can be read. */
export const dequantizers: Readonly<Record<string, Dequantize>> = {
  Q4_0: q4_0,
  Q4_1: q4_1,
  Q5_0: q5_0,
  Q5_1: q5_1,
  Q8_0: q8_0,
  Q4_K: withMins(144, null, 16),
  Q5_K: withMins(176, 16, 48),
  Q6_K: q6_k,
};

const littleEndian16 = (values: Uint16Array) =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

/** Elements as a tensor type that Retort writes; rows of Q8_0 are whole blocks. */
export const quantizers: Readonly<Record<string, (values: Float32Array) => Uint8Array>> = {
  F32: (values) => new Uint8Array(values.buffer, values.byteOffset, values.byteLength),
  F16: (values) => littleEndian16(narrow('F16', values)),
  Q8_0: quantizeQ8,
};

/** Blocks of 32: a float16 scale, the greatest magnitude over 127, then each element over it, rounded half away from 0. */
function quantizeQ8(values: Float32Array): Uint8Array {
  const blocks = values.length / 32;
  const bytes = new Uint8Array(blocks * 34);
  const scale = new Float32Array(1);
  for (let block = 0; block < blocks; block++) {
    let most = 0;
    for (let i = 0; i < 32; i++) most = Math.max(most, Math.abs(values[block * 32 + i]!));
    scale[0] = most / 127;
    const inverse = scale[0] === 0 ? 0 : Math.fround(1 / scale[0]);
    bytes.set(littleEndian16(narrow('F16', scale)), block * 34);
    for (let i = 0; i < 32; i++) {
      const x = Math.fround(values[block * 32 + i]! * inverse);
      bytes[block * 34 + 2 + i] = Math.sign(x) * Math.round(Math.abs(x));
    }
  }
  return bytes;
}
