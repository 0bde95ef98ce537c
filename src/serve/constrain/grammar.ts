// The grammar engine: xgrammar's WebAssembly build says which tokens may come next in a text of a grammar.
import type * as XGrammar from '@mlc-ai/web-xgrammar';
import { RetortError } from '../../errors.js';
import type { TokenBytes } from '../../text/token-bytes.js';
import { encodeBytes, type Grammar, toEbnf } from './expression.js';
import { createGuard, type GuardProgram, guardProgram } from './guard.js';

type Library = typeof XGrammar;

/** Follows one sample through its grammar. */
export interface Matcher {
  /** Bit `id % 32` of word `id / 32` is set where the token may come next; null once the text has ended. */
  readonly mask: Int32Array | null;
  /** Whether a token that the mask lets through really may come. */
  permits(id: number): boolean;
  /** Takes up a token that is permitted; the mask is void until `refresh`. */
  accept(id: number): void;
  /** Brings the mask up to date. */
  refresh(): Promise<void>;
  close(): void;
}

export interface GrammarEngine {
  /** A matcher at the beginning of a grammar, its mask ready. @throws RetortError bad-kernel where the library fails */
  matcher(grammar: Grammar): Promise<Matcher>;
  /** False once the library has failed: its checks end the whole instance, and this engine with it. */
  readonly alive: boolean;
  close(): void;
}

/** Compiled grammars that are kept. */
const KEPT = 64;

/** Which instance of the library is in use; a failure begins the next. */
let instance = 0;

/**
 * Loads the library. Its file is a script that sets a global and asks `location` where it is, though its package says
 * that it is a module; so it gets a location while it starts.
 */
async function startLibrary(): Promise<Library> {
  const url = import.meta.resolve('@mlc-ai/web-xgrammar');
  const scope = globalThis as { location?: unknown; xgrammar?: Library };
  scope.location = { href: url };
  try {
    await import(`${url}?${instance}`);
    const library = scope.xgrammar;
    if (!library)
      throw new RetortError('bad-kernel', 'the grammar engine did not start; install the package again');
    // The first call starts it.
    (await library.TokenizerInfo.createTokenizerInfo(['a', ''], 'raw', false, 2, [1])).dispose();
    return library;
  } finally {
    delete scope.location;
    delete scope.xgrammar;
  }
}

let current: { readonly instance: number; readonly started: Promise<Library> } | null = null;

/** The library, one instance for all vocabularies. */
function loadLibrary(): Promise<Library> {
  if (current?.instance !== instance) current = { instance, started: startLibrary() };
  return current.started;
}

/**
 * Starts the engine for a vocabulary.
 * @param options.vocabSize columns of the logits: the tokenizer's vocabulary or a few more
 * @param options.ends ids that end a text
 */
export async function startGrammarEngine(options: {
  readonly tokens: TokenBytes;
  readonly vocabSize: number;
  readonly ends: readonly number[];
}): Promise<GrammarEngine> {
  const { tokens, vocabSize, ends } = options;
  const library = await loadLibrary();
  const mine = instance;
  // Every token by its bytes, written as the grammars are; special ones are no text and stay empty, which keeps them out.
  const vocabulary = tokens.spelled.map((_, id) =>
    tokens.isSpecial(id) ? '' : encodeBytes(tokens.bytes(id)),
  );
  const info = await library.TokenizerInfo.createTokenizerInfo(vocabulary, 'raw', false, vocabSize, [
    ...ends,
  ]);
  const compiler = await library.GrammarCompiler.createGrammarCompiler(info, false);
  /** In the order of their last use. */
  const compiled = new Map<
    string,
    { readonly engine: XGrammar.CompiledGrammar; readonly guard: GuardProgram }
  >();
  const isEnd = new Set(ends);

  /** Runs the library; what it throws ends this instance. */
  async function guarded<T>(run: () => T | Promise<T>): Promise<T> {
    if (instance !== mine) throw new RetortError('bad-kernel', 'the grammar engine has failed');
    try {
      return await run();
    } catch (cause) {
      instance++;
      throw new RetortError('bad-kernel', 'the grammar engine has failed', { cause });
    }
  }

  async function compile(grammar: Grammar) {
    const ebnf = toEbnf(grammar);
    const known = compiled.get(ebnf);
    if (known) compiled.delete(ebnf);
    const found = known ?? { engine: await compiler.compileGrammar(ebnf), guard: guardProgram(grammar) };
    compiled.set(ebnf, found);
    if (compiled.size > KEPT) {
      const [oldest] = compiled.keys();
      compiled.get(oldest)?.engine.dispose();
      compiled.delete(oldest);
    }
    return found;
  }

  return {
    matcher: (grammar) =>
      guarded(async () => {
        const { engine, guard: program } = await compile(grammar);
        const matcher = await library.GrammarMatcher.createGrammarMatcher(engine);
        const guard = createGuard(program);
        let mask: Int32Array | null = await matcher.getNextTokenBitmask();
        let closed = false;
        return {
          get mask() {
            return mask;
          },
          permits: (id) => (isEnd.has(id) ? guard.complete : guard.permits(tokens.bytes(id))),
          accept(id) {
            matcher.acceptToken(id);
            if (!isEnd.has(id)) guard.accept(tokens.bytes(id));
          },
          refresh: () =>
            guarded(async () => {
              // Asked past the end, the library would fail.
              mask = matcher.isTerminated() ? null : await matcher.getNextTokenBitmask();
            }),
          close() {
            if (!closed && instance === mine) matcher.dispose();
            closed = true;
          },
        };
      }),
    get alive() {
      return instance === mine;
    },
    close() {
      if (instance !== mine) return;
      for (const { engine } of compiled.values()) engine.dispose();
      compiler.dispose();
      info.dispose();
    },
  };
}
