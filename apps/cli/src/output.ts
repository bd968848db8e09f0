/** What commands print: JSON for programs, aligned text for people. */
import type { Disk } from '@pando/client';
import { formatSize } from '@pando/common';

/** Prints the value as JSON when that is wanted, the text otherwise. */
export function print(json: boolean | undefined, value: unknown, text: string | (() => string)): void {
  if (json === true) process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
  else process.stdout.write(`${typeof text === 'function' ? text() : text}\n`);
}

export interface Column<T> {
  readonly title: string;
  readonly text: (row: T) => string;
  readonly right?: boolean;
}

/** Rows under their titles, columns as wide as they need to be. */
export function table<T>(rows: readonly T[], columns: readonly Column<T>[]): string {
  const cells = [
    columns.map(({ title }) => title),
    ...rows.map((row) => columns.map(({ text }) => printable(text(row)))),
  ];
  const widths = columns.map((_, index) =>
    cells.reduce((width, row) => Math.max(width, row[index]!.length), 0),
  );
  return cells
    .map((row) =>
      row
        .map((cell, index) =>
          columns[index]!.right === true ? cell.padStart(widths[index]!) : cell.padEnd(widths[index]!),
        )
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** Lines of `name  value`. */
export function fields(pairs: readonly (readonly [string, string])[]): string {
  const width = Math.max(...pairs.map(([name]) => name.length));
  return pairs.map(([name, value]) => `${name.padEnd(width)}  ${printable(value)}`).join('\n');
}

/** Names hold no control characters, but what they were given by may be older or wiser: a terminal must not obey them. */
export function printable(text: string): string {
  return text.replace(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/g, '\ufffd');
}

/** `2026-11-20 10:00:07`, in local time. */
export function formatTime(rfc3339: string): string {
  const time = new Date(rfc3339);
  const two = (number: number): string => String(number).padStart(2, '0');
  const date = [time.getFullYear(), two(time.getMonth() + 1), two(time.getDate())].join('-');
  return `${date} ${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
}

export function formatDisks(disks: readonly Disk[]): string {
  return disks.map(({ name, sizeBytes }) => `${name} ${formatSize(sizeBytes)}`).join(', ');
}

export function plural(count: number, word: string): string {
  return `${count.toLocaleString('en-US')} ${word}${count === 1 ? '' : 's'}`;
}

/** `26`, `2.6`: how many times. */
export function formatRatio(ratio: number): string {
  return ratio < 9.95 ? ratio.toFixed(1) : Math.round(ratio).toLocaleString('en-US');
}
