/**
 * Between bytes and the words of guestfish: how an argument is written so that it is nothing but data, and what its answers mean.
 *
 * A command is one line. What a user or a guest has a say in stands between double quotes, where guestfish knows `\"`, `\\` and `\xHH` and
 * nothing else: no `!`, no pipe, no second command.
 */
import { PandoError } from '@pando/common';
import type { FileEntry, FileType, GuestFileSystem } from './types.ts';

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const APOSTROPHE = 0x27;
const DELETE = 0x7f;

/** An argument as it stands in a command. @throws `request-invalid` for a zero byte, which no argument can hold */
export function argument(bytes: Uint8Array): Buffer {
  const written: number[] = [QUOTE];
  for (const byte of bytes) {
    if (byte === 0) throw new PandoError('request-invalid', 'a path holds no zero byte');
    if (byte === QUOTE || byte === BACKSLASH) written.push(BACKSLASH, byte);
    else if (byte < 0x20 || byte === DELETE)
      written.push(...Buffer.from(`\\x${byte.toString(16).padStart(2, '0')}`));
    else written.push(byte);
  }
  written.push(QUOTE);
  return Buffer.from(written);
}

/** Whether a name can be an element of a list: in those, quotes and backslashes mean something once more. */
export function fitsInList(name: Uint8Array): boolean {
  return !name.includes(APOSTROPHE) && !name.includes(BACKSLASH);
}

/** An argument that is a list of names, all of which fit. */
export function listArgument(names: readonly Uint8Array[]): Buffer {
  const apostrophe = Buffer.from("'");
  const space = Buffer.from(' ');
  return argument(
    Buffer.concat(names.flatMap((name, i) => [...(i === 0 ? [] : [space]), apostrophe, name, apostrophe])),
  );
}

/** `parent/name`. */
export function below(parent: Uint8Array, name: Uint8Array): Buffer {
  const isRoot = parent.length === 1;
  return Buffer.concat([isRoot ? Buffer.alloc(0) : parent, Buffer.from('/'), name]);
}

/** What a path says to a person: control characters and what is no UTF-8 as question marks. */
export function shown(bytes: Uint8Array): string {
  const text = Buffer.from(bytes)
    .toString('utf8')
    .replace(/\p{Cc}/gu, '?')
    .replaceAll('\ufffd', '?');
  return JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}…` : text);
}

/** Lines without the last, empty one. */
export function lines(answer: Buffer): string[] {
  return answer
    .toString('utf8')
    .split('\n')
    .filter((line) => line !== '');
}

/** `name: value` for each line; names hold no `: `. */
export function pairs(answer: Buffer): [string, string][] {
  return lines(answer).flatMap((line) => {
    const colon = line.lastIndexOf(': ');
    return colon < 0 ? [] : [[line.slice(0, colon), line.slice(colon + 2)]];
  });
}

/** Sorted by name: in the answer they have no order. */
export function fileSystemsOf(answer: Buffer): Pick<GuestFileSystem, 'name' | 'type'>[] {
  return pairs(answer)
    .map(([name, type]) => ({ name, type }))
    .sort((a, b) => a.name.localeCompare(b.name, 'en', { numeric: true }));
}

/** What keeps a file system from being read: it has to be opened with a key. */
export function isEncrypted(type: string): boolean {
  return type === 'crypto_LUKS' || type === 'BitLocker';
}

export function isMountable(type: string): boolean {
  return type !== 'swap' && type !== 'unknown' && !isEncrypted(type);
}

export type Stat = Omit<FileEntry, 'path' | 'target'>;

const TYPES: Readonly<Record<number, FileType>> = {
  0o01: 'fifo',
  0o02: 'character-device',
  0o04: 'directory',
  0o06: 'block-device',
  0o10: 'file',
  0o12: 'symlink',
  0o14: 'socket',
};

/** The answer to `lstatns`, `statns` or `lstatnslist`; undefined for each that is not there. */
export function statsOf(answer: Buffer): (Stat | undefined)[] {
  const stats: (Stat | undefined)[] = [];
  let fields = new Map<string, number>();
  const take = (): void => {
    if (fields.size === 0) return;
    stats.push(statOf(fields));
    fields = new Map();
  };
  for (const line of lines(answer)) {
    const found = /^\s*st_(\w+): (-?\d+)$/.exec(line);
    if (found === null) continue;
    if (found[1] === 'dev') take();
    fields.set(found[1]!, Number(found[2]));
  }
  take();
  return stats;
}

function statOf(fields: ReadonlyMap<string, number>): Stat | undefined {
  const of = (name: string): number => {
    const value = fields.get(name);
    if (value === undefined || !Number.isSafeInteger(value))
      throw new PandoError('files-tool-failed', `guestfish said nothing of st_${name} that makes sense`);
    return value;
  };
  if (of('ino') === -1) return undefined;
  const mode = of('mode');
  return {
    type: TYPES[(mode >> 12) & 0o17] ?? 'unknown',
    mode: mode & 0o7777,
    uid: of('uid'),
    gid: of('gid'),
    // A hostile file system says anything.
    sizeBytes: Math.max(0, of('size')),
    modifiedMs: of('mtime_sec') * 1000 + Math.floor(of('mtime_nsec') / 1e6),
  };
}

/**
 * What the lines that a command has complained in come to; undefined when it did not. Paths of the host are not told: they
 * mean nothing to whoever asked.
 */
export function failureOf(complaint: string): string | undefined {
  const said = complaint
    .split('\n')
    .flatMap((line) => /libguestfs: error: (.*)$/.exec(line)?.[1] ?? [])
    .join('; ');
  return said === '' ? undefined : said.replaceAll(/\p{Cc}/gu, '?').slice(0, 500);
}
