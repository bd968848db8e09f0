/** docs/operating.md says of every kind of event, check and alert what it means and what to do; what it names in packaging/ is there and good. */
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EVENT_KINDS } from '@pando/events';
import { SERVE_FLAGS } from '@pando/server/options';
import { expect, test } from 'vitest';
import { itWithTools, runTool } from '../support/tools.ts';

const read = (path: string): string => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');
const page = read('docs/operating.md');

test('every kind of event has its row, as the table of kinds has it, and something to do', () => {
  const rows = [...page.matchAll(/^\| `([a-z-]+)` \| (info|warning|error) \| (.+?) \| (.+) \|$/gm)];
  const found: unknown = Object.fromEntries(
    rows.map(([, kind, severity, meaning]) => [kind, { severity, meaning }]),
  );
  expect(found).toEqual(EVENT_KINDS);
  for (const row of rows) expect(row[4], row[1]).toMatch(/\w{3}/);
});

test('every alert is explained, and none that there is not', () => {
  const alerts = [...read('packaging/prometheus/pando.rules.yml').matchAll(/- alert: (\w+)/g)].map(
    ([, name]) => name,
  );
  expect([...new Set(page.match(/\bPando[A-Z]\w+/g))].sort()).toEqual(alerts.sort());
});

test('files of packaging/ that the page names are there', () => {
  const named = [...page.matchAll(/`(packaging\/[\w./-]+\.?\w+)`/g)].map(([, path]) => path!);
  expect(named.length).toBeGreaterThan(3);
  for (const path of named) expect(read(path).length, path).toBeGreaterThan(50);
});

test('the container is started with flags that there are', () => {
  const [, command] = /^CMD (\[.*\])$/m.exec(read('packaging/docker/Dockerfile'))!;
  const flags = (JSON.parse(command!) as string[]).filter((word) => word.startsWith('--'));
  expect(flags.length).toBeGreaterThan(0);
  for (const flag of flags) expect(SERVE_FLAGS.map(({ name }) => `--${name}`)).toContain(flag);
});

itWithTools(['systemd-analyze'], 'systemd passes the unit', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'pando-unit-'));
  const file = join(folder, 'pando.service');
  const unit = read('packaging/systemd/pando.service').replaceAll('/usr/bin/pando', '/bin/true');
  const said = async (text: string): Promise<string> => {
    await writeFile(file, text);
    const { stdout, stderr } = await runTool('systemd-analyze', ['verify', file]);
    return `${stdout}\n${stderr}`
      .split('\n')
      .filter((line) => line.includes('pando.service'))
      .join('\n');
  };
  expect(await said(unit)).toBe('');
  expect(await said(unit.replace('ProtectSystem=', 'ProtectSystm='))).toMatch(/ProtectSystm/);
  await rm(folder, { recursive: true });
});
