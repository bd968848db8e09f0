import { MemoryBlockDevice } from '@pando/block-device';
import { DelayDevice } from '@pando/block-device/testing';
import type { DeviceOperation } from '@pando/block-device/testing';
import { PandoError } from '@pando/common';
import type { Clock } from '@pando/common';
import { fork } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createNbdServer } from './server.ts';
import { tlsCredentials } from './tls.ts';
import { AUTHORITY, SERVER_CERTIFICATE, SERVER_KEY } from './testing/certificates.ts';
import { optionBytes } from './client/client-handshake.ts';
import { NbdClient } from './client/client.ts';
import { DeviceExports } from './testing/device-exports.ts';
import { RawClient, contextRequest, infoRequest, rawRequest } from './testing/raw-client.ts';
import { TestServer, until } from './testing/test-server.ts';

const SIZE = 2 ** 20;
const CREDENTIALS = tlsCredentials({ certificate: SERVER_CERTIFICATE, key: SERVER_KEY }, Date.now());
let overTls = false;
let bench: TestServer | undefined;

afterEach(async () => {
  await bench?.stop();
  bench = undefined;
});

async function start(options: Parameters<typeof TestServer.start>[0] = {}): Promise<TestServer> {
  const tls = overTls ? ({ tls: 'allow', credentials: CREDENTIALS } as const) : {};
  bench = await TestServer.start({ ...tls, ...options });
  return bench;
}

async function connected(server: TestServer): Promise<RawClient> {
  const client = server.connect();
  await client.greet();
  if (overTls) await client.startTls({ ca: AUTHORITY });
  return client;
}

async function opened(server: TestServer): Promise<RawClient> {
  const client = await connected(server);
  await client.ask(7, infoRequest('disk'));
  return client;
}

async function expectAlive(server: TestServer): Promise<void> {
  const client = await NbdClient.connect(server.address, { exportName: 'disk' });
  await client.read(0, 100, new Uint8Array(100), 0);
  await client.close();
}

/** A device whose operations wait until the gate is opened. */
class Gate {
  readonly device: DelayDevice;
  waiting = 0;
  #open: (() => void) | undefined;
  #gate = new Promise<void>((resolve) => (this.#open = resolve));

  constructor(inner: MemoryBlockDevice, gated: readonly DeviceOperation[] = ['read', 'write']) {
    this.device = new DelayDevice(inner, (operation) => {
      if (!gated.includes(operation)) return undefined;
      this.waiting++;
      return this.#gate;
    });
  }

  open(): void {
    this.#open!();
  }
}

for (const tls of [false, true]) {
  describe(tls ? 'over TLS' : 'in clear', () => {
    beforeEach(() => {
      overTls = tls;
    });

    describe('clients that leave', () => {
      it('answers all that was asked before the client closed its side', async () => {
        const gate = new Gate(new MemoryBlockDevice({ size: SIZE }));
        const server = await start({ device: gate.device });
        const client = await opened(server);
        for (let cookie = 1; cookie <= 20; cookie++) client.request({ type: 0, length: 5_000, cookie });
        client.send(rawRequest({ type: 0, length: 1 }).subarray(0, 15));
        client.halfClose();
        await until(() => gate.waiting === 20, 'all reads under way');
        gate.open();
        for (let i = 0; i < 20; i++) await client.readReply(5_000);
        expect(await client.endsNow()).toBe(true);
        await until(() => server.exports.openHandles === 0, 'the export closed');
      });

      it('closes the handshake of a client that closed its side', async () => {
        const server = await start();
        const client = server.connect();
        await client.greet();
        client.sendOption(3);
        client.halfClose();
        expect((await client.readAnswer()).type).toBe(2);
        expect((await client.readAnswer()).type).toBe(1);
        expect(await client.endsNow()).toBe(true);
        await until(() => server.server.stats().connections === 0, 'the connection gone');
      });

      it('applies nothing of a write whose payload breaks off, by reset or by end', async () => {
        const device = new MemoryBlockDevice({ size: SIZE });
        const server = await start({ tcp: true, device });
        for (const leave of ['reset', 'halfClose', 'destroy'] as const) {
          const client = await opened(server);
          client.send(rawRequest({ type: 1, length: 500_000 }));
          client.send(Buffer.alloc(400_000, 0xff));
          await until(() => server.server.stats().bufferBytes > 0, 'part of the payload arrived');
          client[leave]();
          await until(() => server.server.stats().connections === 0, 'the connection gone');
          expect(server.server.stats().bufferBytes).toBe(0);
          expect(device.allocatedBytes).toBe(0);
        }
        await expectAlive(server);
      });

      it('holds the export open until operations of a client that reset are over, then gives everything back', async () => {
        const gate = new Gate(new MemoryBlockDevice({ size: SIZE }));
        const server = await start({ tcp: true, device: gate.device });
        const client = await opened(server);
        for (let cookie = 1; cookie <= 30; cookie++) {
          client.request({ type: 0, length: 3_000 * cookie, cookie });
          client.request({ type: 1, payload: Buffer.alloc(100), cookie });
        }
        await until(() => gate.waiting === 60, 'all under way');
        client.reset();
        await new Promise((resolve) => setTimeout(resolve, 50));
        expect(server.exports.openHandles).toBe(1);
        gate.open();
        await until(() => server.exports.openHandles === 0, 'the export closed');
        expect(server.server.stats()).toMatchObject({ connections: 0, requestsInFlight: 0, bufferBytes: 0 });
      });

      for (const [how, leave] of [
        ['says goodbye', (client) => client.request({ type: 2 })],
        ['closes its side', (client) => client.halfClose()],
      ] as readonly [string, (client: RawClient) => void][]) {
        it(`has closed the export when a client that ${how} sees the end of its connection`, async () => {
          const server = await start();
          const client = await opened(server);
          let close!: () => void;
          server.exports.closable = new Promise((resolve) => (close = resolve));
          client.request({ type: 0, length: 100_000 });
          leave(client);
          await client.readReply(100_000);
          let ended = false;
          const end = client.endsNow().then((clean) => {
            ended = true;
            return clean;
          });
          await new Promise((resolve) => setTimeout(resolve, 50));
          expect([ended, server.exports.openHandles]).toEqual([false, 1]);
          close();
          expect(await end).toBe(true);
          expect(server.exports.openHandles).toBe(0);
        });
      }

      it('has closed what a handshake keeps open when the client sees its end', async () => {
        const server = await start();
        for (const leave of ['abort', 'halfClose'] as const) {
          const client = await connected(server);
          await client.ask(8);
          await client.ask(10, contextRequest('disk', ['base:allocation']));
          expect(server.exports.openHandles).toBe(1);
          if (leave === 'abort') await client.ask(2);
          else client.halfClose();
          expect(await client.endsNow()).toBe(true);
          expect(server.exports.openHandles).toBe(0);
        }
      });

      it('has closed the export when our own client has closed, time and again', async () => {
        const server = await start();
        for (let round = 0; round < 50; round++) {
          const client = await NbdClient.connect(server.address, {
            exportName: 'disk',
            ...(overTls ? { tls: { kind: 'x509', ca: AUTHORITY } } : {}),
          });
          await client.write(0, Buffer.alloc(1 + round));
          await client.close();
          expect(server.exports.openHandles).toBe(0);
        }
      });

      it('says of a client that it leaves while what it asked for is under way', async () => {
        const gate = new Gate(new MemoryBlockDevice({ size: SIZE }));
        const server = await start({ tcp: true, device: gate.device });
        for (const [i, leave] of (['goodbye', 'halfClose', 'reset'] as const).entries()) {
          const client = await opened(server);
          client.request({ type: 1, payload: Buffer.alloc(100) });
          await until(() => gate.waiting === i + 1, 'the write under way');
          expect(server.exports.leaves).toBe(i);
          if (leave === 'goodbye') client.request({ type: 2 });
          else client[leave]();
          await until(() => server.exports.leaves === i + 1, `said to leave: ${leave}`);
          expect(server.exports.openHandles).toBe(i + 1);
        }
        gate.open();
        await until(() => server.exports.openHandles === 0, 'the exports closed');
      });

      it('costs others nothing when a client resets with replies on their way', async () => {
        const server = await start({ tcp: true });
        const other = await NbdClient.connect(server.address, { exportName: 'disk' });
        for (let round = 0; round < 10; round++) {
          const client = await opened(server);
          for (let cookie = 1; cookie <= 200; cookie++) client.request({ type: 0, length: 60_000, cookie });
          await other.write(round * 1_000, Buffer.alloc(1_000, round + 1));
          client.reset();
        }
        const read = Buffer.alloc(10_000);
        await other.read(0, 10_000, read, 0);
        for (let round = 0; round < 10; round++) expect(read[round * 1_000 + 500]).toBe(round + 1);
        await until(() => server.server.stats().connections === 1, 'the others gone');
        await other.close();
        await until(() => server.server.stats().bufferBytes === 0, 'all buffers back');
      });

      it('takes connect-and-close and garbage before the handshake', async () => {
        const server = await start({ tcp: true });
        for (const bytes of ['', 'GET / HTTP/1.1\r\n\r\n', '\0\0\0\x03IHAVEOPT']) {
          const client = server.connect();
          client.send(Buffer.from(bytes, 'latin1'));
          await client.reader.read(18);
          client.reset();
        }
        await until(() => server.server.stats().connections === 0, 'all gone');
        await expectAlive(server);
      });
    });

    describe('clients that take more than they should', () => {
      it('stops reading from a client that does not read replies, and answers all of it later', async () => {
        const limits = { unsentBytesMax: 500_000, connectionBufferBytesMax: 2_000_000 };
        const server = await start({ limits });
        const client = await opened(server);
        client.socket.pause();
        const requests = 2_000;
        for (let cookie = 1; cookie <= requests; cookie++)
          client.request({ type: 0, length: 65_536, cookie });
        await until(() => server.server.stats().bufferBytes > 400_000, 'replies piled up');
        let most = 0;
        for (let i = 0; i < 20; i++) {
          most = Math.max(most, server.server.stats().bufferBytes);
          await new Promise((resolve) => setTimeout(resolve, 10));
        }
        expect(most).toBeLessThanOrEqual(limits.connectionBufferBytesMax);
        for (let cookie = 1; cookie <= requests; cookie++)
          expect((await client.readReply(65_536)).cookie).toBe(cookie);
        await until(() => server.server.stats().bufferBytes === 0, 'all buffers back');
      });

      it('stops reading while too many requests are in flight', async () => {
        const gate = new Gate(new MemoryBlockDevice({ size: SIZE }));
        const server = await start({ device: gate.device, limits: { requestsInFlightMax: 10 } });
        const client = await opened(server);
        for (let cookie = 1; cookie <= 100; cookie++) client.request({ type: 0, length: 100, cookie });
        await until(() => gate.waiting === 10, 'ten under way');
        await new Promise((resolve) => setTimeout(resolve, 50));
        expect(gate.waiting).toBe(10);
        expect(server.server.stats().requestsInFlight).toBe(10);
        gate.open();
        const cookies = new Set<number>();
        for (let i = 0; i < 100; i++) cookies.add((await client.readReply(100)).cookie);
        expect(cookies.size).toBe(100);
      });

      it('stops reading while too many requests of all connections are in flight, and serves them in turns', async () => {
        const gate = new Gate(new MemoryBlockDevice({ size: SIZE }));
        const server = await start({ device: gate.device, limits: { allRequestsInFlightMax: 10 } });
        const clients = await Promise.all(Array.from({ length: 4 }, () => opened(server)));
        for (const client of clients) {
          for (let cookie = 1; cookie <= 50; cookie++) client.request({ type: 0, length: 100, cookie });
        }
        await until(() => gate.waiting === 10, 'ten under way');
        await new Promise((resolve) => setTimeout(resolve, 50));
        expect(gate.waiting).toBe(10);
        expect(server.server.stats().requestsInFlight).toBe(10);
        // One that waits and leaves holds up nobody.
        clients[3]!.destroy();
        gate.open();
        for (const client of clients.slice(0, 3)) {
          const cookies = new Set<number>();
          for (let i = 0; i < 50; i++) cookies.add((await client.readReply(100)).cookie);
          expect(cookies.size).toBe(50);
        }
        await until(() => server.server.stats().connections === 3, 'the one that left gone');
        expect(server.server.stats().requestsInFlight).toBe(0);
      });

      it('keeps slow reads of one connection within its buffers', async () => {
        const gate = new Gate(new MemoryBlockDevice({ size: 2 ** 25 }));
        const limits = { connectionBufferBytesMax: 5_000_000 };
        const server = await start({ device: gate.device, limits });
        const client = await opened(server);
        for (let cookie = 1; cookie <= 20; cookie++) client.request({ type: 0, length: 2 ** 20, cookie });
        await until(() => gate.waiting >= 4, 'some under way');
        await new Promise((resolve) => setTimeout(resolve, 50));
        expect(server.server.stats().bufferBytes).toBeLessThanOrEqual(limits.connectionBufferBytesMax);
        gate.open();
        for (let i = 0; i < 20; i++) await client.readReply(2 ** 20);
      });

      it('keeps all connections together within the buffers of the server, and serves every one', async () => {
        const gate = new Gate(new MemoryBlockDevice({ size: 2 ** 25 }));
        const limits = { bufferBytesMax: 6_000_000 };
        const server = await start({ device: gate.device, limits });
        const clients = await Promise.all(Array.from({ length: 8 }, () => opened(server)));
        for (const client of clients) {
          for (let cookie = 1; cookie <= 5; cookie++) client.request({ type: 0, length: 2 ** 20, cookie });
          client.request({ type: 1, payload: Buffer.alloc(300_000, 1), cookie: 6 });
        }
        await until(() => gate.waiting >= 5, 'some under way');
        await new Promise((resolve) => setTimeout(resolve, 50));
        expect(server.server.stats().bufferBytes).toBeLessThanOrEqual(limits.bufferBytesMax);
        gate.open();
        // All at once: one that does not read holds what another waits for.
        await Promise.all(
          clients.map(async (client) => {
            const cookies: number[] = [];
            for (let i = 0; i < 6; i++) {
              const header = await client.reader.read(16);
              const cookie = header.readUInt32BE(12);
              if (cookie < 6) await client.reader.read(2 ** 20);
              cookies.push(cookie);
            }
            expect(cookies.sort()).toEqual([1, 2, 3, 4, 5, 6]);
          }),
        );
        await until(() => server.server.stats().bufferBytes === 0, 'all buffers back');
      });

      it('cuts off a client that holds buffers which others wait for and does nothing', async () => {
        let time = 0;
        const ticks: (() => void)[] = [];
        const clock: Clock = {
          now: () => time,
          monotonic: () => time,
          sleep: (ms) => new Promise((resolve) => ms === 1_000 && ticks.push(resolve)),
        };
        const server = await start({ clock, limits: { bufferBytesMax: 1_000_000 } });
        const greedy = await opened(server);
        greedy.send(rawRequest({ type: 1, length: 900_000 }));
        greedy.send(Buffer.alloc(10_000));
        await until(() => server.server.stats().bufferBytes > 900_000, 'the buffer taken');
        const patient = await opened(server);
        patient.request({ type: 0, length: 4_096, cookie: 5 });
        const reply = patient.readReply(4_096);
        await new Promise((resolve) => setTimeout(resolve, 30));
        time = 40_000;
        for (const tick of ticks) tick();
        expect((await reply).cookie).toBe(5);
        expect(await greedy.endsNow()).toBe(true);
      });
    });

    describe('the end', () => {
      it('lets requests in flight finish and answers later ones with ESHUTDOWN at shutdown', async () => {
        const gate = new Gate(new MemoryBlockDevice({ size: SIZE }));
        const server = await start({ device: gate.device });
        const client = await opened(server);
        client.request({ type: 1, payload: Buffer.from('kept'), cookie: 1 });
        await until(() => gate.waiting === 1, 'the write under way');
        const closed = server.server.close({ drainMsMax: 10_000 });
        client.request({ type: 0, length: 4, cookie: 2 });
        expect(await client.readReply()).toMatchObject({ errno: 108, cookie: 2 });
        gate.open();
        expect(await client.readReply()).toMatchObject({ errno: 0, cookie: 1 });
        expect(await client.endsNow()).toBe(true);
        await closed;
        expect(server.exports.openHandles).toBe(0);
        await expect(NbdClient.connect(server.address, { exportName: 'disk' })).rejects.toThrow(PandoError);
      });

      it('cuts connections that do not drain in time', async () => {
        const gate = new Gate(new MemoryBlockDevice({ size: SIZE }));
        const server = await start({ device: gate.device });
        const client = await opened(server);
        client.request({ type: 0, length: 4, cookie: 1 });
        await until(() => gate.waiting === 1, 'the read under way');
        const closed = server.server.close({ drainMsMax: 20 });
        expect(await client.endsNow()).toBe(true);
        gate.open();
        await closed;
        expect(server.exports.openHandles).toBe(0);
      });

      it('cuts off a client that does not close its side after the server has', async () => {
        const server = await start({ limits: { lingerMsMax: 20 } });
        const client = await opened(server);
        client.socket.pause();
        client.request({ type: 2 });
        await until(() => server.server.stats().connections === 0, 'the connection gone');
      });

      it('closes at once when nobody does anything, and a second time', async () => {
        const server = await start();
        const idle = server.connect();
        await idle.greet();
        const client = await opened(server);
        await Promise.all([server.server.close(), server.server.close()]);
        expect(await idle.endsNow()).toBe(true);
        expect(await client.endsNow()).toBe(true);
        await expect(server.server.listen({ host: '127.0.0.1', port: 0 })).rejects.toThrow(PandoError);
      });

      it('answers an option that comes right after shutdown began with ERR_SHUTDOWN', async () => {
        const server = await start({ limits: { shutdownGraceMs: 2_000 } });
        const idle = await connected(server);
        const clients = [await connected(server), await connected(server), await connected(server)];
        const closed = server.server.close({ drainMsMax: 60_000 });
        const [list, go, old] = clients;
        expect(await list!.ask(3)).toMatchObject([{ type: 0x8000_0007 }]);
        expect(await go!.ask(7, infoRequest('disk'))).toMatchObject([{ type: 0x8000_0007 }]);
        old!.sendOption(1, Buffer.from('disk'));
        for (const client of [...clients, idle]) expect(await client.endsNow()).toBe(true);
        await closed;
      });

      it('ends a handshake whose export is being opened when shutdown begins', async () => {
        let go: (() => void) | undefined;
        const opening = new Promise<void>((resolve) => (go = resolve));
        const inner = new DeviceExports();
        inner.set('disk', new MemoryBlockDevice({ size: SIZE }));
        let opens = 0;
        const server = createNbdServer({
          exports: {
            list: (limit, client) => inner.list(limit, client),
            open: async (name, client) => {
              opens++;
              await opening;
              return inner.open(name, client);
            },
          },
        });
        const address = await server.listen({ host: '127.0.0.1', port: 0 });
        const clients = [6, 7].map(async (option) => {
          const client = new RawClient(address);
          await client.greet();
          client.sendOption(option, infoRequest('disk'));
          let answers = 0;
          while ((await client.readAnswer()).type !== 1) answers++;
          expect(answers).toBe(2);
          expect(await client.endsNow()).toBe(true);
        });
        await until(() => opens === 2, 'both opens began');
        const closed = server.close({ drainMsMax: 60_000 });
        go!();
        await Promise.all(clients);
        await closed;
        expect(inner.openHandles).toBe(0);
      });

      it('takes what is sent right behind GO in order, however long the export takes to open', async () => {
        const memory = new MemoryBlockDevice({ size: SIZE });
        const gate = new Gate(memory, ['write']);
        const server = await start({ device: gate.device, limits: { requestsInFlightMax: 3 } });
        const open = server.exports.open.bind(server.exports);
        let go: (() => void) | undefined;
        const opening = new Promise<void>((resolve) => (go = resolve));
        let asked = false;
        server.exports.open = async (name, identity) => {
          asked = true;
          await opening;
          return open(name, identity);
        };
        const client = await connected(server);
        const count = 250;
        const writes = Array.from({ length: count }, (_, i) =>
          rawRequest({ type: 1, offset: i * 4000, cookie: i, payload: Buffer.alloc(4000, i) }),
        );
        const bytes = Buffer.concat([optionBytes(7, infoRequest('disk')), ...writes]);
        // Cut within writes, so that what is out of order shows.
        client.send(bytes.subarray(0, 20_000));
        await until(() => asked, 'the export is being opened');
        // Less than what a paused socket reads, so that it goes on reading.
        client.send(bytes.subarray(20_000, 40_000));
        await new Promise((resolve) => setTimeout(resolve, 20));
        go!();
        await until(() => gate.waiting === 3, 'three under way');
        client.send(bytes.subarray(40_000));
        await new Promise((resolve) => setTimeout(resolve, 20));
        gate.open();
        while ((await client.readAnswer()).type !== 1);
        for (let i = 0; i < count; i++) expect((await client.readReply(0)).errno).toBe(0);
        const all = Buffer.alloc(SIZE);
        await memory.read(0, SIZE, all, 0);
        for (let i = 0; i < count; i++)
          expect(all.subarray(i * 4000, (i + 1) * 4000).equals(Buffer.alloc(4000, i)), `write ${i}`).toBe(
            true,
          );
      });

      it('throws out the clients of an export that is revoked, after what is in flight, and no others', async () => {
        const gate = new Gate(new MemoryBlockDevice({ size: SIZE }));
        const server = await start({ device: gate.device });
        server.exports.set('other', new MemoryBlockDevice({ size: SIZE }));
        const other = await NbdClient.connect(server.address, { exportName: 'other' });
        const busy = await opened(server);
        const idle = await opened(server);
        busy.request({ type: 0, length: 10, cookie: 1 });
        await until(() => gate.waiting === 1, 'the read under way');
        server.exports.revoke('disk');
        expect(await idle.endsNow()).toBe(true);
        gate.open();
        expect(await busy.readReply(10)).toMatchObject({ errno: 0, cookie: 1 });
        expect(await busy.endsNow()).toBe(true);
        await other.write(0, Buffer.from('still here'));
        await other.close();
      });
    });
  });
}

describe('listening', () => {
  it('listens on several addresses and says where', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'pando-nbd-'));
    const exports = new DeviceExports();
    exports.set('disk', new MemoryBlockDevice({ size: 4_096 }));
    const server = createNbdServer({ exports });
    const tcp = await server.listen({ host: '127.0.0.1', port: 0 });
    const unix = await server.listen({ path: join(folder, 'a.sock') });
    expect(server.address()).toEqual([tcp, unix]);
    for (const address of server.address()) {
      const client = await NbdClient.connect(address, { exportName: 'disk' });
      await client.close();
    }
    await server.close();
    await rm(folder, { recursive: true });
  });

  it('replaces the socket of a process that died, but neither one that answers nor another file', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'pando-nbd-'));
    const path = join(folder, 'nbd.sock');
    const script = join(folder, 'child.mjs');
    await writeFile(
      script,
      `import net from 'node:net'; net.createServer().listen(${JSON.stringify(path)}, () => process.send('up'));`,
    );
    const child = fork(script);
    await new Promise((resolve) => child.once('message', resolve));
    child.kill('SIGKILL');
    await new Promise((resolve) => child.once('exit', resolve));
    const server = createNbdServer({ exports: new DeviceExports() });
    await server.listen({ path });
    const second = createNbdServer({ exports: new DeviceExports() });
    await expect(second.listen({ path })).rejects.toMatchObject({ code: 'EADDRINUSE' });
    await writeFile(join(folder, 'file'), 'precious');
    await expect(second.listen({ path: join(folder, 'file') })).rejects.toThrow();
    await server.close();
    await second.close();
    await rm(folder, { recursive: true });
  });

  it('rejects a port that is taken', async () => {
    const holder = createServer();
    await new Promise<void>((resolve) => holder.listen(0, '127.0.0.1', resolve));
    const { port } = holder.address() as { port: number };
    const server = createNbdServer({ exports: new DeviceExports() });
    await expect(server.listen({ host: '127.0.0.1', port })).rejects.toMatchObject({ code: 'EADDRINUSE' });
    await server.close();
    await new Promise((resolve) => holder.close(resolve));
  });
});

describe('clients that go while their export is being opened', () => {
  it('are waited for in bounded numbers: further connections are closed until some are done', async () => {
    const server = await start({ limits: { connectionsMax: 5, connectionsInHandshakeMax: 3 } });
    const { exports } = server;
    const open = exports.open.bind(exports);
    let asked = 0;
    let finish = (): void => undefined;
    const gate = new Promise<void>((resolve) => (finish = resolve));
    exports.open = async (name, client) => {
      asked++;
      await gate;
      return open(name, client);
    };
    for (let i = 0; i < 20; i++) {
      const before = asked;
      const client = server.connect();
      client.send(Buffer.from('00000003', 'hex'));
      client.sendOption(7, infoRequest('disk'));
      let gone = false;
      void client.closed.then(() => (gone = true));
      await until(() => asked > before || gone, 'the client waiting or turned away');
      expect(server.server.stats().connections).toBeLessThanOrEqual(8);
    }
    // Five whose clients had to make room, and three that made them.
    expect(asked).toBe(8);
    finish();
    await until(() => server.server.stats().connections === 3, 'those without a client gone');
    expect(exports.openHandles).toBe(3);
    await expectAlive(server);
  });
});
