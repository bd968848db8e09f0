/**
 * What a guest deletes and trims is given back: after `gc run` the store has so many bytes less. Content is incompressible, so bytes
 * of the guest and stored bytes can be compared.
 */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { between, runSeed, seededRandom } from '@pando/common/testing';
import { expect } from 'vitest';
import { itWithTools } from '../support/tools.ts';
import type { Guest } from './qemu.ts';
import { Stage, stopwatch, TOOLS } from './stage.ts';

const MIB = 1024 ** 2;
const QUIET_MS_MAX = 120_000;
const LOOK_EVERY_MS = 500;
const FILL_MS_MAX = 300_000;
/** What else may come or go in the store meanwhile: the journal and other tables of ext4, and what the system writes. */
const OTHER_BYTES_MAX = 2 * MIB;
/** Nodes of the tree and headers in segments, for the content that they hold. */
const OVERHEAD_MAX = 0.05;

interface SpaceReport {
  readonly storedBytes: number;
  readonly garbageBytes: number;
  readonly indexBytes: number;
  readonly logBytes: number;
  readonly logSpareBytes: number;
  readonly catalogBytes: number;
}

/** Bytes of the segments: of all content, without the index, in which keys that went stay until LevelDB tidies up. */
function segmentBytes(report: SpaceReport): number {
  const { storedBytes, indexBytes, logBytes, logSpareBytes, catalogBytes } = report;
  return storedBytes - indexBytes - logBytes - logSpareBytes - catalogBytes;
}

/** The report when everything that the guest wrote is out of the log. */
async function quietReport(stage: Stage): Promise<SpaceReport> {
  const deadline = performance.now() + QUIET_MS_MAX;
  for (let before = Infinity; ;) {
    const report = await stage.pando<SpaceReport>('report', 'space');
    // Its accounts are a little older than its sum of bytes; two in a row are of the same things.
    if (report.logBytes === 0 && before === 0) return report;
    before = report.logBytes;
    if (performance.now() > deadline) throw new Error(`the log still has ${before} bytes`);
    await sleep(LOOK_EVERY_MS);
  }
}

/** Collects garbage, with more arguments, and reports what there is then. */
async function collected(stage: Stage, ...args: readonly string[]): Promise<SpaceReport> {
  await quietReport(stage);
  await stage.pando('gc', 'run', ...args);
  return quietReport(stage);
}

/** What the files of the store take on the disk of the host. */
async function bytesOnDisk(stage: Stage): Promise<number> {
  let bytes = 0;
  const root = stage.server.dataDirectory;
  for (const entry of await readdir(root, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    // LevelDB may remove a file of its own meanwhile.
    const found = await stat(join(entry.parentPath, entry.name)).catch(() => undefined);
    bytes += (found?.blocks ?? 0) * 512;
  }
  return bytes;
}

/** Writes a file whose content follows from the seed and its path. */
async function fill(guest: Guest, seed: number, path: string, bytes: number): Promise<void> {
  const stream = `openssl enc -aes-128-ctr -nosalt -pbkdf2 -iter 1 -pass 'pass:${seed}${path}' </dev/zero 2>/dev/null`;
  await guest.must(`${stream} | head -c ${bytes} >${path} && sync ${path}`, FILL_MS_MAX);
}

function expectLess(before: SpaceReport, after: SpaceReport, deleted: number): void {
  const less = segmentBytes(before) - segmentBytes(after);
  const index = after.indexBytes - before.indexBytes;
  console.log(
    `${deleted} bytes: segments changed by ${-less}, the index by ${index}; garbage: ${after.garbageBytes}`,
  );
  expect(less).toBeGreaterThan(deleted - OTHER_BYTES_MAX);
  // What was garbage before may have gone too.
  expect(less).toBeLessThan(deleted * (1 + OVERHEAD_MAX) + before.garbageBytes + OTHER_BYTES_MAX);
}

itWithTools(TOOLS, 'what a guest deletes and trims is given back, once no backup holds it', async () => {
  const seed = runSeed();
  console.log(`PANDO_SEED=${seed}`);
  const random = seededRandom(seed);
  const lap = stopwatch();
  const stage = await Stage.open();
  await stage.pando('vm', 'clone', 'golden', 'web');
  const guest = await stage.boot('web');
  await guest.must('mkfs.ext4 -q /dev/vdb && mkdir /data && mount /dev/vdb /data');
  await collected(stage);
  lap('golden VM, clone, boot');

  const big = between(random, 44 * MIB, 52 * MIB);
  const empty = await quietReport(stage);
  await fill(guest, seed, '/data/big', big);
  const full = await collected(stage);
  expectLess(full, empty, big);
  const fullOnDisk = await bytesOnDisk(stage);
  lap('a big file');

  await stage.pando('backup', 'create', 'web', '--name', 'keeps');
  await guest.must('rm /data/big && sync /data && fstrim -v /data');
  const kept = await collected(stage);
  expect(Math.abs(segmentBytes(kept) - segmentBytes(full))).toBeLessThan(OTHER_BYTES_MAX);
  lap('rm, fstrim, gc while a backup holds it');

  await stage.pando('backup', 'rm', 'web@keeps');
  const freed = await collected(stage);
  expectLess(full, freed, big);
  expect(fullOnDisk - (await bytesOnDisk(stage))).toBeGreaterThan(big - OTHER_BYTES_MAX);
  lap('backup deleted, gc');

  // The same without being asked: with `discard` ext4 trims when it commits.
  await guest.must('umount /data && mount -o discard /dev/vdb /data');
  await fill(guest, seed, '/data/again', big);
  const again = await collected(stage);
  await guest.must('rm /data/again && sync');
  expectLess(again, await collected(stage), big);
  lap('the same with mount -o discard');

  // Few of many files: dead bytes among living ones, too few of them to be worth a rewrite of every segment.
  const each = between(random, MIB, 2 * MIB);
  const first = between(random, 0, 4);
  await guest.must('mkdir /data/many');
  for (let i = 0; i < 30; i++) await fill(guest, seed, `/data/many/${i}`, each);
  const deleted = [0, 1, 2, 3, 4, 5].map((i) => i * 5 + first);
  const many = await collected(stage);
  await guest.must(`cd /data/many && rm ${deleted.join(' ')} && sync && sha256sum * >/run/sums`);
  const usual = await collected(stage);
  const dead = deleted.length * each;
  expect(segmentBytes(many) - segmentBytes(usual) + usual.garbageBytes).toBeGreaterThan(
    dead - OTHER_BYTES_MAX,
  );
  const thorough = await collected(stage, '--thorough');
  expectLess(many, thorough, dead);
  expect(thorough.garbageBytes).toBeLessThan(OTHER_BYTES_MAX);
  await guest.must('echo 3 >/proc/sys/vm/drop_caches; sha256sum --quiet -c /run/sums', FILL_MS_MAX);
  lap('some of many files, gc and gc --thorough');
});
