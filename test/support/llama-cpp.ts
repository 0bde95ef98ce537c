// llama.cpp, the judge of GGUF files, through node-llama-cpp in test/llama-cpp; why it is not there, where it is not.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const folder = fileURLToPath(new URL('../../../test/llama-cpp/node_modules/', import.meta.url));
const entry = `${folder}node-llama-cpp/dist/index.js`;
/** Its shared libraries: ggml's quantization functions. */
export const libraries = `${folder}@node-llama-cpp/linux-x64/bins/linux-x64`;

/** llama.cpp's own repository, which comes with the package. */
export const bundle = `${folder}node-llama-cpp/llama/gitRelease.bundle`;

export const noLlamaCpp =
  !(existsSync(entry) && existsSync(libraries)) &&
  'llama.cpp is not installed: run npm run install:llama-cpp';

/** What the tests ask of a model. */
export interface JudgedModel {
  /** Ids of a text; special tokens written in it become their ids. */
  tokenize(text: string): number[];
  /** Logits [ids, vocabulary] after each id, computed in one batch. */
  logits(ids: readonly number[]): Promise<Map<number, number>[]>;
  /** Greedy continuation and, for each token, how far its logit is above the second best. */
  greedy(ids: readonly number[], count: number): Promise<{ id: number; lead: number }[]>;
  close(): Promise<void>;
}

// The parts of node-llama-cpp's interface in use: its own types are not installed beside the project.
interface Next {
  readonly next: { readonly token?: number; readonly logits?: Map<number, number> };
}
type Step = number | [token: number, options: object];
interface Sequence {
  controlledEvaluate(steps: readonly Step[]): Promise<(Next | undefined)[]>;
  clearHistory(): Promise<void>;
}
interface Model {
  tokenize(text: string, special: boolean): number[];
  createContext(options: object): Promise<{ getSequence(): Sequence }>;
  dispose(): Promise<void>;
}
interface Library {
  readonly _bindings: {
    readonly AddonJinjaRenderer: new (template: string) => { render(variables: object): string };
  };
  loadModel(options: object): Promise<Model>;
  dispose(): Promise<void>;
}

export interface Judge {
  /** @param options.vocabularyOnly for a file without tensors: only `tokenize` works then */
  open(path: string, options?: { vocabularyOnly?: boolean }): Promise<JudgedModel>;
  /** A chat template rendered by llama.cpp's own engine. */
  render(template: string, variables: object): string;
  close(): Promise<void>;
}

/** Loads llama.cpp for the CPU. */
export async function openJudge(): Promise<Judge> {
  const { getLlama } = (await import(entry)) as { getLlama(options: object): Promise<Library> };
  const library = await getLlama({ gpu: false, build: 'never', skipDownload: true, logLevel: 'fatal' });
  return {
    open: async (modelPath, { vocabularyOnly = false } = {}) => {
      const model = await library.loadModel({ modelPath, vocabOnly: vocabularyOnly });
      const contextSize = 512;
      const context = vocabularyOnly
        ? null
        : await model.createContext({
            contextSize,
            batchSize: contextSize,
            flashAttention: false,
            experimentalKvCacheKeyType: 'F32',
            experimentalKvCacheValueType: 'F32',
            threads: 2,
          });
      const sequence = context?.getSequence() as Sequence;
      const ask = { generateNext: { token: true, logits: true, options: { temperature: 0 } } };
      const evaluate = async (ids: readonly number[], asked: (i: number) => boolean) => {
        const results = await sequence.controlledEvaluate(ids.map((id, i) => (asked(i) ? [id, ask] : id)));
        return results.flatMap((one) => (one ? [one.next] : []));
      };
      return {
        tokenize: (text) => Array.from(model.tokenize(text, true)),
        async logits(ids) {
          await sequence.clearHistory();
          const all = await evaluate(ids, () => true);
          return all.map(({ logits }) => logits as Map<number, number>);
        },
        async greedy(ids, count) {
          await sequence.clearHistory();
          const out: { id: number; lead: number }[] = [];
          let fed = ids;
          while (out.length < count) {
            const [{ logits }] = await evaluate(fed, (i) => i === fed.length - 1);
            const [best, second] = [...(logits as Map<number, number>)].sort((a, b) => b[1] - a[1]);
            out.push({ id: best[0], lead: best[1] - second[1] });
            fed = [best[0]];
          }
          return out;
        },
        close: () => model.dispose(),
      };
    },
    render: (template, variables) => new library._bindings.AddonJinjaRenderer(template).render(variables),
    close: () => library.dispose(),
  };
}
