import { readFileSync } from 'node:fs';
import { parseConfig } from '@pando/server/config';
import { SERVE_FLAGS } from '@pando/server/options';
import { expect, test } from 'vitest';
import { CONFIG_PAGE, configPage, CONFIG_SAMPLE, configSample } from '../../scripts/config-doc.ts';

const REFRESH = 'run node scripts/config-doc.ts';

test('docs/configuration.md is as scripts/config-doc.ts writes it, with every option', () => {
  const page = readFileSync(CONFIG_PAGE, 'utf8');
  expect(page, REFRESH).toBe(configPage());
  for (const { name } of SERVE_FLAGS) expect(page).toContain(`| \`--${name}`);
});

test('packaging/pando.toml is as the script writes it, and good, also with everything in it put into force', () => {
  const sample = readFileSync(CONFIG_SAMPLE, 'utf8');
  expect(sample, REFRESH).toBe(configSample());
  expect(parseConfig(sample, 'pando.toml').mistakes).toEqual([]);
  const all = parseConfig(sample.replaceAll(/^# (?=[a-z-]+ = )/gm, ''), 'pando.toml');
  expect(all.mistakes).toEqual([]);
  expect([...all.values.keys()]).toEqual(
    SERVE_FLAGS.filter(({ only }) => only === undefined).map(({ name }) => name),
  );
});
