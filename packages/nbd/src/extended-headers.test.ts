/** What extended headers change: the option, the framing of requests and replies, 64-bit ranges, chosen contexts. */
import { MemoryBlockDevice } from '@pando/block-device';
import type { BlockDevice } from '@pando/block-device';
import { DelayDevice, SeededRandom, testSeed } from '@pando/block-device/testing';
import { afterEach, describe, expect, it } from 'vitest';
import { Option, OptionReply } from './protocol.ts';
import { contextRequest, infoRequest, rawRequest } from './testing/raw-client.ts';
import type { OptionAnswer, RawChunk, RawClient, RawRequest } from './testing/raw-client.ts';
import { TestServer, until } from './testing/test-server.ts';

const READ = 0;
const WRITE = 1;
const DISC = 2;
const FLUSH = 3;
const TRIM = 4;
const CACHE = 5;
const ZEROES = 6;
const STATUS = 7;
const FUA = 1;
const DF = 4;
const REQ_ONE = 8;
const PAYLOAD_LEN = 32;
const MiB = 2 ** 20;
const TiB = 2 ** 40;

let bench: TestServer | undefined;

afterEach(async () => {
  await bench?.stop();
  bench = undefined;
});

async function start(options: Parameters<typeof TestServer.start>[0] = {}): Promise<TestServer> {
  bench = await TestServer.start(options);
  return bench;
}

async function open(server: TestServer, contexts?: readonly string[]): Promise<RawClient> {
  const client = server.connect();
  await client.open('disk', { extended: true, ...(contexts === undefined ? {} : { contexts }) });
  return client;
}

async function ask(client: RawClient, request: RawRequest): Promise<RawChunk> {
  client.request(request);
  return client.readReply();
}

async function expectInStep(client: RawClient): Promise<void> {
  expect(await ask(client, { type: FLUSH, cookie: 4_242, offset: 7 })).toMatchObject({
    type: 0,
    flags: 1,
    cookie: 4_242,
    offset: 7n,
  });
}

const typesOf = (answers: readonly OptionAnswer[]): number[] => answers.map(({ type }) => type);

interface Status {
  readonly id: number;
  readonly extents: [bigint, bigint][];
}

function parseStatus({ type, payload }: RawChunk): Status {
  expect(type).toBe(6);
  const count = payload.readUInt32BE(4);
  expect(payload).toHaveLength(8 + 16 * count);
  const extents = Array.from({ length: count }, (_, i): [bigint, bigint] => [
    payload.readBigUInt64BE(8 + 16 * i),
    payload.readBigUInt64BE(16 + 16 * i),
  ]);
  return { id: payload.readUInt32BE(0), extents };
}

/** BLOCK_STATUS with a payload: a length and ids. */
function chosenStatus(length: bigint, ids: readonly number[], request: Partial<RawRequest> = {}): RawRequest {
  const payload = Buffer.alloc(8 + 4 * ids.length);
  payload.writeBigUInt64BE(length, 0);
  ids.forEach((id, i) => payload.writeUInt32BE(id, 8 + 4 * i));
  return { type: STATUS, flags: PAYLOAD_LEN, payload, ...request };
}

describe('EXTENDED_HEADERS', () => {
  it('is acknowledged, once and again, and refused with data', async () => {
    const client = (await start()).connect();
    await client.greet();
    expect(typesOf(await client.ask(Option.extendedHeaders, Buffer.alloc(1)))).toEqual([OptionReply.invalid]);
    expect(typesOf(await client.ask(Option.structuredReply))).toEqual([OptionReply.ack]);
    expect(typesOf(await client.useExtendedHeaders())).toEqual([OptionReply.ack]);
    expect(typesOf(await client.useExtendedHeaders())).toEqual([OptionReply.ack]);
    await client.ask(Option.go, infoRequest('disk'));
    await expectInStep(client);
  });

  it('takes precedence: STRUCTURED_REPLY afterwards is ERR_EXT_HEADER_REQD and changes nothing', async () => {
    const client = (await start()).connect();
    await client.greet();
    await client.useExtendedHeaders();
    const [answer] = await client.ask(Option.structuredReply);
    expect(answer).toMatchObject({ type: OptionReply.extendedHeadersRequired });
    expect(answer!.data.length).toBeGreaterThan(0);
    await client.ask(Option.go, infoRequest('disk'));
    await expectInStep(client);
  });

  it('forbids EXPORT_NAME: the client is dropped', async () => {
    const server = await start();
    const client = server.connect();
    await client.greet();
    await client.useExtendedHeaders();
    client.sendOption(Option.exportName, Buffer.from('disk'));
    expect(await client.endsNow()).toBe(true);
    expect(server.exports.handlesOpened).toBe(0);
  });

  it('implies structured replies: contexts and DF without STRUCTURED_REPLY, in either order', async () => {
    const server = await start();
    for (const order of [
      [Option.extendedHeaders, Option.setMetaContext],
      [Option.structuredReply, Option.setMetaContext, Option.extendedHeaders],
    ]) {
      const client = server.connect();
      await client.greet();
      for (const option of order) {
        const data =
          option === Option.setMetaContext ? contextRequest('disk', ['base:allocation']) : undefined;
        if (option === Option.extendedHeaders) await client.useExtendedHeaders();
        else expect((await client.ask(option, data)).at(-1)!.type).toBe(OptionReply.ack);
      }
      const [info] = await client.ask(Option.go, infoRequest('disk'));
      expect(info!.data.readUInt16BE(10) & ((1 << 7) | (1 << 12))).toBe((1 << 7) | (1 << 12));
      expect(parseStatus(await ask(client, { type: STATUS, length: MiB })).extents).toEqual([
        [BigInt(MiB), 3n],
      ]);
    }
  });

  it('announces BLOCK_STATUS_PAYLOAD only with contexts for that export', async () => {
    const server = await start();
    const flagOf = async (client: RawClient, name: string): Promise<number> =>
      ((await client.ask(Option.info, infoRequest(name)))[0]!.data.readUInt16BE(10) >> 12) & 1;
    server.exports.set('other', new MemoryBlockDevice({ size: MiB }));
    const structured = server.connect();
    await structured.greet();
    await structured.ask(Option.structuredReply);
    await structured.ask(Option.setMetaContext, contextRequest('disk', ['base:allocation']));
    expect(await flagOf(structured, 'disk')).toBe(0);
    await structured.useExtendedHeaders();
    expect(await flagOf(structured, 'disk')).toBe(1);
    expect(await flagOf(structured, 'other')).toBe(0);
    await structured.ask(Option.setMetaContext, contextRequest('disk', []));
    expect(await flagOf(structured, 'disk')).toBe(0);
  });

  it('is told to the log when a client attaches', async () => {
    const attached: unknown[] = [];
    const note = (fields: object, message: string): void => {
      if (message === 'an NBD client attached') attached.push((fields as { replies: unknown }).replies);
    };
    const silent = (): void => undefined;
    const server = await start({ logger: { debug: silent, info: note, warn: silent, error: silent } });
    await server.connect().open('disk');
    await server.connect().open('disk', { structured: true });
    await server.connect().open('disk', { extended: true });
    expect(attached).toEqual(['simple', 'structured', 'extended']);
  });
});

describe('extended replies', () => {
  it('are chunks of 32 bytes that echo the offset, for every command and also for offsets past 2^53', async () => {
    const client = await open(await start({ device: new MemoryBlockDevice({ size: 2 * TiB }) }), [
      'base:allocation',
    ]);
    const offset = TiB + 12_345;
    const requests: [RawRequest, number][] = [
      [{ type: WRITE, flags: PAYLOAD_LEN | FUA, payload: Buffer.alloc(5_000, 6) }, 0],
      [{ type: READ, length: 5_000 }, 1],
      [{ type: READ, length: 0 }, 0],
      [{ type: TRIM, length: 0 }, 0],
      [{ type: FLUSH }, 0],
      [{ type: CACHE, length: 2 ** 39 }, 0],
      [{ type: STATUS, length: 1 }, 6],
      [{ type: STATUS, length: 0 }, 0x8001],
      [{ type: 99 }, 0x8001],
      [{ type: WRITE, flags: PAYLOAD_LEN, payload: Buffer.alloc(0) }, 0],
    ];
    for (const [request, type] of requests) {
      const reply = await ask(client, { ...request, offset, cookie: 77 });
      expect(reply, `command ${request.type}`).toMatchObject({
        type,
        flags: 1,
        cookie: 77,
        offset: BigInt(offset),
      });
    }
    const far = 2n ** 64n - 3n;
    expect(await ask(client, { type: READ, offset: far, length: 1 })).toMatchObject({
      errno: 22,
      offset: far,
    });
  });

  it('carry data and holes, each chunk with the offset of the request', async () => {
    const device = new MemoryBlockDevice({ size: MiB });
    await device.write(8_192, new Uint8Array(4_096).fill(6));
    const client = await open(await start({ device }));
    client.request({ type: READ, offset: 100, length: 20_000 });
    const chunks = [await client.readReply(), await client.readReply(), await client.readReply()];
    expect(chunks.map(({ type, flags, offset }) => [type, flags, offset])).toEqual([
      [2, 0, 100n],
      [1, 0, 100n],
      [2, 1, 100n],
    ]);
    expect(chunks.map(({ payload }) => Number(payload.readBigUInt64BE(0)))).toEqual([100, 8_192, 12_288]);
    expect(chunks[1]!.payload.subarray(8).equals(Buffer.alloc(4_096, 6))).toBe(true);
    const whole = await ask(client, { type: READ, flags: DF, offset: 100, length: 20_000 });
    expect(whole.payload).toHaveLength(20_008);
  });

  it('carry the largest payload both ways', async () => {
    const client = await open(await start({ device: new MemoryBlockDevice({ size: 2 ** 25 }) }));
    const data = Buffer.alloc(2 ** 25, 0x3c);
    expect((await ask(client, { type: WRITE, flags: PAYLOAD_LEN, payload: data })).errno).toBe(0);
    const reply = await ask(client, { type: READ, length: data.length });
    expect(reply.payload.subarray(8).equals(data)).toBe(true);
  });
});

describe('extended requests', () => {
  it('have effect lengths of more than 4 GiB where no data moves', async () => {
    const device = new MemoryBlockDevice({ size: 8 * TiB });
    await device.write(6 * TiB, Uint8Array.of(9));
    const client = await open(await start({ device }), ['base:allocation']);
    expect(parseStatus(await ask(client, { type: STATUS, length: 8 * TiB })).extents).toEqual([
      [6n * BigInt(TiB), 3n],
      [4_096n, 0n],
      [2n * BigInt(TiB) - 4_096n, 3n],
    ]);
    expect(
      parseStatus(await ask(client, { type: STATUS, flags: REQ_ONE, length: 7 * TiB })).extents,
    ).toHaveLength(1);
    expect((await ask(client, { type: CACHE, length: 8 * TiB })).errno).toBe(0);
    expect((await ask(client, { type: TRIM, offset: 1, length: 8 * TiB - 1 })).errno).toBe(0);
    expect((await ask(client, { type: READ, offset: 6 * TiB, length: 1, flags: DF })).payload[8]).toBe(0);
    expect((await ask(client, { type: ZEROES, length: 8 * TiB })).errno).toBe(0);
  });

  it('are refused, and the connection goes on, when a length leaves the export or what a reply can hold', async () => {
    const client = await open(await start({ device: new MemoryBlockDevice({ size: TiB }) }), [
      'base:allocation',
    ]);
    const cases: [RawRequest, number][] = [
      [{ type: READ, length: 2 ** 33 }, 75],
      [{ type: READ, length: 2n ** 64n - 1n }, 22],
      [{ type: STATUS, length: 2n ** 40n + 1n }, 22],
      [{ type: STATUS, offset: 1, length: 2n ** 63n }, 22],
      [{ type: TRIM, offset: 512, length: 2n ** 64n - 512n }, 22],
      [{ type: CACHE, length: 2n ** 53n + 1n }, 22],
      [{ type: ZEROES, length: 2n ** 40n + 1n }, 28],
    ];
    for (const [request, errno] of cases) {
      expect((await ask(client, request)).errno, `${request.type} ${request.length}`).toBe(errno);
    }
    await expectInStep(client);
  });

  it('have their payload consumed, then EINVAL, where a command takes none', async () => {
    const device = new MemoryBlockDevice({ size: MiB });
    const client = await open(await start({ device }));
    await device.write(0, Uint8Array.of(1));
    for (const type of [READ, FLUSH, TRIM, CACHE, ZEROES, STATUS, 8, 77]) {
      for (const bytes of [1, 12, 100_000]) {
        const reply = await ask(client, { type, flags: PAYLOAD_LEN, payload: Buffer.alloc(bytes, 0x21) });
        expect(reply, `command ${type}, ${bytes} bytes`).toMatchObject({ type: 0x8001, errno: 22 });
      }
      // The flag with a length of 0: no payload, and still not this command's flag.
      expect((await ask(client, { type, flags: PAYLOAD_LEN })).errno, `command ${type}`).toBe(22);
    }
    expect((await ask(client, { type: READ, length: 1 })).payload[8]).toBe(1);
    // A WRITE that is refused has its payload consumed too.
    const past = { type: WRITE, flags: PAYLOAD_LEN, offset: MiB, payload: Buffer.alloc(70_000) };
    expect((await ask(client, past)).errno).toBe(28);
    await expectInStep(client);
  });

  it('end the connection when a payload is longer than the announced maximum', async () => {
    const server = await start();
    for (const type of [READ, WRITE, DISC, FLUSH, STATUS]) {
      for (const length of [2n ** 25n + 1n, 2n ** 40n]) {
        const client = await open(server);
        client.request({ type, flags: PAYLOAD_LEN, length });
        expect(await client.endsNow(), `command ${type}, ${length}`).toBe(true);
      }
    }
    await expectInStep(await open(server));
  });

  it('are WRITE with a payload also without PAYLOAD_LEN, as QEMU sends it', async () => {
    const client = await open(await start());
    expect((await ask(client, { type: WRITE, offset: 3, payload: Buffer.from('quaking') })).errno).toBe(0);
    const reply = await ask(client, { type: READ, offset: 3, length: 7 });
    expect(reply.payload.toString('latin1', 8)).toBe('quaking');
    client.request({ type: WRITE, length: 2 ** 25 + 1 });
    expect(await client.endsNow()).toBe(true);
  });

  it('end the connection at a compact header, and compact ones at an extended header', async () => {
    const server = await start();
    const extended = await open(server);
    extended.send(Buffer.concat([rawRequest({ type: FLUSH }), Buffer.alloc(4)]));
    expect(await extended.endsNow()).toBe(true);
    const compact = server.connect();
    await compact.open('disk', { structured: true });
    compact.send(rawRequest({ type: FLUSH }, true));
    expect(await compact.endsNow()).toBe(true);
  });

  it('are answered before DISC closes, also a DISC with a payload', async () => {
    const device = new DelayDevice(new MemoryBlockDevice({ size: MiB }), () => new Promise(setImmediate));
    const client = await open(await start({ device }));
    for (let cookie = 1; cookie <= 20; cookie++)
      client.request({ type: READ, length: 5_000, cookie, flags: DF });
    client.request({ type: DISC, flags: PAYLOAD_LEN, payload: Buffer.alloc(99) });
    const cookies = new Set<number>();
    for (let i = 0; i < 20; i++) cookies.add((await client.readReply()).cookie);
    expect(cookies.size).toBe(20);
    expect(await client.endsNow()).toBe(true);
  });

  it('are understood byte by byte, handshake and all', async () => {
    const client = (await start()).connect();
    const bytes = Buffer.concat([
      Buffer.from([0, 0, 0, 3]),
      Buffer.from('IHAVEOPT\0\0\0\x0b\0\0\0\0', 'latin1'),
      Buffer.from('IHAVEOPT\0\0\0\x07\0\0\0\x0a\0\0\0\x04disk\0\0', 'latin1'),
      rawRequest({ type: WRITE, flags: PAYLOAD_LEN, cookie: 1, payload: Buffer.from('one by one') }, true),
      rawRequest({ type: FLUSH, flags: PAYLOAD_LEN, cookie: 2, payload: Buffer.from('not yours') }, true),
      rawRequest({ type: READ, cookie: 3, length: 10 }, true),
    ]);
    await client.reader.read(18);
    for (const byte of bytes) {
      client.send(Buffer.of(byte));
      await new Promise((resolve) => setImmediate(resolve));
    }
    for (let acks = 0; acks < 2;) if ((await client.readAnswer()).type === OptionReply.ack) acks++;
    expect(await client.readReply()).toMatchObject({ cookie: 1, type: 0, errno: 0 });
    expect(await client.readReply()).toMatchObject({ cookie: 2, errno: 22 });
    const reply = await client.readReply();
    expect(reply.payload.toString('latin1', 8)).toBe('one by one');
  });
});

describe('BLOCK_STATUS with a payload', () => {
  const contexts = ['x-test:a', 'x-test:b', 'x-test:c'];

  async function begin(device: BlockDevice): Promise<{ client: RawClient; ids: number[]; asked: string[] }> {
    const server = await start({ device });
    const asked: string[] = [];
    for (const [i, name] of contexts.entries()) {
      server.exports.setContext('disk', name, (offset, length) => {
        asked.push(`${name} ${offset} ${length}`);
        return { lengths: [length], flags: [i] };
      });
    }
    const client = server.connect();
    await client.greet();
    await client.useExtendedHeaders();
    const answers = await client.ask(Option.setMetaContext, contextRequest('disk', contexts));
    const ids = answers.slice(0, -1).map(({ data }) => data.readUInt32BE(0));
    await client.ask(Option.go, infoRequest('disk'));
    return { client, ids, asked };
  }

  it('asks the contexts it names, for the length it names', async () => {
    const { client, ids, asked } = await begin(new MemoryBlockDevice({ size: 4 * TiB }));
    client.request(chosenStatus(BigInt(3 * TiB), [ids[2]!, ids[0]!], { offset: TiB }));
    const first = await client.readReply();
    const second = await client.readReply();
    expect([first.flags, second.flags]).toEqual([0, 1]);
    expect([first, second].map(({ offset }) => offset)).toEqual([BigInt(TiB), BigInt(TiB)]);
    expect([parseStatus(first), parseStatus(second)]).toEqual([
      { id: ids[2], extents: [[3n * BigInt(TiB), 2n]] },
      { id: ids[0], extents: [[3n * BigInt(TiB), 0n]] },
    ]);
    expect(asked).toEqual([`x-test:c ${TiB} ${3 * TiB}`, `x-test:a ${TiB} ${3 * TiB}`]);
    // Without the payload: all of them.
    client.request({ type: STATUS, offset: 5, length: 10 });
    for (const last of [0, 0, 1]) expect((await client.readReply()).flags).toBe(last);
  });

  it('is EINVAL, after the payload, for ids that are unknown or twice there, a bad size or a bad range', async () => {
    const { client, ids, asked } = await begin(new MemoryBlockDevice({ size: MiB }));
    const [a, b, c] = ids as [number, number, number];
    const bad: RawRequest[] = [
      chosenStatus(512n, []),
      chosenStatus(512n, [0]),
      chosenStatus(512n, [a, 0xffff_ffff]),
      chosenStatus(512n, [a, a]),
      chosenStatus(512n, [a, b, c, a]),
      chosenStatus(0n, [a]),
      chosenStatus(BigInt(MiB + 1), [a]),
      chosenStatus(2n ** 64n - 1n, [a], { offset: 1 }),
      chosenStatus(512n, [a], { offset: MiB }),
      { type: STATUS, flags: PAYLOAD_LEN, payload: Buffer.alloc(7) },
      { type: STATUS, flags: PAYLOAD_LEN, payload: Buffer.alloc(13) },
      { type: STATUS, flags: PAYLOAD_LEN, payload: Buffer.alloc(2 ** 20) },
      { type: STATUS, flags: PAYLOAD_LEN },
      chosenStatus(512n, [a], { flags: PAYLOAD_LEN | DF }),
    ];
    for (const request of bad) {
      expect(await ask(client, request), request.payload?.length.toString()).toMatchObject({
        type: 0x8001,
        errno: 22,
      });
    }
    expect(asked).toEqual([]);
    await expectInStep(client);
  });
});

describe('rubbish in extended mode', () => {
  it('costs nothing to others: random headers and payloads, cut anywhere', async () => {
    const seed = testSeed();
    const random = new SeededRandom(seed);
    const server = await start({ limits: { requestsInFlightMax: 8 } });
    const good = await open(server);
    for (let run = 0; run < 60; run++) {
      const client = await open(server, ['base:allocation']);
      client.socket.resume();
      const parts: Buffer[] = [];
      for (let i = 1 + random.below(20); i > 0; i--) {
        const payload = random.below(3) === 0 ? { payload: random.bytes(random.below(3_000)) } : {};
        parts.push(
          rawRequest(
            {
              type: random.below(10),
              flags: random.below(64),
              offset: random.below(3) === 0 ? 2n ** 64n - BigInt(random.below(9)) - 1n : random.below(MiB),
              ...payload,
              ...(random.below(2) === 0 ? { length: random.below(MiB) } : {}),
              ...(random.below(15) === 0 ? { magic: 7 } : {}),
            },
            true,
          ),
        );
      }
      const bytes = Buffer.concat(parts);
      client.send(bytes.subarray(0, random.below(bytes.length + 1)));
      if (random.below(2) === 0) client.halfClose();
      else client.reset();
      await client.closed;
      expect(
        (await ask(good, { type: FLUSH, cookie: run })).cookie,
        `PANDO_TEST_SEED=${seed}, run ${run}`,
      ).toBe(run);
    }
    await until(() => server.exports.openHandles === 1, `only one left, PANDO_TEST_SEED=${seed}`);
    expect(server.server.stats().requestsInFlight).toBe(0);
  });
});
