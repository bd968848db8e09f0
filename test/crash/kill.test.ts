/**
 * The real server, killed a few times: see killing.ts.
 *
 * PANDO_KILLS=200 kills more often; PANDO_TEST_SEED=… asks for the same things again.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { testSeed } from '@pando/block-device/testing';
import { afterAll, beforeAll, describe, it } from 'vitest';
import { Killing } from './killing.ts';

const KILLS = Number(process.env['PANDO_KILLS'] ?? 7);
/** How much of the server's log is shown after a failure. */
const LOG_CHARACTERS = 20_000;

describe('the server, killed under load', () => {
  let directory: string;
  let killing: Killing;
  /** After the first failure the model says nothing any more. */
  let failed = false;

  const unlessFailed = async (action: () => Promise<void>): Promise<void> => {
    if (failed) throw new Error('an earlier round failed');
    failed = true;
    await action();
    failed = false;
  };

  beforeAll(async () => {
    const seed = testSeed();
    console.log(`PANDO_TEST_SEED=${seed} PANDO_KILLS=${KILLS}`);
    directory = await mkdtemp(join(tmpdir(), 'pando-kill-'));
    killing = await Killing.start({ seed, directory });
  });

  afterAll(async () => {
    if (failed) console.log(killing.log.slice(-LOG_CHARACTERS));
    await killing.close();
    await rm(directory, { recursive: true });
  });

  for (let round = 1; round <= KILLS; round++) {
    it(`has everything that it acknowledged after kill ${round} of ${KILLS}`, async () => {
      await unlessFailed(() => killing.round());
    });
  }

  it('stops in order after all that, starts with the same, and keeps nothing of what is deleted', async () => {
    await unlessFailed(() => killing.end());
    console.log(killing.summary());
  });
});
