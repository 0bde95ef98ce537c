// A server for tests: in this process, on a free port, with a folder that goes when the tests are over.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type RunningServer, type ServeOptions, startServer } from '../../src/serve/server.js';
import { COUNTDOWN_BASE } from './cli.js';
import { type Script, writeScriptedModel } from './scripted.js';

export interface TestServer extends RunningServer {
  readonly base: string;
  readonly folder: string;
  end(): Promise<void>;
}

/** Serves the countdown model as `countdown` by the template `terse`. */
export async function serveCountdown(options: Partial<ServeOptions> = {}): Promise<TestServer> {
  return serve({ models: [{ name: 'countdown', dir: COUNTDOWN_BASE }], template: 'terse', ...options });
}

/** Serves a model that says what the scripts say, as `scripted`. */
export async function serveScripts(
  scripts: Readonly<Record<string, Script>>,
  options: Partial<ServeOptions> & { readonly context?: number; readonly chatTemplate?: string } = {},
): Promise<TestServer> {
  const dir = mkdtempSync(join(tmpdir(), 'retort-scripted-'));
  const { context, chatTemplate: template, ...rest } = options;
  writeScriptedModel(join(dir, 'model'), scripts, { context, template });
  const server = await serve({ models: [{ name: 'scripted', dir: join(dir, 'model') }], ...rest });
  return {
    ...server,
    async end() {
      await server.end();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

export async function serve(
  options: Omit<ServeOptions, 'folder'> & Partial<ServeOptions>,
): Promise<TestServer> {
  const folder = options.folder ?? mkdtempSync(join(tmpdir(), 'retort-serve-'));
  const server = await startServer({ port: 0, threads: 1, maxSequences: 64, ...options, folder });
  return {
    ...server,
    base: `${server.url}/v1`,
    folder,
    async end() {
      await server.close();
      if (!options.folder) rmSync(folder, { recursive: true, force: true });
    },
  };
}
