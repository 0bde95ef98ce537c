// A device: memory, a target that compiles kernels, and a pool of workers that run them.
import { availableParallelism } from 'node:os';
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads';
import { RetortError, refuse } from '../../errors.js';
import type { ElementType, Kernel, TargetInfo } from '../kernel/ir.js';
import { verifyKernel } from '../kernel/verify.js';
import { compileWasm } from '../target/wasm.js';
import { wasmTarget } from '../target/wasm-detect.js';
import { mapX64, X64_TARGETS } from '../target/x64/compile.js';
import { whyNotX64, type X64 } from '../target/x64/detect.js';
import { sizeOf, type Tensor } from '../tensor.js';
import { type Executable, type KernelCall, load } from './executor.js';
import { DeviceMemory, type MemoryKind, type MemoryReport, type StepMark } from './memory.js';
import * as P from './protocol.js';
import type { LoadMessage, WorkerSetup } from './worker.js';

export interface DeviceOptions {
  /** Threads that compute, the calling one included. Default: the cores of the machine. */
  readonly threads?: number;
  /** Default: RETORT_TARGET, else machine code where this machine takes it, else WebAssembly. */
  readonly target?: 'x64' | 'avx2' | 'avx512' | 'wasm' | 'interpreter';
  /** Interpreter only: how many lanes and whether mulAdd is fused. Default: as WebAssembly here. */
  readonly interpret?: { readonly lanes: number; readonly fusedMulAdd: boolean };
  /** Limit of device memory. Default and maximum: 4 GiB. */
  readonly maxBytes?: number;
}

/** A kernel made ready on a device. */
export interface CompiledKernel {
  readonly id: number;
  readonly kernel: Kernel;
  readonly call: KernelCall;
}

/** About 50 microseconds of watching before a thread sleeps. */
const SPINS = 20_000;

export class Device {
  readonly target: TargetInfo;
  readonly threads: number;
  readonly #memory: DeviceMemory;
  readonly #control = new Int32Array(new SharedArrayBuffer(4 * P.CONTROL_WORDS));
  readonly #floats = new Float32Array(this.#control.buffer);
  readonly #workers: { worker: Worker; port: MessagePort }[] = [];
  readonly #kernels = new Map<string, CompiledKernel>();
  readonly #spins: number;
  #nextId = 0;
  #closed = false;
  /** Kernel launches so far. */
  launches = 0;

  constructor(target: TargetInfo, threads: number, maxBytes: number) {
    this.target = target;
    this.threads = threads;
    this.#memory = new DeviceMemory(maxBytes);
    this.#spins = threads > availableParallelism() ? 0 : SPINS;
    for (let part = 1; part < threads; part++) {
      const channel = new MessageChannel();
      const workerData: WorkerSetup = {
        control: this.#control.buffer as unknown as SharedArrayBuffer,
        memory: this.#memory.wasm,
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

  // --- tensors ------------------------------------------------------------------------------------------------

  /** A tensor that stays until `free`. Its content is unspecified; see `fill`. */
  tensor(kind: MemoryKind, shape: readonly number[], element: ElementType = 'f32'): Tensor {
    const size = sizeOf(shape);
    return { shape, element, size, byteOffset: this.#memory.allocate(kind, 4 * size) };
  }
  /** A tensor of the step arena: valid until `rewind` to a mark taken before it. Content unspecified. */
  temporary(shape: readonly number[], element: ElementType = 'f32'): Tensor {
    const size = sizeOf(shape);
    return { shape, element, size, byteOffset: this.#memory.allocateStep(4 * size) };
  }
  free(t: Tensor): void {
    this.#memory.release(t.byteOffset);
  }
  mark(): StepMark {
    return this.#memory.mark();
  }
  rewind(mark: StepMark): void {
    this.#memory.rewind(mark);
  }
  /** Peak and current bytes by kind. */
  memory(): MemoryReport {
    return this.#memory.report();
  }
  /** A view of a float tensor's elements; void once the memory grows or the tensor is gone, so do not keep it. */
  floats(t: Tensor): Float32Array {
    if (t.element !== 'f32') throw new RetortError('bad-kernel', `floats() of an ${t.element} tensor`);
    return new Float32Array(this.#memory.wasm.buffer, t.byteOffset, t.size);
  }
  ints(t: Tensor): Int32Array {
    if (t.element !== 'i32') throw new RetortError('bad-kernel', `ints() of an ${t.element} tensor`);
    return new Int32Array(this.#memory.wasm.buffer, t.byteOffset, t.size);
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

  /** The kernel of this key, built, verified and compiled at its first use. */
  kernel(key: string, build: (target: TargetInfo) => Kernel): CompiledKernel {
    const known = this.#kernels.get(key);
    if (known) return known;
    this.#refuseClosed(`kernel ${key} asked for`);
    const kernel = build(this.target);
    verifyKernel(kernel);
    const count = kernel.buffers.length + kernel.scalars.length;
    const most = P.CONTROL_WORDS - P.ARGUMENTS;
    if (count > most) {
      throw refuse('bad-kernel', `arguments of kernel ${kernel.name}`, count, `use at most ${most}`);
    }
    const executable = this.#compile(kernel);
    const compiled = { id: this.#nextId++, kernel, call: load(executable, this.#memory.wasm) };
    const message: LoadMessage = { id: compiled.id, executable };
    for (const { port } of this.#workers) port.postMessage(message);
    this.#command(P.LOAD);
    this.#join();
    // Only now: a kernel that a worker could not load is not known, and the next use tries again under a new id.
    this.#kernels.set(key, compiled);
    return compiled;
  }

  /** The kernels made ready so far. */
  compiled(): Kernel[] {
    return [...this.#kernels.values()].map(({ kernel }) => kernel);
  }

  #compile(kernel: Kernel): Executable {
    const { name, buffers, scalars } = kernel;
    switch (this.target.name) {
      case 'interpreter':
        return { target: 'interpreter', kernel, info: this.target };
      case 'wasm': {
        const module = new WebAssembly.Module(compileWasm(kernel, this.target) as BufferSource);
        return { target: 'wasm', kernel: { name, buffers, scalars }, module };
      }
      case 'x64':
        return { target: 'x64', kernel: { name, buffers, scalars }, address: mapX64(kernel) };
    }
  }

  /**
   * Runs a kernel for items [0, items), cut among the threads by a fixed partition; returns when all is done.
   * The caller has proved that every index the kernel forms lies inside its buffers.
   * @param buffers tensors in the order of the kernel's buffer parameters
   * @param scalars the scalar parameters after begin, end, part
   * @param grain fewest items worth a thread of their own
   */
  launch(
    { id, kernel, call }: CompiledKernel,
    items: number,
    buffers: readonly Tensor[],
    scalars: readonly number[],
    grain = 1,
  ): void {
    this.#refuseClosed(`kernel ${kernel.name} launched`);
    if (buffers.length !== kernel.buffers.length || scalars.length !== kernel.scalars.length - 3) {
      throw new RetortError(
        'bad-kernel',
        `kernel ${kernel.name} takes ${kernel.buffers.length} buffers and ${kernel.scalars.length - 3} scalars; ` +
          `got ${buffers.length} and ${scalars.length}`,
      );
    }
    this.launches++;
    if (items <= 0) return;
    const args: number[] = [];
    for (let i = 0; i < buffers.length; i++) {
      if (buffers[i].element !== kernel.buffers[i].element) {
        throw new RetortError(
          'bad-kernel',
          `kernel ${kernel.name}: buffer ${kernel.buffers[i].name} has another element type`,
        );
      }
      args.push(buffers[i].byteOffset | 0);
    }
    for (const s of scalars) args.push(s);
    const parts = Math.max(1, Math.min(this.threads, Math.floor(items / grain)));
    const own = (end: number) => {
      try {
        call(0, end, 0, args);
      } catch (cause) {
        if (cause instanceof RetortError) throw cause;
        throw new RetortError('bad-kernel', `kernel ${kernel.name} failed: ${(cause as Error).message}`, {
          cause,
        });
      }
    };
    if (parts === 1) {
      own(items);
      return;
    }
    const control = this.#control;
    control[P.KERNEL] = id;
    control[P.ITEMS] = items;
    control[P.PARTS] = parts;
    for (let i = 0; i < buffers.length; i++) control[P.ARGUMENTS + i] = args[i];
    for (let i = 0; i < scalars.length; i++) {
      const at = P.ARGUMENTS + buffers.length + i;
      if (kernel.scalars[i + 3].type === 'f32') this.#floats[at] = scalars[i];
      else control[at] = scalars[i];
    }
    this.#command(P.LAUNCH);
    try {
      own(P.partStart(items, parts, 1));
    } catch (error) {
      // The other parts are waited for all the same: they would still write while the caller goes on.
      this.#wait();
      throw error;
    }
    this.#join();
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
    Atomics.add(control, P.EPOCH, 1);
    Atomics.notify(control, P.EPOCH);
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
 * @throws RetortError bad-input for a thread count or target that does not exist
 */
export function createDevice(options: DeviceOptions = {}): Device {
  const threads = options.threads ?? availableParallelism();
  if (!Number.isInteger(threads) || threads < 1 || threads > 64) {
    throw refuse('bad-input', 'threads', threads, 'give a whole number from 1 to 64');
  }
  const target = targetOf(options);
  return new Device(target, threads, options.maxBytes ?? 2 ** 32);
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
      return X64_TARGETS[instructions];
    }
    case 'interpreter': {
      const { lanes, fusedMulAdd } = interpret ?? wasmTarget();
      return { name, vectorRegisters: 16, lanes, fusedMulAdd };
    }
    default:
      throw refuse('bad-input', 'target (RETORT_TARGET)', name, 'use x64, avx2, avx512, wasm or interpreter');
  }
}

function bestX64(): X64 {
  return whyNotX64('avx512') ? 'avx2' : 'avx512';
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
