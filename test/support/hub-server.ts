// A server that answers the endpoints of the Hugging Face hub that a pull asks for, for tests.
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export const COMMIT = 'c0ffee'.padEnd(40, '0');

export interface HubServer {
  readonly url: string;
  /** Paths of files in the order in which content of them was asked for, with the first byte of each. */
  readonly sent: { path: string; from: number }[];
  /** Tokens that came with requests. */
  readonly tokens: Set<string>;
  /** Files by path; those above `LARGE` bytes are of Git LFS and come from another address, by a redirection. */
  files: Record<string, Buffer>;
  /** Ends the connection after so many bytes of content that is longer, as many times as there are numbers. */
  cuts: number[];
  ignoresRanges: boolean;
  /** Sends other bytes than the hashes are of. */
  corrupts: boolean;
  /** Answers content with this status. */
  refuses: number | null;
  close(): Promise<void>;
}

const LARGE = 1000;

export async function openHubServer(files: Record<string, Buffer>): Promise<HubServer> {
  const http = createServer((request, response) => answer(request, response));
  await new Promise<void>((done) => http.listen(0, '127.0.0.1', done));
  const url = `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
  const server: HubServer = {
    url,
    sent: [],
    tokens: new Set(),
    files,
    cuts: [],
    ignoresRanges: false,
    corrupts: false,
    refuses: null,
    close: () =>
      new Promise((done) => {
        http.close(() => done());
        http.closeAllConnections();
      }),
  };

  function answer(request: IncomingMessage, response: ServerResponse): unknown {
    const { pathname } = new URL(request.url!, url);
    const token = request.headers.authorization;
    if (token) server.tokens.add(token);
    const json = (status: number, value: unknown) => {
      response.writeHead(status, { 'content-type': 'application/json' });
      response.end(JSON.stringify(value));
    };
    if (
      pathname === '/api/models/org/name/revision/main' ||
      pathname === `/api/models/org/name/revision/${COMMIT}`
    )
      return json(200, {
        _id: '1',
        id: 'org/name',
        sha: COMMIT,
        private: false,
        gated: false,
        lastModified: 0,
      });
    if (pathname === `/api/models/org/name/tree/${COMMIT}`) return json(200, listing());
    const match = /^\/(?:org\/name\/resolve\/[^/]+|cdn)\/(.+)$/.exec(pathname);
    const path = match && decodeURIComponent(match[1]!);
    const content = path ? server.files[path] : undefined;
    if (!path || !content) return json(404, { error: 'Repository not found' });
    if (server.refuses) return json(server.refuses, { error: 'no' });
    const tags = { etag: `"${hashOf(content)}"`, 'x-repo-commit': COMMIT };
    if (content.length > LARGE && !pathname.startsWith('/cdn')) {
      response.writeHead(302, {
        ...tags,
        'x-linked-etag': tags.etag,
        'x-linked-size': content.length,
        location: `/cdn/${path}`,
      });
      return response.end();
    }
    return send(path, content, request, response, tags);
  }

  function send(
    path: string,
    content: Buffer,
    request: IncomingMessage,
    response: ServerResponse,
    tags: object,
  ): unknown {
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
    const probe = range?.[1] === '0' && range[2] === '0';
    const bytes = Buffer.from(content);
    if (server.corrupts) bytes[bytes.length >> 1]! ^= 1;
    if (range && (probe || !server.ignoresRanges)) {
      const [from, to] = [Number(range[1]), Math.min(Number(range[2]), bytes.length - 1)];
      const headers = {
        ...tags,
        'content-range': `bytes ${from}-${to}/${bytes.length}`,
        'content-length': to - from + 1,
      };
      response.writeHead(206, headers);
      if (!probe) server.sent.push({ path, from });
      return stream(response, bytes.subarray(from, to + 1));
    }
    server.sent.push({ path, from: 0 });
    response.writeHead(200, { ...tags, 'content-length': bytes.length });
    return stream(response, bytes);
  }

  function stream(response: ServerResponse, bytes: Buffer): unknown {
    const cut = bytes.length > server.cuts[0]! ? server.cuts.shift() : undefined;
    if (cut === undefined) return response.end(bytes);
    return response.write(bytes.subarray(0, cut), () => setTimeout(() => response.destroy(), 20));
  }

  function listing() {
    return Object.entries(server.files).map(([path, content]) => {
      const large = content.length > LARGE;
      const oid = createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex');
      const lfs = large ? { lfs: { oid: hashOf(content), size: content.length, pointerSize: 130 } } : {};
      return { type: 'file', path, size: content.length, oid, ...lfs };
    });
  }

  return server;
}

function hashOf(content: Buffer): string {
  return createHash('sha256').update(content).digest('hex');
}
