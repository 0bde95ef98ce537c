// The licence of the model that a run began with, as its folder or file states it. Nothing is guessed.
import fs from 'node:fs';
import { basename, join } from 'node:path';
import { readOptionalTextFile } from '../checkpoint/files.js';
import { openGguf } from '../checkpoint/gguf.js';
import { metadataReader } from '../checkpoint/gguf-metadata.js';
import { isGgufPath } from '../checkpoint/open-model.js';

export interface Base {
  /** As one would name it: ORG/NAME of a model from the hub, else the name of its folder or file. */
  readonly name: string;
  /** ORG/NAME and the commit, where it lies in the hub's cache. */
  readonly hub: { readonly repository: string; readonly commit: string } | null;
  /** Identifier of the licence as it states it. */
  readonly licence: string | null;
  readonly licenceLink: string | null;
  /** Texts of its licence and notices, by file name. */
  readonly texts: Readonly<Record<string, string>>;
}

const LICENCE_FILE = /^(LICEN[CS]E|NOTICE|USE_POLICY)[\w.-]*$/i;

/**
 * What the model at a path states of itself.
 * @throws RetortError bad-model, bad-input where there is none
 */
export function describeBase(path: string): Base {
  const cached = /models--([^/\\]+?)--([^/\\]+)[/\\]snapshots[/\\]([0-9a-f]{40})/.exec(path);
  const hub = cached && { repository: `${cached[1]}/${cached[2]}`, commit: cached[3]! };
  const name = hub?.repository ?? basename(path);
  if (isGgufPath(path)) {
    const file = openGguf(path);
    file.close();
    const meta = metadataReader(file.metadata, path);
    const licence = meta.optionalString('general.license') ?? null;
    return {
      name,
      hub,
      licence,
      licenceLink: meta.optionalString('general.license.link') ?? null,
      texts: {},
    };
  }
  const read = (file: string) => readOptionalTextFile(join(path, file), 'bad-model', 'make it readable');
  const card = read('README.md') ?? '';
  const texts = Object.fromEntries(
    fs
      .readdirSync(path)
      .filter((file) => LICENCE_FILE.test(file))
      .map((file) => [file, read(file) ?? '']),
  );
  // "other" says that the name is in the next field.
  const stated = cardField(card, 'license');
  const licence = stated === 'other' ? (cardField(card, 'license_name') ?? stated) : stated;
  return { name, hub, licence, licenceLink: cardField(card, 'license_link'), texts };
}

/** A field of the YAML at the head of a model card that has one word or one quoted text for its value. */
function cardField(card: string, field: string): string | null {
  const head = /^---\r?\n([\s\S]*?)\r?\n---/.exec(card)?.[1] ?? '';
  const value = new RegExp(`^${field}:[ \\t]*(\\S[^\\r\\n]*)$`, 'm').exec(head)?.[1]?.trim();
  return value?.replace(/^(['"])(.*)\1$/, '$2') ?? null;
}
