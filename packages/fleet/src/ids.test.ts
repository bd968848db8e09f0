import { fillRandom, seededRandom } from '@pando/common/testing';
import { validate, version } from 'uuid';
import { describe, expect, test } from 'vitest';
import { idSource } from './ids.ts';
import { TestClock } from './testing/fixture.ts';

describe('ids', () => {
  test('ascend within a millisecond, over milliseconds, and when the clock goes back', () => {
    const clock = new TestClock();
    const random = seededRandom(7);
    const next = idSource(clock, { fill: (target) => fillRandom(random, target) });
    const ids: string[] = [];
    for (let i = 0; i < 5000; i++) {
      if (i % 1000 === 999) clock.advance(i % 2000 === 999 ? 5 : -3);
      ids.push(next());
    }
    expect([...ids].sort()).toEqual(ids);
    expect(new Set(ids).size).toBe(ids.length);
    expect(ids.every((id) => validate(id) && version(id) === 7)).toBe(true);
  });

  test('go on into the next millisecond when one is used up', () => {
    const clock = new TestClock();
    let all = 0xff;
    const next = idSource(clock, { fill: (target) => void target.fill(all) });
    const first = next();
    all = 0;
    const second = next();
    expect(second > first).toBe(true);
    expect(first.slice(0, 13)).toBe(second.slice(0, 13));
  });
});
