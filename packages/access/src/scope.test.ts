import { describe, expect, test } from 'vitest';
import { checkedScope, fits, inScope } from './scope.ts';

describe('a pattern', () => {
  test.each([
    ['web', 'web', true],
    ['web', 'web-1', false],
    ['web-*', 'web-1', true],
    ['web-*', 'web-', true],
    ['web-*', 'xweb-1', false],
    ['*', '', true],
    ['*', 'anything', true],
    ['*-db', 'a-db-db', true],
    ['*-db', 'a-db-x', false],
    ['a*b*c', 'a-b-b-c', true],
    ['a*b*c', 'a-c-b', false],
    ['a**', 'a', true],
    ['w.b', 'web', false],
    ['', '', true],
    ['', 'a', false],
  ])('%j fits %j: %s', (pattern, name, expected) => {
    expect(fits(pattern, name)).toBe(expected);
  });

  test('made to be slow is as quick as any other', () => {
    expect(fits('*a'.repeat(120) + 'b', 'a'.repeat(255))).toBe(false);
  });
});

test('a VM is in a scope by its name or by one of its tags; without a scope every one is', () => {
  const web = { name: 'web-1', tags: ['prod', 'team-a'] };
  expect(inScope(undefined, web)).toBe(true);
  expect(inScope({ vms: ['db', 'web-*'] }, web)).toBe(true);
  expect(inScope({ tags: ['team-a'] }, web)).toBe(true);
  expect(inScope({ vms: ['db'], tags: ['team-a'] }, web)).toBe(true);
  expect(inScope({ vms: ['db'], tags: ['team-*'] }, web)).toBe(false);
  expect(inScope({ vms: [], tags: [] }, web)).toBe(false);
});

test('a scope is kept in one form, and has to name something', () => {
  expect(checkedScope({ vms: ['b', 'a', 'b', 'u\u0308*'], tags: [] })).toEqual({
    vms: ['a', 'b', '\u00fc*'],
  });
  for (const wrong of [
    {},
    { vms: [] },
    { vms: [''] },
    { tags: ['a/b'] },
    { vms: ['x'.repeat(256)] },
    { tags: ['a\n'] },
    { tags: ['a\u0085'] },
    { tags: [' a'] },
    { tags: ['..'] },
  ]) {
    expect(() => checkedScope(wrong)).toThrow(expect.objectContaining({ code: 'request-invalid' }));
  }
});
