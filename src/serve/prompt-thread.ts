// The thread that makes prompts: a long text takes the tokenizer seconds, and the server has others to answer.
import { type MessagePort, workerData } from 'node:worker_threads';
import { loadTokenizer, type Tokenizer } from '../text/tokenizer.js';
import { toApiError } from './errors.js';
import { makePrompts, type PromptMaker, promptMaker } from './prompt.js';
import type { FromPrompts, ToPrompts } from './prompts.js';

const { port } = workerData as { port: MessagePort };
interface Model {
  readonly tokenizer: Tokenizer;
  readonly make: PromptMaker;
}

/** A model whose files went away between the server's look at them and this one's is an error. */
const models = new Map<number, Model | Error>();

port.on('message', (message: ToPrompts) => {
  const tell = (answer: FromPrompts) => port.postMessage(answer);
  switch (message.type) {
    case 'load':
      try {
        const tokenizer = loadTokenizer(message.dir);
        models.set(message.model, { tokenizer, make: promptMaker(tokenizer, message.template) });
      } catch (error) {
        models.set(message.model, error as Error);
      }
      return;
    case 'drop':
      models.delete(message.model);
      return;
    case 'make':
      try {
        const model = models.get(message.model);
        if (!model || model instanceof Error) throw new Error('the model is gone', { cause: model });
        tell({ id: message.id, prompts: makePrompts(model, message.request) });
      } catch (error) {
        const { status, message: words, param, code } = toApiError(error);
        tell({ id: message.id, refused: { status, message: words, param, code } });
      }
  }
});
