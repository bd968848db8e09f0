/** docs/nbd.md has a row for every number of the protocol that the server knows, no empty cell, and tests that exist. */
import { DEFAULT_LIMITS } from '@pando/nbd';
import { existsSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import * as protocol from '../../packages/nbd/src/protocol.ts';

const page = readFileSync(new URL('../../docs/nbd.md', import.meta.url), 'utf8');
const repository = new URL('../../', import.meta.url);

interface Table {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

const cellsOf = (line: string): string[] =>
  line
    .slice(1, -1)
    .split('|')
    .map((cell) => cell.trim());

const tables: readonly Table[] = page
  .split(/\n(?!\|)/)
  .map((block) => block.split('\n').filter((line) => line.startsWith('|')))
  .filter((lines) => lines.length > 2)
  .map(([head, , ...rows]) => ({ columns: cellsOf(head!), rows: rows.map(cellsOf) }));

function tableOf(secondColumn: string): Table {
  const found = tables.filter(({ columns }) => columns[1] === secondColumn);
  expect(found, `a table of ${secondColumn}`).toHaveLength(1);
  return found[0]!;
}

/** CAMEL_CASE of camelCase. */
const constant = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase();

test('no row is short or has an empty cell', () => {
  for (const { columns, rows } of tables) {
    for (const row of rows) {
      expect(row, row.join('|')).toHaveLength(columns.length);
      // "other" and "simple" stand for many numbers and have no name.
      const required = /^(other|simple)$/.test(row[0]!) ? [row[0]!, ...row.slice(2)] : row;
      for (const cell of required) expect(cell, row.join('|')).not.toBe('');
    }
  }
});

const bitOf = (value: number): string => String(Math.log2(value));
const numberOf = (value: number): string => String(value);
/** Error types of options and chunks have their highest bit set. */
const optionReply = (value: number): string =>
  value >= 2 ** 31 ? `2^31 + ${value - 2 ** 31}` : String(value);
const chunkType = (value: number): string => (value >= 0x8000 ? `0x${value.toString(16)}` : String(value));

/** Where the page says a name otherwise than the source. */
const NAMES: Readonly<Record<string, string>> = {
  startTls: 'STARTTLS',
  disconnect: 'DISC',
  unsupported: 'ERR_UNSUP',
  policy: 'ERR_POLICY',
  invalid: 'ERR_INVALID',
  platform: 'ERR_PLATFORM',
  tlsRequired: 'ERR_TLS_REQD',
  unknown: 'ERR_UNKNOWN',
  shutdown: 'ERR_SHUTDOWN',
  blockSizeRequired: 'ERR_BLOCK_SIZE_REQD',
  tooBig: 'ERR_TOO_BIG',
  extendedHeadersRequired: 'ERR_EXT_HEADER_REQD',
};
const ERRNO_NAMES: Readonly<Record<string, string>> = {
  perm: 'EPERM',
  io: 'EIO',
  nomem: 'ENOMEM',
  invalid: 'EINVAL',
  noSpace: 'ENOSPC',
  overflow: 'EOVERFLOW',
  notSupported: 'ENOTSUP',
  shutdown: 'ESHUTDOWN',
};

test.each<
  [string, Readonly<Record<string, number>>, (value: number) => string, Readonly<Record<string, string>>]
>([
  ['handshake flag', protocol.HandshakeFlag, bitOf, NAMES],
  ['option', protocol.Option, numberOf, NAMES],
  ['option reply', protocol.OptionReply, optionReply, NAMES],
  ['info', protocol.Info, numberOf, NAMES],
  ['flag', protocol.TransmissionFlag, bitOf, NAMES],
  ['command', protocol.Command, numberOf, NAMES],
  ['command flag', protocol.CommandFlag, bitOf, NAMES],
  ['reply', protocol.ChunkType, chunkType, NAMES],
  ['error', protocol.NbdErrno, numberOf, ERRNO_NAMES],
])('every %s has its row', (column, numbers, shown, names) => {
  const { rows } = tableOf(column);
  for (const [name, value] of Object.entries(numbers)) {
    const row = rows.find((cells) => cells[0] === shown(value));
    expect(row?.[1], `${column} ${name}`).toBe(names[name] ?? constant(name));
  }
});

test('every limit has its row', () => {
  const limits = page.slice(page.indexOf('\n## Limits'));
  for (const name of Object.keys(DEFAULT_LIMITS)) expect(limits).toContain(`| \`${name}\` |`);
});

test('tests that the page names exist', () => {
  const named = new Map<string, string>();
  for (const [name, file] of tableOf('test').rows) {
    named.set(name!.replaceAll('`', ''), /^`([^`]+)`/.exec(file!)![1]!);
  }
  let checked = 0;
  for (const { columns, rows } of tables) {
    if (columns.at(-1) !== 'tested in') continue;
    for (const row of rows) {
      for (const name of row
        .at(-1)!
        .replaceAll(/\([^)]*\)/g, '')
        .split(',')) {
        const file = named.get(name.trim()) ?? `packages/nbd/src/${name.trim()}.test.ts`;
        expect(existsSync(new URL(file, repository)), `${file}, of ${row[0]} ${row[1]}`).toBe(true);
        checked++;
      }
    }
  }
  expect(checked).toBeGreaterThan(100);
});
