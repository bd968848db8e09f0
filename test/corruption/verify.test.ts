/**
 * Real damage in the files of a real server: `pando verify` names the file, the place, and exactly those ranges of those
 * disks, clones and backups included, that a guest cannot read.
 */
import { readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { hashChunk } from '@pando/chunk-store';
import { fillRandom, runSeed, seededRandom } from '@pando/common/testing';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { pando } from '../cli/pando.ts';
import { connect, importVm, MiB } from '../support/disks.ts';
import { TestServer } from '../support/server.ts';

const CHUNK = 4096;
const LEAF = 128 * CHUNK;
const SIZE = 3 * MiB;
const EXPORTS = ['web/disk0', 'clone/disk0', 'other/disk0', 'web@monday/disk0'];

interface Range {
  readonly offset: number;
  bytes: number;
}

interface Report {
  readonly quick: boolean;
  readonly chunks: number;
  readonly bytes: number;
  readonly checkedDisks: number;
  readonly missingChunks: number;
  readonly damaged: readonly { file: string; offset: number; problem: string }[];
  readonly disks: readonly {
    kind: string;
    name: string;
    disk: string;
    damagedBytes: number;
    ranges: Range[];
  }[];
}

interface Last {
  readonly startedAt: string;
  readonly endedAt: string;
  readonly scheduled: boolean;
  readonly report: Report;
}

/** All but how much there was to verify: the server writes to its store by itself too, the mirror of the catalog. */
function findings({ chunks, bytes, ...rest }: Report): Omit<Report, 'chunks' | 'bytes'> {
  expect(Math.min(chunks, bytes)).toBeGreaterThan(0);
  return rest;
}

const seed = runSeed();

describe(`verify, over damage (seed ${seed})`, () => {
  const image = fillRandom(seededRandom(seed), new Uint8Array(SIZE));
  const rewritten = fillRandom(seededRandom(seed + 1), new Uint8Array(8 * CHUNK));
  let server: TestServer;

  beforeEach(async () => {
    server = await TestServer.start({ args: ['--gc-every', '0'] });
    await importVm(server, 'web', image);
    await server.rest.must('POST', '/vms/web/backups', { name: 'monday' });
    await server.rest.must('POST', '/vms/web/clone', { name: 'clone' });
    await importVm(server, 'other', fillRandom(seededRandom(seed + 2), new Uint8Array(MiB + 512)));
    const clone = await connect(server, 'clone/disk0');
    await clone.write(40 * CHUNK, rewritten);
    await clone.flush();
    await clone.close();
    // A backup destages what is in the overlay.
    await server.rest.must('POST', '/vms/clone/backups', { name: 'settled' });
    await server.rest.call('GET', '/backups/clone@settled/disks/disk0/map');
    expect(await server.stop()).toBe(0);
  });
  afterEach(() => server.close());

  /** The segment file that holds these bytes, and where. */
  async function findStored(bytes: Uint8Array): Promise<{ name: string; path: string; at: number }> {
    const folder = join(server.dataDirectory, 'segments');
    for (const name of await readdir(folder)) {
      const path = join(folder, name);
      const at = (await readFile(path)).indexOf(bytes);
      if (at >= 0) return { name, path, at };
    }
    throw new Error('no segment holds these bytes');
  }

  async function flip(path: string, at: number): Promise<void> {
    const bytes = await readFile(path);
    bytes[at]! ^= 0x20;
    await writeFile(path, bytes);
  }

  /** The ranges of an export that a guest gets EIO for, chunk by chunk. */
  async function unreadable(exportName: string): Promise<Range[]> {
    const client = await connect(server, exportName);
    const ranges: Range[] = [];
    try {
      const bytes = Buffer.alloc(CHUNK);
      for (let offset = 0; offset < client.size; offset += CHUNK) {
        const length = Math.min(CHUNK, client.size - offset);
        const failed = await client.read(offset, length, bytes, 0).then(
          () => false,
          () => true,
        );
        if (!failed) continue;
        const last = ranges.at(-1);
        if (last !== undefined && last.offset + last.bytes === offset) last.bytes += length;
        else ranges.push({ offset, bytes: length });
      }
    } finally {
      await client.close();
    }
    return ranges;
  }

  /** Holds what the report names against what guests read. */
  async function expectExact(report: Report): Promise<void> {
    for (const exportName of [...EXPORTS, 'clone@settled/disk0']) {
      const found = report.disks.find(({ name, disk }) => `${name}/${disk}` === exportName);
      const ranges = await unreadable(exportName);
      expect(found?.ranges ?? [], exportName).toEqual(ranges);
      if (found === undefined) continue;
      expect(found.kind).toBe(exportName.includes('@') ? 'backup' : 'vm');
      expect(found.damagedBytes).toBe(ranges.reduce((sum, { bytes }) => sum + bytes, 0));
    }
  }

  const verify = async (body: object = {}): Promise<Report> =>
    (await server.rest.job('/verify', body)) as Report;
  const namesOf = ({ disks }: Report): string[] => disks.map(({ name, disk }) => `${name}/${disk}`).sort();
  const shared = ['clone/disk0', 'clone@settled/disk0', 'web/disk0', 'web@monday/disk0'];

  it('names the disks that share a damaged run, and not the clone that wrote over it', async () => {
    const { name, path, at } = await findStored(image.subarray(200 * CHUNK, 201 * CHUNK));
    await flip(path, at + 99);
    const offline = await pando(['verify', '--data', server.dataDirectory, '--json']);
    expect(offline.status).toBe(1);
    await server.restart();
    const report = await verify();
    expect(findings(offline.json<Report>())).toEqual(findings(report));
    expect(report.damaged).toHaveLength(1);
    expect(report.damaged[0]).toMatchObject({
      file: `segments/${name}`,
      problem: expect.stringContaining('CRC') as string,
    });
    expect(report.damaged[0]!.offset).toBeLessThanOrEqual(at);
    expect(report).toMatchObject({ checkedDisks: 5, missingChunks: 0 });
    expect(namesOf(report)).toEqual(shared);
    await expectExact(report);
    const text = await pando(['verify'], { url: server.url });
    expect(text.status).toBe(1);
    const { offset, bytes } = report.disks.find((disk) => disk.name === 'web@monday')!.ranges[0]!;
    expect(text.stdout).toContain(`segments/${name} at byte ${report.damaged[0]!.offset}: `);
    expect(text.stdout).toContain('Affected: 4 disks.');
    expect(text.stdout).toMatch(
      new RegExp(`backup web@monday, disk0: .+, bytes ${offset} to ${offset + bytes - 1}\\n`),
    );

    // The same bytes come again: healed, and nothing is named any more.
    await importVm(server, 'again', image);
    const healed = await verify();
    expect(healed).toMatchObject({ damaged: [], disks: [] });
  });

  it('names the clone alone when what it wrote is damaged', async () => {
    const { path, at } = await findStored(rewritten.subarray(3 * CHUNK, 4 * CHUNK));
    await flip(path, at);
    await server.restart();
    const report = await verify();
    expect(namesOf(report)).toEqual(['clone/disk0', 'clone@settled/disk0']);
    await expectExact(report);
  });

  it('names all that lies below a damaged node', async () => {
    const ids = Array.from({ length: 128 }, (_, i) =>
      hashChunk(image.subarray(2 * LEAF + i * CHUNK, 2 * LEAF + (i + 1) * CHUNK)),
    );
    const { path, at } = await findStored(Buffer.concat(ids));
    await flip(path, at + 1000);
    await server.restart();
    const report = await verify();
    expect(namesOf(report)).toEqual(expect.arrayContaining(shared));
    for (const disk of report.disks)
      expect(disk.ranges.some(({ offset, bytes }) => bytes % LEAF === 0 && offset % LEAF === 0)).toBe(true);
    await expectExact(report);
  });

  it.each([
    ['a damaged footer affects no disk', true, (path: string, size: number) => flip(path, size - 100)],
    ['a damaged file header affects no disk', true, (path: string) => flip(path, 20)],
    [
      'a cut segment affects what was cut off',
      false,
      (path: string, size: number) => truncate(path, Math.floor(size / 2)),
    ],
    ['a segment that is gone affects all that was in it', false, (path: string) => rm(path)],
  ])('%s, quick or not', async (_what, harmless, damage) => {
    const { path, name } = await findStored(image.subarray(0, CHUNK));
    await damage(path, (await readFile(path)).byteLength);
    await server.restart();
    for (const quick of [true, false]) {
      const report = await verify({ quick });
      expect(report.quick).toBe(quick);
      if (quick) expect(report.chunks).toBe(0);
      else if (report.missingChunks === 0) expect(report.chunks).toBeGreaterThan(0);
      if (harmless) expect(report.disks).toEqual([]);
      else expect(report.disks.length).toBeGreaterThan(0);
      const isGone = report.missingChunks > 0;
      if (!isGone) expect(report.damaged.map(({ file }) => file)).toContain(`segments/${name}`);
      await expectExact(report);
    }
  });

  it('the server verifies by itself when it is time, slowly, and what was found outlives it', async () => {
    const last = async (): Promise<{ full?: Last; quick?: Last }> =>
      (await server.rest.must('GET', '/verify/last')) as { full?: Last; quick?: Last };
    await server.restart();
    expect(await last()).toEqual({});
    expect((await pando(['verify', '--last'], { url: server.url })).stdout).toBe(
      'Nothing has been verified yet.\n',
    );
    const quick = await verify({ quick: true });
    expect(await last()).toMatchObject({ quick: { scheduled: false, report: quick } });
    await server.stop();

    const { path, at } = await findStored(rewritten.subarray(3 * CHUNK, 4 * CHUNK));
    await flip(path, at);
    const args = ['--gc-every', '0', '--verify-every', '0.0003', '--verify-rate', '2'];
    const own = await TestServer.start({ dataDirectory: server.dataDirectory, args });
    let found: Last | undefined;
    try {
      const rest = own.rest;
      while (found === undefined) {
        found = ((await rest.must('GET', '/verify/last')) as { full?: Last }).full;
      }
      // A verification is asked for while one may be under way: they run one after another.
      expect(findings((await rest.job('/verify')) as Report)).toEqual(findings(found.report));
      const { items } = (await rest.must('GET', '/jobs')) as {
        items: { kind: string; startedAt?: string; endedAt?: string }[];
      };
      const runs = items
        .filter(({ startedAt, endedAt }) => startedAt !== undefined && endedAt !== undefined)
        .reverse();
      expect(runs.length).toBeGreaterThan(1);
      for (const [i, run] of runs.entries()) {
        expect(run.kind).toBe('verify');
        if (i > 0) expect(run.startedAt! >= runs[i - 1]!.endedAt!).toBe(true);
      }
      // One that is under way does not hold up the end.
      expect(await own.stop()).toBe(0);
    } finally {
      await own.close();
    }
    expect(found.scheduled).toBe(true);
    expect(namesOf(found.report)).toEqual(['clone/disk0', 'clone@settled/disk0']);

    await server.restart();
    const kept = await last();
    expect(findings(kept.full!.report)).toEqual(findings(found.report));
    expect(kept.quick).toMatchObject({ report: quick });
    const text = await pando(['verify', '--last'], { url: server.url });
    expect(text.status).toBe(1);
    expect(text.stdout).toMatch(
      /^Full verification, ended .+ s(, by itself)?:\n[^]+VM clone, disk0: [^]+Quick verification, /,
    );
    await expectExact(found.report);
  });

  it('quick does not read data, and says so by finding nothing wrong with it', async () => {
    const { path, at } = await findStored(image.subarray(200 * CHUNK, 201 * CHUNK));
    await flip(path, at);
    await server.restart();
    expect(await verify({ quick: true })).toMatchObject({
      quick: true,
      chunks: 0,
      damaged: [],
      disks: [],
      checkedDisks: 5,
    });
    const text = await pando(['verify', '--quick'], { url: server.url });
    expect(text).toMatchObject({
      status: 0,
      stdout: expect.stringMatching(/^structure of .+ of 5 disks: all good\.\n$/) as string,
    });
  });
});
