// What Prometheus reads: requests, tokens, times and how full the engine is.
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { EngineClient } from './engine-client.js';
import type { Usage } from './job.js';

export interface Metrics {
  /** Counts an answered HTTP request. */
  request(endpoint: string, status: number): void;
  /** Counts what a finished generation used and took. */
  generation(model: string, usage: Usage, seconds: number, toFirstToken: number | null): void;
  /** The exposition, and its content type. */
  text(): Promise<string>;
  readonly contentType: string;
}

const SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300];

export function createMetrics(engine: EngineClient): Metrics {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });
  const requests = new Counter({
    name: 'retort_requests_total',
    help: 'HTTP requests by endpoint and status',
    labelNames: ['endpoint', 'status'],
    registers,
  });
  const tokens = new Counter({
    name: 'retort_tokens_total',
    help: 'Tokens by model and kind: prompt (cached ones included), cached, completion (reasoning included), reasoning',
    labelNames: ['model', 'kind'],
    registers,
  });
  const first = new Histogram({
    name: 'retort_time_to_first_token_seconds',
    help: 'From the request to its first token',
    labelNames: ['model'],
    buckets: SECONDS,
    registers,
  });
  const whole = new Histogram({
    name: 'retort_generation_seconds',
    help: 'From the request to the end of its answer',
    labelNames: ['model'],
    buckets: SECONDS,
    registers,
  });
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  gauge('retort_samples_running', 'Samples that the engine computes', () => engine.busyness.running);
  gauge(
    'retort_samples_waiting',
    'Samples that wait for a slot',
    // Those of clients that left are not asked for any more, and run until the engine says otherwise.
    () => Math.max(0, engine.outstanding - engine.busyness.running),
  );
  gauge(
    'retort_device_bytes',
    'Memory of weights, keys and values, and computing',
    () => engine.busyness.bytes,
  );
  return {
    request: (endpoint, status) => requests.inc({ endpoint, status }),
    generation(model, usage, seconds, toFirstToken) {
      tokens.inc({ model, kind: 'prompt' }, usage.promptTokens);
      tokens.inc({ model, kind: 'cached' }, usage.cachedTokens);
      tokens.inc({ model, kind: 'completion' }, usage.completionTokens);
      tokens.inc({ model, kind: 'reasoning' }, usage.reasoningTokens);
      whole.observe({ model }, seconds);
      if (toFirstToken !== null) first.observe({ model }, toFirstToken);
    },
    text: () => registry.metrics(),
    contentType: registry.contentType,
  };
}
