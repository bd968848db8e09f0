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

/** A part of a path. */
export const part = encodeURIComponent;

export interface JsonOption {
  readonly json?: boolean;
}
