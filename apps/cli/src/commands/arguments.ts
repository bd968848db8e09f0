/** How values on the command line are read; what is wrong with them is wrong usage. */
import { parseSize } from '@pando/common';
import { InvalidArgumentError } from 'commander';

export function sizeArgument(text: string): number {
  try {
    return parseSize(text);
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
}

export function countArgument(text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new InvalidArgumentError('it is a whole number from 1 on');
  return Number(text);
}

export function secondsArgument(text: string): number {
  const seconds = Number(text);
  if (text.trim() === '' || !(seconds > 0))
    throw new InvalidArgumentError('it is a number of seconds above 0');
  return seconds;
}

const DURATION_MS: Readonly<Record<string, number>> = {
  m: 60_000,
  h: 60 * 60_000,
  d: 24 * 60 * 60_000,
  w: 7 * 24 * 60 * 60_000,
  y: 365 * 24 * 60 * 60_000,
};

/** `90m`, `12h`, `30d`, `4w`, `1y` in milliseconds. */
export function durationArgument(text: string): number {
  const match = /^([1-9]\d{0,5})([mhdwy])$/.exec(text);
  if (match === null) throw new InvalidArgumentError('write a duration as 90m, 12h, 30d, 4w or 1y');
  return Number(match[1]) * DURATION_MS[match[2]!]!;
}

/**
 * A time: `2026-11-20` (its first moment here), RFC 3339, or a duration from now on. As RFC 3339.
 */
export function timeArgument(text: string): string {
  if (/^\d+[mhdwy]$/.test(text)) return new Date(Date.now() + durationArgument(text)).toISOString();
  const day = /^\d{4}-\d\d-\d\d$/.test(text);
  const time = new Date(day ? `${text}T00:00` : text);
  if (!/^\d{4}-\d\d-\d\d/.test(text) || Number.isNaN(time.getTime())) {
    throw new InvalidArgumentError('write a time as 2026-12-24, 2026-12-24T18:00:00Z, or 30d from now');
  }
  return time.toISOString();
}

export function expiryArgument(text: string): string {
  return text === 'never' ? text : timeArgument(text);
}

/** `name=value`, any number of them. */
export function labelArgument(
  text: string,
  before: Readonly<Record<string, string>> | undefined,
): Record<string, string> {
  const equals = text.indexOf('=');
  if (equals < 1) throw new InvalidArgumentError('write a label as name=value');
  return { ...before, [text.slice(0, equals)]: text.slice(equals + 1) };
}

export interface NewDisk {
  readonly name: string;
  readonly sizeBytes: number;
}

/** `20G` or `data=20G`, any number of them; without names they are disk0, disk1, … */
export function diskArgument(text: string, before: readonly NewDisk[] | undefined): NewDisk[] {
  const disks = [...(before ?? [])];
  const equals = text.lastIndexOf('=');
  const name = equals < 0 ? `disk${disks.length}` : text.slice(0, equals);
  return [...disks, { name, sizeBytes: sizeArgument(text.slice(equals + 1)) }];
}

export interface JsonOption {
  readonly json?: boolean;
}
