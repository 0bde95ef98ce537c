// The HTTP side: routes, keys, limits of size and time, errors in the protocol's form.
import type { IncomingMessage, Server } from 'node:http';
import { createAdaptorServer, type HttpBindings } from '@hono/node-server';
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response';
import { type Context, Hono } from 'hono';
import type { Accounts, Caller } from './account.js';
import { chatAsk, completionAsk } from './ask.js';
import { ApiError, errorBody, toApiError } from './errors.js';
import { type Generator, generate, inTime, newId } from './generate.js';
import type { Ask } from './job.js';
import type { Metrics } from './metrics.js';
import type { ServedModel } from './model.js';
import { type ChatRequest, parseChatRequest, parseCompletionRequest, type SamplingFields } from './schema.js';
import { chatWire, completionWire, type Wire } from './wire.js';

/** Most bytes of a request's body. */
const MAX_BODY = 2 << 20;
/** Most levels of lists and objects inside one another in a body: what copies and writes them calls itself for each. */
const MAX_LEVELS = 512;
/** Of a body that is too large so much is read and dropped before its client is cut off. */
const MAX_DRAINED = 64 << 20;
/** Most bytes of a request's headers. */
const MAX_HEADERS = 16 << 10;
/** A client gets so long to send its headers, and its whole request. */
const HEADERS_MS = 10_000;
const REQUEST_MS = 30_000;
/** An idle connection is kept so long. */
const KEEP_ALIVE_MS = 65_000;
const MAX_CONNECTIONS = 8192;

export interface HttpOptions {
  readonly generator: Generator;
  readonly accounts: Accounts;
  readonly metrics: Metrics;
  /** By name, as they are now. */
  readonly models: ReadonlyMap<string, ServedModel>;
  /** Whether requests may come by a name that only this machine has: set where no key is asked for. */
  readonly onlyLocalNames: () => boolean;
  readonly healthy: () => boolean;
  /** What went wrong inside; never holds prompts. */
  readonly onFault: (request: string, error: unknown) => void;
}

type Env = {
  Bindings: HttpBindings;
  Variables: { endpoint: string; caller: Caller; id: string; began: number };
};

export function createHttpServer(options: HttpOptions): Server {
  const app = createApp(options);
  const server = createAdaptorServer({
    fetch: app.fetch,
    overrideGlobalObjects: false,
    serverOptions: {
      maxHeaderSize: MAX_HEADERS,
      headersTimeout: HEADERS_MS,
      requestTimeout: REQUEST_MS,
      keepAliveTimeout: KEEP_ALIVE_MS,
      connectionsCheckingInterval: 5000,
      noDelay: true,
    },
  }) as Server;
  server.maxConnections = MAX_CONNECTIONS;
  return server;
}

function createApp(options: HttpOptions): Hono<Env> {
  const { generator, accounts, metrics, models } = options;
  const app = new Hono<Env>();

  app.use(async (c, next) => {
    c.set('id', newId('req_'));
    c.set('began', performance.now());
    c.env.outgoing.setHeader('x-request-id', c.get('id'));
    checkHost(c, options.onlyLocalNames());
    await next();
  });
  // The status is known when the connection is done with it, a stream's too.
  app.use(async (c, next) => {
    c.env.outgoing.once('close', () =>
      metrics.request(c.get('endpoint') ?? 'other', c.env.outgoing.statusCode),
    );
    await next();
  });

  const endpoint = (name: string) => async (c: Context<Env>, next: () => Promise<void>) => {
    c.set('endpoint', name);
    await next();
  };
  const keyed = async (c: Context<Env>, next: () => Promise<void>) => {
    c.set('caller', accounts.identify(c.req.header('authorization')));
    await next();
  };
  app.get('/health', endpoint('health'), (c) => {
    const ok = options.healthy() && generator.open;
    return c.json({ status: ok ? 'ok' : 'unavailable' }, ok ? 200 : 503);
  });
  app.get('/metrics', endpoint('metrics'), keyed, async (c) =>
    c.body(await metrics.text(), 200, { 'content-type': metrics.contentType }),
  );
  app.get('/v1/models', endpoint('models'), keyed, (c) => {
    const allowed = c.get('caller').key?.models;
    const data = [...models.values()].filter((m) => !allowed || allowed.includes(m.name)).map(modelObject);
    return c.json({ object: 'list', data });
  });
  app.get('/v1/models/:name{.+}', endpoint('models'), keyed, (c) =>
    c.json(modelObject(findModel(models, accounts, c.get('caller'), c.req.param('name') ?? ''))),
  );
  app.post('/v1/chat/completions', endpoint('chat'), keyed, async (c) => {
    const { body, bytes } = await readJson(c);
    const request = parseChatRequest(body);
    const caller = c.get('caller');
    return held(findModel(models, accounts, caller, request.model), async (model) => {
      const asking = chatAsk(model, caller.id, request, bytes);
      const ask = await inTime(asking, c.get('began'), generator.timeLimitMs);
      return answer(
        c,
        ask,
        request,
        newId('chatcmpl-'),
        chatWire(() => newId('call_')),
        body,
      );
    });
  });
  app.post('/v1/completions', endpoint('completions'), keyed, async (c) => {
    const { body, bytes } = await readJson(c);
    const request = parseCompletionRequest(body);
    const caller = c.get('caller');
    return held(findModel(models, accounts, caller, request.model), async (model) => {
      const asking = completionAsk(model, caller.id, request, bytes);
      const { ask, echo } = await inTime(asking, c.get('began'), generator.timeLimitMs);
      return answer(c, ask, request, newId('cmpl-'), completionWire(ask.n, echo), body);
    });
  });

  /** What is taken up is finished: before a model goes that another takes the place of, and before the server ends. */
  async function held(model: ServedModel, run: (model: ServedModel) => Promise<Response>): Promise<Response> {
    if (!generator.open)
      throw new ApiError(503, 'the server is shutting down', { code: 'shutting_down', retryAfter: 5 });
    const release = model.hold();
    const answered = run(model);
    const ended = answered.then(
      () => {},
      () => {},
    );
    generator.active.add(ended);
    try {
      return await answered;
    } finally {
      release();
      generator.active.delete(ended);
    }
  }

  async function answer(
    c: Context<Env>,
    ask: Ask,
    request: SamplingFields | ChatRequest,
    id: string,
    wire: Wire,
    body: unknown,
  ): Promise<Response> {
    const { stream = false, stream_options: more } = request;
    const streamUsage = more?.include_usage ?? false;
    const reply = { id, wire, stream, streamUsage, body, began: c.get('began') };
    await generate(generator, c.get('caller'), ask, reply, c.env.outgoing);
    return RESPONSE_ALREADY_SENT;
  }

  app.notFound(() => {
    throw new ApiError(404, 'there is no such endpoint here', { code: 'unknown_url' });
  });
  app.onError((error, c) => {
    const known = toApiError(error);
    if (known.status === 500) options.onFault(c.get('id'), error);
    if (known.retryAfter !== null) c.header('retry-after', String(known.retryAfter));
    if (known.status === 401) c.header('www-authenticate', 'Bearer');
    return c.json(errorBody(known), known.status as 400);
  });
  return app;
}

/**
 * The body of a request, read from the connection: the framework's own reader costs more than the rest of a request.
 * What is too large is read and dropped up to a limit, since a client that is cut off while it sends does not read why.
 * @throws ApiError 413
 */
async function readBody(incoming: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const part of incoming as AsyncIterable<Buffer>) {
      bytes += part.length;
      if (bytes <= MAX_BODY) parts.push(part);
      else parts.length = 0;
      if (bytes > MAX_DRAINED) break;
    }
  } catch (cause) {
    throw new ApiError(400, 'the body ended too early', { cause });
  }
  if (bytes <= MAX_BODY) return Buffer.concat(parts).toString('utf8');
  throw new ApiError(413, `the body has more than ${MAX_BODY} bytes`, { code: 'body_too_large' });
}

function modelObject({ name, created }: ServedModel): object {
  return { id: name, object: 'model', created, owned_by: 'retort' };
}

function findModel(
  models: ReadonlyMap<string, ServedModel>,
  accounts: Accounts,
  caller: Caller,
  name: string,
): ServedModel {
  const model = models.get(name);
  if (!model)
    throw new ApiError(
      404,
      `there is no model ${JSON.stringify(name)} here; there is: ${[...models.keys()].join(', ')}`,
      {
        param: 'model',
        code: 'model_not_found',
      },
    );
  accounts.checkModel(caller, name);
  return model;
}

/** JSON alone is taken: a page in a browser cannot send it here without asking first, which is not answered. */
async function readJson(c: Context<Env>): Promise<{ body: unknown; bytes: number }> {
  if (!/^application\/json\b/i.test(c.req.header('content-type') ?? ''))
    throw new ApiError(415, 'send the body as content-type: application/json');
  const text = await readBody(c.env.incoming);
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch (error) {
    throw new ApiError(400, `the body is not JSON: ${(error as Error).message.slice(0, 80)}`);
  }
  checkLevels(body);
  return { body, bytes: text.length };
}

/** @throws ApiError 400 */
function checkLevels(body: unknown): void {
  const isNested = (value: unknown) => typeof value === 'object' && value !== null;
  let level = [body].filter(isNested) as object[];
  for (let levels = 0; level.length > 0; levels++) {
    if (levels === MAX_LEVELS)
      throw new ApiError(400, `the body has lists and objects more than ${MAX_LEVELS} levels deep`);
    level = level.flatMap((value) => Object.values(value).filter(isNested) as object[]);
  }
}

const LOCAL_NAME = /^(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?$/i;

/** Where no key is asked for, a page of a name that was turned to this machine's address must not get in. */
function checkHost(c: Context<Env>, onlyLocal: boolean): void {
  const host = c.req.header('host') ?? '';
  if (onlyLocal && !LOCAL_NAME.test(host))
    throw new ApiError(403, 'without keys this server answers to localhost alone', {
      code: 'host_not_allowed',
    });
}
