/**
 * Collections without a pause while clients write, clone, back up, restore and delete: nothing that anyone can read is
 * lost, and what nobody can read is gone in the end: the store is about as large as one that was never anything else.
 */
import { SeededRandom, testSeed } from '@pando/block-device/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Load } from '../crash/load.ts';
import { SectorModel, sectorBytes } from '../crash/sectors.ts';
import { emptyTags, World } from '../crash/world.ts';
import { connect, createVm, importVm, MiB, mustVerify, readExport, sha256 } from '../support/disks.ts';
import { TestServer } from '../support/server.ts';

const CLIENTS = 3;
const LOAD_MS = 12_000;
const SIZES = [3 * MiB + 512, 2 * MiB - 512, 1200 * 1024];
/** Overlays rest for three seconds, then they are destaged; the log is empty when nothing rests any more. */
const QUIET_MS_MAX = 60_000;
/** How much larger than a fresh store: compaction leaves segments alone of which more than three quarters are alive. */
const OVERHEAD = 1.2;
/** Of small stores: segment headers, footers, and nodes that share no run. */
const OVERHEAD_BYTES = MiB / 4;

interface Space {
  readonly storedBytes: number;
  readonly garbageBytes: number;
  readonly logBytes: number;
  readonly dataStoredBytes: number;
  readonly metadataBytes: number;
}

async function space(server: TestServer): Promise<Space> {
  return (await server.rest.must('GET', '/report/space')) as Space;
}

/** Bytes of segments when all is destaged and collected. */
async function quietBytes(server: TestServer): Promise<number> {
  const deadline = performance.now() + QUIET_MS_MAX;
  for (;;) {
    if ((await space(server)).logBytes === 0) break;
    if (performance.now() > deadline) throw new Error('the log is not empty');
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  await server.rest.job('/gc');
  await server.rest.job('/gc');
  const { dataStoredBytes, metadataBytes, garbageBytes } = await space(server);
  return dataStoredBytes + metadataBytes + garbageBytes;
}

describe('garbage collection', () => {
  const seed = testSeed();
  let server: TestServer;
  let fresh: TestServer;

  beforeAll(async () => {
    console.log(`PANDO_TEST_SEED=${seed}`);
    server = await TestServer.start({ args: ['--gc-every', '0'] });
    fresh = await TestServer.start({ args: ['--gc-every', '0'] });
  });

  afterAll(async () => {
    await server.close();
    await fresh.close();
  });

  it('in a loop under load loses nothing and leaves nothing', async () => {
    const world = new World();
    for (const [i, bytes] of SIZES.entries()) {
      const name = `vm-${i}`;
      await createVm(server, name, bytes);
      const model = new SectorModel(`${name}/disk0`, emptyTags(bytes));
      world.vms.set(name, { name, disks: [model], busy: false });
    }
    const load = new Load(server, world, 'gc', CLIENTS, (actor) => new SeededRandom(seed + actor * 7_919));
    const imports = (async () => {
      // Imports of what is there already and of what has just been deleted: their chunks are hits, again and again.
      const random = new SeededRandom(seed ^ 0x55);
      const image = sectorBytes(Uint32Array.from({ length: 2048 }, (_, i) => 1 + (i % 1500)));
      for (let i = 0; i < 8; i++) {
        const name = `import-${i}`;
        await importVm(server, name, image);
        expect(sha256(await readExport(server, `${name}/disk0`))).toBe(sha256(image));
        if (random.below(2) === 0) await server.rest.must('DELETE', `/vms/${name}`);
        else {
          const model = new SectorModel(`${name}/disk0`, emptyTags(image.length));
          model.tags = Uint32Array.from({ length: 2048 }, (_, k) => 1 + (k % 1500));
          world.vms.set(name, { name, disks: [model], busy: false });
        }
      }
    })();
    await load.runFor(LOAD_MS);
    await imports;
    await load.end();
    await world.check(server);
    await mustVerify(server);
    expect(world.writes).toBeGreaterThan(500);

    const used = await quietBytes(server);
    // The same contents, written once into a store that held nothing else.
    const copied = new Set<string>();
    for (const { disks } of [...world.vms.values(), ...world.backups.values()]) {
      for (const { tags } of disks) {
        const bytes = sectorBytes(tags);
        const name = sha256(bytes).slice(0, 16);
        if (copied.has(name)) continue;
        copied.add(name);
        await importVm(fresh, name, bytes);
      }
    }
    const least = await quietBytes(fresh);
    console.log(`${used} bytes after the load, ${least} in a fresh store; ${world.writes} writes`);
    expect(used).toBeLessThan(least * OVERHEAD + OVERHEAD_BYTES);
    await world.check(server);
    await mustVerify(server);
  });

  it('gives back what a guest has trimmed, and no more', async () => {
    const random = new SeededRandom(seed);
    await createVm(fresh, 'guest', 64 * MiB);
    const kept = random.bytes(MiB);
    const file = random.bytes(8 * MiB);
    const client = await connect(fresh, 'guest/disk0');
    await client.write(512, kept);
    await client.write(16 * MiB + 1536, file);
    await client.flush();
    const before = await quietBytes(fresh);
    await client.zero(16 * MiB + 1536, file.length);
    await client.close();
    const after = await quietBytes(fresh);
    expect(before - after).toBeGreaterThan(file.length * 0.98);
    expect(before - after).toBeLessThan(file.length * 1.05);
    const disk = await readExport(fresh, 'guest/disk0');
    expect(Buffer.compare(disk.subarray(512, 512 + kept.length), kept)).toBe(0);
    disk.fill(0, 512, 512 + kept.length);
    expect(disk.every((byte) => byte === 0)).toBe(true);
    await mustVerify(fresh);
  });
});
