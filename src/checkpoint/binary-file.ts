// A binary file open for reading by position, every failure of the system an error that names the file.
import fs from 'node:fs';
import { RetortError, refuse } from '../errors.js';
import { fileProblem } from './files.js';

export interface BinaryFile {
  readonly path: string;
  /** Bytes of the file when it was opened. */
  readonly size: number;
  /**
   * Fills `bytes` from `position` on.
   * @throws RetortError `bad-model` where the disk fails or the file has become shorter
   */
  read(bytes: Uint8Array, position: number): void;
  close(): void;
}

/**
 * Opens a file of a model.
 * @param remedy what the user can do where that fails
 * @throws RetortError `bad-model`
 */
export function openBinaryFile(path: string, remedy: string): BinaryFile {
  const unreadable = (error: unknown) =>
    new RetortError('bad-model', `cannot read ${path}: ${fileProblem(error)}; ${remedy}`, { cause: error });
  let fd: number;
  let size: number;
  try {
    // A folder opens, and a pipe would block for ever; both hold no tensors.
    const stat = fs.statSync(path);
    if (!stat.isFile())
      throw new RetortError('bad-model', `cannot read ${path}: it is not a file; ${remedy}`);
    size = stat.size;
    fd = fs.openSync(path, 'r');
  } catch (error) {
    throw error instanceof RetortError ? error : unreadable(error);
  }
  return {
    path,
    size,
    read(bytes, position) {
      for (let done = 0; done < bytes.length; ) {
        let read: number;
        try {
          read = fs.readSync(fd, bytes, done, bytes.length - done, position + done);
        } catch (error) {
          throw unreadable(error);
        }
        if (read === 0)
          throw new RetortError(
            'bad-model',
            `${path} was cut while it was read, at byte ${position + done}; ${remedy}`,
          );
        done += read;
      }
    },
    close: () => fs.closeSync(fd),
  };
}

/** @throws RetortError `bad-model` where the file has no such tensor */
export function tensorNamed<T>(tensors: ReadonlyMap<string, T>, name: string, path: string): T {
  const tensor = tensors.get(name);
  if (tensor === undefined)
    throw refuse('bad-model', `tensor to read from ${path}`, name, 'the file has no tensor of this name');
  return tensor;
}

/** @throws RetortError `bad-model` where memory and tensor do not have as many elements */
export function checkLength(into: ArrayLike<number>, count: number, name: string, path: string): void {
  if (into.length !== count)
    throw refuse(
      'bad-model',
      `memory for tensor ${name} of ${path}`,
      into.length,
      `it has ${count} elements`,
    );
}
