// Clients that keep a server busy: each streams one answer after another, and what they saw is summed up.
import { Agent, request as httpRequest } from 'node:http';

export interface LoadOptions {
  readonly url: string;
  readonly model: string;
  readonly clients: number;
  readonly seconds: number;
  /** Most tokens of an answer. */
  readonly tokens: number;
  /** Token ids; requests take turns. */
  readonly prompts: readonly (readonly number[])[];
  /** What a greedy request to each prompt gives when it is alone; every fourth request is greedy and compared. */
  readonly expected: readonly string[];
}

export interface LoadResult {
  readonly clients: number;
  readonly requests: number;
  readonly tokens: number;
  readonly seconds: number;
  readonly tokensPerSecond: number;
  /** Seconds to the first token: of half, and of 99 in a hundred requests. */
  readonly firstToken: { readonly p50: number; readonly p99: number };
  /** Tokens a second of one answer, from its first token on. */
  readonly answerSpeed: number;
  /** Milliseconds that /health took at worst. */
  readonly health: { readonly p99: number; readonly worst: number; readonly asked: number };
  readonly compared: number;
  readonly different: number;
  readonly errors: readonly string[];
}

interface Streamed {
  readonly text: string;
  readonly tokens: number;
  readonly first: number;
  readonly seconds: number;
}

/** One streamed completion. Rejects where it does not come to its end. */
export function streamCompletion(
  agent: Agent,
  url: string,
  body: Readonly<Record<string, unknown>>,
): Promise<Streamed> {
  const began = performance.now();
  return new Promise((resolve, reject) => {
    const headers = { 'content-type': 'application/json' };
    const request = httpRequest(`${url}/v1/completions`, { method: 'POST', agent, headers }, (response) => {
      let all = '';
      let first = 0;
      response.setEncoding('utf8');
      response.on('data', (part: string) => {
        if (first === 0) first = performance.now();
        all += part;
      });
      response.on('error', reject);
      response.on('end', () => {
        const seconds = (performance.now() - began) / 1000;
        if (response.statusCode !== 200 || !all.endsWith('data: [DONE]\n\n'))
          return reject(new Error(`status ${response.statusCode}: ${all.slice(-200)}`));
        let text = '';
        let tokens = 0;
        for (const event of all.split('\n\n').slice(0, -2)) {
          const { choices, usage } = JSON.parse(event.slice('data: '.length)) as Chunk;
          for (const choice of choices) text += choice.text;
          if (usage) tokens = usage.completion_tokens;
        }
        resolve({ text, tokens, first: (first - began) / 1000, seconds });
      });
    });
    request.on('error', reject);
    request.end(JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }));
  });
}

interface Chunk {
  readonly choices: readonly { readonly text: string }[];
  readonly usage?: { readonly completion_tokens: number };
}

const HEALTH_EVERY_MS = 100;
/** Clients begin over so long, and the server's code is compiled; what ends in it is not counted. */
const WARM_SECONDS = 4;

export async function runLoad(o: LoadOptions): Promise<LoadResult> {
  const agent = new Agent({ keepAlive: true, maxSockets: o.clients + 2 });
  const firsts: number[] = [];
  const speeds: number[] = [];
  const health: number[] = [];
  const errors: string[] = [];
  let [requests, tokens, compared, different, next] = [0, 0, 0, 0, 0];
  const began = performance.now() + 1000 * WARM_SECONDS;
  const end = began + 1000 * o.seconds;

  async function client(): Promise<void> {
    while (performance.now() < end) {
      const number = next++;
      const place = number % o.prompts.length;
      const greedy = number % 4 === 0;
      const more = greedy ? { temperature: 0 } : { temperature: 1, seed: number };
      const body = { model: o.model, prompt: o.prompts[place], max_tokens: o.tokens, ...more };
      try {
        const answer = await streamCompletion(agent, o.url, body);
        if (greedy) {
          compared++;
          if (answer.text !== o.expected[place]) different++;
        }
        const now = performance.now();
        if (now < began || now > end) continue;
        requests++;
        tokens += answer.tokens;
        firsts.push(answer.first);
        speeds.push(answer.tokens / Math.max(1e-6, answer.seconds - answer.first));
      } catch (error) {
        errors.push((error as Error).message);
        if (errors.length > 100) return;
      }
    }
  }

  async function watchHealth(): Promise<void> {
    while (performance.now() < end) {
      const asked = performance.now();
      const ok = await new Promise<boolean>((resolve) => {
        httpRequest(`${o.url}/health`, { agent }, (r) => {
          r.resume();
          r.on('end', () => resolve(r.statusCode === 200));
        })
          .on('error', () => resolve(false))
          .end();
      });
      if (!ok) errors.push('/health did not answer');
      if (asked > began) health.push(performance.now() - asked);
      await new Promise((resolve) => setTimeout(resolve, HEALTH_EVERY_MS));
    }
  }

  await Promise.all([watchHealth(), ...Array.from({ length: o.clients }, client)]);
  agent.destroy();
  return {
    ...{ clients: o.clients, requests, tokens, seconds: o.seconds, tokensPerSecond: tokens / o.seconds },
    firstToken: { p50: quantile(firsts, 0.5), p99: quantile(firsts, 0.99) },
    answerSpeed: quantile(speeds, 0.5),
    health: { p99: quantile(health, 0.99), worst: Math.max(0, ...health), asked: health.length },
    ...{ compared, different, errors },
  };
}

function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}
