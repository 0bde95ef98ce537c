// Loads an export from a user's module: found, imported, or refused with the remedy.
import { existsSync } from 'node:fs';
import { extname, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { RetortError, refuse } from '../errors.js';
import type { ModuleReference } from './reward.js';

/** Whether a word means a module and not a shipped name: `./my-task.js`, `/a/b.mjs`, `lib/task.js#parity`. */
export function isModulePath(word: string): boolean {
  return /[\\/]/.test(word) || /\.[cm]?[jt]sx?(#\w+)?$/.test(word);
}

/**
 * Reads `path` or `path#exportName`; a relative path starts at the working directory.
 *
 * @throws RetortError (bad-input) for a missing file, or for TypeScript that has not been compiled.
 */
export function moduleReference(
  word: string,
  options: Readonly<Record<string, unknown>> = {},
): ModuleReference {
  const hash = word.lastIndexOf('#');
  const file = hash < 0 ? word : word.slice(0, hash);
  const path = resolve(file);
  if (/^\.[cm]?tsx?$/.test(extname(path))) {
    throw refuse('bad-input', 'module is TypeScript', file, 'compile it first and give the JavaScript file');
  }
  if (!existsSync(path)) {
    throw refuse('bad-input', 'module not found', file, `there is no file ${path}`);
  }
  return { path, exportName: hash < 0 ? null : word.slice(hash + 1), options };
}

/**
 * Imports the export that a reference means: the one it names, else the one with the usual name (`task`, `reward`),
 * else the only one.
 *
 * @throws RetortError (bad-input) where the import fails or there is no such export.
 */
export async function importExport({ path, exportName }: ModuleReference, usual: string): Promise<unknown> {
  let exports: Record<string, unknown>;
  try {
    exports = (await import(pathToFileURL(path).href)) as Record<string, unknown>;
  } catch (cause) {
    const why = cause instanceof Error ? `${cause.name}: ${cause.message}` : String(cause);
    throw new RetortError(
      'bad-input',
      `module ${path} cannot be loaded: ${why}; mend it, or try: node ${path}`,
      {
        cause,
      },
    );
  }
  const names = Object.keys(exports);
  const name = exportName ?? (names.includes(usual) || names.length !== 1 ? usual : names[0]);
  if (!names.includes(name)) {
    const remedy = `it exports ${names.join(', ') || 'nothing'}; export ${usual}, or name one: ${path}#NAME`;
    throw refuse('bad-input', `module ${path} has no export of the name`, name, remedy);
  }
  return exports[name];
}
