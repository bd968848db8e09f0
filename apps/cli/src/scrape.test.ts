import { expect, test } from 'vitest';
import { grown, parseMetrics, sumOf } from './scrape.ts';

const TEXT = `# HELP pando_x What it is.
# TYPE pando_x counter
pando_x{command="read"} 5
pando_x{command="write"} 7.5
pando_xy 3
pando_time_bucket{le="+Inf",command="read"} 2
`;

test('samples are found by name and labels, as they are printed', () => {
  const found = parseMetrics(TEXT);
  expect([...found]).toEqual([
    ['pando_x{command="read"}', 5],
    ['pando_x{command="write"}', 7.5],
    ['pando_xy', 3],
    ['pando_time_bucket{le="+Inf",command="read"}', 2],
  ]);
  expect(sumOf(found, 'pando_x')).toBe(12.5);
  expect(sumOf(found, 'pando_none')).toBe(0);
});

test('a counter that began anew has grown by what it has', () => {
  const [before, after] = [parseMetrics('a 10\nb 4\n'), parseMetrics('a 3\nb 6\nc 1\n')];
  expect(['a', 'b', 'c', 'd'].map((key) => grown(before, after, key))).toEqual([3, 2, 1, 0]);
});
