/** SIGTERM while everything is under way at once: the server ends well, in bounded time, and nothing acknowledged is lost. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fillRandom, runSeed, seededRandom } from '@pando/common/testing';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { connect, createVm, importVm, MiB, mustVerify, readExport } from '../support/disks.ts';
import { TestServer } from '../support/server.ts';

const CLIENTS = 3;
const BLOCK = 4096;
/** Blocks that each client writes to, again and again. */
const BLOCKS = 512;

interface JobView {
  readonly kind: string;
  readonly state: string;
}

/** A client that numbers its writes, and knows of each block which write was sent last, and which was answered. */
class Writer {
  readonly sent = new Uint32Array(BLOCKS);
  readonly answered = new Uint32Array(BLOCKS);
  readonly done: Promise<void>;
  acknowledged = 0;
  readonly #first: number;

  constructor(server: TestServer, client: number, random: () => number) {
    this.#first = client * BLOCKS;
    // The server hangs up in the end.
    this.done = this.#run(server, random).catch(() => undefined);
  }

  /** Which blocks are neither what was answered last nor anything sent after it. */
  lost(disk: Buffer): number[] {
    return Array.from({ length: BLOCKS }, (_, block) => block).filter((block) => {
      const at = (this.#first + block) * BLOCK;
      const found = disk.readUInt32LE(at);
      const isWhole = disk.subarray(at, at + BLOCK).equals(content(this.#first + block, found));
      return !isWhole || found < this.answered[block]! || found > this.sent[block]!;
    });
  }

  async #run(server: TestServer, random: () => number): Promise<void> {
    const client = await connect(server, 'db/disk0');
    for (let write = 1; ; write++) {
      const block = Math.floor(random() * BLOCKS);
      this.sent[block] = write;
      await client.write((this.#first + block) * BLOCK, content(this.#first + block, write));
      this.answered[block] = write;
      this.acknowledged++;
      if (write % 200 === 0) await client.flush();
    }
  }
}

/** What write `number` puts into a block; zeros before the first one. */
function content(block: number, number: number): Buffer {
  const bytes = Buffer.alloc(BLOCK);
  if (number === 0) return bytes;
  for (let at = 0; at < BLOCK; at += 8) {
    bytes.writeUInt32LE(number, at);
    bytes.writeUInt32LE(block, at + 4);
  }
  return bytes;
}

const seed = runSeed();

describe(`under load (seed ${seed})`, () => {
  let folder: string;
  let server: TestServer;
  let writers: Writer[];

  const jobs = async (): Promise<readonly JobView[]> =>
    ((await server.rest.must('GET', '/jobs')) as { items: readonly JobView[] }).items;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'pando-sigterm-'));
    const random = seededRandom(seed);
    await writeFile(join(folder, 'large.raw'), fillRandom(random, new Uint8Array(48 * MiB)));
    const args = [
      '--import-dir',
      folder,
      '--gc-every',
      '0',
      '--verify-every',
      '0.0001',
      '--verify-rate',
      '1',
    ];
    server = await TestServer.start({ args });
    await importVm(server, 'golden', fillRandom(random, new Uint8Array(8 * MiB)));
    await server.rest.must('POST', '/vms/golden/backups', { name: 'old' });
    await createVm(server, 'db', CLIENTS * BLOCKS * BLOCK);
    writers = Array.from(
      { length: CLIENTS },
      (_, client) => new Writer(server, client, seededRandom(seed + client)),
    );
    const isBusy = (): boolean => writers.every(({ acknowledged }) => acknowledged > 100);
    while (!isBusy()) await new Promise((resolve) => setImmediate(resolve));
    // A verification runs, as slowly as it was told to, until others wait for it.
    const isVerifying = async (): Promise<boolean> =>
      (await jobs()).some(({ kind, state }) => kind === 'verify' && state === 'running');
    while (!(await isVerifying()));
    await server.rest.must('POST', '/imports', { name: 'half', path: 'large.raw' });
    for (const path of ['/gc', '/verify', '/gc']) await server.rest.must('POST', path, {});
    await server.rest.must('POST', '/repairs', { path: 'large.raw' });
  });
  afterEach(async () => {
    await server.close();
    await rm(folder, { recursive: true, force: true });
  });

  async function expectNothingLost(): Promise<void> {
    for (const writer of writers) await writer.done;
    await server.restart();
    const disk = await readExport(server, 'db/disk0');
    for (const writer of writers) expect(writer.lost(disk)).toEqual([]);
    expect(await server.rest.must('GET', '/backups/golden@old')).toMatchObject({ name: 'old' });
    // The import was cut off, or had ended just then.
    const { status } = await server.rest.call('GET', '/vms/half');
    expect([200, 404]).toContain(status);
    await mustVerify(server);
  }

  it('SIGTERM ends clients, an import, gc and verification with status 0 and loses no acknowledged write', async () => {
    // `stop` kills it after a minute, which is what the server allows itself: its status is none then.
    expect(await server.stop()).toBe(0);
    expect(server.log).toContain('stopped; everything is on disk');
    expect(server.log).not.toMatch(/"level":(50|60)/);
    await expectNothingLost();
  });

  it('a second signal ends it at once, and loses no acknowledged write either', async () => {
    const ended = server.stop();
    process.kill(server.pid!, 'SIGINT');
    expect([0, 130]).toContain(await ended);
    await expectNothingLost();
  });
});
