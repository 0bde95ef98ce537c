// retort generate: text from a model.
import type { Command } from 'commander';
import type { SamplingDefaults } from '../checkpoint/stored-model.js';
import { createDevice } from '../compute/device/device.js';
import { refuse } from '../errors.js';
import { createEngine } from '../rollout/engine.js';
import { generateAll } from '../rollout/generate.js';
import { repetitionPenalty } from '../rollout/repetition.js';
import { getTemplate } from '../text/template.js';
import { loadPolicy } from '../train/policy.js';
import {
  addDtypes,
  addSampling,
  addSeed,
  addThreads,
  type DtypeFlags,
  modelDtype,
  number,
  repeatable,
  whole,
} from './flags.js';
import { stopSignal } from './stop.js';
import { type CommonOptions, printable, printResult } from './terminal.js';

interface GenerateFlags extends CommonOptions, DtypeFlags {
  readonly model: string;
  readonly prompt: string;
  readonly template: string;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly repetitionPenalty: number;
  readonly maxTokens: number;
  readonly stop?: string[];
  readonly seed: number;
  readonly threads?: number;
}

export function addGenerate(program: Command): void {
  const command = program
    .command('generate')
    .description('text from a model; an empty prompt is the beginning of a sequence')
    .requiredOption('--model <path>', 'folder or GGUF file of the model')
    .option('--prompt <text>', 'what the model goes on from', '')
    .option('--template <name>', 'prompt template around the prompt: raw, terse, r1, r1-think, chat', 'raw')
    .option(
      '--temperature <t>',
      'sampling temperature; 0 takes the likeliest token. Here and below: what the model asks for, else',
      number(0, 100),
      1,
    )
    .option('--max-tokens <n>', 'most tokens', whole(1), 256)
    .action(generate);
  repeatable(command, '--stop <text>', 'a string that ends the text');
  addSampling(command);
  command.option(
    '--repetition-penalty <p>',
    'makes tokens of the text so far less likely; 1 does not',
    number(0.01, 100),
    1,
  );
  addSeed(command, 'the sampling');
  addDtypes(command);
  addThreads(command);
}

async function generate(o: GenerateFlags, command: Command): Promise<void> {
  const device = createDevice({ threads: o.threads });
  try {
    const policy = loadPolicy(o.model, device, { trainable: false, dtype: modelDtype(o) });
    const { llama, tokenizer } = policy;
    const template = getTemplate(o.template, tokenizer);
    const text = template.render(o.prompt);
    let promptIds =
      text === '' ? [] : tokenizer.encode(text, { addSpecialTokens: template.addSpecialTokens });
    if (promptIds.length === 0) {
      const start = tokenizer.bosTokenId ?? llama.config.bosTokenId;
      if (start === null)
        throw refuse(
          'bad-input',
          'prompt',
          o.prompt,
          'the model has no beginning-of-sequence token: give a prompt',
        );
      promptIds = [start];
    }
    const context = llama.config.maxPositionEmbeddings;
    const engine = createEngine(policy, {
      maxSequences: 1,
      maxLength: Math.min(context, promptIds.length + o.maxTokens),
      prefillTokens: context,
      kvCacheDtype: o.kvCacheDtype,
    });
    const stream = tokenizer.stream({ skipSpecialTokens: true });
    // With stop strings the text is only known once it is certain that none has begun.
    const streaming = !o.json && !o.stop;
    const write = (piece: string) => process.stdout.write(process.stdout.isTTY ? printable(piece) : piece);
    const { maxTokens, stop, seed } = o;
    const sampling = (name: keyof SamplingDefaults) =>
      (command.getOptionValueSource(name) === 'default' ? policy.sampling?.[name] : undefined) ?? o[name];
    const [temperature, topK, topP, minP] = (['temperature', 'topK', 'topP', 'minP'] as const).map(sampling);
    const penalty = sampling('repetitionPenalty');
    const control = penalty === 1 ? undefined : () => repetitionPenalty(penalty, promptIds);
    const [[completion]] = await generateAll(
      engine,
      [{ promptIds, temperature, topK, topP, minP, maxTokens, stop, seed, problem: 0, control }],
      {
        signal: stopSignal.signal,
        onTokens: (tokens) => {
          if (streaming) for (const { id } of tokens) write(stream.push(id));
        },
      },
    );
    if (streaming) {
      write(`${stream.end()}\n`);
      return;
    }
    const { ids, logprobs, finishReason } = completion;
    printResult(o, { text: completion.text, tokenIds: ids, logprobs, finishReason }, () => completion.text);
  } finally {
    await device.close();
  }
}
