// The version of the package, as package.json has it.
import { readFileSync } from 'node:fs';

/** Folder of the installed package: where its models lie. */
export const packageFolder = new URL('../../', import.meta.url);

export const VERSION: string = (
  JSON.parse(readFileSync(new URL('package.json', packageFolder), 'utf8')) as { version: string }
).version;
