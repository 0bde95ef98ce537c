// Bytes of a WebAssembly module: numbers, opcodes, and the sections around one exported function.

export const wasmType = { i32: 0x7f, f32: 0x7d, v128: 0x7b } as const;
export type WasmType = keyof typeof wasmType;

/** Opcodes of one byte. */
export const plain = {
  block: 0x02,
  loop: 0x03,
  if: 0x04,
  else: 0x05,
  end: 0x0b,
  brIf: 0x0d,
  select: 0x1b,
  localGet: 0x20,
  localSet: 0x21,
  localTee: 0x22,
  i32Load: 0x28,
  f32Load: 0x2a,
  i32Store: 0x36,
  f32Store: 0x38,
  i32Const: 0x41,
  f32Const: 0x43,
  i32Eqz: 0x45,
  i32Eq: 0x46,
  i32LtS: 0x48,
  i32GtS: 0x4a,
  i32LeS: 0x4c,
  i32GeS: 0x4e,
  f32Eq: 0x5b,
  f32Lt: 0x5d,
  f32Gt: 0x5e,
  f32Le: 0x5f,
  i32Add: 0x6a,
  i32Sub: 0x6b,
  i32Mul: 0x6c,
  i32DivS: 0x6d,
  i32RemS: 0x6f,
  i32And: 0x71,
  i32Or: 0x72,
  i32Shl: 0x74,
  i32ShrU: 0x76,
  f32Abs: 0x8b,
  f32Neg: 0x8c,
  f32Floor: 0x8e,
  f32Nearest: 0x90,
  f32Sqrt: 0x91,
  f32Add: 0x92,
  f32Sub: 0x93,
  f32Mul: 0x94,
  f32Div: 0x95,
  f32ConvertI32S: 0xb2,
  i32ReinterpretF32: 0xbc,
  f32ReinterpretI32: 0xbe,
} as const;

/** i32.trunc_sat_f32_s has a two-byte opcode. */
export const i32TruncSatF32S = [0xfc, 0x00] as const;

/** Opcodes behind the SIMD prefix 0xfd. */
export const simd = {
  load: 0x00,
  load32Splat: 0x09,
  store: 0x0b,
  const: 0x0c,
  shuffle: 0x0d,
  i32x4Splat: 0x11,
  f32x4Splat: 0x13,
  f32x4ExtractLane: 0x1f,
  i32x4Eq: 0x37,
  i32x4LtS: 0x39,
  i32x4LeS: 0x3d,
  f32x4Eq: 0x41,
  f32x4Lt: 0x43,
  f32x4Le: 0x45,
  f64x2Gt: 0x4a,
  not: 0x4d,
  and: 0x4e,
  or: 0x50,
  xor: 0x51,
  bitselect: 0x52,
  load32Lane: 0x56,
  store32Lane: 0x5a,
  store64Lane: 0x5b,
  load32Zero: 0x5c,
  load64Zero: 0x5d,
  f32x4DemoteF64x2Zero: 0x5e,
  f64x2PromoteLowF32x4: 0x5f,
  f32x4Floor: 0x68,
  f32x4Nearest: 0x6a,
  i32x4Shl: 0xab,
  i32x4ShrU: 0xad,
  i32x4Add: 0xae,
  i32x4Sub: 0xb1,
  i32x4Mul: 0xb5,
  i32x4MinS: 0xb6,
  i32x4MaxS: 0xb8,
  i64x2ShrS: 0xcc,
  i64x2Add: 0xce,
  i64x2Eq: 0xd6,
  f32x4Abs: 0xe0,
  f32x4Neg: 0xe1,
  f32x4Sqrt: 0xe3,
  f32x4Add: 0xe4,
  f32x4Sub: 0xe5,
  f32x4Mul: 0xe6,
  f32x4Div: 0xe7,
  f32x4Pmin: 0xea,
  f32x4Pmax: 0xeb,
  f64x2Abs: 0xec,
  f64x2Add: 0xf0,
  f64x2Sub: 0xf1,
  f64x2Mul: 0xf2,
  i32x4TruncSatF32x4S: 0xf8,
  f32x4ConvertI32x4S: 0xfa,
  f32x4RelaxedMadd: 0x105,
} as const;

/** Unsigned LEB128. */
export function unsigned(value: number): number[] {
  const bytes: number[] = [];
  let rest = value >>> 0;
  do {
    const low = rest & 0x7f;
    rest >>>= 7;
    bytes.push(rest ? low | 0x80 : low);
  } while (rest);
  return bytes;
}

/** Signed LEB128 of an i32. */
export function signed(value: number): number[] {
  const bytes: number[] = [];
  let rest = value | 0;
  for (;;) {
    const low = rest & 0x7f;
    rest >>= 7;
    if ((rest === 0 && !(low & 0x40)) || (rest === -1 && low & 0x40)) return [...bytes, low];
    bytes.push(low | 0x80);
  }
}

/** Little-endian bytes of an f32. */
export function float32(value: number): number[] {
  return [...new Uint8Array(new Float32Array([value]).buffer)];
}

/**
 * A module that imports the shared memory `env.memory` (1 to 65536 pages) and exports one function `run` without
 * results. `locals` are the types of the locals after the parameters; `code` lacks the final `end`.
 */
export function encodeModule(
  parameters: readonly WasmType[],
  locals: readonly WasmType[],
  code: readonly number[],
): Uint8Array<ArrayBuffer> {
  const groups: { type: WasmType; count: number }[] = [];
  for (const type of locals) {
    const last = groups.at(-1);
    if (last?.type === type) last.count++;
    else groups.push({ type, count: 1 });
  }
  const declared = [
    ...unsigned(groups.length),
    ...groups.flatMap((g) => [...unsigned(g.count), wasmType[g.type]]),
  ];
  const types = [1, 0x60, ...unsigned(parameters.length), ...parameters.map((t) => wasmType[t]), 0];
  const memory = [...name('env'), ...name('memory'), 0x02, 0x03, ...unsigned(1), ...unsigned(65536)];
  const bodyLength = declared.length + code.length + 1;
  const prefix = unsigned(bodyLength);
  const head = [
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, types),
    ...section(2, [1, ...memory]),
    ...section(3, [1, 0]),
    ...section(7, [1, ...name('run'), 0x00, 0]),
    ...[10, ...unsigned(1 + prefix.length + bodyLength), 1, ...prefix, ...declared],
  ];
  const module = new Uint8Array(head.length + code.length + 1);
  module.set(head);
  module.set(code, head.length);
  module[module.length - 1] = plain.end;
  return module;
}

function name(text: string): number[] {
  return [text.length, ...new TextEncoder().encode(text)];
}

function section(id: number, content: readonly number[]): number[] {
  return [id, ...unsigned(content.length), ...content];
}
