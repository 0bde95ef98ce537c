// The tape: what the forward pass did, so that it can be undone in reverse. Operations record themselves.
import type { Device } from './device/device.js';
import type { Tensor } from './tensor.js';

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
  readonly packed: Map<string, { tensor: Tensor; version: number }>;
}

/** A gradient buffer and whether it already holds something (then add), or not yet (then overwrite). */
export interface Gradient {
  readonly tensor: Tensor;
  readonly accumulate: boolean;
}

export class Tape {
  readonly #device: Device;
  #steps: (() => void)[] = [];
  #gradients = new Map<Tensor, Tensor>();

  constructor(device: Device) {
    this.#device = device;
  }

  /** Adds the backward step of an operation; steps run in reverse. */
  record(backward: () => void): void {
    this.#steps.push(backward);
  }

  /** The gradient that arrived at a tensor, or undefined where nothing depends on it. */
  arrived(t: Tensor): Tensor | undefined {
    return this.#gradients.get(t);
  }

  /** Where to write a contribution to the gradient of t. */
  contribute(t: Tensor): Gradient {
    const known = this.#gradients.get(t);
    if (known) return { tensor: known, accumulate: true };
    const tensor = this.#device.temporary(t.shape);
    this.#gradients.set(t, tensor);
    return { tensor, accumulate: false };
  }

  /**
   * Lets t share the memory of a gradient that its reader will not need again after t's own backward step.
   * Only where t has none yet; returns false otherwise.
   */
  share(t: Tensor, gradient: Tensor): boolean {
    if (this.#gradients.has(t)) return false;
    this.#gradients.set(t, gradient);
    return true;
  }

  /** Runs the backward steps in reverse and empties the tape. Seeds were given through `contribute`. */
  backward(): void {
    for (let i = this.#steps.length - 1; i >= 0; i--) this.#steps[i]();
    this.#steps = [];
    this.#gradients = new Map();
  }
}
