import { fillRandom, runSeed, seededRandom } from '@pando/common/testing';
import { once } from 'node:events';
import { connect, createServer, Socket } from 'node:net';
import type { AddressInfo } from 'node:net';
import { expect, test } from 'vitest';
import { shareReceiveBuffer } from './receive-buffer.ts';

const seed = runSeed();

test(`sockets that share a buffer get what was sent to each, through pauses (seed ${seed})`, async () => {
  const random = seededRandom(seed);
  const sent = Array.from({ length: 3 }, () => Buffer.from(fillRandom(random, Buffer.alloc(3_000_000))));
  const got: Buffer[][] = [[], [], []];
  const memory = new Set<ArrayBufferLike>();
  let next = 0;
  const server = createServer((socket) => {
    socket.once('data', (first: Buffer) => {
      const of = got[first[0]!]!;
      of.push(Buffer.from(first.subarray(1)));
      socket.on('data', () => expect.unreachable('it reads into fresh memory'));
      const shares = shareReceiveBuffer(socket, (bytes) => {
        memory.add(bytes.buffer);
        of.push(Buffer.from(bytes));
        if (next++ % 7 !== 0) return true;
        if (next % 2 === 0) socket.pause();
        setTimeout(() => socket.resume(), 2);
        return false;
      });
      expect(shares).toBe(true);
      // What was read before is behind us.
      socket.removeAllListeners('data').resume();
    });
    socket.on('end', () => socket.end());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const clients = sent.map((bytes, number) => {
    const client = connect((server.address() as AddressInfo).port, '127.0.0.1');
    client.write(Buffer.of(number));
    client.end(bytes);
    return once(client.resume(), 'close');
  });
  await Promise.all(clients);
  server.close();
  for (const [number, parts] of got.entries()) expect(Buffer.concat(parts).equals(sent[number]!)).toBe(true);
  expect(memory.size).toBe(1);
});

test('what is no plain socket reads as before', () => {
  class Other extends Socket {}
  const take = (): boolean => expect.unreachable();
  for (const socket of [new Socket(), new Other()]) {
    expect(shareReceiveBuffer(socket, take)).toBe(false);
  }
});
