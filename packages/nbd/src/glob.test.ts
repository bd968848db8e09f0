import { SeededRandom } from '@pando/block-device/testing';
import { runSeed } from '@pando/common/testing';
import { describe, expect, it } from 'vitest';
import { globMatcher } from './glob.ts';

const fits = (pattern: string, name: string, separators = '/@'): boolean =>
  globMatcher(pattern, separators)(name);

describe('patterns', () => {
  it('stand for parts of a name, or with ** for anything', () => {
    expect(fits('web/disk0', 'web/disk0')).toBe(true);
    expect(fits('web/disk0', 'web/disk01')).toBe(false);
    expect(fits('web-*/*', 'web-17/disk0')).toBe(true);
    expect(fits('web-*/*', 'web-17@monday/disk0')).toBe(false);
    expect(fits('*@*/*', 'web-17@monday/disk0')).toBe(true);
    expect(fits('*', 'web/disk0')).toBe(false);
    expect(fits('**', 'web@x/disk0')).toBe(true);
    expect(fits('**', '')).toBe(true);
    expect(fits('web?/disk0', 'web1/disk0')).toBe(true);
    expect(fits('web?disk0', 'web/disk0')).toBe(false);
    expect(fits('\\*/\\?', '*/?')).toBe(true);
    expect(fits('\\*/*', 'a/b')).toBe(false);
    expect(fits('*.example.org', 'a.b.example.org', '')).toBe(true);
    expect(fits('a\\', 'a\\')).toBe(true);
    expect(fits('?', '😀')).toBe(true);
  });

  it('agree with regular expressions on random names', () => {
    const seed = runSeed();
    const random = new SeededRandom(seed);
    const pick = (from: readonly string[]): string =>
      Array.from({ length: random.below(9) }, () => from[random.below(from.length)]!).join('');
    let matching = 0;
    for (let i = 0; i < 20_000; i++) {
      const pattern = pick(['a', 'b', '/', '@', '*', '**', '?']);
      const name = pick(['a', 'a', 'b', '/', '@']);
      const source = pattern.replaceAll(/\*{2,}|\*|\?/g, (token) =>
        token === '?' ? '[^/@]' : token === '*' ? '[^/@]*' : '.*',
      );
      const expected = new RegExp(`^${source}$`).test(name);
      if (expected) matching++;
      expect(fits(pattern, name), `${pattern} ${name}, seed ${seed}`).toBe(expected);
    }
    expect(matching).toBeGreaterThan(500);
  });

  it('end soon on names made to make them try long', () => {
    const matcher = globMatcher(`${'*a'.repeat(200)}**${'a*'.repeat(200)}b`, '/@');
    expect(matcher('a'.repeat(4_096))).toBe(false);
  });
});
