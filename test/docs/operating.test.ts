/** docs/operating.md says of every kind of event how bad it is, what it means, and what to do. */
import { readFileSync } from 'node:fs';
import { EVENT_KINDS } from '@pando/events';
import { expect, test } from 'vitest';

const page = readFileSync(new URL('../../docs/operating.md', import.meta.url), 'utf8');

test('every kind of event has its row, as the table of kinds has it, and something to do', () => {
  const rows = [...page.matchAll(/^\| `([a-z-]+)` \| (info|warning|error) \| (.+?) \| (.+) \|$/gm)];
  const found: unknown = Object.fromEntries(
    rows.map(([, kind, severity, meaning]) => [kind, { severity, meaning }]),
  );
  expect(found).toEqual(EVENT_KINDS);
  for (const row of rows) expect(row[4], row[1]).toMatch(/\w{3}/);
});
