import { expect, test } from 'vitest';
import { sparkline } from './sparkline.ts';

test('numbers become bars from the least to the greatest, and no more bars than there is room for', () => {
  expect(sparkline([], 10)).toBe('');
  expect(sparkline([5], 10)).toBe('▁');
  expect(sparkline([5, 5, 5], 10)).toBe('▁▁▁');
  expect(sparkline([0, 1, 2, 3, 4, 5, 6, 7], 10)).toBe('▁▂▃▄▅▆▇█');
  expect(sparkline([100, 101, 99], 10)).toBe('▅█▁');
  const many = Array.from({ length: 1001 }, (_, i) => (i === 500 ? 1000 : 0));
  expect(sparkline(many, 60)).toHaveLength(60);
  expect(sparkline(many, 60)).toMatch(/^▁+█▁+$/);
});
