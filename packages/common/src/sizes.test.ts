import { expect, test } from 'vitest';
import { formatSize, parseSize } from './sizes.ts';

test.each([
  ['0', 0],
  ['512', 512],
  ['512B', 512],
  ['4k', 4096],
  ['4KiB', 4096],
  ['4KB', 4096],
  ['20G', 20 * 1024 ** 3],
  ['20 GiB', 20 * 1024 ** 3],
  [' 1.5T ', 1.5 * 1024 ** 4],
  ['0.5K', 512],
  ['64t', 64 * 1024 ** 4],
])('reads %j as %d bytes', (text, bytes) => {
  expect(parseSize(text)).toBe(bytes);
});

test.each([
  '',
  ' ',
  'G',
  '-1',
  '-1G',
  '+5',
  '1e3',
  '0x10',
  '20Q',
  '20Gi',
  '1.3',
  '1.0001K',
  '1..5G',
  '20G20',
  '9999999P',
  'NaN',
])('refuses %j', (text) => {
  expect(() => parseSize(text)).toThrow(expect.objectContaining({ code: 'size-invalid' }));
});

test.each([
  [0, '0 B'],
  [1, '1 B'],
  [1023, '1023 B'],
  [1024, '1.0 KiB'],
  [1536, '1.5 KiB'],
  [10 * 1024, '10 KiB'],
  [1024 * 1024 - 1, '1.0 MiB'],
  [312 * 1024 ** 2, '312 MiB'],
  [8 * 1024 ** 3, '8.0 GiB'],
  [64 * 1024 ** 4, '64 TiB'],
  [5000 * 1024 ** 5, '5000 PiB'],
])('prints %d bytes as %j', (bytes, text) => {
  expect(formatSize(bytes)).toBe(text);
});
