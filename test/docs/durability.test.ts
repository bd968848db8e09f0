/** docs/durability.md has one table of what survives what: every cell says something, and has its test of that name. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { FAULTS, OPERATIONS } from '../durability/operations.ts';

const read = (path: string): string => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');

test('what survives what: a row for each operation, a column for each fault, and no empty cell', () => {
  const page = read('docs/durability.md');
  const table = page.slice(page.indexOf('| operation |')).split('\n\n')[0]!;
  const [head, , ...rows] = table.split('\n').map((line) =>
    line
      .slice(1, -1)
      .split('|')
      .map((cell) => cell.trim()),
  );
  expect(head).toEqual(['operation', ...FAULTS]);
  expect(rows.map(([name]) => name)).toEqual(OPERATIONS.map(({ name }) => name));
  for (const row of rows) {
    expect(row, row[0]).toHaveLength(FAULTS.length + 1);
    for (const cell of row) expect(cell, row[0]).toMatch(/\w{2}/);
  }
});

test('every column has a test in every row', () => {
  const tests = read('test/durability/matrix.test.ts') + read('test/durability/second-process.test.ts');
  for (const fault of FAULTS)
    expect(tests).toMatch(new RegExp(`\\bit\\(\`\\$\\{(operation\\.)?name\\}, ${fault}\``));
});
