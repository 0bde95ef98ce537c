// A chat API for tests that fails in the ways real ones do, and counts what it bills.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface FakeRequest {
  readonly model: string;
  readonly messages: readonly { readonly role: string; readonly content: string }[];
  readonly max_tokens?: number;
  readonly [field: string]: unknown;
}

/** What a request gets. */
export type FakeBehaviour =
  | { readonly kind: 'answer'; readonly model?: string; readonly usage?: boolean }
  | { readonly kind: 'status'; readonly status: number; readonly headers?: Readonly<Record<string, string>> }
  | { readonly kind: 'reset' }
  /** Breaks off in the middle; `clean` as if that were the end, `finish` saying that it is none. */
  | { readonly kind: 'cut'; readonly clean?: boolean; readonly finish?: string }
  /** Stops sending in the middle, or sends a byte now and then for ever. */
  | { readonly kind: 'stall'; readonly drip?: boolean }
  | { readonly kind: 'wrong-json' }
  | { readonly kind: 'html' };

export interface FakeApiOptions {
  /** By the number of the request, from 0. Default: an answer. */
  readonly behave?: (n: number, request: FakeRequest) => FakeBehaviour;
  readonly reply?: (request: FakeRequest, n: number) => { content: string; reasoning?: string };
  /** Tokens that a request bills. */
  readonly usage?: (request: FakeRequest) => { input: number; cached?: number; output: number };
  /** Milliseconds before the answer begins. */
  readonly delay?: number;
  /** Calls that wait for each other before that, two seconds at most: a slow machine then has them under way at once too. */
  readonly together?: number;
}

export interface FakeApi {
  readonly endpoint: string;
  readonly requests: FakeRequest[];
  readonly headers: IncomingMessage['headers'][];
  /** Whole answers that were sent, and billed, by the text of the last message. */
  readonly billed: Map<string, number>;
  /** Tokens of them. */
  tokens(): number;
  /** The most calls that were under way at once. */
  most(): number;
  close(): Promise<void>;
}

export async function fakeApi(o: FakeApiOptions = {}): Promise<FakeApi> {
  const requests: FakeRequest[] = [];
  const headers: IncomingMessage['headers'][] = [];
  const billed = new Map<string, number>();
  let tokens = 0;
  let running = 0;
  let most = 0;
  const waiting = new Set<() => void>();
  /** Resolves when so many have called it since the last time, or after two seconds. */
  const gather = (count: number) =>
    new Promise<void>((go) => {
      waiting.add(go);
      setTimeout(() => {
        waiting.delete(go);
        go();
      }, 2000).unref();
      if (waiting.size < count) return;
      for (const each of waiting) each();
      waiting.clear();
    });
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = JSON.parse(Buffer.concat(chunks).toString()) as FakeRequest;
    const n = requests.length;
    requests.push(body);
    headers.push(request.headers);
    running++;
    most = Math.max(most, running);
    response.on('close', () => running--);
    if (o.together) await gather(o.together);
    if (o.delay) await new Promise((go) => setTimeout(go, o.delay));
    answer(body, n, response);
  });

  function answer(body: FakeRequest, n: number, response: ServerResponse): void {
    const behaviour = o.behave?.(n, body) ?? { kind: 'answer' };
    const { content, reasoning } = o.reply?.(body, n) ?? { content: `answer ${n}` };
    const model = (behaviour.kind === 'answer' && behaviour.model) || `${body.model}-2026`;
    const chunk = (delta: object, more: object = {}) =>
      `data: ${JSON.stringify({ id: `c${n}`, object: 'chat.completion.chunk', created: 0, model, system_fingerprint: 'fp_1', choices: [{ index: 0, delta, finish_reason: null }], ...more })}\n\n`;
    if (behaviour.kind === 'status') {
      response.writeHead(behaviour.status, { 'content-type': 'application/json', ...behaviour.headers });
      response.end(JSON.stringify({ error: { message: `no: ${behaviour.status}` } }));
      return;
    }
    if (behaviour.kind === 'reset') {
      response.socket?.resetAndDestroy();
      return;
    }
    if (behaviour.kind === 'html') {
      response.writeHead(200, { 'content-type': 'text/html' });
      response.end('<html>maintenance</html>');
      return;
    }
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    if (reasoning) response.write(chunk({ reasoning_content: reasoning }));
    const half = Math.ceil(content.length / 2);
    response.write(chunk({ role: 'assistant', content: content.slice(0, half) }));
    if (behaviour.kind === 'cut') {
      const { finish } = behaviour;
      if (finish) response.write(chunk({}, { choices: [{ index: 0, delta: {}, finish_reason: finish }] }));
      if (behaviour.clean) response.end();
      else setTimeout(() => response.socket?.destroy(), 5);
      return;
    }
    if (behaviour.kind === 'stall') {
      const drip = behaviour.drip ? setInterval(() => response.write(':'), 10) : undefined;
      response.on('close', () => clearInterval(drip));
      return;
    }
    if (behaviour.kind === 'wrong-json') {
      response.end('data: {"choices": [{"delta": \n\n');
      return;
    }
    const usage = o.usage?.(body) ?? { input: 10, output: 5 };
    const key = body.messages[body.messages.length - 1].content;
    billed.set(key, (billed.get(key) ?? 0) + 1);
    tokens += usage.input + usage.output;
    response.write(chunk({ content: content.slice(half) }));
    response.write(chunk({}, { choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] }));
    if (behaviour.usage !== false)
      response.write(
        chunk(
          {},
          {
            choices: [],
            usage: {
              prompt_tokens: usage.input,
              completion_tokens: usage.output,
              total_tokens: usage.input + usage.output,
              prompt_tokens_details: { cached_tokens: usage.cached ?? 0 },
            },
          },
        ),
      );
    response.end('data: [DONE]\n\n');
  }

  await new Promise<void>((go) => server.listen(0, '127.0.0.1', go));
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
    requests,
    headers,
    billed,
    tokens: () => tokens,
    most: () => most,
    close: () =>
      new Promise((done) => {
        server.close(() => done());
        server.closeAllConnections();
      }),
  };
}
