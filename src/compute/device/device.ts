// A device: memory, a target that compiles kernels, and a pool of workers that run them.
import { availableParallelism } from 'node:os';
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads';
import { RetortError, refuse } from '../../errors.js';
import type { ElementType, Kernel, TargetInfo } from '../kernel/ir.js';
import { verifyKernel } from '../kernel/verify.js';
import { compileWasm } from '../target/wasm.js';
import { wasmTarget } from '../target/wasm-detect.js';
import { mapX64, x64Target } from '../target/x64/compile.js';
import { whyNotX64, type X64 } from '../target/x64/detect.js';
import { checkedSize, type Tensor } from '../tensor.js';
import { type Backing, nativeBacking, wasmBacking } from './backing.js';
import { createExecutor, type Executable, type Executor } from './executor.js';
import { DeviceMemory, type MemoryKind, type MemoryReport, type StepMark } from './memory.js';
import * as P from './protocol.js';
import type { LoadMessage, WorkerSetup } from './worker.js';

export interface DeviceOptions {
  /** Threads that compute, the calling one included. Default: the cores of the machine. */
  readonly threads?: number;
  /** Default: RETORT_TARGET, else machine code where this machine takes it, else WebAssembly. */
  readonly target?: 'x64' | 'avx2' | 'avx512' | 'wasm' | 'interpreter';
  /** Interpreter only: what it takes the chip for, 16 vector registers unless told. Default: as WebAssembly here. */
  readonly interpret?: {
    readonly lanes: number;
    readonly fusedMulAdd: boolean;
    readonly vectorRegisters?: number;
  };
  /**
   * Limit of device memory in bytes. Default for machine code: what the machine has; for WebAssembly and the interpreter
   * 4 GiB, which is their maximum.
   */
  readonly maxBytes?: number;
}

/** A kernel made ready on a device. */
export interface CompiledKernel {
  /** What a command names it by: the address of its machine code, or its number from 1. */
  readonly id: number;
  readonly kernel: Kernel;
}

/** Launches that were collected, and what the collecting function returned. */
export interface Recording<T> {
  readonly result: T;
  readonly parts: number;
  /** Lists of commands, one a thread; all threads have done one before the next begins. */
  readonly lists: readonly (readonly Int32Array[])[];
}

/** The recording, or the launches by stretches, under way. */
interface Chain {
  readonly rows: number;
  readonly parts: number;
  readonly lists: Int32Array[][];
  /** Launches by stretches of rows; null for a recording. */
  readonly stretches: Stretches | null;
}

/** Launches that wait to be run by stretches of so many rows: as many as a list holds. */
interface Stretches {
  readonly rows: number;
  readonly waiting: Waiting[];
  /** Words that they take for a stretch. */
  words: number;
}

/** A launch by stretches of rows. */
interface Waiting {
  readonly compiled: CompiledKernel;
  /** Words of its command. */
  readonly length: number;
  /** Items of a row. */
  readonly each: number;
  readonly buffers: readonly Tensor[];
  readonly scalars: readonly number[];
}

/** About 50 microseconds of watching before a thread sleeps. */
const SPINS = 20_000;

export class Device {
  readonly target: TargetInfo;
  readonly threads: number;
  readonly #memory: DeviceMemory;
  readonly #control = new Int32Array(new SharedArrayBuffer(4 * P.CONTROL_WORDS));
  readonly #lists: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #floats: Float32Array;
  /** Null before the first kernel; then there is nothing to run. */
  #executor: Executor | null = null;
  /** What a buffer's offset counts from in a command. */
  #base = 0;
  /** Where each thread's list of commands ends. */
  readonly #ends: number[];
  readonly #workers: { worker: Worker; port: MessagePort }[] = [];
  readonly #kernels = new Map<string, CompiledKernel>();
  readonly #spins: number;
  #nextId = 1;
  #closed = false;
  #chain: Chain | null = null;
  /** Kernel launches so far. */
  launches = 0;
  /** Launches that `record` would collect run one by one instead, each as it is made: for profiles. */
  stepwise = false;

  constructor(target: TargetInfo, threads: number, backing: Backing) {
    this.target = target;
    this.threads = threads;
    this.#memory = new DeviceMemory(backing);
    this.#spins = threads > availableParallelism() ? 0 : SPINS;
    this.#lists = new SharedArrayBuffer(4 * P.LIST_WORDS * threads);
    this.#words = new Int32Array(this.#lists);
    this.#floats = new Float32Array(this.#lists);
    this.#ends = Array.from({ length: threads }, (_, part) => P.LIST_WORDS * part);
  }

  // --- tensors ------------------------------------------------------------------------------------------------

  /** A tensor that stays until `free`. Its content is unspecified; see `fill`. */
  tensor(kind: MemoryKind, shape: readonly number[], element: ElementType = 'f32'): Tensor {
    const size = checkedSize(shape);
    return { shape, element, size, byteOffset: this.#memory.allocate(kind, 4 * size) };
  }
  /** A tensor of the step arena: valid until `rewind` to a mark taken before it. Content unspecified. */
  temporary(shape: readonly number[], element: ElementType = 'f32'): Tensor {
    const size = checkedSize(shape);
    return { shape, element, size, byteOffset: this.#memory.allocateStep(4 * size) };
  }
  free(t: Tensor): void {
    this.#memory.release(t.byteOffset);
  }
  mark(): StepMark {
    return this.#memory.mark();
  }
  rewind(mark: StepMark): void {
    // One thread may still use what another has done with.
    if (!this.#chain) this.#memory.rewind(mark);
  }
  /** Peak and current bytes by kind. */
  memory(): MemoryReport {
    return this.#memory.report();
  }
  /** Bytes of address space that the memory has taken: the peaks, and what lay between blocks. */
  get memoryReach(): number {
    return this.#memory.reach;
  }

  /** A view of a float tensor's elements; void once the memory grows or the tensor is gone, so do not keep it. */
  floats(t: Tensor): Float32Array {
    if (t.element !== 'f32') throw new RetortError('bad-kernel', `floats() of an ${t.element} tensor`);
    const { buffer, start } = this.#memory.backing;
    return new Float32Array(buffer, start + t.byteOffset, t.size);
  }
  ints(t: Tensor): Int32Array {
    if (t.element !== 'i32') throw new RetortError('bad-kernel', `ints() of an ${t.element} tensor`);
    const { buffer, start } = this.#memory.backing;
    return new Int32Array(buffer, start + t.byteOffset, t.size);
  }
  fill(t: Tensor, value: number): void {
    if (t.element === 'f32') this.floats(t).fill(value);
    else this.ints(t).fill(value);
  }
  /** A temporary holding these numbers. */
  upload(
    values: ArrayLike<number>,
    element: ElementType,
    shape: readonly number[] = [values.length],
  ): Tensor {
    const t = this.temporary(shape, element);
    if (values.length !== t.size) {
      throw refuse('bad-kernel', `upload into shape [${shape}]`, values.length, `give ${t.size} numbers`);
    }
    if (element === 'f32') this.floats(t).set(values);
    else this.ints(t).set(values);
    return t;
  }

  // --- kernels ------------------------------------------------------------------------------------------------

  /** Makes ready to run, when the first kernel comes: memory alone needs no threads. */
  #start(): void {
    if (this.#executor) return;
    const { shared, base } = this.#memory.backing;
    this.#executor = createExecutor(this.#lists, shared);
    this.#base = base;
    for (let part = 1; part < this.threads; part++) {
      const channel = new MessageChannel();
      const workerData: WorkerSetup = {
        control: this.#control.buffer as unknown as SharedArrayBuffer,
        lists: this.#lists,
        memory: shared,
        port: channel.port2,
        part,
        spins: this.#spins,
      };
      const worker = new Worker(new URL('./worker.js', import.meta.url), {
        workerData,
        transferList: [channel.port2],
      });
      worker.unref();
      channel.port1.unref();
      this.#workers.push({ worker, port: channel.port1 });
    }
  }

  /** The kernel of this key, built, verified and compiled at its first use. */
  kernel(key: string, build: (target: TargetInfo) => Kernel): CompiledKernel {
    const known = this.#kernels.get(key);
    if (known) return known;
    this.#refuseClosed(`kernel ${key} asked for`);
    this.#start();
    const kernel = build(this.target);
    verifyKernel(kernel);
    const count = kernel.buffers.length + kernel.scalars.length;
    if (count > P.MOST_ARGUMENTS)
      throw refuse(
        'bad-kernel',
        `arguments of kernel ${kernel.name}`,
        count,
        `use at most ${P.MOST_ARGUMENTS}`,
      );
    const compiled = { id: this.#load(kernel), kernel };
    // Only now: a kernel that a worker could not load is not known, and the next use tries again under a new id.
    this.#kernels.set(key, compiled);
    return compiled;
  }

  /** The kernels made ready so far. */
  compiled(): Kernel[] {
    return [...this.#kernels.values()].map(({ kernel }) => kernel);
  }

  /** Compiles a kernel and makes every thread know it; gives its id. */
  #load(kernel: Kernel): number {
    if (this.target.name === 'x64') return mapX64(kernel);
    const id = this.#nextId++;
    const executable = this.#compile(kernel);
    this.#executor?.load(id, executable);
    const message: LoadMessage = { id, executable };
    for (const { port } of this.#workers) port.postMessage(message);
    this.#command(P.LOAD);
    this.#join();
    return id;
  }

  #compile(kernel: Kernel): Executable {
    if (this.target.name === 'interpreter') return { target: 'interpreter', kernel, info: this.target };
    const { name, buffers, scalars } = kernel;
    const module = new WebAssembly.Module(compileWasm(kernel, this.target) as BufferSource);
    return { target: 'wasm', kernel: { name, buffers, scalars }, module };
  }

  /** How many parts a launch of so many items has, each on a thread of its own: what scratch memory is for. */
  parts(items: number, grain = 1): number {
    return this.#chain?.parts ?? Math.max(1, Math.min(this.threads, Math.floor(items / grain)));
  }

  /**
   * Runs a kernel for items [0, items), cut among the threads by a fixed partition; returns when all is done.
   * The caller has proved that every index the kernel forms lies inside its buffers.
   * @param buffers tensors in the order of the kernel's buffer parameters
   * @param scalars the scalar parameters after begin, end, part
   * @param grain fewest items worth a thread of their own
   */
  launch(
    compiled: CompiledKernel,
    items: number,
    buffers: readonly Tensor[],
    scalars: readonly number[],
    grain = 1,
  ): void {
    const { kernel } = compiled;
    this.#refuseClosed(`kernel ${kernel.name} launched`);
    checkArguments(kernel, buffers, scalars);
    this.launches++;
    if (items <= 0) return;
    const chain = this.#chain;
    const rows = chain?.rows ?? items;
    const each = items / rows;
    if (!Number.isInteger(each))
      throw refuse('bad-kernel', `items of kernel ${kernel.name} for ${rows} rows`, items, 'launch it alone');
    const length = P.HEAD + P.FIELD * (kernel.buffers.length + kernel.scalars.length);
    if (chain?.stretches && !this.stepwise) {
      const { stretches } = chain;
      if (stretches.words + length + P.FIELD > P.LIST_WORDS) this.#runStretches(chain, stretches);
      stretches.waiting.push({ compiled, length, each, buffers, scalars });
      stretches.words += length;
      return;
    }
    const parts = this.parts(items, grain);
    if (chain && this.#ends[0] + length + P.FIELD > P.LIST_WORDS) chain.lists.push(this.#take(parts));
    for (let part = 0; part < parts; part++) {
      const begin = each * P.partStart(rows, parts, part);
      const end = each * P.partStart(rows, parts, part + 1);
      this.#append(part, compiled, length, begin, end, buffers, scalars);
    }
    if (!chain || this.stepwise) this.#run(parts);
  }

  /**
   * Collects the launches that `body` makes, for `replay` to run without waiting between them: each thread does its share
   * of the rows from the first launch to the last, so that what it wrote stays in its own caches. For launches whose rows
   * depend on the same rows alone, with as many items, or as many times as many. Memory of the step arena that `body`
   * takes is not used twice; a replay needs the arena to stand where it stood before.
   * @throws RetortError bad-kernel for a launch whose items are not a multiple of the rows
   */
  record<T>(rows: number, body: () => T): Recording<T> {
    if (this.#chain) throw new RetortError('bad-kernel', 'a recording within a recording');
    const parts = this.shares(rows).length;
    const lists: Int32Array[][] = [];
    this.#chain = { rows, parts, lists, stretches: null };
    try {
      const result = body();
      if (this.#ends[0] > 0) lists.push(this.#take(parts));
      return { result, parts, lists };
    } finally {
      this.#chain = null;
      this.#forget();
    }
  }

  /**
   * Runs the launches that `body` makes when it is over: each thread some of its rows at a time, from the first launch to the
   * last, so that what one wrote the next one finds in the core's own cache. For launches as `record` takes them, of which
   * `body` reads nothing; within a recording, and where no thread has two stretches of rows, they run as ever.
   * @param stretch rows at a time
   * @throws RetortError bad-kernel for a launch whose items are not a multiple of the rows
   */
  inStretches<T>(rows: number, stretch: number, body: () => T): T {
    if (!(stretch >= 1)) throw refuse('bad-kernel', 'rows of a stretch', stretch, 'take at least 1');
    const parts = this.shares(rows).length;
    if (this.#chain || rows < 2 * stretch * parts) return body();
    const stretches: Stretches = { rows: stretch, waiting: [], words: 0 };
    const chain: Chain = { rows, parts, lists: [], stretches };
    this.#chain = chain;
    try {
      const result = body();
      this.#runStretches(chain, stretches);
      return result;
    } finally {
      this.#chain = null;
    }
  }

  /** Runs the launches that wait, and waits for none. */
  #runStretches({ rows, parts }: Chain, stretches: Stretches): void {
    const launches = stretches.waiting.splice(0);
    if (launches.length === 0) return;
    const most = Math.ceil(rows / parts);
    const atOnce = Math.floor((P.LIST_WORDS - P.FIELD) / stretches.words) * stretches.rows;
    stretches.words = 0;
    for (let done = 0; done < most; done += atOnce) {
      for (let part = 0; part < parts; part++) {
        const first = P.partStart(rows, parts, part) + done;
        const end = Math.min(P.partStart(rows, parts, part + 1), first + atOnce);
        for (let row = first; row < end; row += stretches.rows) {
          const until = Math.min(row + stretches.rows, end);
          for (const { compiled, length, each, buffers, scalars } of launches)
            this.#append(part, compiled, length, each * row, each * until, buffers, scalars);
        }
      }
      this.#run(parts);
    }
  }

  /** How many of so many rows each thread runs of a recording, in order. */
  shares(rows: number): number[] {
    const parts = Math.max(1, Math.min(this.threads, rows));
    return Array.from(
      { length: parts },
      (_, part) => P.partStart(rows, parts, part + 1) - P.partStart(rows, parts, part),
    );
  }

  /** Runs what was collected, with what its buffers hold now. */
  replay({ parts, lists }: Recording<unknown>): void {
    this.#refuseClosed('a recording');
    if (this.#chain) throw new RetortError('bad-kernel', 'a recording is run while launches wait');
    for (const list of lists) {
      list.forEach((commands, part) => {
        const start = P.LIST_WORDS * part;
        this.#words.set(commands, start);
        this.#ends[part] = start + commands.length;
      });
      this.#run(parts);
    }
  }

  /** The lists of the first `parts` threads; they are empty afterwards. */
  #take(parts: number): Int32Array[] {
    const taken = Array.from({ length: parts }, (_, part) =>
      this.#words.slice(P.LIST_WORDS * part, this.#ends[part]),
    );
    this.#forget();
    return taken;
  }

  /** Whether launches are being collected; see `record`. */
  get isRecording(): boolean {
    return this.#chain !== null;
  }

  /** Puts a command at the end of a thread's list. A decoding step writes a hundred, so there is nothing here but stores. */
  #append(
    part: number,
    { id, kernel }: CompiledKernel,
    length: number,
    begin: number,
    end: number,
    buffers: readonly Tensor[],
    scalars: readonly number[],
  ): void {
    const words = this.#words;
    const at = this.#ends[part];
    this.#ends[part] = at + length;
    words[at] = id;
    words[at + 1] = id / 2 ** 32;
    words[at + 2] = 4 * length;
    words[at + 3] = 0;
    let field = at + P.HEAD;
    for (let i = 0; i < buffers.length; i++, field += P.FIELD) {
      const address = this.#base + buffers[i].byteOffset;
      words[field] = address;
      words[field + 1] = address / 2 ** 32;
    }
    words[field] = begin;
    words[field + P.FIELD] = end;
    words[field + 2 * P.FIELD] = part;
    field += 3 * P.FIELD;
    for (let i = 0; i < scalars.length; i++, field += P.FIELD) {
      if (kernel.scalars[3 + i].type === 'f32') this.#floats[field] = scalars[i];
      else words[field] = scalars[i];
    }
  }

  /** Runs the lists of the first `parts` threads, and empties them. */
  #run(parts: number): void {
    for (let part = 0; part < parts; part++) {
      const end = this.#ends[part];
      this.#words[end] = 0;
      this.#words[end + 1] = 0;
    }
    this.#forget();
    if (parts === 1) {
      this.#executor?.run(0);
      return;
    }
    this.#control[P.PARTS] = parts;
    this.#command(P.LAUNCH);
    try {
      this.#executor?.run(0);
    } catch (error) {
      // The other parts are waited for all the same: they would still write while the caller goes on.
      this.#wait();
      throw error;
    }
    this.#join();
  }

  #forget(): void {
    for (let part = 0; part < this.threads; part++) this.#ends[part] = P.LIST_WORDS * part;
  }

  /** Ends the workers. The device cannot be used afterwards. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#command(P.STOP);
    this.#join();
    for (const { port } of this.#workers) port.close();
    await Promise.all(this.#workers.map(({ worker }) => worker.terminate()));
  }

  #command(command: number): void {
    const control = this.#control;
    control[P.COMMAND] = command;
    Atomics.store(control, P.DONE, 0);
    P.advance(control, P.EPOCH);
  }

  #refuseClosed(what: string): void {
    if (this.#closed) throw new RetortError('bad-kernel', `${what} on a closed device`);
  }

  #join(): void {
    const messages = this.#wait();
    if (messages.length > 0) throw new RetortError('bad-kernel', `a worker failed: ${messages.join('; ')}`);
  }

  /** Waits for every worker; gives what their failures say. */
  #wait(): string[] {
    let done = 0;
    while (done < this.#workers.length) {
      done = Atomics.load(this.#control, P.DONE);
      if (done < this.#workers.length) done = P.waitForChange(this.#control, P.DONE, done, this.#spins);
    }
    if (Atomics.exchange(this.#control, P.FAILED, 0) === 0) return [];
    const received = this.#workers.map(({ port }) => receiveMessageOnPort(port));
    return received.flatMap((r) => (r ? [String(r.message)] : []));
  }
}

/**
 * Opens a device.
 * @throws RetortError bad-input for a thread count, target or memory limit that cannot be, out-of-memory
 */
export function createDevice(options: DeviceOptions = {}): Device {
  const threads = options.threads ?? availableParallelism();
  if (!Number.isInteger(threads) || threads < 1 || threads > 64) {
    throw refuse('bad-input', 'threads', threads, 'give a whole number from 1 to 64');
  }
  const target = targetOf(options);
  const backing = target.name === 'x64' ? nativeBacking : wasmBacking;
  return new Device(target, threads, backing(options.maxBytes));
}

function targetOf({ target, interpret }: DeviceOptions): TargetInfo {
  const name = target ?? process.env.RETORT_TARGET ?? usualTarget();
  switch (name) {
    case 'wasm':
      return wasmTarget();
    case 'x64':
    case 'avx2':
    case 'avx512': {
      const instructions = name === 'x64' ? bestX64() : name;
      const why = whyNotX64(instructions);
      if (why) throw refuse('bad-input', 'target (RETORT_TARGET)', name, `use wasm: ${why}`);
      return x64Target(instructions);
    }
    case 'interpreter': {
      return { vectorRegisters: 16, ...(interpret ?? wasmTarget()), name };
    }
    default:
      throw refuse('bad-input', 'target (RETORT_TARGET)', name, 'use x64, avx2, avx512, wasm or interpreter');
  }
}

function bestX64(): X64 {
  return whyNotX64('avx512') ? 'avx2' : 'avx512';
}

function checkArguments(kernel: Kernel, buffers: readonly Tensor[], scalars: readonly number[]): void {
  if (buffers.length !== kernel.buffers.length || scalars.length !== kernel.scalars.length - 3) {
    throw new RetortError(
      'bad-kernel',
      `kernel ${kernel.name} takes ${kernel.buffers.length} buffers and ${kernel.scalars.length - 3} scalars; ` +
        `got ${buffers.length} and ${scalars.length}`,
    );
  }
  for (let i = 0; i < buffers.length; i++) {
    if (buffers[i].element !== kernel.buffers[i].element) {
      throw new RetortError(
        'bad-kernel',
        `kernel ${kernel.name}: buffer ${kernel.buffers[i].name} has another element type`,
      );
    }
  }
}

/** Machine code where it runs, else WebAssembly; says why once where the processor would do but the system refuses. */
function usualTarget(): 'x64' | 'wasm' {
  const why = whyNotX64();
  if (!why) return 'x64';
  if (process.arch === 'x64' && process.platform === 'linux' && !said) {
    said = true;
    process.emitWarning(`kernels run as WebAssembly, at a fraction of the speed: ${why}`, 'RetortWarning');
  }
  return 'wasm';
}

let said = false;
