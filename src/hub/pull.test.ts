// Pulling from a local server that answers as the hub does: what is fetched, resumed, checked and refused.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { COMMIT, type HubServer, openHubServer } from '../../test/support/hub-server.js';
import { noise } from '../../test/support/op.js';
import { writeModelFolder } from '../checkpoint/folder.js';
import { openModel } from '../checkpoint/open-model.js';
import { openSafetensors, writeSafetensors } from '../checkpoint/safetensors.js';
import { RetortError } from '../errors.js';
import { elementCount, parameterShapes } from '../model/config.js';
import { exportModel } from '../publish/export.js';
import { buildCharTokenizer } from '../text/char-tokenizer.js';
import { loadTokenizer } from '../text/tokenizer.js';
import { hubOf } from './hub.js';
import { pullModel } from './pull.js';

let scratch: string;
let server: HubServer;
beforeEach(async () => {
  scratch = fs.mkdtempSync(join(tmpdir(), 'retort-pull-'));
  server = await openHubServer(modelFiles());
});
afterEach(async () => {
  await server.close();
  fs.rmSync(scratch, { recursive: true, force: true });
});

/** A small model's files, and others that no model needs. */
function modelFiles(): Record<string, Buffer> {
  const tokenizer = buildCharTokenizer({ characters: 'abc' });
  const config = {
    vocabSize: tokenizer.vocabSize,
    hiddenSize: 32,
    intermediateSize: 40,
    numHiddenLayers: 2,
    numAttentionHeads: 2,
    numKeyValueHeads: 1,
    headDim: 16,
    maxPositionEmbeddings: 16,
    rmsNormEps: 1e-5,
    ropeTheta: 10000,
    tieWordEmbeddings: true,
    bosTokenId: null,
    eosTokenIds: [],
  };
  const dir = join(scratch, 'source');
  const tensors = parameterShapes(config).map(({ name, shape }, i) => ({
    name,
    shape,
    data: new Float32Array(noise(elementCount(shape), i)),
  }));
  writeModelFolder(dir, { config, tensors, tokenizer, sampling: { temperature: 0.6 } });
  const files = Object.fromEntries(
    fs.readdirSync(dir).map((name) => [name, fs.readFileSync(join(dir, name))]),
  );
  return {
    ...files,
    LICENSE: Buffer.from('Apache-2.0'),
    'README.md': Buffer.from('---\nlicense: apache-2.0\n---\n'),
    'pytorch_model.bin': Buffer.alloc(5000),
    'training_args.bin': Buffer.alloc(20),
    'flax_model.msgpack': Buffer.alloc(5000),
    '.gitattributes': Buffer.from('*.bin'),
  };
}

const environment = (more: Record<string, string> = {}) => ({
  HF_ENDPOINT: `${server.url}/`,
  HF_HOME: join(scratch, 'home'),
  ...more,
});
const pull = (
  options: { model?: string; file?: string; signal?: AbortSignal; onProgress?: (done: number) => void } = {},
) => pullModel({ hub: hubOf(environment()), model: 'org/name', ...options });

const refused = (code: string, message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof RetortError, String((error as Error).stack));
  assert.match(error.message, message);
  assert.equal(error.code, code);
  return true;
};

const needed = [
  'LICENSE',
  'README.md',
  'config.json',
  'generation_config.json',
  'model.safetensors',
  'tokenizer.json',
  'tokenizer_config.json',
];

test('only what is needed is fetched, once, into the cache of Hugging Face', async () => {
  const seen: number[] = [];
  const pulled = await pull({ onProgress: (done) => seen.push(done) });
  const folder = join(scratch, 'home/hub/models--org--name');
  assert.equal(pulled.path, join(folder, 'snapshots', COMMIT));
  assert.deepEqual(fs.readdirSync(pulled.path).sort(), needed);
  for (const name of needed) assert.deepEqual(fs.readFileSync(join(pulled.path, name)), server.files[name]);
  assert.equal(fs.readFileSync(join(folder, 'refs/main'), 'utf8'), COMMIT);
  assert.equal(
    pulled.bytes,
    needed.reduce((sum, name) => sum + server.files[name]!.length, 0),
  );
  assert.equal(seen.at(-1), pulled.bytes);
  assert.deepEqual(server.sent.map(({ path }) => path).sort(), needed);
  const model = openModel(pulled.path);
  assert.deepEqual(model.sampling, { temperature: 0.6 });
  model.close();
  assert.equal(loadTokenizer(pulled.path).encode('abc').length, 3);
  server.sent.length = 0;
  assert.deepEqual(await pull({ model: `org/name@${COMMIT}` }), pulled);
  assert.deepEqual(server.sent, []);
});

test('an interrupted download goes on where it ended, and a cut connection is tried again', async () => {
  const content = server.files['model.safetensors']!;
  const controller = new AbortController();
  server.cuts = [20_000];
  const first = pull({ signal: controller.signal });
  const waiting = setInterval(() => {
    if (server.sent.some(({ path }) => path === 'model.safetensors'))
      setTimeout(() => controller.abort(), 100);
  }, 5);
  await assert.rejects(first, refused('interrupted', /goes on from there/));
  clearInterval(waiting);
  const blobs = join(scratch, 'home/hub/models--org--name/blobs');
  const partial = fs.readdirSync(blobs).find((name) => name.endsWith('.incomplete'))!;
  const there = fs.statSync(join(blobs, partial)).size;
  assert.ok(there > 0 && there <= 20_000, `${there}`);
  server.sent.length = 0;
  server.cuts = [5000];
  const { path } = await pull();
  assert.deepEqual(fs.readFileSync(join(path, 'model.safetensors')), content);
  const parts = server.sent.filter((one) => one.path === 'model.safetensors').map(({ from }) => from);
  assert.equal(parts[0], there);
  assert.ok(parts.length === 2 && parts[1]! > there && parts[1]! <= there + 5000, `${parts}`);
});

test('a server without ranges and a partial file of something else: from the beginning', async () => {
  const blobs = join(scratch, 'home/hub/models--org--name/blobs');
  const lfs = createHash('sha256').update(server.files['model.safetensors']!).digest('hex');
  for (const ignoresRanges of [true, false]) {
    fs.rmSync(join(scratch, 'home'), { recursive: true, force: true });
    fs.mkdirSync(blobs, { recursive: true });
    fs.writeFileSync(join(blobs, `${lfs}.incomplete`), Buffer.alloc(3000, 7));
    server.ignoresRanges = ignoresRanges;
    const { path } = await pull();
    assert.deepEqual(fs.readFileSync(join(path, 'model.safetensors')), server.files['model.safetensors']);
  }
});

test('content with another hash is not kept', async () => {
  server.corrupts = true;
  await assert.rejects(pull(), refused('bad-model', /config\.json as .* does not have the hash/));
  const blobs = fs.readdirSync(join(scratch, 'home/hub/models--org--name/blobs'));
  assert.deepEqual(blobs, []);
});

test('shards: the index, and what it names', async () => {
  const whole = openSafetensors(join(scratch, 'source/model.safetensors'));
  const map: Record<string, string> = {};
  for (const [i, { name, shape }] of [...whole.tensors.values()].entries()) {
    const data = new Float32Array(elementCount(shape));
    whole.read(name, data);
    const shard = `model-0000${i + 1}.safetensors`;
    writeSafetensors(join(scratch, shard), [{ name, shape, data }]);
    server.files[shard] = fs.readFileSync(join(scratch, shard));
    map[name] = shard;
  }
  whole.close();
  delete server.files['model.safetensors'];
  server.files['model.safetensors.index.json'] = Buffer.from(JSON.stringify({ weight_map: map }));
  server.files['model-99999.safetensors'] = Buffer.alloc(2000);
  const { path, files } = await pull();
  openModel(path).close();
  assert.equal(files.includes('model-99999.safetensors'), false);
  for (const shard of ['missing.safetensors', '../x.safetensors', 'pytorch_model.bin']) {
    fs.rmSync(join(scratch, 'home'), { recursive: true });
    server.files['model.safetensors.index.json'] = Buffer.from(
      JSON.stringify({ weight_map: { ...map, x: shard } }),
    );
    await assert.rejects(pull(), refused('bad-model', /index\.json: shard: got/));
  }
});

test('a GGUF file by its name', async () => {
  exportModel({ model: join(scratch, 'source'), out: join(scratch, 'x.gguf'), format: 'gguf' });
  server.files = { 'x.gguf': fs.readFileSync(join(scratch, 'x.gguf')), 'README.md': Buffer.from('') };
  await assert.rejects(pull(), refused('bad-input', /has GGUF files alone: choose one with --file: x\.gguf/));
  await assert.rejects(pull({ file: 'y.gguf' }), refused('bad-input', /got "y\.gguf"; it has x\.gguf/));
  const { path } = await pull({ file: 'x.gguf' });
  openModel(path).close();
  // Nothing small comes before it where the repository holds nothing else.
  fs.rmSync(join(scratch, 'home'), { recursive: true });
  delete server.files['README.md'];
  openModel((await pull({ file: 'x.gguf' })).path).close();
});

test('a full disk: refused before the weights are fetched, and no matter where they are there', async (t) => {
  const free = t.mock.method(fs, 'statfsSync', () => ({ bavail: 10, bsize: 1 }));
  await assert.rejects(pull(), refused('storage', /has room for 0\.00 GB, and .* are to be fetched/));
  assert.ok(server.sent.every(({ path }) => path !== 'model.safetensors'));
  free.mock.restore();
  const pulled = await pull();
  t.mock.method(fs, 'statfsSync', () => ({ bavail: 10, bsize: 1 }));
  assert.deepEqual(await pull(), pulled);
});

test('what cannot be run or read is refused before its weights are fetched', async () => {
  const asked = () => server.sent.map(({ path }) => path);
  const good = server.files;
  const { 'model.safetensors': weights, ...others } = good;
  server.files = others;
  await assert.rejects(
    pull(),
    refused('bad-input', /only as pickle files \(pytorch_model\.bin\), which can run code/),
  );
  server.files = { 'README.md': good['README.md']! };
  await assert.rejects(pull(), refused('bad-input', /holds no model/));
  server.files = { ...good };
  delete server.files['tokenizer.json'];
  await assert.rejects(pull(), refused('bad-input', /has no tokenizer\.json/));
  assert.deepEqual(asked(), []);
  server.files = { ...good, 'config.json': Buffer.from('{"model_type":"mamba"}') };
  await assert.rejects(
    pull(),
    refused('bad-model', /org\/name: config\.json: field model_type: got "mamba"; Retort runs llama/),
  );
  assert.equal(asked().includes('model.safetensors'), false);
  assert.ok(weights);
});

test('names, tokens and answers that are refused', async () => {
  for (const model of ['name', 'org/name/x', 'org/..', '../x', 'org/name@../x', 'org/name@'])
    await assert.rejects(pull({ model }), refused('bad-input', /ORG\/NAME or ORG\/NAME@REVISION/), model);
  await assert.rejects(
    pull({ model: 'org/other' }),
    refused('bad-input', /org\/other: .* has none of this name/),
  );
  await assert.rejects(
    pull({ model: 'org/name@v2' }),
    refused('bad-input', /org\/name@v2: .* has none of this name/),
  );
  server.refuses = 403;
  await assert.rejects(
    pull(),
    refused('bad-input', /status 403\); it is private, gated or not there: set HF_TOKEN/),
  );
  const withToken = hubOf(environment({ HF_TOKEN: 'hf_secret' }));
  await assert.rejects(
    pullModel({ hub: withToken, model: 'org/name' }),
    refused('bad-input', /the token of HF_TOKEN may not read it/),
  );
  assert.deepEqual([...server.tokens], ['Bearer hf_secret']);
  assert.throws(
    () => hubOf({ HF_TOKEN: 'secret' }),
    (error: Error) => /hf_/.test(error.message) && !/secret/.test(error.message),
  );
  assert.throws(
    () => hubOf({ HF_ENDPOINT: 'huggingface.co' }),
    refused('bad-input', /HF_ENDPOINT: got "huggingface\.co"/),
  );
});

test('the cache is where Hugging Face has it', () => {
  assert.equal(hubOf({ HF_HOME: '/x' }).cache, join('/x', 'hub'));
  assert.equal(hubOf({ HF_HOME: '/x', HF_HUB_CACHE: '/y' }).cache, '/y');
  assert.equal(hubOf({ XDG_CACHE_HOME: '/z' }).cache, join('/z', 'huggingface', 'hub'));
  assert.equal(hubOf({}).url, 'https://huggingface.co');
});
