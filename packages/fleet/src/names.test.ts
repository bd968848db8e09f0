import { TiB } from '@pando/common';
import { describe, expect, test } from 'vitest';
import { checkName, checkSize, looksLikeId, splitBackupRef, splitExportName, timeName } from './names.ts';

describe('names', () => {
  test.each(['a', 'web-1', 'Größe', '你好', '🌲', 'a b', 'x'.repeat(255), '...', 'ä'.repeat(127)])(
    '%j is a name',
    (name) => {
      expect(checkName('name', name)).toBe(name);
    },
  );

  test.each([
    ['', 'empty'],
    ['x'.repeat(256), '256 bytes'],
    ['ä'.repeat(128), '256 bytes'],
    ['a/b', '/ or @'],
    ['a@b', '/ or @'],
    ['a\nb', 'control'],
    ['a\u0000', 'control'],
    ['a\u007f', 'control'],
    ['a\u0085', 'control'],
    ['a\u2028', 'control'],
    [' a', 'blank'],
    ['a ', 'blank'],
    ['\u00a0a', 'blank'],
    ['\ud800', 'Unicode'],
    ['.', 'path'],
    ['..', 'path'],
  ])('%j is no name, and the message says why', (name, why) => {
    const problem = { code: 'name-invalid', message: expect.stringContaining(why) as string };
    expect(() => checkName('name', name)).toThrow(expect.objectContaining(problem));
  });

  test('one name in two Unicode forms is one name', () => {
    expect(checkName('name', 'a\u0308')).toBe('ä');
    expect(checkName('name', 'a\u0308'.repeat(127))).toBe('ä'.repeat(127));
  });

  test.each([512, 1024, 513 * 512, 64 * TiB])('%i is a size', (size) => {
    expect(() => checkSize(size)).not.toThrow();
  });

  test.each([0, -512, 1, 511, 513, 64 * TiB + 512, NaN, Infinity, 512.5])('%d is no size', (size) => {
    expect(() => checkSize(size)).toThrow(expect.objectContaining({ code: 'size-invalid' }));
  });

  test('references are taken apart at the first @ and the first /', () => {
    expect(splitBackupRef('web')).toBeUndefined();
    expect(splitBackupRef('web@a')).toEqual({ vm: 'web', name: 'a' });
    expect(splitBackupRef('web@a@b')).toEqual({ vm: 'web', name: 'a@b' });
    expect(splitExportName('web')).toEqual({ owner: 'web', disk: undefined });
    expect(splitExportName('web@a/disk0')).toEqual({ owner: 'web@a', disk: 'disk0' });
    expect(splitExportName('/')).toEqual({ owner: '', disk: '' });
  });

  test('a default backup name is a time without colons that is itself a name', () => {
    expect(timeName(1_795_168_800_999)).toBe('2026-11-20T10-00-00Z');
    expect(checkName('name', timeName(0))).toBe('1970-01-01T00-00-00Z');
  });

  test('ids look like ids', () => {
    expect(looksLikeId('0192f0c1-7b2a-7def-8123-456789abcdef')).toBe(true);
    expect(looksLikeId('0192f0c1-7b2a-7def-8123-456789abcdeg')).toBe(false);
    expect(looksLikeId('web')).toBe(false);
  });
});
