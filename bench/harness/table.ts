/** Rows as people read them. */
import { formatSize } from '@pando/common';
import { isMet } from './rounds.ts';
import type { Row, Unit } from './rounds.ts';

const HEAD = [
  ...['question', 'what', 'side', 'measured', 'against', 'measured'],
  ...['ratio (min–max)', 'good is', 'row', 'target', 'met'],
];

export function formatTable(rows: readonly Row[]): string {
  const cells = rows.map((row) => [
    row.question,
    row.what,
    row.side,
    formatValue(row.value.median, row.unit),
    row.against,
    formatValue(row.againstValue.median, row.unit),
    `${number(row.ratio.median)} (${number(row.ratio.min)}–${number(row.ratio.max)})`,
    row.better,
    row.target?.row ?? '',
    row.target === undefined
      ? ''
      : `${row.better === 'more' ? '≥' : '≤'} ${Number(row.target.ratio.toPrecision(3))}`,
    { true: 'yes', false: 'no', undefined: '' }[`${isMet(row)}`],
  ]);
  const widths = HEAD.map((head, column) =>
    Math.max(head.length, ...cells.map((row) => row[column]!.length)),
  );
  const line = (row: readonly string[]): string =>
    `| ${row.map((cell, column) => cell.padEnd(widths[column]!)).join(' | ')} |`;
  return [line(HEAD), line(widths.map((width) => '-'.repeat(width))), ...cells.map(line)].join('\n');
}

function formatValue(value: number, unit: Unit): string {
  switch (unit) {
    case 's':
    case 'ms':
    case 'µs':
    case 'MiB/s':
      return `${number(value)} ${unit}`;
    case '1/s':
      return `${Math.round(value).toLocaleString('en')}/s`;
    case 'bytes':
      return formatSize(value);
    case 'times':
      return `${number(value)} ×`;
  }
}

/** Three digits that mean something. */
function number(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}
