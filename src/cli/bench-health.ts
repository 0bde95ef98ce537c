// The thread of `retort bench serve` that asks /health again and again: beside clients that keep their own thread busy, the
// time that an answer waits to be read would count as the server's.
import { Agent, request as httpRequest } from 'node:http';
import { parentPort, workerData } from 'node:worker_threads';

export interface HealthWatch {
  readonly url: string;
  /** Answers of the first `skipMs` are not counted. */
  readonly skipMs: number;
  readonly forMs: number;
  readonly everyMs: number;
}

export interface HealthSeen {
  /** Milliseconds that each answer took. */
  readonly took: readonly number[];
  /** Asked and not answered as it should be. */
  readonly failed: number;
}

const { url, skipMs, forMs, everyMs } = workerData as HealthWatch;

const agent = new Agent({ keepAlive: true });

function ask(): Promise<boolean> {
  return new Promise((resolve) => {
    httpRequest(`${url}/health`, { agent }, (r) => {
      r.resume();
      r.on('close', () => resolve(r.complete && r.statusCode === 200));
    })
      .on('error', () => resolve(false))
      .end();
  });
}

const took: number[] = [];
let failed = 0;
const start = performance.now();
while (performance.now() < start + forMs) {
  const asked = performance.now();
  if (!(await ask())) failed++;
  const answered = performance.now();
  if (asked > start + skipMs) took.push(answered - asked);
  await new Promise((resolve) => setTimeout(resolve, everyMs));
}
const seen: HealthSeen = { took, failed };
agent.destroy();
parentPort?.postMessage(seen);
