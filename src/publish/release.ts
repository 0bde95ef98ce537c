// The folder that one would publish of a run: weights, tokenizer, licence of the base, model card.
import fs from 'node:fs';
import { basename, resolve } from 'node:path';
import { readModelFolder } from '../checkpoint/folder.js';
import type { FloatType } from '../checkpoint/safetensors.js';
import { RetortError, refuse } from '../errors.js';
import { exportFolder } from './export.js';
import { modelCard } from './model-card.js';
import { type Records, readRecords } from './records.js';

export interface ReleaseOptions {
  /** Folder of a finished run. */
  readonly run: string;
  /** New or empty folder. */
  readonly out: string;
  /** Default: the name of `out`. */
  readonly name?: string;
  /** Identifier of the licence, where the model that the run began with states none. */
  readonly licence?: string;
  /** Where the data comes from, needed unless Retort made it. */
  readonly dataOrigin?: string;
  readonly type?: FloatType;
}

/**
 * Writes the folder whole or not at all. What the card must say and the run does not hold has to be given.
 * @throws RetortError bad-input naming what is missing, bad-model, storage
 */
export function releaseRun({ run, out, name, licence, dataOrigin, type = 'F32' }: ReleaseOptions): {
  readonly files: string[];
} {
  const records = readRecords(run);
  const licenceName = licenceOf(records, licence);
  const origin = originOf(records, dataOrigin);
  const model = readModelFolder(records.model);
  try {
    const card = modelCard({
      name: name ?? basename(resolve(out)),
      licence: licenceName,
      licenceLink: records.base?.licence ? records.base.licenceLink : null,
      dataOrigin: origin,
      records,
      config: model.config,
    });
    exportFolder(model, { out, type, texts: { ...records.base?.texts, 'README.md': card } });
  } finally {
    model.close();
  }
  return { files: fs.readdirSync(out).sort() };
}

/** The base's licence goes on to what is made of it. */
function licenceOf({ base }: Records, given: string | undefined): string {
  if (base?.licence) {
    if (given === undefined || given.toLowerCase() === base.licence.toLowerCase()) return base.licence;
    throw refuse(
      'bad-input',
      'licence',
      given,
      `${base.name}, which the run began with, is under ${base.licence}: leave it out`,
    );
  }
  if (given !== undefined) return given;
  const why = base
    ? `${base.name}, which the run began with, states none`
    : 'the run made its model from nothing';
  throw new RetortError(
    'bad-input',
    `the release needs a licence, and ${why}: give --license, apache-2.0 for instance`,
  );
}

function originOf({ ownData, files, task }: Records, given: string | undefined): string | null {
  if (given !== undefined) return given;
  if (ownData) return null;
  const what = files.length > 0 ? files.map(({ name }) => name).join(', ') : `the task ${task?.name}`;
  throw new RetortError(
    'bad-input',
    `the run does not hold where its data (${what}) comes from: give --data-origin TEXT`,
  );
}
