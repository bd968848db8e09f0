import { between, fillRandom, runSeed, seededRandom } from '@pando/common/testing';
import { createServer, connect, type AddressInfo, type Socket } from 'node:net';
import { PassThrough, type Duplex } from 'node:stream';
import { afterEach, expect, test } from 'vitest';
import { receive } from './receive.ts';

const random = seededRandom(runSeed());
const bytes = fillRandom(random, Buffer.alloc(9 * 1024 * 1024 + 77));
const closing: (() => void)[] = [];
afterEach(() => closing.splice(0).forEach((close) => close()));

/** A connection to somebody who does something with its other end. */
async function connection(serve: (socket: Socket) => void): Promise<Socket> {
  const server = createServer(serve);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
  closing.push(
    () => server.close(),
    () => socket.destroy(),
  );
  await new Promise((resolve) => socket.once('connect', resolve));
  return socket;
}

async function gather(from: Duplex, head: Uint8Array, isSlow: boolean): Promise<Buffer> {
  const all: Buffer[] = [];
  for await (const piece of receive(from, head)) {
    all.push(Buffer.from(piece));
    if (isSlow) await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return Buffer.concat(all);
}

for (const isSlow of [false, true]) {
  test(`what a socket brings comes whole and in order to ${isSlow ? 'a slow' : 'a quick'} reader`, async () => {
    const socket = await connection((peer) => peer.end(bytes.subarray(1000)));
    expect((await gather(socket, bytes.subarray(0, 1000), isSlow)).equals(bytes)).toBe(true);
    expect(socket.destroyed).toBe(true);
  });

  test(`so does what comes from no socket of ours, to ${isSlow ? 'a slow' : 'a quick'} reader`, async () => {
    const stream = new PassThrough();
    for (let at = 0; at < bytes.byteLength;) {
      const step = between(random, 1, 300_000);
      stream.write(bytes.subarray(at, at + step));
      at += step;
    }
    stream.end();
    expect((await gather(stream, new Uint8Array(), isSlow)).equals(bytes)).toBe(true);
  });
}

test('a connection that is cut is an error, after what came before', async () => {
  const socket = await connection((peer) => {
    peer.once('data', () => peer.write(bytes.subarray(0, 100_000), () => peer.resetAndDestroy()));
  });
  socket.write('.');
  const pieces = receive(socket, new Uint8Array());
  let seen = 0;
  await expect(
    (async () => {
      for await (const piece of pieces) seen += piece.byteLength;
    })(),
  ).rejects.toThrow();
  expect(seen).toBeLessThanOrEqual(100_000);
});

test('a reader who wants no more ends the connection', async () => {
  const socket = await connection((peer) => peer.on('error', () => undefined).write(bytes));
  for await (const piece of receive(socket, new Uint8Array())) {
    expect(piece.byteLength).toBeGreaterThan(0);
    break;
  }
  expect(socket.destroyed).toBe(true);
});
