import { MemoryBlockDevice } from '@pando/block-device';
import type { StatusExtents } from '@pando/block-device';
import { PandoError } from '@pando/common';
import { afterEach, describe, expect, it } from 'vitest';
import { parseAccessPolicy } from './access.ts';
import type { AccessPolicy } from './access.ts';
import { tlsCredentials } from './tls.ts';
import type { RawClient } from './testing/raw-client.ts';
import { contextRequest, infoRequest } from './testing/raw-client.ts';
import { TestServer, until } from './testing/test-server.ts';
import type { ClientIdentity } from './types.ts';

const KEY = 'ab'.repeat(32);
const POLICY = 0x8000_0002;
const rules = (...list: object[]): AccessPolicy => parseAccessPolicy(JSON.stringify({ rules: list }));
const of = (proof: ClientIdentity['proof'], ...names: string[]): ClientIdentity => ({
  peer: 'unix',
  proof,
  names,
});

let bench: TestServer | undefined;

afterEach(async () => {
  await bench?.stop();
  bench = undefined;
});

describe('access rules', () => {
  it('let the first rule that fits client and export decide, and refuse where none does', () => {
    const policy = rules(
      { client: 'backup.example.org', exports: 'secret-*/*', access: 'none' },
      { client: 'backup.*', exports: ['*/*', '*@*/*'], access: 'read' },
      { client: 'alice', proof: 'psk', exports: '**', access: 'write' },
      { proof: 'none', exports: 'public/*', access: 'read' },
    );
    const backup = of('x509', 'host', 'backup.example.org');
    expect(policy.of('web/disk0', backup)).toBe('read');
    expect(policy.of('web@monday/disk0', backup)).toBe('read');
    expect(policy.of('secret-1/disk0', backup)).toBe('none');
    expect(policy.of('secret-1@monday/disk0', backup)).toBe('read');
    expect(policy.of('anything@all/disk', of('psk', 'alice'))).toBe('write');
    expect(policy.of('web/disk0', of('x509', 'alice'))).toBe('none');
    expect(policy.of('public/disk0', of('none'))).toBe('read');
    expect(policy.of('web/disk0', of('none'))).toBe('none');
    expect(policy.of('public/disk0', of('psk', 'bob'))).toBe('none');
    expect(rules().of('web/disk0', backup)).toBe('none');
  });

  it('are refused with the line or the field that is wrong', () => {
    const messages: readonly (readonly [string, RegExp])[] = [
      ['{"rules": [\n{"client" "x"}]}', /not JSON.*line 2/],
      ['[]', /the file is no object/],
      ['{}', /rules is no list/],
      ['{"rules": {}}', /rules is no list/],
      ['{"rules": [], "rule": 1}', /unknown field "rule"/],
      ['{"rules": [7]}', /rules\[0\] is no object/],
      ['{"rules": [{"client": "a", "exports": "*", "access": "all"}]}', /rules\[0\]\.access/],
      ['{"rules": [{"exports": "*", "access": "read"}]}', /rules\[0\] needs/],
      ['{"rules": [{"client": "", "exports": "*", "access": "read"}]}', /rules\[0\]\.client/],
      ['{"rules": [{"client": "a", "exports": ["a", 1], "access": "read"}]}', /rules\[0\]\.exports/],
      ['{"rules": [{"client": "a", "access": "read"}]}', /rules\[0\]\.exports/],
      ['{"rules": [{"proof": "tls", "exports": "*", "access": "read"}]}', /rules\[0\]\.proof/],
      ['{"rules": [{"proof": "none", "client": "a", "exports": "*", "access": "read"}]}', /never fit/],
      [
        '{"rules": [{"client": "a", "exports": "*", "acess": "read"}]}',
        /unknown field "acess" in rules\[0\]/,
      ],
      [`{"rules": [{"client": "${'a'.repeat(1_001)}", "exports": "*", "access": "read"}]}`, /1000/],
    ];
    for (const [text, message] of messages) {
      let error: unknown;
      try {
        parseAccessPolicy(text);
      } catch (thrown) {
        error = thrown;
      }
      expect(error, text).toBeInstanceOf(PandoError);
      expect((error as PandoError).code).toBe('access-file-invalid');
      expect((error as PandoError).message).toMatch(message);
    }
  });
});

describe('a server with access rules', () => {
  async function start(access: AccessPolicy): Promise<TestServer> {
    const credentials = tlsCredentials({ pskKeys: `alice:${KEY}\nbob:${KEY}\n` }, Date.now());
    bench = await TestServer.start({ tls: 'allow', credentials, access });
    for (const name of ['web/disk0', 'mail/disk0']) {
      bench.exports.set(name, new MemoryBlockDevice({ size: 2 ** 20 }));
    }
    return bench;
  }

  async function connected(server: TestServer, identity?: string): Promise<RawClient> {
    const client = server.connect();
    await client.greet();
    if (identity === undefined) return client;
    await client.startTls({
      ciphers: 'TLS_AES_128_GCM_SHA256',
      pskCallback: () => ({ identity, psk: Buffer.from(KEY, 'hex') }),
      checkServerIdentity: () => undefined,
    });
    return client;
  }

  async function listed(client: RawClient): Promise<string[]> {
    const answers = await client.ask(3);
    return answers.filter(({ type }) => type === 2).map(({ data }) => data.toString('utf8', 4));
  }

  async function opened(client: RawClient, name: string): Promise<number> {
    return (await client.ask(7, infoRequest(name))).at(-1)!.type;
  }

  const ALICE_AND_BOB = rules(
    { client: 'alice', exports: 'web/*', access: 'write' },
    { client: 'bob', exports: '*/*', access: 'read' },
  );

  it('shows and opens to each client what is its own, and answers ERR_POLICY with a text for the rest', async () => {
    const server = await start(ALICE_AND_BOB);
    const alice = await connected(server, 'alice');
    expect(await listed(alice)).toEqual(['web/disk0']);
    for (const option of [6, 7]) {
      const [answer] = await alice.ask(option, infoRequest('mail/disk0'));
      expect(answer).toMatchObject({ type: POLICY });
      expect(answer!.data.toString()).toMatch(/not-allowed|may not/);
    }
    expect(await opened(alice, 'web/disk0')).toBe(1);
    const nobody = await connected(server);
    expect(await listed(nobody)).toEqual([]);
    expect(await opened(nobody, 'web/disk0')).toBe(POLICY);
    nobody.sendOption(1, Buffer.from('web/disk0'));
    expect(await nobody.endsNow()).toBe(true);
    await until(() => server.exports.openHandles === 1, 'only what was allowed is open');
  });

  it('gives those who may read a read-only export', async () => {
    const server = await start(ALICE_AND_BOB);
    const bob = await connected(server, 'bob');
    const answers = await bob.ask(7, infoRequest('web/disk0'));
    const flags = answers
      .find(({ type, data }) => type === 3 && data.readUInt16BE(0) === 0)!
      .data.readUInt16BE(10);
    expect(flags & 0b10).toBe(0b10);
    expect(flags & 0b100_0000).toBe(0);
    for (const type of [1, 4, 6]) {
      bob.request({ type, ...(type === 1 ? { payload: Buffer.alloc(512) } : { length: 512 }), cookie: type });
      expect(await bob.readReply()).toMatchObject({ errno: 1, cookie: type });
    }
    bob.request({ type: 0, length: 512, cookie: 9 });
    expect((await bob.readReply(512)).errno).toBe(0);
    bob.request({ type: 3, cookie: 10 });
    expect((await bob.readReply()).errno).toBe(0);
  });

  it('sends those away who lose what they use when the rules change, and nobody else', async () => {
    const server = await start(ALICE_AND_BOB);
    const [alice, bob] = [await connected(server, 'alice'), await connected(server, 'bob')];
    await opened(alice, 'web/disk0');
    await opened(bob, 'web/disk0');
    const credentials = tlsCredentials({ pskKeys: `alice:${KEY}\nbob:${KEY}\n` }, Date.now());
    server.server.secure({ credentials, access: rules({ client: '*', exports: '*/*', access: 'read' }) });
    expect(await alice.endsNow()).toBe(true);
    bob.request({ type: 0, length: 512, cookie: 9 });
    expect((await bob.readReply(512)).cookie).toBe(9);
    expect(await opened(await connected(server, 'alice'), 'mail/disk0')).toBe(1);
  });

  /** SET_META_CONTEXT; resolves to the names that were selected. */
  async function selected(client: RawClient, name: string, queries: readonly string[]): Promise<string[]> {
    await client.ask(8);
    const answers = await client.ask(10, contextRequest(name, queries));
    expect(answers.at(-1)!.type).toBe(1);
    return answers.slice(0, -1).map(({ data }) => data.toString('utf8', 4));
  }

  const OF_WEB = 'qemu:dirty-bitmap:web@monday';
  const OF_MAIL = 'qemu:dirty-bitmap:mail@monday';
  const DEPTH = 'qemu:allocation-depth';

  /** web/disk0 with contexts that compare it with backups of two VMs. */
  async function startWithContexts(access: AccessPolicy): Promise<TestServer> {
    const server = await start(access);
    for (const [name, comparedWith] of [
      [OF_WEB, 'web@monday/disk0'],
      [OF_MAIL, 'mail@monday/disk0'],
      [DEPTH, undefined],
    ] as const) {
      const describe = (_: number, length: number): StatusExtents => ({ lengths: [length], flags: [1] });
      server.exports.setContext('web/disk0', name, describe, comparedWith);
    }
    return server;
  }

  it('pass over contexts that compare with what the client may not read', async () => {
    const ofWeb = { client: 'alice', exports: ['web/*', 'web@*/*'], access: 'write' };
    const server = await startWithContexts(rules(ofWeb, { client: 'bob', exports: '**', access: 'read' }));
    const alice = await connected(server, 'alice');
    expect(await selected(alice, 'web/disk0', [OF_MAIL, OF_WEB, DEPTH])).toEqual([OF_WEB, DEPTH]);
    const listed = await alice.ask(9, contextRequest('web/disk0', [OF_MAIL]));
    expect(listed.map(({ type }) => type)).toEqual([1]);
    expect(await opened(alice, 'web/disk0')).toBe(1);
    alice.request({ type: 1, payload: Buffer.alloc(512, 1) });
    expect((await alice.readReply()).errno).toBe(0);
    const bob = await connected(server, 'bob');
    expect(await selected(bob, 'web/disk0', [OF_MAIL, OF_WEB])).toEqual([OF_MAIL, OF_WEB]);
    for (const client of [alice, bob]) client.destroy();
    await until(() => server.exports.openHandles === 0, 'all closed');
  });

  it('hold for what a handshake keeps open, when they change', async () => {
    const everything = { client: 'alice', exports: '**', access: 'write' };
    const server = await startWithContexts(rules(everything));
    const narrower = [
      rules({ client: 'alice', exports: 'mail/*', access: 'write' }),
      rules({ client: 'alice', exports: '**', access: 'read' }),
      rules({ client: 'alice', exports: ['web/*', 'web@*/*'], access: 'write' }),
    ];
    const credentials = tlsCredentials({ pskKeys: `alice:${KEY}\nbob:${KEY}\n` }, Date.now());
    for (const access of narrower) {
      server.server.secure({ credentials, access: rules(everything) });
      const alice = await connected(server, 'alice');
      expect(await selected(alice, 'web/disk0', [OF_MAIL])).toEqual([OF_MAIL]);
      server.server.secure({ credentials, access: rules(everything) });
      expect(await selected(alice, 'web/disk0', [OF_MAIL])).toEqual([OF_MAIL]);
      server.server.secure({ credentials, access });
      expect(await alice.endsNow()).toBe(true);
      await until(() => server.exports.openHandles === 0, 'the kept export closed');
    }
  });

  it('hold for what is being opened when they change', async () => {
    const server = await startWithContexts(rules({ client: 'alice', exports: '**', access: 'write' }));
    const { exports } = server;
    const open = exports.open.bind(exports);
    let go: (() => void) | undefined;
    exports.open = async (name, client) => {
      const handle = await open(name, client);
      const openContext = handle.openContext.bind(handle);
      handle.openContext = async (context) => {
        await new Promise<void>((resolve) => (go = resolve));
        return openContext(context);
      };
      return handle;
    };
    const alice = await connected(server, 'alice');
    await alice.ask(8);
    alice.sendOption(10, contextRequest('web/disk0', [DEPTH]));
    await until(() => go !== undefined, 'a context is being opened');
    const credentials = tlsCredentials({ pskKeys: `alice:${KEY}\n` }, Date.now());
    server.server.secure({
      credentials,
      access: rules({ client: 'alice', exports: 'mail/*', access: 'read' }),
    });
    go!();
    alice.sendOption(7, infoRequest('web/disk0'));
    await alice.closed;
    await until(() => exports.openHandles === 0, 'the export closed');
  });
});

describe('looking through many names for a list', () => {
  it('gives others their turns, also when several clients ask', async () => {
    let sinceTurn = 0;
    let longest = 0;
    bench = await TestServer.start({
      access: {
        of: (name) => {
          longest = Math.max(longest, ++sinceTurn);
          return name === 'name-2999' ? 'read' : 'none';
        },
      },
    });
    const server = bench;
    const device = new MemoryBlockDevice({ size: 512 });
    for (let i = 0; i < 3_000; i++) server.exports.set(`name-${i}`, device);
    let watching = true;
    const watch = (): void => {
      sinceTurn = 0;
      if (watching) setImmediate(watch);
    };
    watch();
    const clients = [server.connect(), server.connect(), server.connect()];
    const lists = await Promise.all(
      clients.map(async (client) => {
        await client.greet();
        return client.ask(3);
      }),
    );
    watching = false;
    for (const list of lists) {
      expect(list.map(({ type }) => type)).toEqual([2, 1]);
      expect(list[0]!.data.subarray(4).toString()).toBe('name-2999');
    }
    expect(longest).toBeGreaterThan(0);
    expect(longest).toBeLessThanOrEqual(256);
  });
});
