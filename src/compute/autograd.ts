// The tape: what the forward pass did, so that it can be undone in reverse. Operations record themselves.
import { refuse } from '../errors.js';
import type { Device } from './device/device.js';
import { type Dtype, type Tensor, viewOf } from './tensor.js';

/** Where operations run, and the tape they record on; without a tape nothing is kept for a backward pass. */
export interface Context {
  readonly device: Device;
  readonly tape: Tape | null;
}

/** A trained tensor: its value, its gradient (always accumulated into), and copies packed for matrix products. */
export interface Parameter {
  readonly name: string;
  readonly value: Tensor;
  readonly gradient: Tensor | null;
  /** Moves with every change of the value; packed copies made for another version are void. */
  version: number;
  /** How the packed copy for the forward pass keeps the value. Default float32. */
  readonly dtype?: Dtype;
  readonly packed: Map<string, { tensor: Tensor; version: number }>;
}

/** A gradient buffer and whether it already holds something (then add), or not yet (then overwrite). */
export interface Gradient {
  readonly tensor: Tensor;
  readonly accumulate: boolean;
}

export interface TapeOptions {
  /** Whether blocks keep only their input and are computed again in backward; see `residualBlock`. Default false. */
  readonly checkpointing?: boolean;
}

export class Tape {
  readonly #device: Device;
  readonly checkpointing: boolean;
  #steps: { outputs: readonly Tensor[]; backward: () => void }[] = [];
  #gradients = new Map<Tensor, Tensor>();
  /** How many tensors share a gradient's memory. */
  #holders = new Map<Tensor, number>();
  /** Memory of gradients that are no longer needed, by size, to be used again within this backward pass. */
  #spare = new Map<number, Tensor[]>();

  constructor(device: Device, { checkpointing = false }: TapeOptions = {}) {
    this.#device = device;
    this.checkpointing = checkpointing;
  }

  /** Adds the backward step of an operation; steps run in reverse. The gradients of `outputs` are let go after it. */
  record(outputs: readonly Tensor[], backward: () => void): void {
    this.#steps.push({ outputs, backward });
  }

  /** The gradient that arrived at a tensor, or undefined where nothing depends on it. */
  arrived(t: Tensor): Tensor | undefined {
    return this.#gradients.get(t);
  }

  /** Where to write a contribution to the gradient of t. */
  contribute(t: Tensor): Gradient {
    const known = this.#gradients.get(t);
    if (known) return { tensor: known, accumulate: true };
    const spare = this.#spare.get(t.size)?.pop();
    const tensor = spare ? viewOf(spare, t.shape) : this.#device.temporary(t.shape);
    this.#gradients.set(t, tensor);
    this.#holders.set(tensor, 1);
    return { tensor, accumulate: false };
  }

  /**
   * Lets t share the memory of a gradient whose other reader has no more use for it once t's own backward step
   * has run (steps before t's may write into it). Only where t has none yet; returns false otherwise.
   */
  share(t: Tensor, gradient: Tensor): boolean {
    if (this.#gradients.has(t)) return false;
    this.#gradients.set(t, gradient);
    this.#holders.set(gradient, (this.#holders.get(gradient) ?? 1) + 1);
    return true;
  }

  /** Gives t's gradient the memory of t itself, which nobody reads any more. Returns false where t has one already. */
  replace(t: Tensor): boolean {
    if (this.#gradients.has(t)) return false;
    this.#gradients.set(t, t);
    this.#holders.set(t, 1);
    return true;
  }

  /** Runs the backward steps in reverse and empties the tape. Seeds were given through `contribute`. */
  backward(): void {
    for (let i = this.#steps.length - 1; i >= 0; i--) {
      const { outputs, backward } = this.#steps[i];
      backward();
      for (const t of outputs) this.#letGo(t);
    }
    this.#steps = [];
    this.#gradients = new Map();
    this.#holders = new Map();
    this.#spare = new Map();
  }

  #letGo(t: Tensor): void {
    const gradient = this.#gradients.get(t);
    if (!gradient) return;
    this.#gradients.delete(t);
    const holders = (this.#holders.get(gradient) as number) - 1;
    this.#holders.set(gradient, holders);
    if (holders > 0) return;
    const spare = this.#spare.get(gradient.size);
    if (spare) spare.push(gradient);
    else this.#spare.set(gradient.size, [gradient]);
  }
}

/**
 * A part of the model that goes from x to a tensor of the same shape, of which x's gradient takes the memory (see
 * `Tape.share`), as a residual stream does. Without a tape only the result is kept. With a tape that checkpoints, the
 * result is kept and the part runs a second time in backward: the same operations on the same numbers, so the gradients
 * are the same to the last bit.
 * @param run makes the result in `into`, or in memory of its own where that is null
 * @throws RetortError bad-kernel in backward where x's gradient has memory of its own
 */
export function residualBlock(
  c: Context,
  x: Tensor,
  run: (c: Context, into: Tensor | null) => Tensor,
): Tensor {
  const { device, tape } = c;
  if (tape && !tape.checkpointing) return run(c, null);
  const y = device.temporary(x.shape);
  const mark = device.mark();
  run({ device, tape: null }, y);
  device.rewind(mark);
  tape?.record([y], () => {
    const dy = tape.arrived(y);
    if (!dy) return;
    const mark = device.mark();
    const again = new Tape(device);
    let dx: Tensor | undefined;
    again.record([], () => {
      dx = again.arrived(x);
    });
    again.share(run({ device, tape: again }, null), dy);
    again.backward();
    device.rewind(mark);
    if (dx !== dy || !tape.share(x, dy))
      throw refuse('bad-kernel', 'block', x.shape, 'its input must share the gradient of its result');
  });
  return y;
}
