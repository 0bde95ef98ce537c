// The server's side of the thread that makes prompts.
import { MessageChannel, Worker } from 'node:worker_threads';
import type { Tokenizer } from '../text/tokenizer.js';
import { ApiError } from './errors.js';
import { makePrompts, type Prompt, type PromptMaker, type PromptRequest } from './prompt.js';

export type ToPrompts =
  | { readonly type: 'load'; readonly model: number; readonly dir: string; readonly template: string }
  | {
      readonly type: 'make';
      readonly id: number;
      readonly model: number;
      readonly request: PromptRequest;
    }
  | { readonly type: 'drop'; readonly model: number };

export interface FromPrompts {
  readonly id: number;
  readonly prompts?: readonly Prompt[];
  readonly refused?: {
    readonly status: number;
    readonly message: string;
    readonly param: string | null;
    readonly code: string | null;
  };
}

/** Makes the prompts of one model. */
export interface PromptSource {
  /** @param bytes of the request's body: a small one is not worth the way to the thread. @throws ApiError, RetortError where it does not fit the model */
  make(request: PromptRequest, bytes: number): Promise<readonly Prompt[]>;
  /** The model is gone. */
  drop(): void;
}

/** Bodies up to here take a tokenizer a few milliseconds. */
const SMALL = 4 << 10;

export interface PromptThread {
  /** @param here the model's tokenizer and template in this thread */
  source(
    dir: string,
    template: string,
    here: { readonly tokenizer: Tokenizer; readonly make: PromptMaker },
  ): PromptSource;
  /** Resolves when the thread has died by itself, with the reason. */
  readonly died: Promise<Error>;
  close(): Promise<void>;
}

export function startPromptThread(): PromptThread {
  const { port1: port, port2 } = new MessageChannel();
  const worker = new Worker(new URL('./prompt-thread.js', import.meta.url), {
    workerData: { port: port2 },
    transferList: [port2],
  });
  const waiting = new Map<
    number,
    { resolve(prompts: readonly Prompt[]): void; reject(error: Error): void }
  >();
  let next = 0;
  const tell = (message: ToPrompts) => port.postMessage(message);
  port.on('message', ({ id, prompts, refused }: FromPrompts) => {
    const entry = waiting.get(id);
    waiting.delete(id);
    if (prompts) entry?.resolve(prompts);
    else if (refused) {
      const { status, message, param, code } = refused;
      entry?.reject(new ApiError(status, message, { param: param ?? undefined, code: code ?? undefined }));
    }
  });
  let dead: Error | null = null;
  const died = new Promise<Error>((resolve) => {
    const end = (error: Error) => {
      dead ??= error;
      for (const { reject } of waiting.values()) reject(dead);
      waiting.clear();
      resolve(dead);
    };
    worker.on('error', end);
    worker.on('exit', (code) => end(new Error(`the thread of prompts ended with code ${code}`)));
  });

  function makeThere(model: number, request: PromptRequest): Promise<readonly Prompt[]> {
    const id = next++;
    return new Promise((resolve, reject) => {
      if (dead) return reject(dead);
      tell({ type: 'make', id, model, request });
      waiting.set(id, { resolve, reject });
    });
  }

  return {
    source(dir, template, here) {
      const model = next++;
      tell({ type: 'load', model, dir, template });
      return {
        make: async (request, bytes) =>
          bytes <= SMALL ? makePrompts(here, request) : makeThere(model, request),
        drop: () => tell({ type: 'drop', model }),
      };
    },
    died,
    async close() {
      port.close();
      await worker.terminate();
    },
  };
}
