// A worker of the pool: sleeps until the epoch moves, then runs its part of the launch.
import { type MessagePort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { type Executable, type KernelCall, type KernelSignature, load } from './executor.js';
import * as P from './protocol.js';

export interface WorkerSetup {
  readonly control: SharedArrayBuffer;
  readonly memory: WebAssembly.Memory;
  readonly port: MessagePort;
  readonly part: number;
  readonly spins: number;
}

/** What a worker finds on its port when it is told to load a kernel. */
export interface LoadMessage {
  readonly id: number;
  readonly executable: Executable;
}

const { control: shared, memory, port, part, spins } = workerData as WorkerSetup;
const control = new Int32Array(shared);
const floats = new Float32Array(shared);
const calls: KernelCall[] = [];
const signatures: KernelSignature[] = [];
let epoch = 0;

function finish(): void {
  Atomics.add(control, P.DONE, 1);
  Atomics.notify(control, P.DONE);
}

function readArguments(signature: KernelSignature): number[] {
  const args: number[] = [];
  const buffers = signature.buffers.length;
  for (let i = 0; i < buffers; i++) args.push(control[P.ARGUMENTS + i]);
  for (let i = 3; i < signature.scalars.length; i++) {
    const at = P.ARGUMENTS + buffers + i - 3;
    args.push(signature.scalars[i].type === 'f32' ? floats[at] : control[at]);
  }
  return args;
}

function obey(command: number): void {
  if (command === P.LOAD) {
    const received = receiveMessageOnPort(port);
    if (!received) throw new Error('no kernel arrived');
    const { id, executable } = received.message as LoadMessage;
    calls[id] = load(executable, memory);
    signatures[id] = executable.kernel;
    return;
  }
  const parts = control[P.PARTS];
  if (part >= parts) return;
  const items = control[P.ITEMS];
  const id = control[P.KERNEL];
  const begin = P.partStart(items, parts, part);
  const end = P.partStart(items, parts, part + 1);
  if (begin < end) calls[id](begin, end, part, readArguments(signatures[id]));
}

for (;;) {
  epoch = P.waitForChange(control, P.EPOCH, epoch, spins);
  const command = control[P.COMMAND];
  if (command === P.STOP) break;
  try {
    obey(command);
  } catch (error) {
    // The launching thread waits for every part, so a failure is handed over instead of ending the worker.
    port.postMessage(error instanceof Error ? error.message : String(error));
    Atomics.store(control, P.FAILED, 1);
  }
  finish();
}
finish();
port.close();
