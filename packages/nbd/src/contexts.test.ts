/** Metadata contexts from the handshake to block status, with compact headers. */
import { MemoryBlockDevice } from '@pando/block-device';
import type { StatusExtents } from '@pando/block-device';
import { PandoError } from '@pando/common';
import { afterEach, describe, expect, it } from 'vitest';
import { Option, OptionReply } from './protocol.ts';
import { contextRequest, infoRequest } from './testing/raw-client.ts';
import type { OptionAnswer, RawChunk, RawClient } from './testing/raw-client.ts';
import { TestServer, until } from './testing/test-server.ts';

const SIZE = 2 ** 20;
const STATUS = 7;
const REQ_ONE = 8;
const LIST = Option.listMetaContext;
const SET = Option.setMetaContext;

let bench: TestServer | undefined;

afterEach(async () => {
  await bench?.stop();
  bench = undefined;
});

/** All of the range is one extent with these flags. */
const all =
  (flags: number) =>
  (_: number, length: number): StatusExtents => ({ lengths: [length], flags: [flags] });

const MONDAY = 'qemu:dirty-bitmap:monday';
const ODD = 'qemu:dirty-bitmap:2026-11-20T10:';
const DEPTH = 'qemu:allocation-depth';
const ROOT = 'x-pando:root';

async function start(options: Parameters<typeof TestServer.start>[0] = {}): Promise<TestServer> {
  bench = await TestServer.start(options);
  bench.exports.set('other', new MemoryBlockDevice({ size: SIZE }));
  for (const [i, name] of [MONDAY, ODD, DEPTH, ROOT].entries())
    bench.exports.setContext('disk', name, all(i));
  return bench;
}

async function greeted(server: TestServer): Promise<RawClient> {
  const client = server.connect();
  await client.greet();
  await client.ask(Option.structuredReply);
  return client;
}

const typesOf = (answers: readonly OptionAnswer[]): number[] => answers.map(({ type }) => type);

/** Names and numbers of an answer that ends with ACK. */
function contextsOf(answers: readonly OptionAnswer[]): [string, number][] {
  expect(typesOf(answers)).toEqual([...answers.slice(1).map(() => OptionReply.metaContext), OptionReply.ack]);
  return answers.slice(0, -1).map(({ data }) => [data.toString('utf8', 4), data.readUInt32BE(0)]);
}

const namesOf = (answers: readonly OptionAnswer[]): string[] => contextsOf(answers).map(([name]) => name);

async function idsOf(client: RawClient, queries: readonly string[]): Promise<Map<string, number>> {
  return new Map(contextsOf(await client.ask(SET, contextRequest('disk', queries))));
}

interface Status {
  readonly id: number;
  readonly extents: [number, number][];
}

function parseStatus(chunk: RawChunk): Status {
  expect(chunk).toMatchObject({ type: 5 });
  const extents: [number, number][] = [];
  for (let at = 4; at < chunk.payload.length; at += 8) {
    extents.push([chunk.payload.readUInt32BE(at), chunk.payload.readUInt32BE(at + 4)]);
  }
  return { id: chunk.payload.readUInt32BE(0), extents };
}

/** Every chunk of the answer, by context. */
async function status(
  client: RawClient,
  offset: number,
  length: number,
  flags = 0,
): Promise<Map<number, [number, number][]>> {
  client.request({ type: STATUS, flags, offset, length });
  const found = new Map<number, [number, number][]>();
  for (;;) {
    const chunk = await client.readReply();
    const { id, extents } = parseStatus(chunk);
    expect(found.has(id)).toBe(false);
    found.set(id, extents);
    if ((chunk.flags & 1) !== 0) return found;
  }
}

describe('LIST_META_CONTEXT', () => {
  it('lists everything without a query, and leaves nothing open', async () => {
    const server = await start();
    const client = await greeted(server);
    const listed = contextsOf(await client.ask(LIST, contextRequest('disk', [])));
    expect(listed.map(([name]) => name)).toEqual(['base:allocation', MONDAY, ODD, DEPTH, ROOT]);
    expect(listed.every(([, id]) => id === 0)).toBe(true);
    expect(server.exports.openHandles).toBe(0);
    expect(server.exports.handlesOpened).toBe(1);
  });

  it.each([
    [['base:'], ['base:allocation']],
    [['base:allocation'], ['base:allocation']],
    [['qemu:'], [MONDAY, ODD, DEPTH]],
    [['qemu:dirty-bitmap:'], [MONDAY, ODD]],
    [['x-pando:'], [ROOT]],
    [
      ['x-pando:', 'base:', 'x-pando:', ROOT],
      [ROOT, 'base:allocation'],
    ],
    [[MONDAY], [MONDAY]],
    // A name that ends in a colon is a name, not a prefix of others.
    [[ODD], [ODD]],
    [['qemu:dirty-bitmap:2026:'], []],
    [['qemu:dirty-bitmap:mon', 'base:alloc', 'base', 'x-unknown:', '', ':', 'allocation'], []],
  ])('answers %j with %j', async (queries, names) => {
    const server = await start();
    const client = await greeted(server);
    expect(namesOf(await client.ask(LIST, contextRequest('disk', queries)))).toEqual(names);
    expect(server.exports.openHandles).toBe(0);
  });

  it('ends at its limit', async () => {
    const server = await start({ limits: { listedContextsMax: 7 } });
    for (let i = 0; i < 50; i++) server.exports.setContext('disk', `qemu:dirty-bitmap:${i}`, all(0));
    const client = await greeted(server);
    for (const queries of [[], ['qemu:', 'base:'], ['base:', 'qemu:', 'x-pando:']]) {
      expect(contextsOf(await client.ask(LIST, contextRequest('disk', queries)))).toHaveLength(7);
    }
  });
});

describe('LIST_META_CONTEXT and SET_META_CONTEXT', () => {
  it('refuse an export that does not exist as GO does', async () => {
    const server = await start();
    const client = await greeted(server);
    for (const option of [LIST, SET]) {
      expect(typesOf(await client.ask(option, contextRequest('none', ['base:allocation'])))).toEqual([
        OptionReply.unknown,
      ]);
    }
    expect(typesOf(await client.ask(Option.go, infoRequest('none')))).toEqual([OptionReply.unknown]);
  });

  it('refuse more queries than the limit with ERR_TOO_BIG, before any export is opened', async () => {
    const server = await start({ limits: { contextQueriesMax: 3 } });
    const client = await greeted(server);
    const queries = ['a:1', 'a:2', 'a:3', 'a:4'];
    for (const option of [LIST, SET]) {
      expect(typesOf(await client.ask(option, contextRequest('disk', queries)))).toEqual([
        OptionReply.tooBig,
      ]);
      expect(namesOf(await client.ask(option, contextRequest('disk', queries.slice(1))))).toEqual([]);
    }
    expect(server.exports.handlesOpened).toBe(2);
  });

  it('answer what the export fails with, and close it', async () => {
    const server = await start();
    const broken = server.exports;
    const open = broken.open.bind(broken);
    broken.open = async (name, client) => {
      const handle = await open(name, client);
      const fail = (): Promise<never> => Promise.reject(new PandoError('store-failed', 'a test'));
      handle.contextNames = fail;
      handle.openContext = fail;
      return handle;
    };
    const client = await greeted(server);
    for (const option of [LIST, SET]) {
      expect(typesOf(await client.ask(option, contextRequest('disk', ['qemu:', DEPTH])))).toEqual([
        OptionReply.platform,
      ]);
    }
    expect(broken.openHandles).toBe(0);
    expect(typesOf(await client.ask(Option.go, infoRequest('disk'))).at(-1)).toBe(OptionReply.ack);
  });
});

describe('SET_META_CONTEXT', () => {
  it('selects exact names once each, in the order of the queries, and nothing by a wildcard', async () => {
    const client = await greeted(await start());
    const queries = [
      'qemu:',
      DEPTH,
      'base:',
      'x-no:such',
      'qemu:dirty-bitmap:',
      DEPTH,
      'base:allocation',
      'x',
    ];
    expect(namesOf(await client.ask(SET, contextRequest('disk', queries)))).toEqual([
      DEPTH,
      'base:allocation',
    ]);
    for (const none of [[], ['base:', 'qemu:', 'x-pando:'], ['base:alloc', 'base:allocation2']]) {
      expect(namesOf(await client.ask(SET, contextRequest('disk', none)))).toEqual([]);
    }
  });

  it('gives numbers that no other context of the connection had', async () => {
    const client = await greeted(await start());
    const seen = new Set<number>();
    for (const queries of [['base:allocation', MONDAY], [MONDAY], ['base:allocation', ROOT]]) {
      for (const id of (await idsOf(client, queries)).values()) {
        expect(seen.has(id)).toBe(false);
        expect(id).toBeGreaterThan(0);
        seen.add(id);
      }
    }
  });

  it('keeps the export open, and GO goes on with it: one handle, closed once, contexts first', async () => {
    for (const option of [Option.go, Option.exportName]) {
      const server = await start();
      const client = await greeted(server);
      const ids = await idsOf(client, [ROOT]);
      expect(server.exports.openHandles).toBe(1);
      await client.ask(Option.info, infoRequest('disk'));
      await client.ask(LIST, contextRequest('disk', [MONDAY]));
      await client.ask(Option.info, infoRequest('other'));
      expect(server.exports.openHandles).toBe(1);
      if (option === Option.go) {
        await client.ask(option, infoRequest('disk'));
      } else {
        client.sendOption(option, Buffer.from('disk'));
        await client.reader.read(10);
      }
      expect(await status(client, 0, 512)).toEqual(new Map([[ids.get(ROOT), [[512, 3]]]]));
      // The third one was INFO of another export.
      expect(server.exports.handlesOpened).toBe(2);
      client.destroy();
      await until(() => server.exports.openHandles === 0, 'the export closed');
      await server.stop();
    }
  });

  it('holds for the very name it was given: another export has no context, and the kept one is closed', async () => {
    const server = await start();
    const client = await greeted(server);
    await idsOf(client, [ROOT, 'base:allocation']);
    await client.ask(Option.go, infoRequest('other'));
    client.request({ type: STATUS, length: 512 });
    expect(await client.readReply()).toMatchObject({ errno: 22 });
    expect(server.exports.openHandles).toBe(1);
    expect(server.exports.handlesOpened).toBe(2);
  });

  it('survives a GO that fails', async () => {
    const client = await greeted(await start());
    const ids = await idsOf(client, [ROOT]);
    expect(typesOf(await client.ask(Option.go, infoRequest('none')))).toEqual([OptionReply.unknown]);
    await client.ask(Option.go, infoRequest('disk'));
    expect([...(await status(client, 0, 512)).keys()]).toEqual([...ids.values()]);
  });

  it('closes what an earlier SET kept, also when it fails', async () => {
    const server = await start({ limits: { contextsMax: 2 } });
    const failing: [Buffer, number][] = [
      [contextRequest('none', [ROOT]), OptionReply.unknown],
      [contextRequest('disk', [ROOT, MONDAY, 'base:allocation']), OptionReply.tooBig],
      [Buffer.concat([contextRequest('disk', [ROOT]), Buffer.alloc(1)]), OptionReply.invalid],
      [contextRequest('disk', [`x-long:${'y'.repeat(5_000)}`]), OptionReply.tooBig],
      [Buffer.alloc(70_000), OptionReply.tooBig],
      [contextRequest('disk', ['x-no:such']), OptionReply.ack],
      [contextRequest('disk', []), OptionReply.ack],
    ];
    for (const [data, type] of failing) {
      const client = await greeted(server);
      await idsOf(client, [ROOT, MONDAY]);
      expect(server.exports.openHandles).toBe(1);
      expect(typesOf(await client.ask(SET, data))).toEqual([type]);
      expect(server.exports.openHandles).toBe(0);
      await client.ask(Option.go, infoRequest('disk'));
      client.request({ type: STATUS, length: 512 });
      expect(await client.readReply()).toMatchObject({ errno: 22 });
      client.destroy();
      await until(() => server.exports.openHandles === 0, 'the export closed');
    }
  });

  it('is closed with the connection, however that ends', async () => {
    const ends: ((client: RawClient) => unknown)[] = [
      (client) => client.reset(),
      (client) => client.halfClose(),
      (client) => client.ask(Option.abort),
      (client) => client.send(Buffer.alloc(16, 7)),
      (client) => client.sendOption(Option.exportName, Buffer.from('none')),
    ];
    const server = await start();
    for (const end of ends) {
      const client = await greeted(server);
      await idsOf(client, [ROOT, MONDAY]);
      await end(client);
      await until(() => server.exports.openHandles === 0, 'the export closed');
    }
    const last = await greeted(server);
    await idsOf(last, [ROOT]);
    await server.server.close();
    expect(server.exports.openHandles).toBe(0);
  });

  it('retires a handshake whose kept export is revoked', async () => {
    const server = await start();
    const client = await greeted(server);
    await idsOf(client, [ROOT]);
    server.exports.revoke('disk');
    expect(await client.endsNow()).toBe(true);
    await until(() => server.exports.openHandles === 0, 'the export closed');
  });

  it('closes a handle that is opened when the client has left already', async () => {
    const server = await start();
    const { exports } = server;
    const open = exports.open.bind(exports);
    let go: (() => void) | undefined;
    exports.open = async (name, client) => {
      await new Promise<void>((resolve) => (go = resolve));
      return open(name, client);
    };
    const client = await greeted(server);
    client.sendOption(SET, contextRequest('disk', [ROOT]));
    await until(() => go !== undefined, 'the open began');
    client.reset();
    await client.closed;
    go!();
    await until(() => exports.handlesOpened === 1 && exports.openHandles === 0, 'the export closed');
  });
});

describe('block status', () => {
  it('keeps the answers of contexts apart', async () => {
    const server = await start();
    const half = SIZE / 2;
    server.exports.setContext('disk', DEPTH, (offset, length) => ({
      lengths: [half - offset, length - (half - offset)],
      flags: [1, 2],
    }));
    const client = await greeted(server);
    const ids = await idsOf(client, ['base:allocation', DEPTH, MONDAY]);
    await client.ask(Option.go, infoRequest('disk'));
    for (let round = 0; round < 3; round++) {
      expect(await status(client, 4_096, SIZE - 8_192)).toEqual(
        new Map([
          [ids.get('base:allocation'), [[SIZE - 8_192, 3]]],
          [
            ids.get(DEPTH),
            [
              [half - 4_096, 1],
              [half - 4_096, 2],
            ],
          ],
          [ids.get(MONDAY), [[SIZE - 8_192, 0]]],
        ]),
      );
    }
    for (const [, extents] of await status(client, 0, SIZE, REQ_ONE)) expect(extents).toHaveLength(1);
  });

  it('shares the extents of a reply among its contexts', async () => {
    const server = await start({ limits: { extentsMax: 20 } });
    const asked: number[] = [];
    for (const name of [DEPTH, MONDAY]) {
      server.exports.setContext('disk', name, (_, length, extentsMax) => {
        asked.push(extentsMax);
        const count = Math.floor(length / 512);
        return {
          lengths: Array<number>(count).fill(512),
          flags: Array.from({ length: count }, (_v, i) => i % 2),
        };
      });
    }
    const client = await greeted(server);
    await idsOf(client, [DEPTH, MONDAY]);
    await client.ask(Option.go, infoRequest('disk'));
    for (const [, extents] of await status(client, 0, SIZE)) expect(extents).toHaveLength(10);
    expect(asked).toEqual([10, 10]);
  });

  it('of 4 GiB - 1 bytes on a larger export fits 32 bits, whatever the source says', async () => {
    const device = new MemoryBlockDevice({ size: 2 ** 40 });
    const server = await start({ device });
    server.exports.setContext('disk', DEPTH, () => ({ lengths: [2 ** 33, 2 ** 33], flags: [1, 1] }));
    server.exports.setContext('disk', MONDAY, (offset) => ({
      lengths: [2 ** 32 - 2, 2 ** 34],
      flags: [offset === 0 ? 0 : 1, 2],
    }));
    const client = await greeted(server);
    const ids = await idsOf(client, ['base:allocation', DEPTH, MONDAY]);
    await client.ask(Option.go, infoRequest('disk'));
    for (const offset of [0, 1, 2 ** 40 - 0xffff_ffff]) {
      expect(await status(client, offset, 0xffff_ffff)).toEqual(
        new Map([
          [ids.get('base:allocation'), [[0xffff_ffff, 3]]],
          [ids.get(DEPTH), [[0xffff_ffff, 1]]],
          [
            ids.get(MONDAY),
            [
              [2 ** 32 - 2, offset === 0 ? 0 : 1],
              [1, 2],
            ],
          ],
        ]),
      );
    }
  });

  it('is an error of the request when a source fails or describes nothing', async () => {
    const server = await start();
    server.exports.setContext('disk', DEPTH, () => ({ lengths: [], flags: [] }));
    server.exports.setContext('disk', MONDAY, () => {
      throw new PandoError('chunk-corrupt', 'a test');
    });
    for (const name of [DEPTH, MONDAY]) {
      const client = await greeted(server);
      await idsOf(client, ['base:allocation', name]);
      await client.ask(Option.go, infoRequest('disk'));
      client.request({ type: STATUS, length: 512 });
      expect(await client.readReply()).toMatchObject({ type: 0x8001, flags: 1, errno: 5 });
      client.request({ type: 0, length: 0 });
      expect(await client.readReply()).toMatchObject({ errno: 0 });
    }
  });

  it('keeps within the bounds on buffers, however many are in flight, and answers every one', async () => {
    const limits = { bufferBytesMax: 4 * 2 ** 20, connectionBufferBytesMax: 2 ** 20 };
    const server = await start({ limits });
    let described = 0;
    let go: (() => void) | undefined;
    const gate = new Promise<void>((resolve) => (go = resolve));
    for (const name of [DEPTH, MONDAY]) {
      server.exports.setContext('disk', name, async (_, length, extentsMax) => {
        described++;
        await gate;
        const flags = Array.from({ length: extentsMax }, (_v, i) => i % 2);
        return { lengths: flags.map(() => Math.floor(length / extentsMax)), flags };
      });
    }
    const requests = 40;
    const clients = await Promise.all([1, 2, 3, 4, 5, 6].map(() => greeted(server)));
    for (const client of clients) {
      await idsOf(client, [DEPTH, MONDAY]);
      await client.ask(Option.go, infoRequest('disk'));
      for (let i = 0; i < requests; i++) client.request({ type: STATUS, length: SIZE });
    }
    await until(() => described >= 6, 'several are being described');
    // As many as may be: the others are not even read.
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(server.server.stats().bufferBytes).toBeLessThanOrEqual(limits.bufferBytesMax);
    expect(described).toBeLessThan(clients.length * requests);
    go!();
    await Promise.all(
      clients.map(async (client) => {
        for (let chunks = 0; chunks < 2 * requests; chunks++) {
          expect(parseStatus(await client.readReply()).extents).toHaveLength(SIZE / 512 + 2);
        }
      }),
    );
    expect(described).toBe(2 * clients.length * requests);
  });

  it('waits with closing a context until its describe is over', async () => {
    const server = await start();
    let go: (() => void) | undefined;
    server.exports.setContext('disk', DEPTH, async (_, length) => {
      await new Promise<void>((resolve) => (go = resolve));
      return { lengths: [length], flags: [1] };
    });
    const client = await greeted(server);
    await idsOf(client, [DEPTH]);
    await client.ask(Option.go, infoRequest('disk'));
    client.request({ type: STATUS, length: 512 });
    await until(() => go !== undefined, 'the describe began');
    client.reset();
    await client.closed;
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(server.exports.openHandles).toBe(1);
    go!();
    await until(() => server.exports.openHandles === 0, 'the export closed');
  });
});
