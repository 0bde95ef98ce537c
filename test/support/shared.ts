// What lies beside the checkout on a machine that develops it, for tests that skip where it is not there.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../..', import.meta.url));

/** A folder beside the checkout, or one level further up beside a work tree. */
function beside(path: string): string | undefined {
  return ['../shared', '../../shared'].map((shared) => join(root, shared, path)).find(existsSync);
}

/** A pretrained model with a SentencePiece-like tokenizer, and why it is not here. */
export const stories = beside('models/stories260K');
export const noStories = stories === undefined && 'the model stories260K is not beside this checkout';

/** The GSM8K data set, and why it is not here. */
export const gsm8k = beside('data/gsm8k');
export const noGsm8k = gsm8k === undefined && 'the data set gsm8k is not beside this checkout';
