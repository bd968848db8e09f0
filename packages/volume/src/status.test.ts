/** What disks say about themselves: against a model, and what it costs. */
import { expect, it } from 'vitest';
import { runSeed } from '@pando/common/testing';
import { StatusModel } from './testing/status-model.ts';

it('says what differs, how old it is and what is pending, exactly, at every moment', async () => {
  const model = new StatusModel(runSeed());
  await model.run(200);
}, 60_000);

for (const seed of [1, 2, 3, 4]) {
  it(`does so for the fixed seed ${seed}`, async () => {
    const model = new StatusModel(seed);
    await model.run(150);
    expect(model.old.known).toBeGreaterThan(100);
  }, 60_000);
}
