// A worker of the pool: sleeps until the epoch moves, then runs its part of the launch.
import { type MessagePort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import type { SharedMemory } from './backing.js';
import { createExecutor, type Executable } from './executor.js';
import * as P from './protocol.js';

export interface WorkerSetup {
  readonly control: SharedArrayBuffer;
  readonly lists: SharedArrayBuffer;
  readonly memory: SharedMemory;
  readonly port: MessagePort;
  readonly part: number;
  readonly spins: number;
}

/** What a worker finds on its port when it is told to load a kernel. */
export interface LoadMessage {
  readonly id: number;
  readonly executable: Executable;
}

const { control: shared, lists, memory, port, part, spins } = workerData as WorkerSetup;
const control = new Int32Array(shared);
const executor = createExecutor(lists, memory);
let epoch = 0;

function finish(): void {
  P.advance(control, P.DONE);
}

function obey(command: number): void {
  if (command === P.LOAD) {
    const received = receiveMessageOnPort(port);
    if (!received) throw new Error('no kernel arrived');
    const { id, executable } = received.message as LoadMessage;
    executor.load(id, executable);
  } else if (part < control[P.PARTS]) {
    executor.run(part);
  }
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
