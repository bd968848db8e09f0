/** Seeded nonsense against a live server: it must answer or hang up, give everything back, and go on for others. */
import { MemoryBlockDevice } from '@pando/block-device';
import { DelayDevice, SeededRandom, testSeed } from '@pando/block-device/testing';
import { afterEach, describe, expect, it } from 'vitest';
import { NbdClient } from './client/client.ts';
import { optionBytes } from './client/client-handshake.ts';
import { contextRequest, infoRequest, rawRequest } from './testing/raw-client.ts';
import { TestServer, until } from './testing/test-server.ts';

const ROUNDS = 150;
const SIZE = 2 ** 20;
let bench: TestServer | undefined;

afterEach(async () => {
  await bench?.stop();
  bench = undefined;
});

/** Flips, cuts, doubles or inserts bytes, now and then. */
function damage(bytes: Buffer, random: SeededRandom): Buffer {
  const copy = Buffer.from(bytes);
  switch (random.below(6)) {
    case 0:
      if (copy.length > 0) copy[random.below(copy.length)] = random.below(256);
      return copy;
    case 1:
      return copy.subarray(0, random.below(copy.length + 1));
    case 2:
      return Buffer.concat([copy, random.bytes(random.below(40))]);
    default:
      return copy;
  }
}

/** Sends the pieces in random cuts, then leaves in one of several ways. */
async function send(server: TestServer, bytes: Buffer, random: SeededRandom): Promise<void> {
  const client = server.connect();
  client.socket.resume();
  for (let at = 0; at < bytes.length;) {
    const end = at + 1 + random.below(random.below(3) === 0 ? 20 : 200_000);
    client.send(bytes.subarray(at, end));
    if (random.below(3) === 0) await new Promise((resolve) => setImmediate(resolve));
    at = end;
  }
  const leave = (['reset', 'destroy', 'halfClose'] as const)[random.below(3)]!;
  if (random.below(2) === 0) await new Promise((resolve) => setTimeout(resolve, random.below(5)));
  client[leave]();
}

async function expectClean(server: TestServer): Promise<void> {
  const stats = server.server.stats.bind(server.server);
  await until(() => stats().connections === 0, 'all connections gone');
  expect(stats()).toEqual({ connections: 0, connectionsInHandshake: 0, requestsInFlight: 0, bufferBytes: 0 });
  expect(server.exports.openHandles).toBe(0);
  const client = await NbdClient.connect(server.address, { exportName: 'disk' });
  await client.write(5, Buffer.from('alive'));
  await client.close();
}

function someOption(random: SeededRandom): Buffer {
  const option = random.below(4) === 0 ? random.next() : 1 + random.below(11);
  const name =
    random.below(3) === 0 ? 'disk' : Buffer.from(random.bytes(random.below(20))).toString('latin1');
  const datas = [
    Buffer.alloc(0),
    infoRequest(name, [random.below(5)]),
    contextRequest(name, ['base:allocation', name]),
    Buffer.from(random.bytes(random.below(300))),
    Buffer.from(name),
  ];
  return damage(optionBytes(option, damage(datas[random.below(datas.length)]!, random)), random);
}

function someRequest(random: SeededRandom): Buffer {
  const type = random.below(12) === 0 ? random.below(65_536) : random.below(8);
  const flags = random.below(3) === 0 ? random.below(65_536) : random.below(2);
  const offset = random.below(5) === 0 ? random.next() * 2 ** 21 : random.below(SIZE);
  const length = random.below(8) === 0 ? random.next() : random.below(100_000);
  const cookie = random.below(1_000);
  if (type !== 1) return rawRequest({ type, flags, offset, length, cookie });
  return rawRequest({ type, flags, offset, cookie, payload: random.bytes(random.below(30_000)) });
}

describe('fuzz', () => {
  it('survives nonsense in the handshake', { timeout: 60_000 }, async () => {
    const seed = testSeed();
    const random = new SeededRandom(seed);
    try {
      const server = (bench = await TestServer.start({ tcp: true }));
      for (let round = 0; round < ROUNDS; round++) {
        const parts: Buffer[] = [Buffer.from([0, 0, 0, 3])];
        for (let i = random.below(8); i > 0; i--) parts.push(someOption(random));
        await send(server, damage(Buffer.concat(parts), random), random);
      }
      await expectClean(server);
    } catch (error) {
      throw new Error(`failed with PANDO_TEST_SEED=${seed}`, { cause: error });
    }
  });

  it('survives nonsense in requests, with a device that takes its time', { timeout: 60_000 }, async () => {
    const seed = testSeed();
    const random = new SeededRandom(seed);
    try {
      const device = new DelayDevice(new MemoryBlockDevice({ size: SIZE }), () =>
        random.below(2) === 0 ? undefined : new Promise((resolve) => setImmediate(resolve)),
      );
      const server = (bench = await TestServer.start({ tcp: true, device }));
      for (let round = 0; round < ROUNDS; round++) {
        const parts: Buffer[] = [Buffer.from([0, 0, 0, 3])];
        if (random.below(2) === 0) parts.push(optionBytes(8, Buffer.alloc(0)));
        parts.push(
          optionBytes(10, contextRequest('disk', ['base:allocation'])),
          optionBytes(7, infoRequest('disk')),
        );
        for (let i = random.below(30); i > 0; i--) {
          const request = someRequest(random);
          parts.push(random.below(20) === 0 ? damage(request, random) : request);
        }
        await send(server, Buffer.concat(parts), random);
      }
      await expectClean(server);
    } catch (error) {
      throw new Error(`failed with PANDO_TEST_SEED=${seed}`, { cause: error });
    }
  });
});
