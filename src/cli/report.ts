// retort report: one HTML file of runs, to look at in a browser.
import type { Command } from 'commander';
import { REPORT_COMPLETIONS, writeReport } from '../publish/report.js';
import { whole } from './flags.js';
import { bytes, type CommonOptions, printResult } from './terminal.js';

interface ReportFlags extends CommonOptions {
  readonly out: string;
  readonly completions: number;
}

export function addReport(program: Command): void {
  program
    .command('report')
    .description(
      'one HTML file of runs: curves with seeds as bands, completions, stages, memory; it loads nothing from elsewhere',
    )
    .argument(
      '<runs...>',
      'folders of runs, and of pipelines (retort r1); those that differ in the seed alone are one series',
    )
    .option('--out <file>', 'file to write; one that is there is replaced', 'report.html')
    .option('--completions <n>', 'completions of each run to show at most', whole(0), REPORT_COMPLETIONS)
    .action((runs: string[], o: ReportFlags) => {
      const report = writeReport({ runs, out: o.out, completions: o.completions });
      const of = report.series.map(
        ({ name, runs }) => `${name} (${runs.length === 1 ? '1 run' : `${runs.length} runs`})`,
      );
      printResult(o, report, () => `${report.out}, ${bytes(report.bytes)}: ${of.join('; ')}`);
    });
}
