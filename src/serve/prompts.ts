// The server's side of the thread that makes prompts.
import { MessageChannel, Worker } from 'node:worker_threads';
import { ApiError } from './errors.js';
import type { Prompt } from './prompt.js';
import type { ChatRequest } from './schema.js';

type Plain = readonly (string | readonly number[])[];

export type ToPrompts =
  | { readonly type: 'load'; readonly model: number; readonly dir: string; readonly template: string }
  | {
      readonly type: 'make';
      readonly id: number;
      readonly model: number;
      readonly chat: ChatRequest | null;
      readonly plain: Plain;
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

/** Makes the prompts of one model. @throws ApiError 400 where a text or a conversation does not fit it */
export interface PromptSource {
  chat(request: ChatRequest): Promise<Prompt>;
  plain(prompts: Plain): Promise<readonly Prompt[]>;
  /** The model is gone. */
  drop(): void;
}

export interface PromptThread {
  /** A model folder whose tokenizer and template are known to be right. */
  source(dir: string, template: string): PromptSource;
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

  function make(model: number, chat: ChatRequest | null, plain: Plain): Promise<readonly Prompt[]> {
    const id = next++;
    return new Promise((resolve, reject) => {
      if (dead) return reject(dead);
      waiting.set(id, { resolve, reject });
      tell({ type: 'make', id, model, chat, plain });
    });
  }

  return {
    source(dir, template) {
      const model = next++;
      tell({ type: 'load', model, dir, template });
      return {
        chat: async (request) => (await make(model, request, []))[0],
        plain: (prompts) => make(model, null, prompts),
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
