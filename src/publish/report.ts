// A report of runs: one HTML file with curves, completions, stages, memory and settings, to look at and to send.
import { dirname } from 'node:path';
import { writeFileAtomically } from '../checkpoint/atomic.js';
import { makeFolder } from '../checkpoint/files.js';
import { refuse } from '../errors.js';
import { reportPage } from './report-html.js';
import { readFolders } from './report-runs.js';
import { group } from './report-series.js';

export interface ReportOptions {
  /** Folders of runs and of pipelines; runs of the same command and options but their seed are shown as one. */
  readonly runs: readonly string[];
  /** The file to write, *.html; one that is there is replaced. */
  readonly out: string;
  /** Completions of each run that are shown at most, of steps evenly spread. Default 160. */
  readonly completions?: number;
}

export interface Report {
  readonly out: string;
  readonly bytes: number;
  readonly series: readonly { readonly name: string; readonly runs: readonly string[] }[];
}

/** Completions of each run, where nothing else is said. */
export const REPORT_COMPLETIONS = 160;

/**
 * Writes the report. Runs that are not finished are shown as far as they came.
 * @throws RetortError bad-input for a folder that is no run or files that are not as Retort writes them; storage
 * @example writeReport({ runs: ['runs-1', 'runs-2'], out: 'report.html' })
 */
export function writeReport({ runs, out, completions = REPORT_COMPLETIONS }: ReportOptions): Report {
  if (!/\.html?$/i.test(out)) throw refuse('bad-input', 'out', out, 'name a file that ends in .html');
  if (!Number.isInteger(completions) || completions < 0)
    throw refuse('bad-input', 'completions', completions, 'give a whole number, 0 for none');
  const folders = readFolders(runs, completions);
  const page = reportPage(folders);
  makeFolder(dirname(out));
  writeFileAtomically(out, page);
  const series = group(folders).series.map(({ name, runs: of }) => ({
    name,
    runs: of.map(({ dir }) => dir),
  }));
  return { out, bytes: Buffer.byteLength(page), series };
}
