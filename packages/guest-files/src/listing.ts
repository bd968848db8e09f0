/**
 * Pages of what is in a directory, or below it: a walk in the order of the bytes of names, that starts again behind any path. So nothing
 * is kept between pages, and a page costs what is on it, and the names in the directories above it.
 */
import { PandoError } from '@pando/common';
import { CommandFailure, type Guestfish } from './guestfish.ts';
import { FirstNames } from './first-names.ts';
import { LINE_BYTES_MAX, type GuestFilesLimits } from './limits.ts';
import type { FileEntry, FilePage } from './types.ts';
import { argument, below, fitsInList, listArgument, shown, statsOf, type Stat } from './words.ts';

/** Names that are asked about at once. */
const NAMES_MAX = 200;
/** Times that a directory is read for one page. */
const ROUNDS_MAX = 100;
const SLASH = 0x2f;

export interface Walk {
  readonly shell: Guestfish;
  readonly limits: GuestFilesLimits;
  /** With no link in it. */
  readonly directory: Uint8Array;
  readonly recursive: boolean;
  readonly after: Uint8Array | undefined;
  readonly limit: number;
}

export async function listPage(walk: Walk): Promise<FilePage> {
  const items: FileEntry[] = [];
  const after = walk.after === undefined ? undefined : split(walk.after);
  // One more than wanted tells whether there is a next page.
  await visit(walk, walk.directory, after, items);
  if (items.length <= walk.limit) return { items };
  const page = items.slice(0, walk.limit);
  return { items: page, next: relative(walk.directory, page.at(-1)!.path) };
}

/** Adds what is below `directory`, behind `after`, until there is enough. */
async function visit(
  walk: Walk,
  directory: Uint8Array,
  after: readonly Uint8Array[] | undefined,
  items: FileEntry[],
): Promise<void> {
  const [at, ...rest] = after ?? [];
  let from = at;
  // Once is enough, but where names have nothing behind them: that is a damaged directory.
  for (let round = 0; round < ROUNDS_MAX; round++) {
    // As many as can be wanted, and the one that the page before has ended in.
    const most = walk.limit + 2 - items.length;
    const first = new FirstNames(most, from, round === 0);
    const names = await namesIn(walk, directory, first);
    await visitNames(walk, directory, names, { at, rest }, items);
    if (first.isWhole || items.length > walk.limit) return;
    from = names.at(-1);
  }
  throw new PandoError('files-tool-failed', `names in ${shown(directory)} are of no files`);
}

async function visitNames(
  walk: Walk,
  directory: Uint8Array,
  names: readonly Buffer[],
  { at, rest }: { readonly at: Uint8Array | undefined; readonly rest: readonly Uint8Array[] },
  items: FileEntry[],
): Promise<void> {
  for (let from = 0; from < names.length && items.length <= walk.limit;) {
    const wanted = Math.min(NAMES_MAX, walk.limit + 1 - items.length + (at === undefined ? 0 : 1));
    const some = names.slice(from, from + wanted);
    from += some.length;
    const stats = await statAll(walk.shell, directory, some);
    for (const [index, name] of some.entries()) {
      const stat = stats[index];
      if (stat === undefined) continue;
      if (items.length > walk.limit) return;
      const path = below(directory, name);
      const isAfter = at !== undefined && Buffer.compare(name, at) === 0;
      if (!isAfter) items.push(await entryOf(walk.shell, path, stat));
      if (walk.recursive && stat.type === 'directory' && items.length <= walk.limit)
        await visit(walk, path, isAfter ? rest : undefined, items);
    }
  }
}

/** An entry with where it leads to, if it is a link. */
export async function entryOf(shell: Guestfish, path: Uint8Array, stat: Stat): Promise<FileEntry> {
  if (stat.type !== 'symlink') return { path, ...stat };
  try {
    const answer = await shell.command('readlink', [argument(path)]);
    return { path, ...stat, target: Buffer.from(answer.subarray(0, answer.length - 1)) };
  } catch (error) {
    if (!(error instanceof CommandFailure)) throw error;
    return { path, ...stat }; // a damaged link is still there
  }
}

async function namesIn({ shell, limits }: Walk, directory: Uint8Array, first: FirstNames): Promise<Buffer[]> {
  let bytes = 0;
  for await (const piece of await shell.bytes('ls0', [argument(directory)])) {
    bytes += piece.byteLength;
    if (bytes > limits.directoryBytesMax)
      throw new PandoError('files-tool-failed', `there is too much in ${shown(directory)} to list it`);
    first.add(piece);
  }
  return first.names();
}

async function statAll(
  shell: Guestfish,
  directory: Uint8Array,
  names: readonly Buffer[],
): Promise<(Stat | undefined)[]> {
  const stats = new Map<Buffer, Stat | undefined>();
  const ask = async (some: readonly Buffer[]): Promise<void> => {
    if (some.length === 0) return;
    const answer = await shell.command('lstatnslist', [argument(directory), listArgument(some)]);
    const found = statsOf(answer);
    if (found.length !== some.length)
      throw new PandoError('files-tool-failed', `the files in ${shown(directory)} could not be told apart`);
    for (const [i, name] of some.entries()) stats.set(name, found[i]);
  };
  let batch: Buffer[] = [];
  let room = 0;
  for (const name of names) {
    if (!fitsInList(name)) {
      try {
        const [stat] = statsOf(await shell.command('lstatns', [argument(below(directory, name))]));
        stats.set(name, stat);
      } catch (error) {
        if (!(error instanceof CommandFailure)) throw error;
      }
      continue;
    }
    const bytes = argument(name).length + 1;
    if (bytes > room) {
      await ask(batch);
      batch = [];
      room = LINE_BYTES_MAX - argument(directory).length - 64;
    }
    batch.push(name);
    room -= bytes;
  }
  await ask(batch);
  return names.map((name) => stats.get(name));
}

function split(path: Uint8Array): Buffer[] {
  const parts: Buffer[] = [];
  const bytes = Buffer.from(path);
  for (let at = 0; at <= bytes.length;) {
    const slash = bytes.indexOf(SLASH, at);
    const end = slash < 0 ? bytes.length : slash;
    if (end > at) parts.push(bytes.subarray(at, end));
    at = end + 1;
  }
  return parts;
}

function relative(directory: Uint8Array, path: Uint8Array): Buffer {
  return Buffer.from(path.subarray(directory.length === 1 ? 1 : directory.length + 1));
}
