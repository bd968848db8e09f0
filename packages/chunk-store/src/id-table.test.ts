import { between, runSeed, seededRandom } from '@pando/common/testing';
import { describe, expect, it } from 'vitest';
import { IdTable } from './id-table.ts';

describe('the table of ids', () => {
  it('agrees with a Map through random additions and removals, with crowded clusters', () => {
    const seed = runSeed();
    const random = seededRandom(seed);
    const table = new IdTable();
    const model = new Map<number, number>();
    const id = new Uint8Array(32);
    for (let step = 0; step < 60_000; step++) {
      // Few distinct first bytes: many ids share a home, which is where removal goes wrong.
      const number = between(random, 0, step < 30_000 ? 1500 : 300);
      id.fill(0);
      id[0] = number % 5;
      new DataView(id.buffer).setUint32(8, number + 1, true);
      const known = model.get(number) ?? -1;
      const context = `seed ${seed}, step ${step}`;
      if (table.indexOf(id, 0) !== known) expect.fail(context);
      if (random() < 0.5) {
        const entry = table.add(id, 0);
        if (known >= 0 && entry !== known) expect.fail(context);
        if (known < 0 && [...model.values()].includes(entry) && step % 50 === 0) expect.fail(context);
        model.set(number, entry);
      } else {
        if (table.remove(id, 0) !== known) expect.fail(context);
        model.delete(number);
      }
      if (table.size !== model.size) expect.fail(context);
    }
    const seen: number[] = [];
    table.forEach((entry) => seen.push(entry));
    expect(seen.sort((a, b) => a - b)).toEqual([...model.values()].sort((a, b) => a - b));
  });
});
