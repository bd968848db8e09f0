import { expect, it } from 'vitest';
import { CrashFileSystem, between, runSeed, seededRandom } from './testing/index.ts';
import { Witness } from './witness.ts';

it('never says more than it was told, over power cuts at any moment', async () => {
  const seed = runSeed();
  const random = seededRandom(seed);
  let fs = new CrashFileSystem();
  let told = 0;
  for (let round = 0; round < 300; round++) {
    const witness = await Witness.open(fs, 'x.witness');
    expect(witness.value, `seed ${seed}, round ${round}`).toBeLessThanOrEqual(told);
    for (let step = between(random, 0, 4); step > 0; step--) {
      if (random() < 0.2) {
        await witness.set(0);
        expect((await Witness.open(fs, 'x.witness')).value).toBe(0);
        told = 0;
      } else witness.note((told += between(random, 1, 5)));
      if (random() < 0.5) await new Promise((resolve) => setImmediate(resolve));
    }
    fs = fs.crash(random);
  }
});

it('outlives the process, the last value of many, and says nothing when it is damaged', async () => {
  const fs = new CrashFileSystem();
  const witness = await Witness.open(fs, 'x.witness');
  for (let value = 1; value <= 100; value++) witness.note(value);
  await witness.close();
  expect((await Witness.open(fs, 'x.witness')).value).toBe(100);
  for (let at = 0; at < 24; at++) {
    fs.damage('x.witness', (bytes) => bytes.map((byte, i) => (i === at ? byte ^ 1 : byte)));
    expect((await Witness.open(fs, 'x.witness')).value).toBe(0);
    fs.damage('x.witness', (bytes) => bytes.map((byte, i) => (i === at ? byte ^ 1 : byte)));
  }
});

it('gives in to a disk that takes nothing', async () => {
  const fs = new CrashFileSystem();
  fs.faults.before = (operation) => {
    if (operation === 'write') throw Object.assign(new Error('boom'), { code: 'EIO' });
  };
  const witness = await Witness.open(fs, 'x.witness');
  witness.note(5);
  await expect(witness.set(0)).rejects.toThrow('boom');
  await witness.close();
});

it('says nothing on a disk that is full, rather than what is not true any more', async () => {
  for (const spare of [0, 10]) {
    let fs = new CrashFileSystem();
    fs.faults.freeBytes = spare;
    const first = await Witness.open(fs, 'x.witness');
    await first.set(7);
    expect((await Witness.open(fs, 'x.witness')).value).toBe(0);
    fs.faults.freeBytes = Infinity;
    await first.set(5);
    expect((await Witness.open(fs, 'x.witness')).value).toBe(5);
    fs = fs.crash(() => 0.99);
    expect([0, 5]).toContain((await Witness.open(fs, 'x.witness')).value); // its name may be lost
  }
});
