import { seededRandom } from '@pando/common/testing';
import { expect, test } from 'vitest';
import { FirstNames } from './first-names.ts';

const random = seededRandom(91);
const below = (end: number): number => Math.floor(random() * end);
/** Some come more than once, as a hostile file system may have them. */
const ALL = Array.from({ length: 6_000 }, () => below(3_000).toString(3));
const STREAM = Buffer.from(['.', '..', 'a/b', '', ...ALL].map((name) => `${name}\0`).join(''));

function firstOf(most: number, from: string | undefined, isFromIn: boolean): [string[], boolean] {
  const first = new FirstNames(most, from === undefined ? undefined : Buffer.from(from), isFromIn);
  for (let at = 0; at < STREAM.length;) {
    const end = at + 1 + below(3_000);
    first.add(STREAM.subarray(at, end));
    expect(first.held).toBeLessThanOrEqual(2 * most);
    at = end;
  }
  return [first.names().map(String), first.isWhole];
}

test('the first names are the smallest, each once, and no more of them are held than twice as many', () => {
  const sorted = [...new Set(ALL)].sort();
  for (const most of [2, 3, 50, 1_500, sorted.length, 50_000]) {
    expect(firstOf(most, undefined, true)).toEqual([sorted.slice(0, most), most >= sorted.length]);
    for (const at of [0, 17, 1_500, sorted.length - 1]) {
      const rest = sorted.length - at;
      expect(firstOf(most, sorted[at], true)).toEqual([sorted.slice(at, at + most), most >= rest]);
      expect(firstOf(most, sorted[at], false)).toEqual([
        sorted.slice(at + 1, at + 1 + most),
        most >= rest - 1,
      ]);
    }
  }
});

test('a name without an end is refused, however it comes', () => {
  const first = new FirstNames(10, undefined, true);
  const piece = Buffer.alloc(1000, 'x');
  expect(() => {
    for (let i = 0; i < 10; i++) first.add(piece);
  }).toThrow(expect.objectContaining({ code: 'files-tool-failed' }));
});
