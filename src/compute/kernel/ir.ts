// The kernel language's intermediate form: plain data that interpreters and targets consume.
//
// A kernel is one function over typed buffers and scalars. It is called for a range of items [begin, end), so that
// a launch can be cut into parts; `part` numbers the part (for scratch memory). Values are in single-assignment
// form; what changes in a loop is a variable. An address is a buffer and an element index, never a byte offset.

/** i32 and f32 are scalars; vec and ivec hold `lanes` of f32 and i32; mask holds one truth value a lane. */
export type ValueType = 'i32' | 'f32' | 'vec' | 'ivec' | 'mask';
export type ElementType = 'f32' | 'i32';

/** Identifies a value or a variable within one kernel. */
export type ValueId = number;

/**
 * Meanings, exact on every target:
 * - Scalar comparisons give i32 0 or 1, vector comparisons a mask. `select(c, a, b)` is a where c holds.
 * - `min(a,b)` is `a < b ? a : b`, `max(a,b)` is `a > b ? a : b` (so NaN gives b). i32: ordinary.
 * - `fma` rounds once, everywhere. `mulAdd(a,b,c)` is a*b+c, fused where the target has it (TargetInfo.fusedMulAdd),
 *   else rounded twice.
 * - `sqrt`, `div` round correctly; `floor` and `nearest` (ties to even) as IEEE; denormals are kept.
 * - `toInt` truncates, saturates, NaN gives 0. i32 `div` and `rem` truncate; the divisor must not be 0, nor -1 when
 *   the dividend is -2^31.
 * - `not` of an i32 is 1 where it is 0, else 0; `select` and `if` on an i32 hold where it is not 0.
 * - `shl` and `shr` shift by a constant (imm); `shr` is logical. i32 arithmetic wraps.
 * - `hsum`, `hmax`, `hmin` fold the upper half of the lanes onto the lower half (lower op upper) until one is left.
 * - `iota` is 0, 1, ..., lanes-1. `firstLanes(n)` is the mask of lanes below n.
 * - An index is never negative, before as after adding imm (an access of no lanes may have any index), and no sum,
 *   product or shift that leads to it wraps, not even where a min or a select would drop it: a target may add its terms as addresses of 64 bits. A loop's end is read
 *   once; its counter must not wrap, so end + step must not pass 2^31.
 * - A NaN is a NaN: its sign and payload may differ between targets.
 * - `load` of f32/i32 reads one element at index + imm; of vec/ivec `lanes` consecutive ones; with a second argument
 *   (count) only lanes below count are read and the others are 0. count may be any i32: below 0 means 0, above lanes means lanes.
 */
export type Op =
  | 'const'
  | 'param'
  | 'get'
  | 'splat'
  | 'iota'
  | 'firstLanes'
  | 'add'
  | 'sub'
  | 'mul'
  | 'div'
  | 'rem'
  | 'min'
  | 'max'
  | 'neg'
  | 'abs'
  | 'sqrt'
  | 'floor'
  | 'nearest'
  | 'fma'
  | 'mulAdd'
  | 'lt'
  | 'le'
  | 'eq'
  | 'select'
  | 'and'
  | 'or'
  | 'not'
  | 'shl'
  | 'shr'
  | 'toFloat'
  | 'toInt'
  | 'bitsToFloat'
  | 'bitsToInt'
  | 'hsum'
  | 'hmax'
  | 'hmin'
  | 'load';

export interface Instruction {
  readonly kind: 'value';
  readonly id: ValueId;
  readonly op: Op;
  readonly type: ValueType;
  readonly args: readonly ValueId[];
  /** const: the value; param: the scalar's number; shl, shr: the distance; load: elements added to the index. */
  readonly imm?: number;
  /** load: the buffer's number. */
  readonly buffer?: number;
}

export type Statement =
  | Instruction
  | { readonly kind: 'var'; readonly id: ValueId; readonly type: ValueType; readonly init: ValueId }
  | { readonly kind: 'set'; readonly variable: ValueId; readonly value: ValueId }
  /** Stores value at index + imm; of a vector, only the lanes below count when count is given. */
  | {
      readonly kind: 'store';
      readonly buffer: number;
      readonly index: ValueId;
      readonly imm: number;
      readonly value: ValueId;
      readonly count?: ValueId;
    }
  /**
   * A hint that the element at index + imm will be wanted soon, or, where `later`, after much else: in the second-level
   * cache it does not push out what is at work. It changes nothing, and the index may be any number.
   */
  | {
      readonly kind: 'prefetch';
      readonly buffer: number;
      readonly index: ValueId;
      readonly imm: number;
      readonly later: boolean;
    }
  /** for (counter = start; counter < end; counter += step); step is a positive constant. */
  | {
      readonly kind: 'loop';
      readonly counter: ValueId;
      readonly start: ValueId;
      readonly end: ValueId;
      readonly step: number;
      readonly body: readonly Statement[];
    }
  | {
      readonly kind: 'if';
      readonly condition: ValueId;
      readonly yes: readonly Statement[];
      readonly no: readonly Statement[];
    };

export interface Kernel {
  readonly name: string;
  readonly buffers: readonly { readonly name: string; readonly element: ElementType }[];
  /** Scalars 0, 1, 2 are always begin, end, part. */
  readonly scalars: readonly { readonly name: string; readonly type: 'i32' | 'f32' }[];
  readonly body: readonly Statement[];
  /** Type of each value and variable, by id. */
  readonly types: readonly ValueType[];
  /** Lanes the kernel was built for. */
  readonly lanes: number;
  /** Made to keep all its vectors in registers: a target that cannot refuses it, instead of being slow. */
  readonly keepsVectors: boolean;
}

/** What a kernel may know of the chip: how many lanes, how many vector registers, how mulAdd rounds, how memory is read. */
export interface TargetInfo {
  readonly name: 'wasm' | 'x64' | 'interpreter';
  readonly lanes: number;
  readonly vectorRegisters: number;
  readonly fusedMulAdd: boolean;
  /** Whether the processor finds by itself what is read in order, so that asking for it ahead only costs. Default false. */
  readonly streams?: boolean;
  /** Whether `prefetch` does anything. Default false. */
  readonly prefetches?: boolean;
}
