/**
 * The catalog of a real server, destroyed, and made anew from the segments: VMs and backups that are older than the mirror
 * come back, every flushed write is there, and nothing goes to a wrong disk.
 */
import { readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { between, fillRandom, runSeed, seededRandom } from '@pando/common/testing';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { pando, type Ran } from '../cli/pando.ts';
import { connect, createVm, importVm, MiB, mustVerify, readExport } from '../support/disks.ts';
import { TestServer } from '../support/server.ts';

const CHUNK = 4096;
const SIZE = MiB + 512;
const seed = runSeed();

interface Rebuilt {
  readonly damaged: readonly unknown[];
  readonly disks: readonly unknown[];
  readonly catalog: {
    readonly mirroredAt: string;
    readonly vms: number;
    readonly backups: number;
    readonly unknownDisks: readonly { readonly size: number; readonly writtenBytes: number }[];
    readonly cutDisks: readonly number[];
    readonly movedTo?: string;
  };
}

let server: TestServer;
let random: () => number;

beforeEach(async () => {
  random = seededRandom(seed);
  server = await TestServer.start({ args: ['--gc-every', '0'] });
});

afterEach(() => server.close());

function catalog(): string {
  return join(server.dataDirectory, 'catalog');
}

function rebuild(...more: string[]): Promise<Ran> {
  return pando(['verify', '--rebuild-catalog', '--data', server.dataDirectory, '--json', ...more]);
}

async function mustRebuild(...more: string[]): Promise<Rebuilt> {
  const ran = await rebuild(...more);
  expect(ran, ran.stderr).toMatchObject({ status: 0 });
  const report = ran.json<Rebuilt>();
  expect(report).toMatchObject({ damaged: [], disks: [], catalog: { cutDisks: [] } });
  return report;
}

async function namesOf(path: '/vms' | '/backups'): Promise<string[]> {
  const { items } = (await server.rest.must('GET', path)) as { items: { name: string; vmName?: string }[] };
  return items.map(({ name, vmName }) => (vmName === undefined ? name : `${vmName}@${name}`)).sort();
}

async function write(name: string, offset: number, data: Uint8Array, flush = true): Promise<void> {
  const client = await connect(server, name);
  await client.write(offset, data);
  if (flush) await client.flush();
  await client.close();
}

/** Everything that was committed so far is in a durable mirror afterwards. */
const mirrorNow = (): Promise<unknown> => server.rest.job('/gc');

describe(`a catalog that is lost (seed ${seed})`, () => {
  const ways: readonly [string, () => Promise<unknown>, readonly string[]][] = [
    ['is gone', () => rm(catalog(), { recursive: true }), []],
    [
      'is gone, and the index with it',
      async () => {
        await rm(catalog(), { recursive: true });
        await rm(join(server.dataDirectory, 'index'), { recursive: true });
      },
      ['--rebuild-index'],
    ],
    [
      'is damaged in all its files',
      async () => {
        for (const name of await readdir(catalog())) {
          const path = join(catalog(), name);
          const bytes = await readFile(path);
          for (let i = 0; i < bytes.length; i += 50) bytes[i]! ^= 1 << between(random, 0, 7);
          await writeFile(path, bytes);
        }
      },
      ['--quick'],
    ],
    [
      'has lost its newest records',
      async () => {
        for (const name of await readdir(catalog())) {
          if (!name.endsWith('.log')) continue;
          const { length } = await readFile(join(catalog(), name));
          await truncate(join(catalog(), name), Math.floor(length / 2));
        }
      },
      [],
    ],
  ];

  it.each(ways)('and %s comes back with every flushed write', async (_, destroy, flags) => {
    const image = Buffer.from(fillRandom(random, new Uint8Array(SIZE)));
    await importVm(server, 'web', image);
    await server.rest.must('POST', '/vms/web/backups', { name: 'monday' });
    await server.rest.must('POST', '/vms/web/clone', { name: 'clone' });
    await server.rest.must('POST', '/vms', { name: 'gone', disks: [{ name: 'disk0', sizeBytes: SIZE }] });
    await mirrorNow();

    const now = Buffer.from(image);
    const put = async (chunk: number): Promise<void> => {
      const data = fillRandom(random, new Uint8Array(CHUNK));
      now.set(data, chunk * CHUNK);
      await write('clone/disk0', chunk * CHUNK, data);
    };
    await put(3);
    // Destaged, which a backup sees to: the catalog that comes back does not know of it, or of the backup.
    await server.rest.must('POST', '/vms/clone/backups', { name: 'late' });
    await server.rest.call('GET', '/backups/clone@late/disks/disk0/map');
    await put(4);
    await createVm(server, 'new', SIZE);
    await write('new/disk0', 0, Buffer.alloc(CHUNK, 'new'));
    await server.rest.must('DELETE', '/vms/gone');
    await server.kill();

    await destroy();
    await expect(server.restart()).rejects.toThrow(/catalog-corrupt/);
    const report = await mustRebuild(...flags);
    expect(await readdir(server.dataDirectory)).toContain(report.catalog.movedTo);
    await server.restart();
    const vms = await namesOf('/vms');
    expect(vms).toEqual(expect.arrayContaining(['clone', 'web']));
    expect(report.catalog.vms).toBe(vms.length);
    expect(await namesOf('/backups')).toContain('web@monday');
    expect((await readExport(server, 'clone/disk0')).equals(now)).toBe(true);
    expect((await readExport(server, 'web@monday/disk0')).equals(image)).toBe(true);
    if (!vms.includes('new')) {
      // It is named, and nobody gets what was its.
      expect(report.catalog.unknownDisks).toEqual([
        { disk: expect.any(Number) as number, size: SIZE, writtenBytes: CHUNK },
      ]);
      await createVm(server, 'new', SIZE);
      expect((await readExport(server, 'new/disk0')).equals(Buffer.alloc(SIZE))).toBe(true);
    } else expect(report.catalog.unknownDisks).toEqual([]);

    // It is a store as any other.
    await server.rest.job('/gc');
    await mustVerify(server);
    await server.rest.must('POST', '/vms/clone/backups', { name: 'later' });
    expect(await server.stop()).toBe(0);
    await server.restart();
    expect((await readExport(server, 'clone@later/disk0')).equals(now)).toBe(true);
    expect((await readExport(server, 'web/disk0')).equals(image)).toBe(true);
  });
});

describe('a catalog', () => {
  it('is not made anew while a server runs, or while it is whole, and what is made anew can be again', async () => {
    await createVm(server, 'one', SIZE);
    expect(await rebuild()).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('"store-locked"') as string,
    });
    await mirrorNow();
    // Also when only its lock is gone.
    await rm(catalog(), { recursive: true });
    expect(await rebuild()).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('"store-locked"') as string,
    });
    await server.kill();
    await mustRebuild();
    expect(await rebuild()).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('"catalog-whole"') as string,
    });
    const again = await mustRebuild('--force');
    expect(again.catalog).toMatchObject({ vms: 1 });
    await server.restart();
    expect(await namesOf('/vms')).toEqual(['one']);
    await server.stop();
    await mustRebuild('--force');
    await server.restart();
    expect(await namesOf('/vms')).toEqual(['one']);
  });

  it('is not made from nothing', async () => {
    await server.stop();
    await rm(catalog(), { recursive: true });
    await rm(join(server.dataDirectory, 'segments'), { recursive: true });
    expect(await rebuild()).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('"catalog-unmirrored"') as string,
    });
  });
});

/** A disk under load: what each chunk may hold. */
class LoadedDisk {
  readonly name: string;
  /** For each chunk the tags that it may have: the newest that was flushed, and all that were written after it. */
  readonly chunks: number[][];

  constructor(name: string, chunks: number) {
    this.name = name;
    this.chunks = Array.from({ length: chunks }, () => [0]);
  }

  check(bytes: Buffer): void {
    for (const [chunk, allowed] of this.chunks.entries()) {
      const tag = bytes.readUInt32LE(chunk * CHUNK);
      const part = bytes.subarray(chunk * CHUNK, (chunk + 1) * CHUNK);
      if (!allowed.includes(tag) || !part.equals(tagged(tag)))
        throw new Error(`${this.name}: chunk ${chunk} has ${tag}, and not ${allowed.join(' or ')}`);
      this.chunks[chunk] = [tag];
    }
  }
}

function tagged(tag: number): Buffer {
  const bytes = Buffer.alloc(CHUNK);
  for (let at = 0; at < CHUNK; at += 4) bytes.writeUInt32LE(tag, at);
  return bytes;
}

describe(`a server killed under load, whose catalog is lost (seed ${seed})`, () => {
  const CHUNKS = 60;
  const ROUNDS = Number(process.env['PANDO_REBUILDS'] ?? 1);

  it(`has all flushed writes, and backups older than the mirror, ${ROUNDS} times in a row`, async () => {
    const disks = ['a', 'b', 'c'].map((name) => new LoadedDisk(name, CHUNKS));
    for (const { name } of disks) await createVm(server, name, CHUNKS * CHUNK);
    await mirrorNow();
    /** Backups that were made, and when the request for each was answered. */
    let backups = new Map<string, number>();
    let tag = 0;
    let restored = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const end = new AbortController();
      const running = disks.map(async (disk) => {
        const client = await connect(server, `${disk.name}/disk0`);
        try {
          while (!end.signal.aborted) {
            for (let n = between(random, 1, 8); n > 0; n--) {
              const chunk = between(random, 0, CHUNKS - 1);
              disk.chunks[chunk]!.push(++tag);
              await client.write(chunk * CHUNK, tagged(disk.chunks[chunk]!.at(-1)!));
            }
            const written = disk.chunks.map((tags) => tags.length);
            await client.flush();
            for (const [chunk, count] of written.entries()) disk.chunks[chunk]!.splice(0, count - 1);
            if (random() < 0.1) await sleep(between(random, 0, 300));
          }
        } catch (error) {
          if (!end.signal.aborted) throw error;
        }
      });
      const making = (async () => {
        for (let n = 0; ; n++) {
          const name = `${round}-${n}`;
          const { name: vm } = disks[n % disks.length]!;
          try {
            await server.rest.must('POST', `/vms/${vm}/backups`, { name });
            backups.set(`${vm}@${name}`, Date.now());
            if (n % 3 === 2) await server.rest.job('/gc');
          } catch (error) {
            if (!end.signal.aborted) throw error;
            return;
          }
          await sleep(between(random, 50, 400));
        }
      })();
      await Promise.race([sleep(between(random, 500, 5_000)), ...running, making]);
      end.abort();
      await server.kill();
      await Promise.all([...running, making]);
      await rm(catalog(), { recursive: true });
      const { catalog: found } = await mustRebuild(...(random() < 0.5 ? ['--quick'] : []));
      await server.restart();
      for (const disk of disks) disk.check(await readExport(server, `${disk.name}/disk0`));
      const there = await namesOf('/backups');
      const expected = [...backups]
        .filter(([, at]) => at < Date.parse(found.mirroredAt))
        .map(([name]) => name);
      expect(there).toEqual(expect.arrayContaining(expected));
      restored += there.length;
      for (const name of there) await readExport(server, `${name}/disk0`);
      backups = new Map([...backups].filter(([name]) => there.includes(name)));
      await mustVerify(server);
    }
    console.log(`${tag} writes, ${restored} times a backup that came back`);
    expect(tag).toBeGreaterThan(ROUNDS);
  });
});
