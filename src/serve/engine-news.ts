// What the engine's thread has to tell: tokens are gathered, so that a message holds several steps of several samples.
//
// First tokens and ends are waited for by someone and leave soon; the tokens between are read slower than they come, and
// a message for each would cost more than the step of a small model. Where many samples run, each has its own turn: all
// at once would take a core from the engine for as long as a step takes, and every thread of the engine waits for it.
import type { TopLogprobs } from '../rollout/steer.js';
import type { EngineLoad, FromEngine, SampleEnd, SampleTokens, WorkFailure } from './engine-messages.js';

/** From one message to the next. */
const SOON_MS = 10;
/** Where many samples run, each message takes a core from the engine: then so long, and tokens after the first wait longer. */
const MANY_SAMPLES = 16;
const MANY_SOON_MS = 40;
const LATER_MS = 120;

/** A sample that there is news of. */
export interface NewsOf {
  readonly id: number;
  readonly sample: number;
  /** Tokens that nobody has been told of. */
  tokens: SampleTokens | null;
  /** When it was last told of, milliseconds of `performance.now`; before its first token 0. */
  told: number;
  /** Tokens of the prompt that the cache held; known with the first token. */
  cached: number;
}

export interface News {
  token(of: NewsOf, id: number): void;
  /** A token whose log-probability is reported. */
  scoredToken(of: NewsOf, id: number, logprob: number, top: TopLogprobs): void;
  end(of: NewsOf, end: Omit<SampleEnd, 'id' | 'sample'>): void;
  fail(failure: WorkFailure): void;
  /** Tells what is due; everything where nothing more comes for now. */
  tell(load: () => EngineLoad, running: number, rests: boolean): void;
}

export function createNews(send: (message: FromEngine) => void): News {
  const waiting = new Set<NewsOf>();
  let urgent = new Set<NewsOf>();
  let ends: SampleEnd[] = [];
  let failed: WorkFailure[] = [];
  let told: EngineLoad = { running: 0, waiting: 0, generatedTokens: 0, bytes: 0 };
  let last = 0;

  function tokensOf(of: NewsOf): SampleTokens {
    if (of.tokens) return of.tokens;
    waiting.add(of);
    if (of.told === 0) urgent.add(of);
    of.tokens = { id: of.id, sample: of.sample, ids: [], logprobs: [], top: [], cached: of.cached };
    return of.tokens;
  }

  function take(from: Iterable<NewsOf>, now: number): SampleTokens[] {
    const tokens: SampleTokens[] = [];
    for (const of of from) {
      waiting.delete(of);
      if (of.tokens) tokens.push(of.tokens);
      of.tokens = null;
      of.told = now;
    }
    return tokens;
  }

  /** Who is urgent, and of the others who has waited long, so many that all have had their turn in LATER_MS. */
  function inTurn(now: number, running: number): NewsOf[] {
    const turns = Math.ceil((running * (now - last)) / LATER_MS);
    const late = [...waiting].filter((of) => !urgent.has(of) && now - of.told >= LATER_MS);
    late.sort((a, b) => a.told - b.told);
    return [...[...urgent].filter((of) => waiting.has(of)), ...late.slice(0, turns)];
  }

  return {
    token(of, id) {
      tokensOf(of).ids.push(id);
    },
    scoredToken(of, id, logprob, top) {
      const tokens = tokensOf(of);
      tokens.ids.push(id);
      tokens.logprobs.push(logprob);
      tokens.top.push(top);
    },
    end(of, end) {
      urgent.add(of);
      ends.push({ id: of.id, sample: of.sample, ...end });
    },
    fail(failure) {
      failed.push(failure);
    },
    tell(loadNow, running, rests) {
      const now = performance.now();
      const many = running >= MANY_SAMPLES;
      if (!rests && now - last < (many ? MANY_SOON_MS : SOON_MS)) return;
      const load = loadNow();
      // That memory came or went, or that nothing runs any more, is news too.
      const changed =
        rests && (told.running + told.waiting !== load.running + load.waiting || told.bytes !== load.bytes);
      const due = many && !rests ? inTurn(now, running) : [...waiting];
      if (due.length === 0 && ends.length === 0 && failed.length === 0 && !changed) return;
      send({ type: 'news', tokens: take(due, now), ends, failed, load });
      urgent = new Set();
      ends = [];
      failed = [];
      told = load;
      last = now;
    },
  };
}
