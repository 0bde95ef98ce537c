// The thread of the engine: owns the device, steps the rollout engines, and tells the server what came of it.
//
// A model that replaces another runs beside it until the old one's requests have ended, so that each answer is one
// model's.
import { getPriority, setPriority } from 'node:os';
import { type MessagePort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { createDevice } from '../compute/device/device.js';
import { RetortError } from '../errors.js';
import { freeLlama } from '../model/llama.js';
import { createEngine, type Engine } from '../rollout/engine.js';
import { tokenBytes } from '../text/token-bytes.js';
import { loadPolicy, type Policy } from '../train/policy.js';
import { type GrammarEngine, type Matcher, startGrammarEngine } from './constrain/grammar.js';
import { createControl, type SampleControl } from './control.js';
import type {
  EngineLoad,
  EngineThreadOptions,
  FromEngine,
  LoadOrder,
  ToEngine,
  WorkOrder,
} from './engine-messages.js';
import { createNews, type NewsOf } from './engine-news.js';
import { createScheduler, type Scheduler } from './scheduler.js';

interface Work {
  readonly order: WorkOrder;
  readonly lane: string;
  readonly n: number;
  /** Its number in the engine, once it has started. */
  number: number | null;
  open: number;
  /** What guides each sample; empty where nothing does. */
  controls: readonly SampleControl[];
  readonly samples: readonly NewsOf[];
}

interface Model {
  readonly policy: Policy;
  readonly engine: Engine;
  readonly maxSequences: number;
  readonly scheduler: Scheduler<Work>;
  /** Work that has started, by its number in the engine. */
  readonly started: Map<number, Work>;
  /** Started by the first request that needs it. */
  grammars: GrammarEngine | null;
  running: number;
  /** Until when requests wait while others run, milliseconds of `performance.now`. */
  fillAgain: number;
  retired: boolean;
}

/** How far the threads that compute stand back: a third of the weight of others where a core is contended. */
const NICE = 5;

/**
 * Where cores are fewer than threads, the one that answers goes before those that compute, which never rest. On Linux
 * this is a matter of the thread that says it, and of those that it starts.
 */
function standBack(): void {
  if (process.platform !== 'linux') return;
  try {
    setPriority(Math.min(19, getPriority() + NICE));
  } catch {
    // Where the system does not allow it, answers wait some milliseconds longer.
  }
}

standBack();
const { port, options } = workerData as { port: MessagePort; options: EngineThreadOptions };
const device = createDevice({ threads: options.threads });
const models = new Map<number, Model>();
const works = new Map<number, Work>();
/** Work whose samples are guided. */
const guided = new Set<Work>();
const inbox: ToEngine[] = [];
let wake: (() => void) | null = null;
let stopping = false;

const tell = (message: FromEngine) => port.postMessage(message);
const news = createNews(tell);

function load({ handle, dir }: LoadOrder): void {
  try {
    const policy = loadPolicy(dir, device, { trainable: false, dtype: options.dtype });
    try {
      const { maxSequences, maxLength, maxKvBytes, kvCacheDtype } = options;
      const limits = { maxSequences, maxLength, maxKvBytes };
      const engine = createEngine(policy, { ...limits, kvCacheDtype, prefixCache: true });
      const scheduler = createScheduler<Work>();
      models.set(handle, {
        policy,
        engine,
        maxSequences,
        scheduler,
        started: new Map(),
        grammars: null,
        running: 0,
        fillAgain: 0,
        retired: false,
      });
      const target = `${device.target.name}-${device.target.lanes}`;
      tell({
        type: 'loaded',
        handle,
        info: { maxSequences, maxLength: engine.maxLength, target, sampling: policy.sampling ?? {} },
      });
    } catch (error) {
      freeLlama(policy.llama);
      throw error;
    }
  } catch (error) {
    const code = error instanceof RetortError ? error.code : 'bad-model';
    tell({ type: 'load-failed', handle, code, message: (error as Error).message });
  }
}

function fail(id: number, error: unknown): void {
  const { message, stack = '' } = error as Error;
  const asked = error instanceof RetortError && error.code === 'bad-input';
  news.fail({ id, message, stack: asked ? null : stack });
  works.delete(id);
}

function submit(order: WorkOrder): void {
  const model = models.get(order.handle);
  const { id, lane, n } = order;
  if (!model) {
    fail(id, new RetortError('bad-input', 'the model is not loaded any more'));
    return;
  }
  const fresh = { tokens: null, told: 0, cached: 0 };
  const samples = Array.from({ length: n }, (_, sample) => ({ id, sample, ...fresh }));
  const work: Work = { order, lane, n, number: null, open: n, controls: [], samples };
  works.set(id, work);
  model.scheduler.add(work);
}

function cancel(id: number): void {
  const work = works.get(id);
  const model = work && models.get(work.order.handle);
  if (!work || !model) return;
  works.delete(id);
  if (work.number === null) {
    model.scheduler.remove(work);
    return;
  }
  model.engine.cancel(work.number);
  leave(model, work, work.open);
}

/** Samples of a started request have ended. */
function leave(model: Model, work: Work, samples: number): void {
  work.open -= samples;
  model.running -= samples;
  model.scheduler.ended(work.lane, samples);
  if (work.open > 0 || work.number === null) return;
  model.started.delete(work.number);
  works.delete(work.order.id);
  guided.delete(work);
  for (const control of work.controls) control.close();
}

/** Starting requests in one go takes no longer, unless a grammar is compiled. */
const FILL_MS = 20;

/** Starts queued requests; where that took long, those that run get as much time before more are started. */
async function fill(model: Model): Promise<void> {
  const began = performance.now();
  if (model.running > 0 && began < model.fillAgain) return;
  const mayGoOn = () => model.running === 0 || performance.now() - began < FILL_MS;
  while ((await startNext(model)) && mayGoOn());
  const took = performance.now() - began;
  if (took >= FILL_MS) model.fillAgain = began + 2 * took;
}

/** Hands a queued request to the engine where it has slots for it; whether there was one. */
async function startNext(model: Model): Promise<boolean> {
  const work = model.scheduler.next(model.maxSequences - model.running);
  if (!work) return false;
  const { promptIds, n, maxTokens, stop, seed, temperature, topK, topP, minP } = work.order;
  try {
    work.controls = await controlsOf(model, work.order);
    work.number = model.engine.submit({
      ...{ promptIds, n, maxTokens, stop, seed, problem: 0 },
      ...{ temperature, topK, topP, minP },
      skipSpecialTokens: true,
      topLogprobs: work.order.topLogprobs ?? 0,
      control: work.controls.length > 0 ? (sample) => work.controls[sample] : undefined,
    });
  } catch (error) {
    for (const control of work.controls) control.close();
    model.scheduler.ended(work.lane, n);
    fail(work.order.id, error);
    return true;
  }
  model.running += n;
  model.started.set(work.number, work);
  if (work.controls.length > 0) guided.add(work);
  return true;
}

async function controlsOf(model: Model, { n, control, promptIds }: WorkOrder): Promise<SampleControl[]> {
  if (!control) return [];
  const { tokenizer, llama } = model.policy;
  const controls: SampleControl[] = [];
  try {
    for (let sample = 0; sample < n; sample++) {
      let matcher: Matcher | null = null;
      if (control.grammar !== null) {
        if (!model.grammars?.alive) {
          const ends = [...new Set([...tokenizer.eosTokenIds, ...llama.config.eosTokenIds])];
          const { vocabSize } = llama.config;
          model.grammars = await startGrammarEngine({ tokens: tokenBytes(tokenizer), vocabSize, ends });
        }
        matcher = await model.grammars.matcher(control.grammar);
      }
      controls.push(createControl(control, promptIds, tokenizer, matcher));
    }
    return controls;
  } catch (error) {
    for (const control of controls) control.close();
    throw error;
  }
}

/** Brings the masks of grammars up to date for the next step. */
async function refreshGuided(): Promise<void> {
  for (const work of [...guided]) {
    try {
      for (const control of work.controls) if (control.stale) await control.refresh();
    } catch (error) {
      cancel(work.order.id);
      fail(work.order.id, error);
    }
  }
}

function step(model: Model): void {
  const { tokens, finished } = model.engine.step();
  for (const { request, sample, id, logprob, top, cachedTokens } of tokens) {
    const work = model.started.get(request);
    if (!work) continue;
    work.samples[sample].cached = cachedTokens;
    if (work.order.topLogprobs === null) news.token(work.samples[sample], id);
    else news.scoredToken(work.samples[sample], id, logprob, top);
  }
  for (const { request, sample, finishReason, text, stopString, ids } of finished) {
    const work = model.started.get(request);
    if (!work) continue;
    const cutText = stopString === null ? null : text;
    news.end(work.samples[sample], { finishReason, cutText, tokens: ids.length });
    leave(model, work, 1);
  }
}

/** A step that threw leaves nothing to go on from: every request of the model fails. */
function failAll(model: Model, error: unknown): void {
  for (const work of [...works.values()]) {
    if (models.get(work.order.handle) !== model) continue;
    cancel(work.order.id);
    fail(work.order.id, error);
  }
}

function loadNow(): EngineLoad {
  let [running, waiting, generatedTokens] = [0, 0, 0];
  for (const model of models.values()) {
    running += model.running;
    waiting += model.scheduler.waiting;
    generatedTokens += model.engine.generatedTokens;
  }
  return { running, waiting, generatedTokens, bytes: device.memory().total.current };
}

function obey(message: ToEngine): void {
  switch (message.type) {
    case 'load':
      load(message);
      return;
    case 'submit':
      submit(message);
      return;
    case 'cancel':
      cancel(message.id);
      return;
    case 'retire': {
      const model = models.get(message.handle);
      if (model) model.retired = true;
      return;
    }
    case 'stop':
      stopping = true;
  }
}

function isIdle(model: Model): boolean {
  return model.running === 0 && model.scheduler.waiting === 0;
}

function freeRetired(): void {
  for (const [handle, model] of models) {
    if (!model.retired || !isIdle(model)) continue;
    model.engine.close();
    model.grammars?.close();
    freeLlama(model.policy.llama);
    models.delete(handle);
  }
}

/** Takes what has arrived, without waiting for the thread's events: steps follow one another at once. */
function readInbox(): void {
  for (let received = receiveMessageOnPort(port); received; received = receiveMessageOnPort(port))
    inbox.push(received.message as ToEngine);
  for (let message = inbox.shift(); message; message = inbox.shift()) obey(message);
}

port.on('message', (message: ToEngine) => {
  inbox.push(message);
  wake?.();
});

while (!stopping) {
  readInbox();
  let running = 0;
  for (const model of models.values()) {
    await fill(model);
    running += model.running;
    if (!model.engine.busy) continue;
    try {
      step(model);
    } catch (error) {
      failAll(model, error);
    }
  }
  if (guided.size > 0) await refreshGuided();
  freeRetired();
  const rests = running === 0;
  news.tell(loadNow, running, rests);
  if (!rests || stopping) continue;
  await new Promise<void>((resolve) => {
    wake = resolve;
    if (inbox.length > 0) resolve();
  });
  wake = null;
}
for (const { engine } of models.values()) engine.close();
await device.close();
tell({ type: 'stopped' });
port.close();
