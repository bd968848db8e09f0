import { readFileSync } from 'node:fs';
import { ERROR_CODES } from '@pando/common';
import { expect, test } from 'vitest';
import { errorsPage, ERRORS_PAGE } from '../../scripts/errors-doc.ts';

const page = readFileSync(ERRORS_PAGE, 'utf8');

test('docs/errors.md has every code with its remedy, and no other', () => {
  const documented = [...page.matchAll(/^\| `([a-z-]+)` \| (\d+) \| (.+) \|$/gm)];
  expect(documented.map((match) => match[1]).sort()).toEqual(Object.keys(ERROR_CODES).sort());
  for (const [, code, , remedy] of documented) {
    expect(remedy).toBe(ERROR_CODES[code as keyof typeof ERROR_CODES].remedy);
  }
});

test('docs/errors.md is as scripts/errors-doc.ts writes it', () => {
  expect(page).toBe(errorsPage());
});
