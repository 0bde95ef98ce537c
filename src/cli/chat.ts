// retort chat: a conversation in the terminal, with a model folder or with a server.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { styleText } from 'node:util';
import type { Command } from 'commander';
import { RetortError } from '../errors.js';
import { templateNames } from '../text/template.js';
import { type ChatClient, type ChatTurn, connectChat } from './chat-client.js';
import { addDtypes, addThreads, type DtypeFlags, modelDtype, number, whole } from './flags.js';
import { type CommonOptions, printable, say } from './terminal.js';

interface ChatFlags extends CommonOptions, DtypeFlags {
  readonly model: string;
  readonly name?: string;
  readonly key?: string;
  readonly system?: string;
  readonly template?: string;
  readonly temperature?: number;
  readonly maxTokens?: number;
  readonly threads?: number;
}

export function addChat(program: Command): void {
  const command = program
    .command('chat')
    .description('a conversation in the terminal, thoughts dimmed; /help tells its commands')
    .requiredOption('--model <dir|url>', 'folder of a model or of a run, or address of a server')
    .option('--name <name>', "a server's model; default: the first that it names")
    .option('--key <key>', "a server's key; default: RETORT_API_KEY")
    .option('--system <text>', 'instructions for the whole conversation')
    .option('--template <name>', `how questions become prompts: ${templateNames.join(', ')}`)
    .option('--temperature <t>', "sampling temperature; default: the model's", number(0, 2))
    .option('--max-tokens <n>', 'most tokens of an answer', whole(1))
    .action(chat);
  addDtypes(command);
  addThreads(command);
}

async function chat(o: ChatFlags): Promise<void> {
  const remote = /^https?:\/\//.test(o.model);
  const { url, stop } = remote ? { url: o.model, stop: async () => {} } : await serveHere(o);
  try {
    const client = await connectChat(url, { model: o.name, key: o.key ?? process.env.RETORT_API_KEY });
    // A prompt template takes one question and knows no earlier ones.
    const alone = o.template !== undefined && o.template !== 'chat';
    await new Conversation(client, o, alone).run();
  } finally {
    await stop();
  }
}

/** A server of this process for the one model. */
async function serveHere({
  model: dir,
  template,
  threads,
  dtype,
  kvCacheDtype,
}: ChatFlags): Promise<{ url: string; stop(): Promise<void> }> {
  const { startServer } = await import('../serve/server.js');
  const folder = mkdtempSync(join(tmpdir(), 'retort-chat-'));
  const drop = () => rmSync(folder, { recursive: true, force: true });
  try {
    const models = [{ name: 'model', dir }];
    const server = await startServer({
      ...{ models, port: 0, folder, template, threads, maxSequences: 1 },
      ...{ dtype: modelDtype({ dtype }), kvCacheDtype },
    });
    return {
      url: server.url,
      async stop() {
        await server.close();
        drop();
      },
    };
  } catch (error) {
    drop();
    throw error;
  }
}

const HELP = `/clear         forget the conversation
/retry         ask the last question again
/system TEXT   set the instructions; without a text: none
/temperature T sampling temperature
/thoughts      show or hide thoughts
/save FILE     write the conversation as JSON
/exit          leave; Ctrl-D does too, Ctrl-C stops an answer`;

class Conversation {
  readonly #client: ChatClient;
  readonly #options: ChatFlags;
  readonly #alone: boolean;
  readonly #terminal = process.stdin.isTTY === true && process.stdout.isTTY === true;
  #turns: readonly ChatTurn[] = [];
  /** What was asked last, answered or not, and the turns before it. */
  #last: { readonly question: string; readonly before: readonly ChatTurn[] } | null = null;
  #system: string;
  #temperature: number | undefined;
  #thoughts = true;
  #stop: AbortController | null = null;

  constructor(client: ChatClient, options: ChatFlags, alone: boolean) {
    this.#client = client;
    this.#options = options;
    this.#alone = alone;
    this.#system = options.system ?? '';
    this.#temperature = options.temperature;
  }

  async run(): Promise<void> {
    const lines = createInterface({
      input: process.stdin,
      output: this.#terminal ? process.stdout : undefined,
    });
    lines.on('SIGINT', () => {
      if (this.#stop) this.#stop.abort();
      else lines.close();
    });
    if (this.#terminal) say(`${this.#client.model}; /help tells what there is beside questions`);
    lines.setPrompt('> ');
    this.#ask(lines);
    for await (const line of lines) {
      if (!(await this.#take(line.trim()))) break;
      this.#ask(lines);
    }
    lines.close();
  }

  #ask(lines: Interface): void {
    if (this.#terminal) lines.prompt();
  }

  /** @returns false where the conversation is over */
  async #take(line: string): Promise<boolean> {
    if (line === '') return true;
    const [command, ...words] = line.split(' ');
    const rest = words.join(' ').trim();
    switch (command) {
      case '/exit':
      case '/quit':
        return false;
      case '/help':
        say(HELP);
        return true;
      case '/clear':
        this.#turns = [];
        this.#last = null;
        return true;
      case '/system':
        this.#system = rest;
        return true;
      case '/temperature':
        this.#setTemperature(rest);
        return true;
      case '/thoughts':
        this.#thoughts = !this.#thoughts;
        say(`thoughts are ${this.#thoughts ? 'shown' : 'hidden'}`);
        return true;
      case '/save':
        this.#save(rest);
        return true;
      case '/retry':
        if (this.#last) await this.#answer(this.#last.question, this.#last.before);
        else say('there is no question yet');
        return true;
    }
    if (line.startsWith('/')) say(`no such command: ${command}; /help tells those there are`);
    else await this.#answer(line, this.#turns);
    return true;
  }

  #setTemperature(word: string): void {
    const value = Number(word);
    if (word !== '' && value >= 0 && value <= 2) this.#temperature = value;
    else say(`temperature: got ${JSON.stringify(word)}; give a number from 0 to 2`);
  }

  #save(path: string): void {
    if (path === '') {
      say('say where: /save FILE');
      return;
    }
    try {
      writeFileSync(path, `${JSON.stringify(this.#messages(this.#turns), null, 2)}\n`);
    } catch (error) {
      say(`cannot write ${path}: ${(error as Error).message}`);
    }
  }

  #messages(turns: readonly ChatTurn[]): ChatTurn[] {
    return this.#system === '' ? [...turns] : [{ role: 'system', content: this.#system }, ...turns];
  }

  /** Where no answer comes, the conversation stays as it was: a question without one is no part of it. */
  async #answer(question: string, before: readonly ChatTurn[]): Promise<void> {
    this.#last = { question, before };
    const asked: ChatTurn = { role: 'user', content: question };
    this.#stop = new AbortController();
    let thinking = false;
    let wrote = false;
    const write = (text: string, thought: boolean) => {
      if (thought && !this.#thoughts) return;
      if (thinking && !thought) process.stdout.write('\n');
      thinking = thought;
      wrote = true;
      const shown = this.#terminal ? printable(text) : text;
      process.stdout.write(thought && this.#terminal ? styleText('dim', shown) : shown);
    };
    try {
      const { maxTokens } = this.#options;
      const options = { temperature: this.#temperature, maxTokens };
      const { content, finish, tokens, seconds } = await this.#client.answer(
        this.#messages(this.#alone ? [asked] : [...before, asked]),
        options,
        write,
        this.#stop.signal,
      );
      if (wrote) process.stdout.write('\n');
      if (finish === 'length') say('(cut off: the answer reached its most tokens)');
      if (this.#terminal)
        say(styleText('dim', `${tokens} tokens, ${(tokens / seconds).toFixed(0)} a second`));
      this.#turns = [...before, asked, { role: 'assistant', content }];
    } catch (error) {
      if (wrote) process.stdout.write('\n');
      if (!(error instanceof RetortError)) throw error;
      say(error.message);
    } finally {
      this.#stop = null;
    }
  }
}
