/**
 * A real server under a mixed load for a long time: clients that write, read, verify and trim, an operator who clones, backs up,
 * restores and deletes, somebody who imports and exports, and collections and verifications on the server's own schedule.
 * What is stored is bounded, so all that the server takes has to be.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SeededRandom } from '@pando/block-device/testing';
import { checkNothingLeft, checkRoots } from '../crash/accounts.ts';
import { Load } from '../crash/load.ts';
import { SectorModel, sectorBytes } from '../crash/sectors.ts';
import { emptyTags, World } from '../crash/world.ts';
import { createVm, importVm, MiB, mustVerify } from '../support/disks.ts';
import { TestServer } from '../support/server.ts';
import { descriptorsByKind, memoryLines, probeEnvironment, type DescriptorKinds } from './memory.ts';
import { sample, type Sample } from './samples.ts';

const CLIENTS = 4;
/** Between two requests of a client, on average: a server at work, and no race for the processor. */
const PAUSE_MS = 4;
const IMPORT_PAUSE_MS_MAX = 4_000;
const DISKS = [24 * MiB + 512, 16 * MiB - 512, 8 * MiB + 1536];
const IMAGE_SECTORS_MAX = 16_384;
const GC_EVERY_MINUTES = 2;
const VERIFY_EVERY_HOURS = 0.1;
/** Files of the two LevelDB databases that are open just then. */
const DESCRIPTORS_SLACK = 16;

export interface SoakOptions {
  readonly seed: number;
  readonly seconds: number;
  readonly sampleSeconds: number;
  readonly onSample?: (sample: Sample) => void;
  /** Told with each sample where the memory is; the server then runs with a probe in each of its threads. */
  readonly onMemory?: (lines: readonly string[]) => void;
}

export interface SoakResult {
  readonly samples: readonly Sample[];
  /** Before the load and after it, when everything is deleted and nobody is connected. */
  readonly idle: readonly [before: Sample, after: Sample];
  /** Descriptors that were open then, by what they are. */
  readonly idleDescriptors: readonly [before: DescriptorKinds, after: DescriptorKinds];
  /** What was asked for and answered. */
  readonly counts: ReadonlyMap<string, number>;
}

/** @throws Error with what is wrong with the data, the accounts, or the descriptors that are left in the end */
export async function soak(options: SoakOptions): Promise<SoakResult> {
  const { seed, seconds, sampleSeconds, onSample, onMemory } = options;
  const probes = onMemory === undefined ? undefined : await mkdtemp(join(tmpdir(), 'pando-soak-'));
  const server = await TestServer.start({
    args: [
      ...['--log-level', 'warn'],
      ...['--gc-every', String(GC_EVERY_MINUTES), '--verify-every', String(VERIFY_EVERY_HOURS)],
    ],
    ...(probes === undefined ? {} : { env: probeEnvironment(probes) }),
  });
  const started = performance.now();
  const elapsed = (): number => (performance.now() - started) / 1000;
  const take = (): Promise<Sample> => sample(server.pid!, server.dataDirectory, elapsed());
  const samples: Sample[] = [];
  try {
    const before = await take();
    const descriptorsBefore = await descriptorsByKind(server.pid!);
    const world = new World();
    for (const [i, bytes] of DISKS.entries()) {
      const name = `vm-${i}`;
      await createVm(server, name, bytes);
      const model = new SectorModel(`${name}/disk0`, emptyTags(bytes));
      world.vms.set(name, { name, disks: [model], busy: false });
    }
    const random = (actor: number): SeededRandom => new SeededRandom(seed + actor * 7_919);
    const load = new Load(server, world, 'soak', CLIENTS, random, { collects: false, pauseMs: PAUSE_MS });
    const stop = new AbortController();
    const images = importAndExport(server, world, random(100), stop.signal);
    const failed = images.then(() => new Promise<never>(() => undefined));
    while (elapsed() < seconds) {
      const next = Math.min(seconds, Math.floor(elapsed() / sampleSeconds + 1) * sampleSeconds);
      await Promise.race([load.runFor(Math.max(0, next - elapsed()) * 1000), failed]);
      const taken = await take();
      samples.push(taken);
      onSample?.(taken);
      if (probes !== undefined) onMemory?.(await memoryLines(server.pid!, probes));
    }
    stop.abort();
    await Promise.all([load.end(), images]);
    await world.check(server);
    await checkRoots(server, world);
    await mustVerify(server);
    await checkNothingLeft(server, world);
    const after = await take();
    const descriptorsAfter = await descriptorsByKind(server.pid!);
    if (probes !== undefined) onMemory?.(await memoryLines(server.pid!, probes));
    if (after.descriptors > before.descriptors + DESCRIPTORS_SLACK) {
      throw new Error(`${after.descriptors} descriptors are left of ${before.descriptors} before`);
    }
    return {
      samples,
      idle: [before, after],
      idleDescriptors: [descriptorsBefore, descriptorsAfter],
      counts: new Map([...world.answered, ['write', world.writes]]),
    };
  } finally {
    await server.close();
    if (probes !== undefined) await rm(probes, { recursive: true, force: true });
  }
}

/** Uploads images and the next backups of them, downloads both, compares, and deletes everything again. */
async function importAndExport(
  server: TestServer,
  world: World,
  random: SeededRandom,
  signal: AbortSignal,
): Promise<void> {
  for (let i = 1; !signal.aborted; i++) {
    const vm = `image-${i}`;
    const tags = Uint32Array.from({ length: 1 + random.below(IMAGE_SECTORS_MAX) }, () =>
      random.below(4) === 0 ? 0 : world.newTag(),
    );
    await importVm(server, vm, sectorBytes(tags));
    world.count('import');
    await exported(server, `/vms/${vm}/disks/disk0/content`, tags);
    await server.rest.must('POST', `/vms/${vm}/backups`, { name: 'first' });
    for (let k = random.below(tags.length); k < tags.length; k += 1 + random.below(100))
      tags[k] = world.newTag();
    await importSince(server, `${vm}@first`, 'second', sectorBytes(tags));
    world.count('import since a backup');
    await exported(server, `/backups/${vm}@second/disks/disk0/content`, tags);
    world.count('export');
    for (const path of [`/backups/${vm}@first`, `/vms/${vm}`, `/backups/${vm}@second`]) {
      await server.rest.must('DELETE', path);
    }
    await sleep(random.below(IMPORT_PAUSE_MS_MAX), undefined, { signal }).catch(() => undefined);
  }
}

async function importSince(server: TestServer, since: string, name: string, image: Buffer): Promise<void> {
  const query = new URLSearchParams({ since, name });
  const answer = await server.fetch(`/api/v1/imports?${query.toString()}`, {
    method: 'POST',
    headers: { 'content-type': 'application/octet-stream' },
    body: new Uint8Array(image),
  });
  const text = await answer.text();
  if (answer.status !== 201) throw new Error(`the import since ${since} answered ${answer.status}: ${text}`);
}

async function exported(server: TestServer, path: string, tags: Uint32Array): Promise<void> {
  const answer = await server.fetch(`/api/v1${path}`);
  const bytes = Buffer.from(await answer.arrayBuffer());
  if (answer.status !== 200) throw new Error(`${path} answered ${answer.status}: ${bytes.toString()}`);
  if (!bytes.equals(sectorBytes(tags))) throw new Error(`${path} is not what was imported`);
}
