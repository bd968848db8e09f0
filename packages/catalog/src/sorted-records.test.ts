import { between, runSeed, seededRandom } from '@pando/common/testing';
import { describe, expect, test } from 'vitest';
import { BLOCK_RECORDS_MAX, SortedRecords, type RecordChange } from './sorted-records.ts';

const RECORDS = 10_000;
const put = (key: number, value = key): RecordChange => ({ key: keyOf(key), value: Buffer.from(`${value}`) });
const remove = (key: number): RecordChange => ({ key: keyOf(key), value: undefined });

function keyOf(number: number): Buffer {
  return Buffer.from(String(number).padStart(6, '0'));
}

/** Every even number. */
function many(): SortedRecords {
  return new SortedRecords().with(Array.from({ length: RECORDS }, (_, i) => put(2 * i)));
}

function entries(records: Iterable<{ key: Buffer; value: Buffer }>): [number, string][] {
  return [...records].map(({ key, value }) => [Number(key.toString()), value.toString()]);
}

describe('records in blocks', () => {
  test('share all blocks that a change does not touch with what was before, which stays what it was', () => {
    for (const change of [put(7777), put(4000, 1), remove(4000), put(2 * RECORDS), remove(0), remove(4001)]) {
      const before = many();
      const was = entries(before.between());
      const after = before.with([change]);
      const shared = new Set(before.blocks);
      expect(after.blocks.filter((block) => !shared.has(block)).length).toBeLessThanOrEqual(2);
      expect(entries(before.between())).toEqual(was);
    }
  });

  test('are what a map says, whatever comes and goes', () => {
    const random = seededRandom(runSeed());
    const expected = new Map<number, string>();
    let records = new SortedRecords();
    for (let round = 0; round < 300; round++) {
      // Now and then most of a range goes, so that blocks become small.
      const isClearing = random() < 0.1;
      const start = between(random, 0, 2000);
      const keys = isClearing
        ? Array.from({ length: 500 }, (_, i) => start + i)
        : Array.from({ length: between(random, 1, 200) }, () => between(random, 0, 2500));
      const changes = [...new Set(keys)]
        .sort((a, b) => a - b)
        .map((key) => (isClearing || random() < 0.3 ? remove(key) : put(key, round)));
      records = records.with(changes);
      for (const { key, value } of changes) {
        if (value === undefined) expected.delete(Number(key.toString()));
        else expected.set(Number(key.toString()), value.toString());
      }
      const all = [...expected].sort(([a], [b]) => a - b);
      expect(entries(records.between())).toEqual(all);
      for (const block of records.blocks) {
        expect(block.length).toBeGreaterThan(0);
        expect(block.length).toBeLessThanOrEqual(BLOCK_RECORDS_MAX);
      }
      const [from, to] = [between(random, 0, 2600), between(random, 0, 2600)];
      const inside = all.filter(([key]) => key >= from && key < to);
      expect(entries(records.between(keyOf(from), keyOf(to)))).toEqual(inside);
      expect(entries(records.backwards(keyOf(from), keyOf(to)))).toEqual(inside.reverse());
      expect(records.get(keyOf(from))?.value.toString()).toBe(expected.get(from));
    }
    // Those that had become small were joined with others.
    expect(records.blocks.length).toBeLessThan((4 * expected.size) / BLOCK_RECORDS_MAX + 20);
  });
});
