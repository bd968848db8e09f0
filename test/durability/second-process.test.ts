/**
 * The column "second process" of the table in docs/durability.md: while a server carries out each operation, over and over,
 * other processes try to open its data directory, with a server's right to change everything and with that of the tools that work
 * on a store which nobody serves. They are refused, and nothing that the server does comes to harm.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { fillRandom, runSeed, seededRandom } from '@pando/common/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connect, createVm, MiB, mustVerify, readExport } from '../support/disks.ts';
import { TestServer } from '../support/server.ts';
import { OPERATIONS } from './operations.ts';

const SERVER = fileURLToPath(new URL('../../apps/server/src/main.ts', import.meta.url));
const CLI = fileURLToPath(new URL('../../apps/cli/bin/pando.js', import.meta.url));
const DISK_BYTES = 2 * MiB;
/** Between operations, so that there are some dozens of them and not hundreds. */
const PAUSE_MS = 20;

const seed = runSeed();
const random = seededRandom(seed);
let server: TestServer;
/** What each disk holds. */
const contents = new Map<string, Buffer>();

/** Runs another process on the server's directory. Resolves to how it ended. */
async function intrude(args: readonly string[]): Promise<{ status: number | null; output: string }> {
  const child = spawn(process.execPath, [...args, '--data', server.dataDirectory], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (data: Buffer) => (output += data.toString()));
  const [status] = (await once(child, 'close')) as [number | null];
  return { status, output };
}

const INTRUDERS: readonly (readonly string[])[] = [
  [SERVER, '--http', '127.0.0.1:0', '--nbd', '127.0.0.1:0'],
  [CLI, 'verify', '--rebuild-index'],
];

async function write(exportName: string, offset: number, data: Buffer, flush: boolean): Promise<void> {
  const client = await connect(server, exportName);
  await client.write(offset, data);
  if (flush) await client.flush();
  await client.close();
  data.copy(contents.get(exportName)!, offset);
}

const some = (): Buffer => Buffer.from(fillRandom(random, new Uint8Array(50_000)));
const place = (): number => Math.floor(random() * (DISK_BYTES - 50_000));

/** What each operation does, time after time: `n` counts the times. */
const ACTIONS: Readonly<Record<string, (n: number) => Promise<void>>> = {
  'write': () => write('vm/disk0', place(), some(), false),
  'FLUSH, FUA': () => write('vm/disk0', place(), some(), true),
  'clone': async (n) => {
    await server.rest.must('POST', '/vms/vm/clone', { name: `clone-${n}` });
    contents.set(`clone-${n}/disk0`, Buffer.from(contents.get('vm/disk0')!));
  },
  'backup': async (n) => {
    await server.rest.must('POST', '/vms/vm/backups', { name: `backup-${n}` });
    contents.set(`vm@backup-${n}/disk0`, Buffer.from(contents.get('vm/disk0')!));
  },
  'restore': async () => {
    await write('vm/disk0', place(), some(), false);
    // A client is gone for the server when it has read that the client went.
    while (((await server.rest.must('GET', '/vms/vm')) as { attachedClients: number }).attachedClients > 0)
      await setTimeout(5);
    await server.rest.must('POST', '/backups/vm@start/restore', {});
    contents.set('vm/disk0', Buffer.from(contents.get('vm@start/disk0')!));
  },
  'delete': async (n) => {
    await createVm(server, `short-${n}`, DISK_BYTES);
    await server.rest.must('DELETE', `/vms/short-${n}`);
  },
  'gc': async () => {
    await write('vm/disk0', place(), some(), true);
    await server.rest.job('/gc');
  },
  'resize': async (n) => {
    const sizeBytes = DISK_BYTES + (n + 1) * MiB;
    await server.rest.must('PATCH', '/vms/sized', { disk: { name: 'disk0', sizeBytes } });
    contents.set('sized/disk0', Buffer.concat([contents.get('sized/disk0')!, Buffer.alloc(MiB)]));
  },
};

describe(`a second process on the directory of a server (seed ${seed})`, () => {
  beforeAll(async () => {
    server = await TestServer.start({ args: ['--gc-every', '0'] });
    for (const vm of ['vm', 'sized']) {
      await createVm(server, vm, DISK_BYTES);
      contents.set(`${vm}/disk0`, Buffer.alloc(DISK_BYTES));
      await write(`${vm}/disk0`, place(), some(), true);
    }
    await server.rest.must('POST', '/vms/vm/backups', { name: 'start' });
    contents.set('vm@start/disk0', Buffer.from(contents.get('vm/disk0')!));
  });

  afterAll(() => server.close());

  for (const { name } of OPERATIONS) {
    it(`${name}, second process`, async () => {
      let count = 0;
      const intruders = Promise.all(INTRUDERS.map(intrude));
      const areGone = (): Promise<boolean> =>
        Promise.race([intruders.then(() => true), setTimeout(PAUSE_MS, false)]);
      do await ACTIONS[name]!(count++);
      while (!(await areGone()));
      for (const { status, output } of await intruders) {
        expect(output).toContain('store-locked');
        expect(status).not.toBe(0);
      }
      for (const [exportName, bytes] of contents)
        expect((await readExport(server, exportName)).equals(bytes), exportName).toBe(true);
      // The next one finds what this one made, in few words.
      for (const exportName of [...contents.keys()])
        if (/^clone-|^vm@backup-/.test(exportName)) contents.delete(exportName);
    });
  }

  it('leaves what a killed server has written', async () => {
    await mustVerify(server);
    await server.kill();
    await server.restart();
    for (const [exportName, bytes] of contents)
      expect((await readExport(server, exportName)).equals(bytes), exportName).toBe(true);
    await mustVerify(server);
  });
});
