/**
 * The real server, killed (SIGKILL) again and again under a load that knows what it was told. What was acknowledged is in the
 * page cache at least, and that survives the process: so after each restart everything acknowledged is there, what had no
 * answer is there or not, forks are of one instant, and every stored byte verifies.
 *
 * PANDO_KILLS=200 kills more often; PANDO_TEST_SEED=… asks for the same things again.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { SeededRandom, testSeed } from '@pando/block-device/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { MiB, mustVerify } from '../support/disks.ts';
import { TestServer } from '../support/server.ts';
import { Load } from './load.ts';
import { SectorModel } from './sectors.ts';
import { emptyTags, World } from './world.ts';

const KILLS = Number(process.env['PANDO_KILLS'] ?? 8);
const CLIENTS = 3;
/** Overlays rest for three seconds before they are destaged: rounds are longer and shorter than that. */
const LOAD_MS_MAX = 6_500;
/** How much of the server's log is shown after a failure. */
const LOG_CHARACTERS = 20_000;
const RECOVERY_MS_MAX = 2_500;
/** Odd sizes: neither whole chunks nor whole leaves. */
const DISKS: Readonly<Record<string, readonly number[]>> = {
  one: [2 * MiB + 512],
  two: [MiB - 512, 1.5 * MiB + 1536],
  three: [700 * 1024],
};

describe('the server, killed under load', () => {
  const seed = testSeed();
  const world = new World();
  let server: TestServer;
  /** After the first failure the model says nothing any more. */
  let failed = false;

  beforeAll(async () => {
    console.log(`PANDO_TEST_SEED=${seed} PANDO_KILLS=${KILLS}`);
    server = await TestServer.start({ args: ['--gc-every', '0'] });
    for (const [name, sizes] of Object.entries(DISKS)) {
      const disks = sizes.map((sizeBytes, i) => ({ name: `disk${i}`, sizeBytes }));
      await server.rest.must('POST', '/vms', { name, disks });
      const models = sizes.map((bytes, i) => new SectorModel(`${name}/disk${i}`, emptyTags(bytes)));
      world.vms.set(name, { name, disks: models, busy: false });
    }
  });

  afterAll(async () => {
    if (failed) console.log(server.log.slice(-LOG_CHARACTERS));
    await server.close();
  });

  for (let round = 1; round <= KILLS; round++) {
    it(`has everything that it acknowledged after kill ${round} of ${KILLS}`, async () => {
      if (failed) throw new Error('an earlier round failed');
      failed = true;
      const random = new SeededRandom(seed + round * 1_000_003);
      const writes = world.writes;
      const load = new Load(server, world, `r${round}`, CLIENTS, (actor) => {
        return new SeededRandom(seed + round * 1_000_003 + (actor + 1) * 7_919);
      });
      try {
        await load.runFor(200 + random.below(LOAD_MS_MAX));
        // A busy machine may need longer to get anything done at all.
        while (world.writes === writes) await load.runFor(100);
      } finally {
        await load.kill();
      }
      expect(world.writes).toBeGreaterThan(writes);
      if (random.below(3) === 0) {
        // Recovery is killed too.
        const starting = server.restart().catch(() => undefined);
        await sleep(random.below(RECOVERY_MS_MAX));
        await server.kill();
        await starting;
      }
      await server.restart();
      await world.check(server);
      await mustVerify(server);
      failed = false;
    });
  }

  it('stops in order after all that, and starts with the same', async () => {
    await server.rest.job('/gc');
    expect(await server.stop()).toBe(0);
    await server.restart();
    await world.check(server);
    await mustVerify(server);
    const answered = [...world.answered].map(([what, count]) => `${count} × ${what}`).join(', ');
    console.log(
      `${answered}; ${world.writes} writes acknowledged; ${world.vms.size} VMs and ${world.backups.size} backups left`,
    );
  });
});
