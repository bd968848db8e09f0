import { MemoryBlockDevice } from '@pando/block-device';
import { PandoError } from '@pando/common';
import type { Clock } from '@pando/common';
import { afterEach, describe, expect, it } from 'vitest';
import { OptionReply } from './protocol.ts';
import { createNbdServer } from './server.ts';
import { SERVER_CERTIFICATE, SERVER_KEY } from './testing/certificates.ts';
import { RawClient, contextRequest, infoRequest } from './testing/raw-client.ts';
import type { OptionAnswer } from './testing/raw-client.ts';
import { TestServer, until } from './testing/test-server.ts';
import { tlsCredentials } from './tls.ts';

const CREDENTIALS = tlsCredentials({ certificate: SERVER_CERTIFICATE, key: SERVER_KEY }, Date.now());

let bench: TestServer | undefined;

afterEach(async () => {
  await bench?.stop();
  bench = undefined;
});

async function start(options: Parameters<typeof TestServer.start>[0] = {}): Promise<TestServer> {
  bench = await TestServer.start(options);
  return bench;
}

const types = (answers: readonly OptionAnswer[]): number[] => answers.map((answer) => answer.type);
const LIST = 3;
const INFO = 6;
const GO = 7;
const STRUCTURED = 8;
const LIST_META = 9;
const SET_META = 10;

describe('handshake', () => {
  it('greets with fixed newstyle and NO_ZEROES', async () => {
    const client = (await start()).connect();
    const greeting = await client.greet();
    expect(greeting.toString('latin1', 0, 16)).toBe('NBDMAGICIHAVEOPT');
    expect(greeting.readUInt16BE(16)).toBe(3);
  });

  it('answers EXPORT_NAME with size and flags, and 124 zeros only without NO_ZEROES', async () => {
    for (const [clientFlags, bytes] of [
      [3, 10],
      [1, 134],
      [0, 134],
    ] as const) {
      const server = await start();
      const client = server.connect();
      await client.greet(clientFlags);
      client.sendOption(1, Buffer.from('disk'));
      const answer = await client.reader.read(bytes);
      expect(answer.readBigUInt64BE(0)).toBe(2n ** 20n);
      expect(answer.subarray(10).every((byte) => byte === 0)).toBe(true);
      client.request({ type: 3, cookie: 9 });
      expect(await client.readReply()).toMatchObject({ errno: 0, cookie: 9, structured: false });
      await server.stop();
    }
  });

  it('announces what it does, by the bits of the specification', async () => {
    const server = await start();
    server.exports.set('backup', new MemoryBlockDevice({ size: 512, readOnly: true }));
    const flagsOf = async (name: string, structured: boolean): Promise<number> => {
      const client = server.connect();
      await client.greet();
      if (structured) await client.ask(STRUCTURED);
      const [info] = await client.ask(INFO, infoRequest(name));
      return info!.data.readUInt16BE(10);
    };
    // HAS_FLAGS 0, READ_ONLY 1, FLUSH 2, FUA 3, TRIM 5, ZEROES 6, DF 7, MULTI_CONN 8, CACHE 10, FAST_ZERO 11
    const bits = (...numbers: number[]): number => numbers.reduce((sum, bit) => sum | (1 << bit), 0);
    expect(await flagsOf('disk', false)).toBe(bits(0, 2, 3, 5, 6, 8, 10, 11));
    expect(await flagsOf('disk', true)).toBe(bits(0, 2, 3, 5, 6, 7, 8, 10, 11));
    expect(await flagsOf('backup', true)).toBe(bits(0, 1, 2, 3, 7, 8, 10));
  });

  it('sends export and block sizes always, name and description when asked, and ignores unknown infos', async () => {
    const client = (await start()).connect();
    await client.greet();
    const plain = await client.ask(INFO, infoRequest('disk'));
    expect(plain.slice(0, -1).map((answer) => answer.data.readUInt16BE(0))).toEqual([0, 3]);
    const sizes = plain[1]!.data;
    expect([sizes.readUInt32BE(2), sizes.readUInt32BE(6), sizes.readUInt32BE(10)]).toEqual([
      1,
      4096,
      2 ** 25,
    ]);
    const all = await client.ask(INFO, infoRequest('disk', [0, 1, 2, 3, 999]));
    expect(all.slice(0, -1).map((answer) => answer.data.readUInt16BE(0))).toEqual([0, 3, 1, 2]);
    expect(all[2]!.data.toString('utf8', 2)).toBe('disk');
    expect(types(all).at(-1)).toBe(OptionReply.ack);
  });

  it('answers GO as INFO, then starts transmission; INFO leaves no export open', async () => {
    const server = await start();
    const client = server.connect();
    await client.greet();
    const info = await client.ask(INFO, infoRequest('disk', [1]));
    expect(server.exports.openHandles).toBe(0);
    const go = await client.ask(GO, infoRequest('disk', [1]));
    expect(go.map((answer) => answer.data)).toEqual(info.map((answer) => answer.data));
    expect(server.exports.openHandles).toBe(1);
    client.request({ type: 3, cookie: 5 });
    expect((await client.readReply()).cookie).toBe(5);
  });

  it('lists exports', async () => {
    const server = await start();
    server.exports.set('web-1/disk0', new MemoryBlockDevice({ size: 512 }));
    const client = server.connect();
    await client.greet();
    const answers = await client.ask(LIST);
    expect(types(answers)).toEqual([OptionReply.server, OptionReply.server, OptionReply.ack]);
    expect(answers[1]!.data.readUInt32BE(0)).toBe(11);
    expect(answers[1]!.data.toString('utf8', 4)).toBe('web-1/disk0');
  });

  it('lists at most the limit', async () => {
    const server = await start({ limits: { listedExportsMax: 3 } });
    for (let i = 0; i < 10; i++) server.exports.set(`vm-${i}`, new MemoryBlockDevice({ size: 512 }));
    const client = server.connect();
    await client.greet();
    expect(await client.ask(LIST)).toHaveLength(4);
  });

  it('acknowledges ABORT, with data or without, and closes', async () => {
    const server = await start();
    for (const data of [Buffer.alloc(0), Buffer.from('ignored')]) {
      const client = server.connect();
      await client.greet();
      expect(types(await client.ask(2, data))).toEqual([OptionReply.ack]);
      expect(await client.endsNow()).toBe(true);
      await client.closed;
    }
  });

  it('drops a client whose flags were not offered', async () => {
    const server = await start();
    for (const flags of [4, 0x8000_0003, 0xffff_ffff]) {
      const client = server.connect();
      await client.greet(flags);
      expect(await client.endsNow()).toBe(true);
    }
  });

  it('drops a client whose option has no magic number', async () => {
    const client = (await start()).connect();
    await client.greet();
    client.send(Buffer.alloc(16, 7));
    expect(await client.endsNow()).toBe(true);
  });

  it('answers unknown options and STARTTLS with ERR_UNSUP and stays in step', async () => {
    const client = (await start()).connect();
    await client.greet();
    for (const [option, bytes] of [
      [4, 0],
      [5, 0],
      [12, 1],
      [0xffff_ffff, 5_000],
      [99, 65_536],
      [98, 70_000],
    ] as const) {
      expect(types(await client.ask(option, Buffer.alloc(bytes, 1)))).toEqual([OptionReply.unsupported]);
    }
    expect(types(await client.ask(GO, infoRequest('disk'))).at(-1)).toBe(OptionReply.ack);
  });

  it('skips an option that is too long and answers ERR_TOO_BIG', async () => {
    const client = (await start()).connect();
    await client.greet();
    expect(types(await client.ask(GO, Buffer.alloc(65_537)))).toEqual([OptionReply.tooBig]);
    expect(types(await client.ask(LIST))).toEqual([OptionReply.server, OptionReply.ack]);
  });

  it('drops a client that announces an option too long even to skip', async () => {
    const server = await start();
    const client = server.connect();
    await client.greet();
    client.send(Buffer.from('49484156454f505400000007ffffffff', 'hex'));
    expect(await client.endsNow()).toBe(true);
    expect(server.server.stats().bufferBytes).toBe(0);
  });

  it('refuses malformed data of every option with ERR_INVALID and stays in step', async () => {
    const client = (await start()).connect();
    await client.greet();
    const cases: [string, number, Buffer][] = [
      ['data on LIST', LIST, Buffer.from('x')],
      ['data on STRUCTURED_REPLY', STRUCTURED, Buffer.from('x')],
      ['no data on GO', GO, Buffer.alloc(0)],
      ['a name length that leaves the option', GO, Buffer.from('7fffffff0000', 'hex')],
      ['a name length of 2^32 - 1', INFO, Buffer.from('ffffffff6469736b0000', 'hex')],
      [
        'fewer infos than announced',
        GO,
        Buffer.concat([infoRequest('disk').subarray(0, -2), Buffer.from([0, 2, 0, 1])]),
      ],
      ['bytes after the infos', GO, Buffer.concat([infoRequest('disk'), Buffer.from('x')])],
      ['a name with a NUL', GO, infoRequest('di\0sk')],
      ['a name that is not UTF-8', GO, Buffer.from('00000002c3280000', 'hex')],
      ['no data on SET_META_CONTEXT', SET_META, Buffer.alloc(0)],
      [
        'more queries than there are',
        SET_META,
        Buffer.concat([contextRequest('disk', []).subarray(0, -4), Buffer.from('ffffffff', 'hex')]),
      ],
      [
        'bytes after the queries',
        SET_META,
        Buffer.concat([contextRequest('disk', ['base:allocation']), Buffer.from('trailing')]),
      ],
      ['contexts before structured replies (LIST)', LIST_META, contextRequest('disk', [])],
      ['contexts before structured replies (SET)', SET_META, contextRequest('disk', ['base:allocation'])],
    ];
    for (const [what, option, data] of cases) {
      expect(types(await client.ask(option, data)), what).toEqual([OptionReply.invalid]);
    }
    expect(types(await client.ask(GO, infoRequest('disk'))).at(-1)).toBe(OptionReply.ack);
  });

  it('refuses a name of more than 4096 bytes with ERR_TOO_BIG', async () => {
    const client = (await start()).connect();
    await client.greet();
    expect(types(await client.ask(GO, infoRequest('x'.repeat(4_097))))).toEqual([OptionReply.tooBig]);
    expect(types(await client.ask(GO, infoRequest('x'.repeat(4_096))))).toEqual([OptionReply.unknown]);
  });

  it('answers an unknown export with ERR_UNKNOWN, and closes on EXPORT_NAME', async () => {
    const server = await start();
    const client = server.connect();
    await client.greet();
    expect(types(await client.ask(INFO, infoRequest('nobody')))).toEqual([OptionReply.unknown]);
    expect(types(await client.ask(GO, infoRequest('')))).toEqual([OptionReply.unknown]);
    client.sendOption(1, Buffer.from('nobody'));
    expect(await client.endsNow()).toBe(true);
  });

  it.each([
    ['is no string', {}, 0, Buffer.from([0xff])],
    ['is too long', { limits: { optionBytesMax: 1_000 } }, 0, Buffer.alloc(1_001, 'x')],
    ['comes after EXTENDED_HEADERS', {}, 11, Buffer.from('disk')],
    [
      'comes without TLS where that is required',
      { tls: 'require', credentials: CREDENTIALS },
      0,
      Buffer.from('disk'),
    ],
  ] as const)(
    'delivers the answers before an EXPORT_NAME that %s, whatever follows it',
    async (_, options, before, name) => {
      const server = await start(options);
      const client = server.connect();
      await client.greet();
      client.socket.pause();
      for (const option of before === 0 ? [255] : [before, 255]) client.sendOption(option);
      client.sendOption(1, name);
      await new Promise((resolve) => setTimeout(resolve, 50));
      // To a socket that is closed already this would be the end, with what has not been read.
      client.send(Buffer.alloc(100_000));
      await new Promise((resolve) => setTimeout(resolve, 20));
      client.socket.resume();
      for (const option of before === 0 ? [255] : [before, 255])
        expect((await client.readAnswer()).option).toBe(option);
      expect(await client.endsNow()).toBe(true);
      await until(() => server.server.stats().connections === 0, 'the connection gone');
    },
  );

  it('tells kinds of failure to open apart', async () => {
    const codes = [
      ['vm-missing', OptionReply.unknown],
      ['name-invalid', OptionReply.unknown],
      ['disk-in-use', OptionReply.policy],
      ['shutting-down', OptionReply.shutdown],
      ['catalog-corrupt', OptionReply.platform],
    ] as const;
    for (const [code, type] of codes) {
      const failing = createNbdServer({
        exports: {
          list: () => Promise.resolve([]),
          open: () => Promise.reject(new PandoError(code, 'test')),
        },
      });
      const client = new RawClient(await failing.listen({ host: '127.0.0.1', port: 0 }));
      await client.greet();
      expect(types(await client.ask(GO, infoRequest('disk')))).toEqual([type]);
      client.destroy();
      await failing.close();
    }
  });

  it('survives a provider that throws what nobody expects', async () => {
    const failing = createNbdServer({
      exports: {
        list: () => Promise.reject(new Error('boom')),
        open: () => Promise.reject(new TypeError('boom')),
      },
    });
    const address = await failing.listen({ host: '127.0.0.1', port: 0 });
    for (const option of [LIST, GO]) {
      const client = new RawClient(address);
      await client.greet();
      client.sendOption(option, option === GO ? infoRequest('disk') : Buffer.alloc(0));
      expect(await client.endsNow()).toBe(true);
    }
    await failing.close();
  });

  it('lists and selects contexts: wildcards list, and select nothing', async () => {
    const client = (await start()).connect();
    await client.greet();
    for (let i = 0; i < 2; i++) expect(types(await client.ask(STRUCTURED))).toEqual([OptionReply.ack]);
    const names = async (option: number, queries: readonly string[]): Promise<string[]> => {
      const answers = await client.ask(option, contextRequest('disk', queries));
      expect(answers.at(-1)!.type).toBe(OptionReply.ack);
      return answers
        .slice(0, -1)
        .map((answer) => `${answer.data.readUInt32BE(0)} ${answer.data.toString('utf8', 4)}`);
    };
    expect(await names(LIST_META, [])).toEqual(['0 base:allocation']);
    expect(await names(LIST_META, ['base:'])).toEqual(['0 base:allocation']);
    expect(await names(LIST_META, ['qemu:', 'base:nothing', 'base'])).toEqual([]);
    expect(await names(SET_META, ['base:'])).toEqual([]);
    expect(await names(SET_META, ['x-unknown:y', 'base:allocation'])).toEqual(['1 base:allocation']);
    expect(await names(SET_META, [])).toEqual([]);
  });

  it('binds contexts to the export that they were set for, and a failed SET drops them', async () => {
    const server = await start();
    server.exports.set('other', new MemoryBlockDevice({ size: 4096 }));
    const statusOf = async (prepare: (client: RawClient) => Promise<unknown>): Promise<number> => {
      const client = server.connect();
      await client.greet();
      await client.ask(STRUCTURED);
      await prepare(client);
      await client.ask(GO, infoRequest('disk'));
      client.request({ type: 7, length: 512 });
      return (await client.readReply()).errno;
    };
    const good = contextRequest('disk', ['base:allocation']);
    expect(await statusOf((client) => client.ask(SET_META, good))).toBe(0);
    expect(
      await statusOf((client) => client.ask(SET_META, contextRequest('other', ['base:allocation']))),
    ).toBe(22);
    expect(
      await statusOf(async (client) => {
        await client.ask(SET_META, good);
        expect(types(await client.ask(SET_META, Buffer.concat([good, Buffer.from('!')])))).toEqual([
          OptionReply.invalid,
        ]);
      }),
    ).toBe(22);
  });

  it('drops a client that asks more options than the limit', async () => {
    const client = (await start({ limits: { optionsMax: 5 } })).connect();
    await client.greet();
    for (let i = 0; i < 5; i++) await client.ask(99);
    client.sendOption(99);
    expect(await client.endsNow()).toBe(true);
  });

  it('lets a client that was shown many exports ask about each of them, and no more', async () => {
    const server = await start({ limits: { optionsMax: 5, optionsPerListedExportMax: 2 } });
    for (let i = 0; i < 9; i++) server.exports.set(`more-${i}`, new MemoryBlockDevice({ size: 512 }));
    const client = server.connect();
    await client.greet();
    const listed = (await client.ask(LIST)).length - 1;
    expect(listed).toBeGreaterThanOrEqual(10);
    for (let i = 1; i < 5 + 2 * listed; i++) await client.ask(99);
    client.sendOption(99);
    expect(await client.endsNow()).toBe(true);
  });

  it('gives a client that was shown exports more time to ask about them', async () => {
    const limits = { handshakeMsMax: 200, handshakeMsPerListedExportMax: 60_000 };
    const server = await start({ limits });
    const [asker, idler] = [server.connect(), server.connect()];
    await asker.greet();
    await idler.greet();
    await asker.ask(LIST);
    expect(await idler.endsNow()).toBe(true);
    expect((await asker.ask(99))[0]!.type).toBe(OptionReply.unsupported);
  });

  it('understands a handshake that comes byte by byte, and several options in one piece', async () => {
    const server = await start();
    const slow = server.connect();
    await slow.reader.read(18);
    const bytes = Buffer.from('00000003' + '49484156454f505400000008000000' + '00', 'hex');
    for (const byte of bytes) {
      slow.send(Buffer.of(byte));
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect((await slow.readAnswer()).type).toBe(OptionReply.ack);
    const quick = server.connect();
    quick.send(Buffer.from('00000003', 'hex'));
    for (let i = 0; i < 20; i++) quick.sendOption(LIST);
    quick.sendOption(GO, infoRequest('disk'));
    quick.request({ type: 0, length: 1, cookie: 3 });
    await quick.reader.read(18);
    for (let i = 0; i < 40; i++) await quick.readAnswer();
    for (let i = 0; i < 3; i++) await quick.readAnswer();
    expect((await quick.readReply(1)).cookie).toBe(3);
  });

  it('cuts off a handshake that takes too long, and only that', async () => {
    const deadlines: (() => void)[] = [];
    const clock: Clock = {
      now: () => 0,
      monotonic: () => 0,
      sleep: (ms, signal) =>
        new Promise((resolve, reject) => {
          signal?.addEventListener('abort', () => {
            reject(new Error('aborted'));
          });
          if (ms === 10_000) deadlines.push(resolve);
        }),
    };
    const server = await start({ clock });
    const idle = server.connect();
    const done = server.connect();
    await idle.greet();
    await done.open('disk');
    for (const pass of deadlines) pass();
    expect(await idle.endsNow()).toBe(true);
    done.request({ type: 3, cookie: 8 });
    expect((await done.readReply()).cookie).toBe(8);
    done.destroy();
    await until(() => server.server.stats().connections === 0, 'all connections gone');
  });

  it('tells clients past the limit that there are too many, some at a time, and takes new ones when others have gone', async () => {
    const server = await start({ limits: { connectionsMax: 2, connectionsRefusedMax: 2 } });
    const [first, second] = [server.connect(), server.connect()];
    await first.open('disk');
    const late = server.connect();
    await late.greet();
    await second.open('disk');
    for (const option of [GO, INFO]) {
      const [answer] = await late.ask(option, infoRequest('disk'));
      expect(answer).toMatchObject({ option, type: OptionReply.policy });
    }
    for (const option of [LIST, 5, 999]) {
      const told = server.connect();
      await told.greet();
      const [answer] = await told.ask(option, Buffer.alloc(3));
      expect(answer).toMatchObject({ option, type: OptionReply.policy });
      expect(answer!.data.toString()).toMatch(/connections/);
      expect(await told.endsNow()).toBe(true);
      told.destroy();
      await until(() => server.server.stats().connections === 3, 'the refused one gone');
    }
    const silent = [server.connect(), server.connect()];
    for (const client of silent) await client.greet();
    expect(await server.connect().endsNow()).toBe(true);
    first.destroy();
    await until(() => server.server.stats().connections === 4, 'the first one gone');
    await server.connect().open('disk');
  });

  it('cuts off a refused client that asks for nothing', async () => {
    const server = await start({ limits: { connectionsMax: 1, refusalMsMax: 20 } });
    await server.connect().open('disk');
    const silent = server.connect();
    await silent.greet();
    expect(await silent.endsNow()).toBe(true);
  });

  it('drops the oldest handshake for a new one when there are too many, and nobody with an export', async () => {
    const server = await start({ limits: { connectionsInHandshakeMax: 3 } });
    const attached = server.connect();
    await attached.open('disk');
    const silent = Array.from({ length: 3 }, () => server.connect());
    for (const client of silent) await client.greet();
    const client = server.connect();
    await client.open('disk');
    expect(await silent[0]!.endsNow()).toBe(true);
    expect(server.server.stats()).toMatchObject({ connections: 4, connectionsInHandshake: 2 });
    for (const one of [attached, client]) {
      one.request({ type: 3, cookie: 9 });
      expect((await one.readReply()).cookie).toBe(9);
    }
    for (const one of silent.slice(1)) await one.ask(LIST);
  });

  it('closes what it opened when the client leaves while an export is being opened', async () => {
    let opened: (() => void) | undefined;
    let closes = 0;
    const device = new MemoryBlockDevice({ size: 512 });
    const slow = createNbdServer({
      exports: {
        list: () => Promise.resolve([]),
        open: async (name) => {
          await new Promise<void>((resolve) => (opened = resolve));
          const close = (): Promise<void> => {
            closes++;
            return Promise.resolve();
          };
          return Object.assign(device, {
            exportName: name,
            revoked: new AbortController().signal,
            contextNames: () => Promise.resolve([]),
            openContext: () => Promise.resolve(undefined),
            leave: () => undefined,
            close,
          });
        },
      },
    });
    const client = new RawClient(await slow.listen({ host: '127.0.0.1', port: 0 }));
    await client.greet();
    client.sendOption(GO, infoRequest('disk'));
    await until(() => opened !== undefined, 'the open began');
    client.reset();
    await client.closed;
    await new Promise((resolve) => setTimeout(resolve, 20));
    opened!();
    await until(() => slow.stats().connections === 0, 'the connection gone');
    expect(closes).toBe(1);
    await slow.close();
  });
});
