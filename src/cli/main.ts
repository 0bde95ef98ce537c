#!/usr/bin/env node
// The command `retort`: parses the line, runs the verb, and turns errors into messages and exit codes.
import { Command, CommanderError } from 'commander';
import { RetortError } from '../errors.js';
import { VERSION } from '../version.js';
import { addBench } from './bench.js';
import { addChat } from './chat.js';
import { addDemo } from './demo.js';
import { addDistill } from './distill.js';
import { addEval } from './eval.js';
import { addExport } from './export.js';
import { addGenerate } from './generate.js';
import { addGrpo } from './grpo.js';
import { addKeys } from './keys.js';
import { addPlan } from './plan.js';
import { addPpo } from './ppo.js';
import { addPull } from './pull.js';
import { addR1 } from './r1.js';
import { addRelease } from './release.js';
import { addReport } from './report.js';
import { addResume } from './resume.js';
import { addSample } from './sample.js';
import { addScore } from './score.js';
import { addServe } from './serve.js';
import { stopSignal } from './stop.js';
import { addSupervised } from './supervised.js';
import { addTasks } from './tasks.js';
import { say } from './terminal.js';
import { addUsage } from './usage.js';

const program = new Command('retort')
  .description('Make reasoning language models by the recipe of DeepSeek-R1, on the machine you have.')
  .version(VERSION)
  .showSuggestionAfterError()
  .exitOverride()
  .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'retort: ')) });

for (const add of [
  addDemo,
  addGrpo,
  addPpo,
  addR1,
  addSupervised,
  addDistill,
  addPlan,
  addSample,
  addEval,
  addGenerate,
  addPull,
  addExport,
  addRelease,
  addReport,
  addResume,
  addTasks,
  addScore,
  addServe,
  addChat,
  addKeys,
  addUsage,
  addBench,
]) {
  add(program);
}
for (const command of program.commands.flatMap((c) => [c, ...c.commands])) {
  command.exitOverride().showSuggestionAfterError();
  command
    .option(
      '--json',
      command.name() === 'score'
        ? 'changes nothing: standard output is lines of JSON in any case'
        : 'print one JSON object as the last line of standard output',
    )
    .option('--debug', 'show where an error came from');
}

process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // The reader of a pipe left, `head` for instance: nothing more is to be said.
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

const INTERRUPTED = 130;

try {
  await program.parseAsync();
  // Signal handlers and idle workers must not keep the process.
  stopSignal.release();
} catch (error) {
  stopSignal.release();
  process.exitCode = exitCodeOf(error);
}

function exitCodeOf(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  const debug = process.argv.includes('--debug');
  const detail = debug && error instanceof Error ? `\n${error.stack ?? ''}${causeOf(error)}` : '';
  if (error instanceof RetortError) {
    say(`retort: ${error.message}${detail}`);
    return error.code === 'interrupted' ? INTERRUPTED : 2;
  }
  say(
    `retort: unexpected error: ${error instanceof Error ? error.message : String(error)}${detail || '; run again with --debug to see where'}`,
  );
  return 1;
}

function causeOf(error: Error): string {
  return error.cause instanceof Error ? `\ncaused by ${error.cause.stack ?? error.cause.message}` : '';
}
