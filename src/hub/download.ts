// One file from the hub into the cache: goes on where a former attempt ended, and is there only once its hash is right.
import { createHash, type Hash } from 'node:crypto';
import fs from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { downloadFile } from '@huggingface/hub';
import { storageError, syncFolder, writeAll } from '../checkpoint/atomic.js';
import { systemCode } from '../checkpoint/files.js';
import { RetortError } from '../errors.js';
import type { RemoteFile } from './choose-files.js';
import { type Hub, hubError } from './hub.js';

/** Where a repository's files go: `blobs` by hash, `snapshots/COMMIT/NAME` pointing to them, `refs/NAME`. */
export interface Place {
  readonly hub: Hub;
  readonly repository: string;
  readonly commit: string;
  /** Folder of the repository in the cache. */
  readonly folder: string;
  readonly fetch: typeof fetch;
  readonly signal?: AbortSignal;
}

/** Attempts after a failure of the network, and how long to wait before each, in milliseconds. */
const WAITS = [500, 2000, 8000, 30_000];

/** Where a file's content goes, and where the snapshot points to it. @throws RetortError bad-model for what is no name */
function pathsOf({ repository, folder, commit }: Place, { path, lfs, oid }: RemoteFile) {
  const hash = lfs?.oid ?? oid;
  // Both become names of files here.
  if (!/^[\w.-]+$/.test(path) || hash === undefined || !/^[0-9a-f]{40,64}$/.test(hash))
    throw new RetortError(
      'bad-model',
      `${repository} has the file ${JSON.stringify(path)} with the hash ${hash}: it cannot be stored`,
    );
  const blob = join(folder, 'blobs', hash);
  return { blob, partial: `${blob}.incomplete`, pointer: join(folder, 'snapshots', commit, path) };
}

/** Bytes of a file that are still to be fetched. */
export function bytesLeft(place: Place, file: RemoteFile): number {
  const { blob, partial, pointer } = pathsOf(place, file);
  if (fs.existsSync(pointer) || fs.existsSync(blob)) return 0;
  const begun = fs.statSync(partial, { throwIfNoEntry: false })?.size ?? 0;
  return Math.max(0, file.size - begun);
}

/**
 * Makes the file be in the snapshot and gives its path.
 * @param onBytes is told of bytes that came in, and of those that were there already
 * @throws RetortError network, bad-model for content that has another hash, storage, interrupted
 */
export async function ensureFile(
  place: Place,
  file: RemoteFile,
  onBytes: (bytes: number) => void,
): Promise<string> {
  const { blob, partial, pointer } = pathsOf(place, file);
  if (!fs.existsSync(pointer)) {
    if (fs.existsSync(blob)) onBytes(file.size);
    else await fetchBlob(place, file, blob, partial, onBytes);
    point(pointer, blob);
  } else onBytes(file.size);
  return pointer;
}

async function fetchBlob(
  place: Place,
  file: RemoteFile,
  blob: string,
  partial: string,
  onBytes: (bytes: number) => void,
): Promise<void> {
  fs.mkdirSync(dirname(blob), { recursive: true });
  let counted = 0;
  const count = (bytes: number) => {
    counted += bytes;
    onBytes(bytes);
  };
  for (let attempt = 0; ; ) {
    const resumed = fs.existsSync(partial);
    try {
      if (await fetchRest(place, file, partial, blob, count)) break;
      // What was there before may have been another's; once more from the beginning.
      fs.rmSync(partial);
      if (!resumed) throw wrongHash(place, file);
    } catch (error) {
      const failure = place.signal?.aborted
        ? new RetortError(
            'interrupted',
            `stopped while ${file.path} was fetched; the same command goes on from there`,
          )
        : hubError(
            storageError(error, partial, 'what was fetched so far stays'),
            `${place.repository}: ${file.path}`,
            place.hub,
          );
      if (failure.code !== 'network' || attempt >= WAITS.length) throw failure;
      await setTimeout(WAITS[attempt++], undefined, { signal: place.signal }).catch(() => {});
    }
    onBytes(-counted);
    counted = 0;
  }
  fs.renameSync(partial, blob);
  syncFolder(dirname(blob));
}

function wrongHash({ repository, hub }: Place, { path }: RemoteFile): RetortError {
  return new RetortError(
    'bad-model',
    `${repository}: ${path} as ${hub.url} sends it does not have the hash that it should; try again later`,
  );
}

/** Appends what is missing of a file; gives whether the whole has the right hash. */
async function fetchRest(
  { hub, repository, commit, fetch, signal }: Place,
  file: RemoteFile,
  partial: string,
  blob: string,
  onBytes: (bytes: number) => void,
): Promise<boolean> {
  const hash = hashOf(file);
  const fd = fs.openSync(partial, 'a+');
  try {
    const there = await hashPartial(fd, hash, signal);
    if (there > file.size) return false;
    onBytes(there);
    if (there < file.size) {
      // Over plain HTTP: the newer protocol gives no more where a file is read once from end to end.
      const content = await downloadFile({
        repo: repository,
        path: file.path,
        revision: commit,
        hubUrl: hub.url,
        accessToken: hub.token,
        xet: false,
        fetch,
      });
      if (!content)
        throw new RetortError('bad-input', `${repository} has no file ${file.path} any more; try again`);
      let size = there;
      for await (const bytes of (there > 0
        ? content.slice(there)
        : content
      ).stream() as unknown as AsyncIterable<Uint8Array>) {
        size += bytes.length;
        // A server that does not know ranges sends everything again.
        if (size > file.size) return false;
        hash.update(bytes);
        writeAll(fd, bytes);
        onBytes(bytes.length);
      }
      if (size < file.size) throw new TypeError(`the connection ended after ${size} of ${file.size} bytes`);
    }
    fs.fsyncSync(fd);
    return hash.digest('hex') === basename(blob);
  } finally {
    fs.closeSync(fd);
  }
}

/** SHA-256 for files of Git LFS; for others git's own hash, which begins with the size. */
function hashOf({ lfs, size }: RemoteFile): Hash {
  return lfs ? createHash('sha256') : createHash('sha1').update(`blob ${size}\0`);
}

async function hashPartial(fd: number, hash: Hash, signal?: AbortSignal): Promise<number> {
  const buffer = new Uint8Array(1 << 22);
  let position = 0;
  for (;;) {
    const read = fs.readSync(fd, buffer, 0, buffer.length, position);
    if (read === 0) return position;
    hash.update(buffer.subarray(0, read));
    position += read;
    await setTimeout(0);
    signal?.throwIfAborted();
  }
}

/** A link to the blob; where the file system has none, a copy. */
function point(pointer: string, blob: string): void {
  fs.mkdirSync(dirname(pointer), { recursive: true });
  try {
    fs.symlinkSync(relative(dirname(pointer), blob), pointer);
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return;
    fs.copyFileSync(blob, pointer);
  }
}
