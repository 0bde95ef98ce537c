// Which files of a repository a model needs. Weights are taken as safetensors or GGUF, never as pickle files: those can
// run code when they are read.
import { RetortError, refuse } from '../errors.js';

/** A file of a repository. */
export interface RemoteFile {
  readonly path: string;
  readonly size: number;
  /** Of large files: the SHA-256 of their content. */
  readonly lfs?: { readonly oid: string };
  /** Of others: the git hash of their content. */
  readonly oid?: string;
}

const PICKLE = /\.(bin|pt|pth|ckpt|pkl|pickle)$/;

/** Read before the weights: they say whether the model can be run. */
const REQUIRED = ['config.json', 'tokenizer.json'];
/** Small files that say more of the model, and its licence and card, for those who publish what they make of it. */
const WELCOME =
  /^(generation_config\.json|tokenizer_config\.json|special_tokens_map\.json|chat_template\.(jinja|json)|README\.md|(LICEN[CS]E|NOTICE|USE_POLICY)[\w.-]*)$/i;

export interface FileChoice {
  /** Everything but the weights. */
  readonly small: readonly RemoteFile[];
  /** The weights in one file, or the index that names their files. */
  readonly weights: RemoteFile;
  readonly isIndex: boolean;
}

/**
 * What of a repository's files makes a model.
 * @param gguf name of a GGUF file to take instead of the safetensors
 * @throws RetortError bad-input where a file is missing or only pickle files hold weights
 */
export function chooseFiles(name: string, files: readonly RemoteFile[], gguf?: string): FileChoice {
  const find = (path: string) => files.find((file) => file.path === path);
  const ggufs = files.filter(({ path }) => path.endsWith('.gguf')).map(({ path }) => path);
  const welcome = files.filter(({ path }) => WELCOME.test(path));
  if (gguf !== undefined) {
    const weights = find(gguf);
    if (weights && ggufs.includes(gguf)) return { small: welcome, weights, isIndex: false };
    throw refuse('bad-input', `GGUF file of ${name}`, gguf, `it has ${ggufs.join(', ') || 'none'}`);
  }
  const whole = find('model.safetensors');
  const weights = whole ?? find('model.safetensors.index.json');
  if (!weights) throw new RetortError('bad-input', `${name} ${withoutSafetensors(files, ggufs)}`);
  const small = REQUIRED.map((path) => {
    const file = find(path);
    if (file) return file;
    throw new RetortError(
      'bad-input',
      `${name} has no ${path}: name a repository in the layout of transformers`,
    );
  });
  return { small: [...small, ...welcome], weights, isIndex: !whole };
}

function withoutSafetensors(files: readonly RemoteFile[], ggufs: readonly string[]): string {
  if (ggufs.length > 0) return `has GGUF files alone: choose one with --file: ${ggufs.join(', ')}`;
  const pickle = files.find(({ path }) => PICKLE.test(path));
  if (!pickle) return 'holds no model: there is neither model.safetensors nor an index of it';
  return `holds its weights only as pickle files (${pickle.path}), which can run code when they are read: name one with safetensors`;
}

/** The files of an index. @throws RetortError bad-model for names that are no files of the same folder */
export function shardsOf(
  index: { readonly weight_map: Readonly<Record<string, string>> },
  files: readonly RemoteFile[],
): RemoteFile[] {
  return [...new Set(Object.values(index.weight_map))].map((path) => {
    const file = files.find((one) => one.path === path);
    if (file && /^[\w.-]+\.safetensors$/.test(path)) return file;
    throw refuse('bad-model', 'model.safetensors.index.json: shard', path, 'the repository has no such file');
  });
}
