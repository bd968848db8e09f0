import { MemoryBlockDevice } from '@pando/block-device';
import { SeededRandom } from '@pando/block-device/testing';
import { PandoError, systemClock } from '@pando/common';
import type { Clock } from '@pando/common';
import { runSeed } from '@pando/common/testing';
import * as net from 'node:net';
import type * as tls from 'node:tls';
import { afterEach, describe, expect, it } from 'vitest';
import { optionBytes } from './client/client-handshake.ts';
import { namesOf, parsePskKeys, tlsCredentials } from './tls.ts';
import type { TlsFiles } from './tls.ts';
import {
  AUTHORITY,
  CLIENT_CERTIFICATE,
  CLIENT_KEY,
  CLIENT_NAMES,
  SERVER_CERTIFICATE,
  SERVER_KEY,
  STRANGER_CERTIFICATE,
  STRANGER_KEY,
} from './testing/certificates.ts';
import { RawClient, contextRequest, infoRequest, rawRequest } from './testing/raw-client.ts';
import { TestServer, until } from './testing/test-server.ts';
import type { ClientIdentity } from './types.ts';

const NOW = Date.now();
const KEY = '0123456789abcdef0123456789abcdef';
const PSK_SUITES =
  'TLS_AES_128_GCM_SHA256:ECDHE-PSK-CHACHA20-POLY1305:ECDHE-PSK-AES256-CBC-SHA384:ECDHE-PSK-AES128-CBC-SHA256';

const CERTIFICATE: TlsFiles = { certificate: SERVER_CERTIFICATE, key: SERVER_KEY };
const WITH_CLIENTS: TlsFiles = { ...CERTIFICATE, clientCa: AUTHORITY };
const KEYS: TlsFiles = { pskKeys: `alice:${KEY}\nbob:${KEY.replaceAll('0', '9')}\n` };

const TRUSTING: tls.ConnectionOptions = { ca: AUTHORITY };
const CERTIFIED: tls.ConnectionOptions = { ca: AUTHORITY, cert: CLIENT_CERTIFICATE, key: CLIENT_KEY };
const psk = (identity: string, key = KEY): tls.ConnectionOptions => ({
  ciphers: PSK_SUITES,
  pskCallback: () => ({ identity, psk: Buffer.from(key, 'hex') }),
  checkServerIdentity: () => undefined,
});

let bench: TestServer | undefined;
let seen: ClientIdentity[] = [];
let logged: { fields: Record<string, unknown>; message: string }[] = [];

afterEach(async () => {
  await bench?.stop();
  bench = undefined;
});

type Options = NonNullable<Parameters<typeof TestServer.start>[0]>;

async function start(files: TlsFiles, options: Options = {}): Promise<TestServer> {
  seen = [];
  logged = [];
  const note = (fields: object, message: string): void => {
    logged.push({ fields: fields as Record<string, unknown>, message });
  };
  bench = await TestServer.start({
    tls: 'require',
    credentials: tlsCredentials(files, NOW),
    access: {
      of: (_name, client) => {
        seen.push(client);
        return 'write';
      },
    },
    logger: { debug: () => undefined, info: note, warn: note, error: note },
    ...options,
  });
  return bench;
}

async function secured(server: TestServer, options: tls.ConnectionOptions): Promise<RawClient> {
  const client = server.connect();
  await client.greet();
  await client.startTls(options);
  return client;
}

/** Opens the export over TLS and returns who the server took the client for. */
async function identityOf(server: TestServer, options: tls.ConnectionOptions): Promise<ClientIdentity> {
  const client = await secured(server, options);
  expect((await client.ask(7, infoRequest('disk'))).at(-1)!.type).toBe(1);
  client.request({ type: 1, payload: Buffer.from('over TLS'), cookie: 1 });
  expect((await client.readReply()).errno).toBe(0);
  client.request({ type: 0, length: 8, cookie: 2 });
  expect((await client.readReply(8)).payload.toString()).toBe('over TLS');
  client.request({ type: 2 });
  expect(await client.endsNow()).toBe(true);
  return seen.at(-1)!;
}

/** Whether a client gets nothing out of the server over TLS; with what error its own TLS says so, if it does. */
async function refusal(server: TestServer, options: tls.ConnectionOptions): Promise<string> {
  const client = server.connect();
  await client.greet();
  try {
    await client.startTls(options);
    client.sendOption(3);
    await client.readAnswer();
  } catch (error) {
    return (error as { code?: string }).code ?? 'unknown';
  }
  throw new Error('the client was served');
}

describe('STARTTLS', () => {
  it('where TLS is required, answers everything else with ERR_TLS_REQD and stays in step', async () => {
    const server = await start(CERTIFICATE, { limits: { optionBytesMax: 1_000 } });
    const client = server.connect();
    await client.greet();
    for (const option of [3, 4, 6, 7, 8, 9, 10, 11, 999]) {
      for (const data of [Buffer.alloc(0), infoRequest('disk'), Buffer.alloc(5_000)]) {
        const [answer] = await client.ask(option, data);
        expect(answer).toMatchObject({ option, type: 0x8000_0005 });
        expect(answer!.data.toString()).toMatch(/TLS/);
      }
    }
    await client.startTls(TRUSTING);
    expect((await client.ask(3)).map(({ type }) => type)).toEqual([2, 1]);
    const abort = server.connect();
    await abort.greet();
    expect((await abort.ask(2)).map(({ type }) => type)).toEqual([1]);
    expect(await abort.endsNow()).toBe(true);
    const old = server.connect();
    await old.greet();
    old.sendOption(1, Buffer.from('disk'));
    expect(await old.endsNow()).toBe(true);
    expect(server.exports.openHandles).toBe(0);
  });

  it('where TLS is allowed, serves clients with it and without', async () => {
    const server = await start(WITH_CLIENTS, { tls: 'allow' });
    const plain = server.connect();
    await plain.open('disk');
    expect(seen.at(-1)).toMatchObject({ proof: 'none', names: [] });
    expect(await identityOf(server, CERTIFIED)).toMatchObject({ proof: 'x509' });
  });

  it('where TLS is off, is not supported, and nothing asks for it', async () => {
    bench = await TestServer.start();
    const client = bench.connect();
    await client.greet();
    expect((await client.ask(5))[0]!.type).toBe(0x8000_0001);
    expect((await client.ask(7, infoRequest('disk'))).at(-1)!.type).toBe(1);
  });

  it('is refused with data, and a second time', async () => {
    const server = await start(CERTIFICATE);
    const client = server.connect();
    await client.greet();
    for (const bytes of [1, 100_000]) {
      expect((await client.ask(5, Buffer.alloc(bytes)))[0]!.type).toBe(0x8000_0003);
    }
    await client.startTls(TRUSTING);
    expect((await client.ask(5))[0]!.type).toBe(0x8000_0003);
    expect((await client.ask(7, infoRequest('disk'))).at(-1)!.type).toBe(1);
  });

  it('forgets what was agreed on before, but not the client flags', async () => {
    const server = await start(CERTIFICATE, { tls: 'allow' });
    const client = server.connect();
    await client.greet(3);
    await client.ask(8);
    await client.ask(10, contextRequest('disk', ['base:allocation']));
    expect(server.exports.openHandles).toBe(1);
    await client.startTls(TRUSTING);
    expect(server.exports.openHandles).toBe(0);
    expect((await client.ask(10, contextRequest('disk', ['base:allocation'])))[0]!.type).toBe(0x8000_0003);
    client.sendOption(1, Buffer.from('disk'));
    expect((await client.reader.read(10)).readBigUInt64BE(0)).toBe(2n ** 20n);
    client.request({ type: 0, length: 10, cookie: 4 });
    expect(await client.readReply(10)).toMatchObject({ structured: false, cookie: 4 });
  });

  it('cuts a client with bytes in clear behind it: they are never taken for what came over TLS', async () => {
    const server = await start(CERTIFICATE, { tls: 'allow' });
    const option = (number: number, data: Uint8Array = Buffer.alloc(0)): Buffer => {
      const header = Buffer.from('49484156454f50540000000000000000', 'hex');
      header.writeUInt32BE(number, 8);
      header.writeUInt32BE(data.length, 12);
      return Buffer.concat([header, data]);
    };
    for (const behind of [option(3), option(7, infoRequest('disk')), Buffer.from([0x16])]) {
      const client = server.connect();
      await client.greet();
      client.send(Buffer.concat([option(5), behind]));
      expect(await client.endsNow()).toBe(true);
    }
    // What comes with the hello is not read as options either: it is no TLS.
    const late = server.connect();
    await late.greet();
    await late.ask(5);
    late.send(option(3));
    await expect(late.readAnswer()).rejects.toThrow();
    expect(seen).toEqual([]);
    expect(server.exports.openHandles).toBe(0);
  });

  it('ends when the client closes its side in clear right behind it', async () => {
    const server = await start(CERTIFICATE);
    const client = server.connect();
    await client.greet();
    client.sendOption(5);
    client.halfClose();
    await client.closed;
    await until(() => server.server.stats().connections === 0, 'the connection gone');
  });
});

describe('who a client is', () => {
  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    const only = { minVersion: version, maxVersion: version };

    it(`takes certificates by ${version}, with every name`, async () => {
      const server = await start(WITH_CLIENTS);
      const client = await identityOf(server, { ...CERTIFIED, ...only });
      expect(client).toMatchObject({ proof: 'x509', names: CLIENT_NAMES });
    });

    it(`takes keys by ${version}, alone and beside certificates`, async () => {
      for (const files of [KEYS, { ...CERTIFICATE, ...KEYS }, { ...WITH_CLIENTS, ...KEYS }]) {
        const server = await start(files, { tcp: true });
        const client = await identityOf(server, { ...psk('alice'), ...only });
        expect(client).toMatchObject({ proof: 'psk', names: ['alice'] });
        expect(client.peer).toMatch(/^127\.0\.0\.1:\d+$/);
        if (files.certificate !== undefined) {
          const other = await identityOf(server, { ...CERTIFIED, ...only });
          expect(other.proof).toBe('clientCa' in files ? 'x509' : 'none');
        }
        await server.stop();
      }
    });

    it(`fails unknown identities just as wrong keys by ${version}`, async () => {
      for (const files of [KEYS, { ...WITH_CLIENTS, ...KEYS }]) {
        const server = await start(files);
        const unknown = await refusal(server, { ...psk('mallory'), ...only });
        const wrong = await refusal(server, { ...psk('alice', 'ff'.repeat(16)), ...only });
        expect(unknown).toBe(wrong);
        expect(unknown).toMatch(/^ERR_SSL/);
        expect(seen).toEqual([]);
        await server.stop();
      }
    });

    it(`turns away clients without the right certificate by ${version}, and says why in the log`, async () => {
      const server = await start({ ...WITH_CLIENTS, ...KEYS });
      await refusal(server, { ...TRUSTING, ...only });
      const stranger = { ca: AUTHORITY, cert: STRANGER_CERTIFICATE, key: STRANGER_KEY };
      await refusal(server, { ...stranger, ...only });
      // A server's certificate is no client's.
      await refusal(server, { ca: AUTHORITY, cert: SERVER_CERTIFICATE, key: SERVER_KEY, ...only });
      const reasons = logged.map(({ fields }) => String(fields['reason']));
      expect(reasons).toEqual([
        expect.stringContaining('no client certificate'),
        expect.stringContaining('UNABLE_TO_VERIFY_LEAF_SIGNATURE'),
        expect.stringContaining('INVALID_PURPOSE'),
      ]);
      expect(seen).toEqual([]);
      await until(() => server.server.stats().connections === 0, 'all connections gone');
    });
  }

  it('takes nobody for whom a key says, where the suite does not go with the key', async () => {
    const server = await start({ ...CERTIFICATE, ...KEYS });
    const sha384 = { ...psk('alice'), ciphers: 'TLS_AES_256_GCM_SHA384' };
    expect(await refusal(server, { ...sha384, minVersion: 'TLSv1.3' })).toMatch(/^ERR_SSL/);
    expect(seen).toEqual([]);
  });

  it('speaks nothing older than TLS 1.2', async () => {
    const server = await start(CERTIFICATE);
    const old = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' } as const;
    expect(await refusal(server, { ...TRUSTING, ...old })).toMatch(/^ERR_SSL/);
    expect(logged[0]!.fields['reason']).toMatch(/protocol|version/i);
  });

  it('resumes no sessions and takes no renegotiation', async () => {
    const server = await start(CERTIFICATE);
    for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
      const only = { ...TRUSTING, minVersion: version, maxVersion: version };
      const first = await secured(server, only);
      const socket = first.tlsSocket!;
      await first.ask(3);
      const session = socket.getSession();
      const second = await secured(server, { ...only, ...(session === undefined ? {} : { session }) });
      expect(second.tlsSocket!.isSessionReused()).toBe(false);
      if (version === 'TLSv1.3') continue;
      const outcome = await new Promise<Error | null>((resolve) => {
        first.socket.on('error', resolve);
        socket.renegotiate({}, resolve);
      });
      expect(outcome).toBeInstanceOf(Error);
    }
  });

  it('reads names as Node renders them, quoted ones too', () => {
    const subjectaltname =
      'DNS:a.example, IP Address:10.0.0.1, URI:"x://y, DNS:root", email:m@n, DNS:a.example';
    expect(namesOf({ subject: { CN: ['one', 'two'] }, subjectaltname })).toEqual([
      ...['one', 'two', 'a.example', 'x://y, DNS:root', 'm@n'],
    ]);
    expect(namesOf({})).toEqual([]);
  });
});

describe('credentials', () => {
  const codeOf = (files: TlsFiles, now = NOW): string => {
    try {
      tlsCredentials(files, now);
    } catch (error) {
      if (error instanceof PandoError) return error.code;
      throw error;
    }
    return 'none';
  };

  it('are refused by what is wrong with them', () => {
    expect(codeOf({})).toBe('tls-file-invalid');
    expect(codeOf({ certificate: SERVER_CERTIFICATE })).toBe('tls-file-invalid');
    expect(codeOf({ key: SERVER_KEY })).toBe('tls-file-invalid');
    expect(codeOf({ ...CERTIFICATE, certificate: 'nonsense' })).toBe('tls-file-invalid');
    expect(codeOf({ ...CERTIFICATE, key: SERVER_CERTIFICATE })).toBe('tls-file-invalid');
    expect(codeOf({ ...CERTIFICATE, key: CLIENT_KEY })).toBe('tls-key-mismatch');
    expect(codeOf({ ...CERTIFICATE, clientCa: '' })).toBe('tls-file-invalid');
    expect(codeOf({ ...CERTIFICATE, clientCa: AUTHORITY.replace('MII', 'AAA') })).toBe('tls-file-invalid');
    expect(codeOf({ ...KEYS, clientCa: AUTHORITY })).toBe('tls-file-invalid');
    expect(codeOf(CERTIFICATE, NOW + 200 * 365 * 86_400_000)).toBe('tls-certificate-expired');
    expect(codeOf(CERTIFICATE, 0)).toBe('tls-certificate-expired');
    expect(codeOf(WITH_CLIENTS)).toBe('none');
  });

  it('take the lines of psktool and name the line that is wrong, never a key', () => {
    const good = parsePskKeys(`\nalice:${KEY}\r\nweird:name:${KEY.toUpperCase()}\n\n`);
    expect([...good.keys()]).toEqual(['alice', 'weird:name']);
    expect(good.get('weird:name')!.toString('hex')).toBe(KEY);
    const secret = 'deadbeef'.repeat(4);
    for (const line of [
      secret,
      `:${secret}`,
      `#616263:${secret}`,
      `${'x'.repeat(129)}:${secret}`,
      `a:${secret}0`,
      `a:${secret}xy`,
      'a:dead',
      `a:${secret.repeat(17)}`,
      `alice:${secret}`,
    ]) {
      let message = '';
      try {
        parsePskKeys(`alice:${KEY}\n${line}\n`);
      } catch (error) {
        message = (error as PandoError).message;
      }
      expect(message).toMatch(/^line 2 /);
      expect(message).not.toContain('deadbeef');
    }
    expect(() => parsePskKeys('\n')).toThrow(PandoError);
  });

  it('are replaced while the server runs: for new clients, and clients that are attached stay', async () => {
    const server = await start(KEYS);
    const client = await secured(server, psk('alice'));
    await client.ask(7, infoRequest('disk'));
    const carol = `carol:${KEY}`;
    server.server.secure({ credentials: tlsCredentials({ pskKeys: carol }, NOW) });
    await refusal(server, psk('alice'));
    await (await secured(server, psk('carol'))).ask(3);
    client.request({ type: 3, cookie: 5 });
    expect((await client.readReply()).cookie).toBe(5);
    expect(() => server.server.secure({})).toThrow(PandoError);
  });
});

describe('TLS handshakes that go wrong', () => {
  /** Passes bytes on until `count` came from the client, then does `then` with both sides. */
  async function proxy(
    server: TestServer,
    count: number,
    then: (client: net.Socket, upstream: net.Socket) => void,
  ): Promise<net.Server> {
    const { path } = server.address as { path: string };
    const listener = net.createServer((client) => {
      const upstream = net.connect({ path });
      let left = count;
      client.on('error', () => undefined);
      upstream.on('error', () => undefined);
      upstream.pipe(client);
      client.on('data', (chunk: Buffer) => {
        if (left <= 0) return;
        upstream.write(chunk.subarray(0, left));
        left -= chunk.length;
        if (left <= 0) then(client, upstream);
      });
      client.on('close', () => upstream.destroy());
      upstream.on('close', () => client.destroy());
    });
    await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
    return listener;
  }

  it('cost others nothing, at whatever byte the client goes, stalls, or talks rubbish', async () => {
    const seed = runSeed();
    const random = new SeededRandom(seed);
    const server = await start({ ...WITH_CLIENTS, ...KEYS }, { limits: { handshakeMsMax: 2_000 } });
    const steady = await secured(server, CERTIFIED);
    await steady.ask(7, infoRequest('disk'));
    const ends: Record<string, (client: net.Socket, upstream: net.Socket) => void> = {
      stalls: () => undefined,
      vanishes: (client) => client.destroy(),
      endsHalf: (_client, upstream) => upstream.end(),
      talksRubbish: (_client, upstream) => {
        upstream.write(Uint8Array.from({ length: 1 + random.below(5_000) }, () => random.below(256)));
      },
    };
    const attempt = async (count: number, then: (typeof ends)[string]): Promise<void> => {
      const listener = await proxy(server, count, then);
      const client = new RawClient({ host: '127.0.0.1', port: (listener.address() as net.AddressInfo).port });
      const options = random.below(2) === 0 ? CERTIFIED : psk('alice');
      try {
        await client.greet();
        await client.startTls(options);
        for (let i = 0; i < 30; i++) await client.ask(3);
      } catch {
        // What becomes of the client is not the question.
      }
      client.destroy();
      listener.close();
    };
    const stalled: Promise<void>[] = [];
    for (let round = 0; round < 20; round++) {
      for (const [name, then] of Object.entries(ends)) {
        const count = 20 + random.below(random.below(2) === 0 ? 60 : 3_000);
        const done = attempt(count, then);
        if (name === 'stalls') stalled.push(done);
        else await done;
        steady.request({ type: 3, cookie: round });
        expect((await steady.readReply()).cookie, `${name} after ${count}, seed ${seed}`).toBe(round);
      }
    }
    await Promise.all(stalled);
    await until(() => server.server.stats().connections === 1, `all but one connection gone, seed ${seed}`);
    await until(() => server.server.stats().bufferBytes === 0, `all buffers back, seed ${seed}`);
    expect(server.server.stats().connectionsInHandshake).toBe(0);
    expect(server.exports.openHandles).toBe(1);
  });

  it('are logged with the reason, a few of them only', async () => {
    let time = 0;
    const { now, sleep } = systemClock;
    const server = await start(CERTIFICATE, { clock: { now, sleep, monotonic: () => time } });
    const fail = async (): Promise<void> => {
      const client = server.connect();
      await client.greet();
      await client.ask(5);
      client.send(Buffer.from('GET / HTTP/1.1\r\n\r\n'));
      await client.closed;
    };
    const lines = (): typeof logged => logged.filter(({ message }) => message.includes('TLS'));
    for (let i = 0; i < 30; i++) await fail();
    expect(lines()).toHaveLength(10);
    expect(lines()[0]!.fields).toMatchObject({ reason: expect.stringMatching(/http/i) as string });
    time = 10_000;
    await fail();
    expect(lines()).toHaveLength(11);
    expect(lines()[10]!.fields).toMatchObject({ suppressed: 20 });
  });

  it('are refused at once when the hello announces more than any hello has', async () => {
    const server = await start(CERTIFICATE);
    const client = server.connect();
    await client.greet();
    await client.ask(5);
    const record = Buffer.alloc(5 + 2 ** 14);
    record.write('1603014000', 'hex');
    record.write('01ffffff0303', 5, 'hex');
    client.send(record);
    await client.closed;
    expect(logged.at(-1)!.fields['reason']).toMatch(/excessive|length|long/i);
  });

  it('end at shutdown at once', async () => {
    const server = await start(CERTIFICATE);
    const client = server.connect();
    await client.greet();
    await client.ask(5);
    await server.server.close({ drainMsMax: 60_000 });
    expect(await client.endsNow()).toBe(true);
  });

  it('make room: a hundred silent ones lock nobody out', async () => {
    const server = await start(CERTIFICATE, { limits: { connectionsInHandshakeMax: 5 } });
    const silent = Array.from({ length: 100 }, () => server.connect());
    await Promise.all(
      silent
        .map(async (client) => {
          await client.greet();
          await client.ask(5);
        })
        .map((each) => each.catch(() => undefined)),
    );
    await identityOf(server, TRUSTING);
    expect(server.server.stats().connectionsInHandshake).toBeLessThanOrEqual(5);
  });
});

describe('clients that leave as soon as TLS is spoken', () => {
  for (const tcp of [false, true]) {
    it(`are noticed over ${tcp ? 'TCP' : 'a Unix socket'}, however much they have asked for`, async () => {
      const limits = { unsentBytesMax: 100_000, handshakeMsMax: 12_345 };
      const late: (() => void)[] = [];
      const sleep: Clock['sleep'] = (ms, signal) =>
        ms === limits.handshakeMsMax
          ? new Promise((resolve) => late.push(resolve))
          : systemClock.sleep(ms, signal);
      const server = await start(CERTIFICATE, { tcp, limits, clock: { ...systemClock, sleep } });
      const { exports } = server;
      const open = exports.open.bind(exports);
      exports.open = async (name, client) => {
        await new Promise((resolve) => setTimeout(resolve, 20));
        return open(name, client);
      };
      const reads = Array.from({ length: 100 }, (_, i) => rawRequest({ type: 0, length: 60_000, cookie: i }));
      for (let i = 0; i < 5; i++) {
        const client = await secured(server, { ...TRUSTING, minVersion: 'TLSv1.3' });
        client.send(Buffer.concat([optionBytes(7, infoRequest('disk')), ...reads]));
        client.reset();
      }
      // Its session tickets do not reach such a client, and the deadline of the handshake is there for who is not heard of.
      await systemClock.sleep(200);
      for (const tick of late) tick();
      await until(() => server.server.stats().connections === 0, 'the connections gone');
      expect(exports.openHandles).toBe(0);
    });
  }
});

describe('replies over TLS', () => {
  it('carry large reads and writes whole', async () => {
    const server = await start(CERTIFICATE, { device: new MemoryBlockDevice({ size: 2 ** 26 }) });
    const client = await secured(server, TRUSTING);
    await client.ask(7, infoRequest('disk'));
    const payload = Buffer.alloc(2 ** 25, 'abcdefg');
    client.request({ type: 1, payload, offset: 12_345, cookie: 1 });
    client.request({ type: 2 });
    expect((await client.readReply()).errno).toBe(0);
    const again = await secured(server, TRUSTING);
    await again.ask(7, infoRequest('disk'));
    again.request({ type: 0, length: payload.length, offset: 12_345, cookie: 2 });
    expect((await again.readReply(payload.length)).payload.equals(payload)).toBe(true);
  });
});

describe('bytes that are no TLS', () => {
  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    for (const attached of [false, true]) {
      const when = attached ? 'an export is in use' : 'TLS has begun';
      it(`end the connection when they come after ${when} by ${version}, though the client stays`, async () => {
        const server = await start(CERTIFICATE, { limits: { handshakeMsMax: 3_600_000 } });
        const client = server.connect();
        const below = client.socket;
        await client.greet();
        await client.startTls({ ...TRUSTING, minVersion: version, maxVersion: version });
        if (attached) await client.ask(7, infoRequest('disk'));
        expect(server.exports.openHandles).toBe(attached ? 1 : 0);
        client.socket.removeAllListeners('error').on('error', () => undefined);
        below.write('GET / HTTP/1.0\r\n\r\n');
        await until(() => server.server.stats().connections === 0, 'the connection gone');
        expect(server.exports.openHandles).toBe(0);
      });
    }
  }
});
