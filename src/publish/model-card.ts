// The model card: what a run's records say of its model, in the form that the Hugging Face hub shows. A number that the
// records do not hold is said to be missing.
import { basename } from 'node:path';
import { familyOf } from '../checkpoint/config-json.js';
import type { LlamaConfig } from '../model/config.js';
import { parameterCount } from '../model/config.js';
import { commandLine } from '../train/option-flags.js';
import type { Accuracies, Records } from './records.js';

export interface Card {
  readonly name: string;
  readonly licence: string;
  readonly licenceLink: string | null;
  /** Where the data comes from, in the publisher's words; null where Retort made it. */
  readonly dataOrigin: string | null;
  readonly records: Records;
  readonly config: LlamaConfig;
}

/** The text of README.md. */
export function modelCard(card: Card): string {
  const sections = [
    head(card),
    `# ${card.name}\n\n${what(card)}`,
    recipe(card),
    data(card),
    results(card),
    limits(card),
    licence(card),
  ];
  return `${sections.join('\n\n')}\n`;
}

function head({ licence, licenceLink, records: { base, config } }: Card): string {
  const isIdentifier = /^[a-z0-9.-]+$/i.test(licence);
  const lines = [
    isIdentifier
      ? `license: ${licence.toLowerCase()}`
      : `license: other\nlicense_name: ${JSON.stringify(licence)}`,
    ...(licenceLink === null ? [] : [`license_link: ${JSON.stringify(licenceLink)}`]),
    ...(base?.hub ? [`base_model: ${base.hub.repository}`] : []),
    'library_name: transformers',
    'pipeline_tag: text-generation',
    `tags:\n- retort\n- ${config.command}`,
  ];
  return `---\n${lines.join('\n')}\n---`;
}

function what({ records, config }: Card): string {
  const { base, config: run, task } = records;
  const from =
    base === null
      ? 'made from nothing'
      : base.hub
        ? `made from ${base.hub.repository} at commit ${base.hub.commit}`
        : `made from the model "${base.name}"`;
  const learned = task ? ` on the task ${task.name}` : '';
  const sizes = `${familyOf(config).architecture}, ${whole(parameterCount(config))} parameters, context of ${whole(config.maxPositionEmbeddings)} tokens`;
  return `${sizes}; ${from} by \`retort ${run.command}\`${learned} with Retort ${run.version}.`;
}

function recipe({ records: { config, summary } }: Card): string {
  const { command, options, seed, version, target, threads } = config;
  // Other machines have other folders.
  const line = commandLine(command, options, (name, value) =>
    isPath(name) || (name === 'teacher' && options.endpoint === undefined) ? basename(value) : value,
  );
  const rows: [string, string | undefined][] = [
    ['seed', String(seed)],
    ['steps', whole(summary.steps)],
    [summary.trainedTokens === undefined ? 'tokens read' : 'tokens generated', count(summary.tokens)],
    ['tokens trained on', count(summary.trainedTokens)],
    ['seconds', count(summary.seconds)],
    ['Retort', version],
    ['target, threads', `${JSON.stringify(target)}, ${threads}`],
  ];
  const known = rows.filter((row): row is [string, string] => row[1] !== undefined);
  return `## Recipe\n\n\`\`\`sh\n${line}\n\`\`\`\n\n${table(['', ''], known)}`;
}

const PATHS = ['model', 'answers', 'criticModel', 'tokenizer', 'data', 'evalData', 'out', 'save'];
const isPath = (name: string) => PATHS.includes(name);

function data({ dataOrigin, records: { task, files, config, ownData } }: Card): string {
  const lines: string[] = [];
  if (task) lines.push(`Task ${task.name}${task.description ? `: ${task.description}` : ''}.`);
  if (ownData)
    lines.push(
      `Its problems are made by Retort ${config.version} from the seed ${config.seed}; those of the held-out split are not learned from.`,
    );
  const { teacher, endpoint } = config.options;
  if (typeof teacher === 'string')
    lines.push(
      endpoint === undefined
        ? `It learned from the model "${basename(teacher)}".`
        : `It learned from answers of "${teacher}" at ${endpoint}; whoever ran it declared that the provider's terms allow training on them.`,
    );
  if (dataOrigin !== null) lines.push(`Origin, as the publisher states it: ${dataOrigin}`);
  const rows = files.map(({ name, bytes, sha256 }): [string, string, string] => [
    name,
    whole(bytes),
    `\`${sha256}\``,
  ]);
  if (rows.length > 0) lines.push(table(['file', 'bytes', 'SHA-256'], rows));
  return `## Data\n\n${lines.join('\n\n')}`;
}

function results({ records: { summary, config } }: Card): string {
  const { before, after, evalLoss } = summary;
  const lines: string[] = [];
  if (before && after) {
    const row = (name: string, a: Accuracies): [string, string, string] => [
      name,
      share(a.greedy, a.greedyCi95),
      share(a.sampled, a.sampledCi95),
    ];
    lines.push(
      table(
        ['accuracy on held-out problems', 'greedy', 'sampled at temperature 1'],
        [row('before', before), row('after', after)],
      ),
      `One completion of each of ${config.options.evalProblems} held-out problems; in brackets the 95% interval over problems. ` +
        'One run with one seed: the spread over seeds is not in these intervals.',
    );
  }
  if (typeof evalLoss === 'number')
    lines.push(`Loss on held-out data after training: ${evalLoss.toFixed(4)}.`);
  if (lines.length === 0) lines.push('The run measured nothing on held-out problems.');
  return `## Results\n\n${lines.join('\n\n')}`;
}

function limits({ config, records: { task, summary, config: run } }: Card): string {
  const { template } = run.options;
  const prompts = template
    ? `Prompts were written by the template ${template}; others were not tried.`
    : "Prompts were written by the task's own template, or as the data has them; others were not tried.";
  const failures = Object.entries(summary.rewardFailures ?? {}).filter(([, times]) => times > 0);
  const lines = [
    `- ${task ? `It was trained for the task ${task.name}` : 'It was trained on the data above'} and measured on nothing else than what stands under Results.`,
    `- Prompts and completions together have at most ${whole(config.maxPositionEmbeddings)} tokens. ${prompts}`,
    '- Nothing was done to make its answers safe or fair, and nothing of that kind was measured.',
    ...failures.map(
      ([name, times]) =>
        `- The reward ${name} failed ${times} times in training; those completions were not scored by it.`,
    ),
  ];
  return `## Limits\n\n${lines.join('\n')}`;
}

function licence({ licence, licenceLink, records: { base } }: Card): string {
  const link = licenceLink === null ? '' : ` (${licenceLink})`;
  const files = Object.keys(base?.texts ?? {});
  const of = base?.licence
    ? `, that of ${base.name}, which it was made from`
    : ', as the publisher states it';
  return `## Licence\n\n${licence}${link}${of}.${files.length > 0 ? ` See ${files.join(', ')}.` : ''}`;
}

const whole = (n: number) => Math.round(n).toLocaleString('en-US');
const count = (n: number | undefined) => (n === undefined ? undefined : whole(n));
const percent = (x: number) => `${(100 * x).toFixed(1)}%`;
const share = (x: number, [low, high]: readonly number[]) =>
  `${percent(x)} (${percent(low!)} to ${percent(high!)})`;

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}
