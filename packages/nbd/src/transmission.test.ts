import { MemoryBlockDevice } from '@pando/block-device';
import type { BlockDevice } from '@pando/block-device';
import { DelayDevice, ErrorDevice, SeededRandom } from '@pando/block-device/testing';
import type { DeviceOperation } from '@pando/block-device/testing';
import { PandoError } from '@pando/common';
import type { ErrorCode } from '@pando/common';
import { afterEach, describe, expect, it } from 'vitest';
import type { RawChunk, RawClient, RawRequest } from './testing/raw-client.ts';
import { TestServer } from './testing/test-server.ts';

const SIZE = 2 ** 20;
const READ = 0;
const WRITE = 1;
const DISC = 2;
const FLUSH = 3;
const TRIM = 4;
const CACHE = 5;
const ZEROES = 6;
const STATUS = 7;
const FUA = 1;
const NO_HOLE = 2;
const DF = 4;
const REQ_ONE = 8;
const FAST_ZERO = 16;
const PAYLOAD_LEN = 32;

let bench: TestServer | undefined;

afterEach(async () => {
  await bench?.stop();
  bench = undefined;
});

async function start(options: Parameters<typeof TestServer.start>[0] = {}): Promise<TestServer> {
  bench = await TestServer.start(options);
  return bench;
}

async function structured(server: TestServer): Promise<RawClient> {
  const client = server.connect();
  await client.open('disk', { structured: true, contexts: ['base:allocation'] });
  return client;
}

async function simple(server: TestServer): Promise<RawClient> {
  const client = server.connect();
  await client.open('disk');
  return client;
}

async function ask(client: RawClient, request: RawRequest, dataBytes = 0): Promise<RawChunk> {
  client.request(request);
  return client.readReply(dataBytes);
}

/** The server still answers properly. */
async function expectInStep(client: RawClient): Promise<void> {
  expect(await ask(client, { type: FLUSH, cookie: 4242 })).toMatchObject({ errno: 0, cookie: 4242 });
}

/** Counts what reaches the device. */
class Spy extends ErrorDevice {
  readonly operations: DeviceOperation[];

  constructor(inner: BlockDevice) {
    const operations: DeviceOperation[] = [];
    super(inner, (operation) => {
      operations.push(operation);
      return undefined;
    });
    this.operations = operations;
  }
}

const refused: [string, RawRequest, number][] = [
  ['an unknown command', { type: 8 }, 22],
  ['command 65535', { type: 65_535 }, 22],
  ['an unknown flag', { type: READ, flags: 0x8000, length: 1 }, 22],
  ['PAYLOAD_LEN without extended headers', { type: WRITE, flags: 32, payload: Buffer.alloc(5) }, 22],
  ['DF on WRITE', { type: WRITE, flags: DF, payload: Buffer.alloc(5) }, 22],
  ['NO_HOLE on TRIM', { type: TRIM, flags: NO_HOLE, length: 1 }, 22],
  ['REQ_ONE on READ', { type: READ, flags: REQ_ONE, length: 1 }, 22],
  ['FAST_ZERO on WRITE', { type: WRITE, flags: FAST_ZERO, payload: Buffer.alloc(1) }, 22],
  ['a READ past the end', { type: READ, offset: SIZE - 1, length: 2 }, 22],
  ['a READ far past the end', { type: READ, offset: 2n ** 64n - 1n, length: 1 }, 22],
  ['a READ whose end wraps around', { type: READ, offset: 2n ** 64n - 512n, length: 1_024 }, 22],
  ['a READ of 32 MiB and a byte', { type: READ, length: 2 ** 25 + 1 }, 22],
  ['a WRITE past the end', { type: WRITE, offset: SIZE - 1, payload: Buffer.from('ab') }, 28],
  ['a WRITE far past the end', { type: WRITE, offset: 2n ** 63n, payload: Buffer.alloc(100_000) }, 28],
  ['WRITE_ZEROES past the end', { type: ZEROES, offset: SIZE, length: 1 }, 28],
  ['WRITE_ZEROES of 4 GiB', { type: ZEROES, length: 0xffff_ffff }, 28],
  ['a TRIM past the end', { type: TRIM, offset: SIZE - 512, length: 1_024 }, 22],
  ['a TRIM of 4 GiB', { type: TRIM, length: 0xffff_ffff }, 22],
  ['CACHE past the end', { type: CACHE, offset: SIZE, length: 1 }, 22],
];

describe('requests that are refused', () => {
  for (const kind of ['simple', 'structured', 'extended'] as const) {
    it(`answers each with its error and goes on (${kind} replies)`, async () => {
      const spy = new Spy(new MemoryBlockDevice({ size: SIZE }));
      const server = await start({ device: spy });
      const client = server.connect();
      await client.open('disk', { [kind]: true });
      for (const [what, request, errno] of refused) {
        const payloadLen = kind === 'extended' && request.payload !== undefined ? PAYLOAD_LEN : 0;
        const flags = (request.flags ?? 0) | payloadLen;
        // With extended headers the flag belongs there.
        if (request.type === WRITE && request.flags === PAYLOAD_LEN && payloadLen !== 0) continue;
        const reply = await ask(client, { ...request, flags, cookie: 77 });
        expect(reply, what).toMatchObject({ errno, cookie: 77, structured: kind !== 'simple' });
        if (kind !== 'simple') {
          expect(reply.type, what).toBe(0x8001);
          expect(reply.payload.length, what).toBeGreaterThan(6);
        }
        if (kind === 'extended') expect(reply.offset, what).toBe(BigInt(request.offset ?? 0));
      }
      expect(spy.operations).toEqual([]);
      await expectInStep(client);
    });
  }

  it('refuses a READ of more than the maximum payload: EOVERFLOW, where DF is supported, else EINVAL', async () => {
    const server = await start({ device: new MemoryBlockDevice({ size: 2 ** 26 }) });
    for (const [client, flags, errno] of [
      [await simple(server), 0, 22],
      [await structured(server), 0, 75],
      [await structured(server), DF, 75],
    ] as const) {
      expect((await ask(client, { type: READ, flags, length: 2 ** 25 + 1 })).errno).toBe(errno);
      await expectInStep(client);
    }
  });

  it('refuses DF and block status to a client without structured replies', async () => {
    const client = await simple(await start());
    expect((await ask(client, { type: READ, flags: DF, length: 1 })).errno).toBe(22);
    expect((await ask(client, { type: STATUS, length: 512 })).errno).toBe(22);
    await expectInStep(client);
  });

  it('refuses block status of no bytes, past the end, and without a context', async () => {
    const server = await start();
    const client = await structured(server);
    expect((await ask(client, { type: STATUS, length: 0 })).errno).toBe(22);
    expect((await ask(client, { type: STATUS, offset: SIZE, length: 1 })).errno).toBe(22);
    const other = server.connect();
    await other.open('disk', { structured: true });
    expect((await ask(other, { type: STATUS, length: 1 })).errno).toBe(22);
    await expectInStep(other);
  });

  it('refuses to change a read-only export with EPERM, whatever the range, and stays in step', async () => {
    const device = new MemoryBlockDevice({ size: SIZE, readOnly: true });
    const client = await structured(await start({ device }));
    for (const request of [
      { type: WRITE, payload: Buffer.alloc(70_000) },
      { type: WRITE, offset: SIZE, payload: Buffer.alloc(3) },
      { type: TRIM, length: 512 },
      { type: ZEROES, length: 512 },
    ]) {
      expect((await ask(client, request)).errno).toBe(1);
    }
    expect((await ask(client, { type: READ, length: 512 })).errno).toBe(0);
    await expectInStep(client);
  });

  it('consumes a payload of 33 MiB without storing it, and goes on', async () => {
    const server = await start();
    const client = await simple(server);
    const bytes = 33 * 2 ** 20;
    client.request({ type: WRITE, length: bytes, cookie: 6 });
    const piece = Buffer.alloc(2 ** 20, 0xaa);
    let most = 0;
    for (let sent = 0; sent < bytes; sent += piece.length) {
      if (!client.socket.write(piece)) await new Promise((resolve) => client.socket.once('drain', resolve));
      most = Math.max(most, server.server.stats().bufferBytes);
    }
    expect(await client.readReply()).toMatchObject({ errno: 22, cookie: 6 });
    expect(most).toBeLessThan(2 ** 20);
    await expectInStep(client);
  });

  it('cuts a client off whose payload is too long even to skip, or whose request has no magic number', async () => {
    const server = await start();
    for (const request of [
      { type: WRITE, length: 0xffff_ffff },
      { type: READ, magic: 0x12345678 },
    ]) {
      const client = await simple(server);
      client.request(request);
      expect(await client.endsNow()).toBe(true);
    }
    await expectInStep(await simple(server));
  });
});

describe('requests that are carried out', () => {
  it('takes the largest payload both ways', async () => {
    const server = await start({ device: new MemoryBlockDevice({ size: 2 ** 25 }) });
    const client = await structured(server);
    const data = Buffer.alloc(2 ** 25, 0x3c);
    expect((await ask(client, { type: WRITE, payload: data })).errno).toBe(0);
    const reply = await ask(client, { type: READ, length: data.length });
    expect(reply.type).toBe(1);
    expect(reply.payload.subarray(8).equals(data)).toBe(true);
  });

  it('takes FUA on every command', async () => {
    const client = await structured(await start());
    const requests: RawRequest[] = [
      { type: READ, length: 512 },
      { type: WRITE, payload: Buffer.alloc(512) },
      { type: FLUSH },
      { type: TRIM, length: 512 },
      { type: CACHE, length: 512 },
      { type: ZEROES, length: 512 },
      { type: STATUS, length: 512 },
    ];
    for (const request of requests) expect((await ask(client, { ...request, flags: FUA })).errno).toBe(0);
  });

  it('flushes after a write, trim or zeroing with FUA before it answers, and only then', async () => {
    for (const delayed of [false, true]) {
      const spy = new Spy(new MemoryBlockDevice({ size: SIZE }));
      const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
      const server = await start({ device: delayed ? new DelayDevice(spy, turn) : spy });
      const client = await simple(server);
      await ask(client, { type: WRITE, payload: Buffer.alloc(10) });
      await ask(client, { type: WRITE, flags: FUA, payload: Buffer.alloc(10) });
      await ask(client, { type: ZEROES, flags: FUA | NO_HOLE | FAST_ZERO, length: 10 });
      await ask(client, { type: TRIM, flags: FUA, length: 10 });
      expect(spy.operations).toEqual(['write', 'write', 'flush', 'zero', 'flush', 'zero', 'flush']);
      await server.stop();
    }
  });

  it('answers requests of no bytes with success, a READ with an empty structured reply', async () => {
    const server = await start();
    const client = await structured(server);
    for (const type of [WRITE, TRIM, CACHE, ZEROES])
      expect((await ask(client, { type, offset: SIZE })).errno).toBe(0);
    expect(await ask(client, { type: READ, cookie: 3 })).toMatchObject({
      structured: true,
      type: 0,
      flags: 1,
      cookie: 3,
    });
    expect(await ask(await simple(server), { type: READ })).toMatchObject({ structured: false, errno: 0 });
  });

  it('sends holes in reads, and none with DF', async () => {
    const device = new MemoryBlockDevice({ size: SIZE });
    await device.write(8_192, new Uint8Array(4_096).fill(6));
    const client = await structured(await start({ device }));
    client.request({ type: READ, length: 20_000 });
    const chunks = [await client.readReply(), await client.readReply(), await client.readReply()];
    expect(chunks.map((chunk) => chunk.type)).toEqual([2, 1, 2]);
    expect(chunks.map((chunk) => chunk.flags)).toEqual([0, 0, 1]);
    const whole = await ask(client, { type: READ, flags: DF, length: 20_000 });
    expect(whole).toMatchObject({ type: 1, flags: 1 });
    expect(whole.payload).toHaveLength(20_008);
  });

  it('describes holes and data, one extent with REQ_ONE, and no more than the limit', async () => {
    const device = new MemoryBlockDevice({ size: SIZE });
    for (let i = 0; i < 20; i++) await device.write(i * 8_192, Uint8Array.of(1));
    const client = await structured(await start({ device, limits: { extentsMax: 7 } }));
    const extents = (chunk: RawChunk): number[] => {
      expect(chunk).toMatchObject({ type: 5, flags: 1 });
      expect(chunk.payload.readUInt32BE(0)).toBe(1);
      return Array.from({ length: (chunk.payload.length - 4) / 4 }, (_, i) =>
        chunk.payload.readUInt32BE(4 + 4 * i),
      );
    };
    expect(extents(await ask(client, { type: STATUS, flags: REQ_ONE, offset: 100, length: 50_000 }))).toEqual(
      [3_996, 0],
    );
    expect(extents(await ask(client, { type: STATUS, offset: 4_096, length: 8_200 }))).toEqual([
      4_096, 3, 4_096, 0, 8, 3,
    ]);
    expect(extents(await ask(client, { type: STATUS, length: SIZE }))).toHaveLength(14);
  });

  it('describes 4 GiB - 1 bytes of a larger export', async () => {
    const client = await structured(await start({ device: new MemoryBlockDevice({ size: 2 ** 40 }) }));
    const reply = await ask(client, { type: STATUS, offset: 2 ** 39 + 1, length: 0xffff_ffff });
    expect(reply.payload.readUInt32BE(4)).toBe(0xffff_ffff);
    expect((await ask(client, { type: TRIM, offset: 2 ** 38, length: 0xffff_ffff })).errno).toBe(0);
    expect((await ask(client, { type: ZEROES, offset: 2 ** 38, length: 0xffff_ffff })).errno).toBe(0);
    expect((await ask(client, { type: CACHE, offset: 2 ** 38, length: 0xffff_ffff })).errno).toBe(0);
  });

  it('lets quick requests overtake slow ones', async () => {
    let open: (() => void) | undefined;
    const gate = new Promise<void>((resolve) => (open = resolve));
    const device = new DelayDevice(new MemoryBlockDevice({ size: SIZE }), (operation) =>
      operation === 'read' ? gate : undefined,
    );
    const client = await simple(await start({ device }));
    client.request({ type: READ, length: 100_000, cookie: 1 });
    client.request({ type: READ, length: 100_000, cookie: 2 });
    client.request({ type: WRITE, payload: Buffer.alloc(9, 7), cookie: 3 });
    expect((await client.readReply()).cookie).toBe(3);
    open!();
    const first = await client.readReply(100_000);
    const second = await client.readReply(100_000);
    expect([first.cookie, second.cookie].sort()).toEqual([1, 2]);
  });

  it('answers everything that is outstanding before it closes on DISC, and ignores what follows', async () => {
    const random = new SeededRandom(9);
    const device = new DelayDevice(new MemoryBlockDevice({ size: SIZE }), async () => {
      for (let i = random.below(20); i > 0; i--) await new Promise((resolve) => setImmediate(resolve));
    });
    const server = await start({ device });
    const client = await simple(server);
    for (let cookie = 1; cookie <= 50; cookie++) client.request({ type: READ, length: 10_000, cookie });
    client.request({ type: DISC, offset: 12345, length: 99, flags: 0x7fff, cookie: 51 });
    client.send(Buffer.from('whatever else there may be'));
    const cookies = new Set<number>();
    for (let i = 0; i < 50; i++) cookies.add((await client.readReply(10_000)).cookie);
    expect(cookies.size).toBe(50);
    expect(await client.endsNow()).toBe(true);
    await client.closed;
  });
});

describe('errors of the device', () => {
  const cases: [ErrorCode, number][] = [
    ['read-only', 1],
    ['store-full', 28],
    ['store-failed', 5],
    ['chunk-corrupt', 5],
    ['range-invalid', 22],
    ['shutting-down', 108],
    ['internal', 5],
  ];
  for (const delayed of [false, true]) {
    it(`become NBD errors of the request, not of the connection (${delayed ? 'later' : 'at once'})`, async () => {
      let code: ErrorCode = 'internal';
      const failing = new ErrorDevice(
        new MemoryBlockDevice({ size: SIZE }),
        () => new PandoError(code, 'a test'),
      );
      const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
      const server = await start({ device: delayed ? new DelayDevice(failing, turn) : failing });
      const client = await structured(server);
      for (const [error, errno] of cases) {
        code = error;
        for (const request of [
          { type: READ, length: 4_096 },
          { type: WRITE, payload: Buffer.alloc(100) },
          { type: TRIM, length: 1 },
          { type: CACHE, length: 1 },
          { type: FLUSH },
          { type: STATUS, length: 512 },
        ]) {
          const reply = await ask(client, request);
          expect(reply, `${error}, command ${request.type}`).toMatchObject({
            errno,
            structured: true,
            // A read that meets damage says where.
            type: error === 'chunk-corrupt' && request.type === READ ? 0x8002 : 0x8001,
          });
        }
      }
    });
  }

  it('keep what lower layers say about the server to themselves', async () => {
    const failing = new ErrorDevice(
      new MemoryBlockDevice({ size: SIZE }),
      () => new PandoError('store-failed', "EIO: i/o error, fdatasync '/srv/secret'"),
    );
    const client = await structured(await start({ device: failing }));
    const reply = await ask(client, { type: READ, length: 1 });
    expect(reply.payload.toString()).not.toContain('secret');
    expect(reply.payload.toString()).toContain('store-failed');
  });

  it('are EIO when they are no PandoError, and when a flush after FUA fails', async () => {
    let armed: DeviceOperation = 'write';
    const failing = new ErrorDevice(new MemoryBlockDevice({ size: SIZE }), (operation) =>
      operation === armed ? new TypeError('surprise') : undefined,
    );
    const client = await simple(await start({ device: failing }));
    expect((await ask(client, { type: WRITE, payload: Buffer.alloc(1) })).errno).toBe(5);
    armed = 'flush';
    expect((await ask(client, { type: WRITE, flags: FUA, payload: Buffer.alloc(1) })).errno).toBe(5);
    expect((await ask(client, { type: WRITE, payload: Buffer.alloc(1) })).errno).toBe(0);
  });
});
