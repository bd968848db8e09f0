import { isPandoError } from '@pando/common';
import { createServer, type RequestListener, type Server } from 'node:http';
import { mkdtemp, rm } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { ServerRefusal } from './problem.ts';
import { readText, Transport } from './transport.ts';

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

async function listening(serve: RequestListener, path?: string): Promise<Server> {
  const server = createServer(serve);
  await new Promise<void>((resolve) =>
    path === undefined ? server.listen(0, resolve) : server.listen(path, resolve),
  );
  closing.push(
    () => server.closeAllConnections(),
    () => server.close(),
  );
  return server;
}

async function urlOf(serve: RequestListener): Promise<{ url: string; server: Server }> {
  const server = await listening(serve);
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server };
}

const problem = (code: string): string => JSON.stringify({ code, detail: 'why', remedy: 'what to do' });

async function* pieces(count: number): AsyncGenerator<Uint8Array> {
  for (let i = 0; i < count; i++) yield Buffer.alloc(100_000, i);
}

test('a request carries the token, the path below that of the address, and a body', async () => {
  const { url } = await urlOf((request, response) => {
    void readText(request).then((text) => {
      response.end(`${request.method} ${request.url} ${request.headers.authorization} ${text}`);
    });
  });
  const transport = new Transport({ url: `${url}/behind/`, token: 'pando_x' });
  const answer = await transport.send({ method: 'POST', path: '/api/v1/vms?a=1' }, '{}');
  expect(await readText(answer)).toBe('POST /behind/api/v1/vms?a=1 Bearer pando_x {}');
});

test('over a Unix socket, which needs no token', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'pando-client-'));
  closing.push(() => rm(folder, { recursive: true }));
  const path = join(folder, 'a b.sock');
  await listening((request, response) => response.end(String(request.headers.authorization)), path);
  for (const url of [`unix:${path}`, `http+unix://${encodeURI(path)}`]) {
    const answer = await new Transport({ url, token: 'x' }).send({ method: 'GET', path: '/' });
    expect(await readText(answer)).toBe('undefined');
  }
});

test.each(['nonsense', 'ftp://host', 'unix:', 'unix://host/path'])('%s is no address', (url) => {
  expect(() => new Transport({ url })).toThrow(expect.objectContaining({ code: 'address-invalid' }));
});

test('a problem document becomes a ServerRefusal; anything else is no Pando server', async () => {
  const { url } = await urlOf((request, response) => {
    response.statusCode = 404;
    response.end(request.url === '/ours' ? problem('vm-missing') : '<html>');
  });
  const transport = new Transport({ url });
  const refused = await transport.send({ method: 'GET', path: '/ours' }).catch((error: unknown) => error);
  expect(refused).toBeInstanceOf(ServerRefusal);
  expect((refused as ServerRefusal).problem).toEqual({
    ...{ status: 404, code: 'vm-missing', detail: 'why', remedy: 'what to do' },
  });
  await expect(transport.send({ method: 'GET', path: '/theirs' })).rejects.toMatchObject({
    problem: { code: 'server-unreachable', status: 404 },
  });
});

test('nobody listens, and a connection that breaks', async () => {
  const { url, server } = await urlOf((request) => request.socket.destroy());
  await expect(new Transport({ url }).send({ method: 'GET', path: '/' })).rejects.toMatchObject({
    code: 'server-unreachable',
    message: expect.stringContaining('broke') as string,
  });
  await new Promise((resolve) => server.close(resolve));
  await expect(new Transport({ url }).send({ method: 'GET', path: '/' })).rejects.toMatchObject({
    code: 'server-unreachable',
    message: expect.stringContaining('no server answers') as string,
  });
});

test('the signal ends a request, and its reason is what is thrown', async () => {
  const abort = new AbortController();
  const { url } = await urlOf(() => abort.abort(new Error('enough')));
  const transport = new Transport({ url, signal: abort.signal });
  await expect(transport.send({ method: 'GET', path: '/' })).rejects.toThrow('enough');
});

test('an upload waits to be invited, and is sent as a whole', async () => {
  let invited = false;
  const { url, server } = await urlOf(() => undefined);
  server.on('checkContinue', (request, response) => {
    invited = true;
    response.writeContinue();
    let bytes = 0;
    request.on('data', (data: Buffer) => (bytes += data.byteLength));
    request.on('end', () => response.end(String(bytes)));
  });
  const body = (async function* () {
    expect(invited).toBe(true);
    yield* pieces(7);
  })();
  expect(await new Transport({ url }).upload({ method: 'POST', path: '/' }, body)).toBe('700000');
});

test('an upload that is refused is not begun', async () => {
  const { url, server } = await urlOf(() => undefined);
  server.on('checkContinue', (_request, response) => {
    response.statusCode = 409;
    response.end(problem('name-taken'));
  });
  let begun = false;
  const body = (async function* () {
    begun = true;
    yield* pieces(1);
  })();
  await expect(new Transport({ url }).upload({ method: 'POST', path: '/' }, body)).rejects.toMatchObject({
    problem: { code: 'name-taken' },
  });
  expect(begun).toBe(false);
});

test('an answer in the middle of an upload ends it', async () => {
  const { url, server } = await urlOf(() => undefined);
  server.on('checkContinue', (request, response) => {
    response.writeContinue();
    request.once('data', () => {
      response.statusCode = 507;
      response.end(problem('store-full'));
    });
  });
  let ended = false;
  const body = (async function* () {
    try {
      yield* pieces(100_000);
    } finally {
      ended = true;
    }
  })();
  await expect(new Transport({ url }).upload({ method: 'POST', path: '/' }, body)).rejects.toMatchObject({
    problem: { code: 'store-full' },
  });
  await expect.poll(() => ended).toBe(true);
});

test('what the body throws ends an upload without its end', async () => {
  let whole: boolean | undefined;
  const { url, server } = await urlOf(() => undefined);
  server.on('checkContinue', (request, response) => {
    response.writeContinue();
    request.resume();
    request.on('close', () => (whole = request.complete));
    request.on('error', () => undefined);
  });
  const body = (async function* () {
    yield* pieces(3);
    throw new Error('the disk is gone');
  })();
  const failed = new Transport({ url }).upload({ method: 'POST', path: '/' }, body);
  await expect(failed).rejects.toSatisfy(
    (error) => isPandoError(error) || (error as Error).message === 'the disk is gone',
  );
  await expect.poll(() => whole).toBe(false);
});

test('small exchanges go over one connection until it is closed', async () => {
  const sockets = new Set<unknown>();
  const { url, server } = await urlOf((request, response) => {
    sockets.add(request.socket);
    void readText(request).then((text) => response.end(text.toUpperCase()));
  });
  const transport = new Transport({ url });
  for (const text of ['a', 'b', '']) {
    const answer = await transport.exchange({ method: 'POST', path: '/' }, Buffer.from(text));
    expect(await readText(answer)).toBe(text.toUpperCase());
  }
  expect(sockets.size).toBe(1);
  transport.close();
  await new Promise((resolve) => server.close(resolve));
});

test('a download goes past HTTP where the server can, and stays there where it cannot', async () => {
  const { url, server } = await urlOf((_request, response) => {
    response.setHeader('pando-root', 'plain');
    response.end('bytes');
  });
  const read = async (): Promise<string> => {
    const { headers, bytes } = await new Transport({ url }).download(
      { method: 'GET', path: '/' },
      'a-protocol',
    );
    let text = String(headers['pando-root']);
    for await (const piece of bytes) text += ` ${Buffer.from(piece).toString()}`;
    return text;
  };
  server.on('upgrade', (request, socket) => {
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${request.headers.upgrade}\r\nPando-Root: past\r\n\r\n`,
    );
    socket.end('all of it');
  });
  expect(await read()).toBe('past all of it');
  server.removeAllListeners('upgrade');
  expect(await read()).toBe('plain bytes');
});

test('too many requests are asked again after the time that the answer says, a few times; not where it is long', async () => {
  let asked = 0;
  const { url } = await urlOf((request, response) => {
    asked++;
    const [, after, refusals] = request.url!.split('/');
    if (asked > Number(refusals)) {
      response.end(`${request.method} ${asked}`);
      return;
    }
    response.writeHead(429, { 'retry-after': after });
    response.end(problem('rate-limited'));
  });
  const transport = new Transport({ url });
  closing.push(() => transport.close());
  expect(await readText(await transport.send({ method: 'POST', path: '/0/2' }, '{}'))).toBe('POST 3');
  asked = 0;
  const bytes = Buffer.from('ids');
  expect(await readText(await transport.exchange({ method: 'POST', path: '/0/3' }, bytes))).toBe('POST 4');
  asked = 0;
  const refused = transport.send({ method: 'GET', path: '/0/9' });
  await expect(refused).rejects.toMatchObject({ problem: { code: 'rate-limited', status: 429 } });
  expect(asked).toBe(4);
  asked = 0;
  const long = transport.send({ method: 'GET', path: '/60/9' });
  await expect(long).rejects.toMatchObject({ problem: { retryAfter: 60 } });
  expect(asked).toBe(1);
  const stop = new AbortController();
  const waiting = new Transport({ url, signal: stop.signal }).send({ method: 'GET', path: '/15/9' });
  while (asked < 2) await new Promise((resolve) => setTimeout(resolve, 5));
  setTimeout(() => stop.abort(new Error('enough')), 20);
  await expect(waiting).rejects.toThrow('enough');
});
