/** Bytes of files in a backup, to standard output or into a folder. */
import type { GuestFile } from '@pando/client';
import { formatSize, PandoError } from '@pando/common';
import { createWriteStream } from 'node:fs';
import { chmod, chown, mkdir, rm, utimes } from 'node:fs/promises';
import { resolve } from 'node:path';
import { connect } from './connect.ts';
import { CommandFailure } from './failures.ts';
import { escaped, placeOf, type PlaceOptions, type PlaceQuery } from './guest-paths.ts';
import { interruptible } from './interrupt.ts';
import { plural, print } from './output.ts';
import { startProgress, type Progress } from './progress.ts';
import { unpack, writeBytes, type Unpacked } from './unpack.ts';

const SLASH = 0x2f;

export interface ExtractOptions extends PlaceOptions {
  readonly json?: boolean;
  readonly sameOwner?: boolean;
}

type Where = PlaceQuery & { readonly backup: string };
type What = 'readBackupFile' | 'archiveBackupFiles';

export async function printBytes(what: What, where: Where): Promise<void> {
  await interruptible(async (signal) => {
    const answer = await connect({ signal }).open(what, where);
    for await (const piece of answer as AsyncIterable<Buffer>) {
      await new Promise<void>((done, fail) => {
        process.stdout.write(piece, (error) => (error ? fail(error) : done()));
      });
    }
  }).catch((error: unknown) => {
    throw brokenOff(error);
  });
}

interface Extracted extends Unpacked {
  readonly path: string;
  readonly target: string;
  readonly bytes: number;
}

export async function extract(
  reference: string,
  paths: readonly Buffer[],
  folder: string,
  options: ExtractOptions,
): Promise<void> {
  if (folder === '-')
    return printBytes('archiveBackupFiles', { backup: reference, ...placeOf(paths[0]!, options) });
  const items = await interruptible(async (signal) => {
    await mkdir(folder, { recursive: true }).catch((error: unknown) => {
      throw new PandoError('file-failed', (error as Error).message, { cause: error });
    });
    const done: Extracted[] = [];
    const progress = startProgress('extracting', { json: options.json, unit: 'bytes' });
    try {
      let before = 0;
      for (const path of paths) {
        const moved = (bytes: number): void => progress.update(before + bytes);
        const one = await extractOne(reference, path, folder, options, { signal, moved });
        done.push(one);
        before += one.bytes;
      }
    } finally {
      progress.stop();
    }
    return done;
  });
  print(options.json, { items }, () => items.map(textOf).join('\n'));
  if (items.some(({ problems }) => problems.length > 0)) throw new CommandFailure(1);
}

async function extractOne(
  reference: string,
  path: Buffer,
  folder: string,
  options: ExtractOptions,
  { signal, moved }: { readonly signal: AbortSignal; readonly moved: Progress['update'] },
): Promise<Extracted> {
  const server = connect({ signal });
  const where: Where = { backup: reference, ...placeOf(path, options) };
  const { items } = await server.call('listBackupFiles', { ...where, limit: 1 });
  // What is no directory is listed itself.
  const own = items.find(({ path: text, pathBase64 }) =>
    (pathBase64 === undefined ? Buffer.from(text) : Buffer.from(pathBase64, 'base64')).equals(path),
  );
  const name = nameOf(path);
  const under =
    name.length === 0
      ? Buffer.from(resolve(folder))
      : Buffer.concat([Buffer.from(`${resolve(folder)}/`), name]);
  // node-tar knows paths as text: a directory whose name is none is called as those in it are, with U+FFFD.
  const target = own === undefined ? Buffer.from(under.toString()) : under;
  let bytes = 0;
  async function* counted(what: What): AsyncGenerator<Uint8Array> {
    try {
      for await (const piece of (await server.open(what, where)) as AsyncIterable<Buffer>) {
        moved((bytes += piece.byteLength));
        yield piece;
      }
    } catch (error) {
      signal.throwIfAborted();
      throw brokenOff(error);
    }
  }
  const about = { path: shown(path), target: shown(target) };
  const nothing = { directories: 0, links: 0, specials: 0, problems: [], moreProblems: 0 };
  const sameOwner = options.sameOwner === true;
  if (own !== undefined) {
    await writeFile(counted('readBackupFile'), target, own, { sameOwner, signal });
    return { ...about, ...nothing, files: 1, bytes };
  }
  if (name.length > 0) {
    await mkdir(target, { mode: 0o700 }).catch((error: unknown) => {
      const { code, message } = error as NodeJS.ErrnoException;
      const kind = code === 'EEXIST' ? 'file-exists' : 'file-failed';
      throw new PandoError(kind, `${about.target}: ${message}`, { cause: error });
    });
  }
  const unpacked = await unpack(counted('archiveBackupFiles'), target.toString(), {
    ...{ sameOwner, isFolderOwn: name.length > 0, signal },
  });
  return { ...about, ...unpacked, bytes };
}

/** Whole, or not there. */
async function writeFile(
  bytes: AsyncIterable<Uint8Array>,
  target: Buffer,
  { mode, uid, gid, modifiedAt, type }: GuestFile,
  { sameOwner, signal }: { readonly sameOwner: boolean; readonly signal: AbortSignal },
): Promise<void> {
  // Of a link it is not known what the file may; nobody else gets to read it.
  const own = type === 'file' ? mode & 0o777 : 0o600;
  const stream = createWriteStream(target, { flags: 'wx', mode: own | 0o600 });
  try {
    await writeBytes(bytes, stream, signal);
    if (type === 'file' && sameOwner) {
      // In this order: with another owner, set-user-id goes.
      await chown(target, uid, gid);
      await chmod(target, (mode & 0o7777) | 0o600);
    }
    if (type === 'file') await utimes(target, new Date(modifiedAt), new Date(modifiedAt));
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== 'EEXIST') await rm(target, { force: true });
    signal.throwIfAborted();
    if (code === 'EEXIST')
      throw new PandoError('file-exists', `${shown(target)} exists already`, { cause: error });
    if (/^E[A-Z]+$/.test(code ?? '')) throw new PandoError('file-failed', message, { cause: error });
    throw error;
  }
}

/** The last part of a path: of `/` and of `/..` there is none. */
function nameOf(path: Buffer): Buffer {
  let end = path.length;
  while (end > 0 && path[end - 1] === SLASH) end--;
  const name = path.subarray(path.lastIndexOf(SLASH, end - 1) + 1, end);
  return ['.', '..'].includes(name.toString('latin1')) ? Buffer.alloc(0) : name;
}

function shown(bytes: Buffer): string {
  return escaped(bytes.toString(), bytes.toString('base64'));
}

/** An answer that has begun can only break off. */
function brokenOff(error: unknown): unknown {
  const { code } = error as NodeJS.ErrnoException;
  if (code !== 'ECONNRESET' && code !== 'ERR_STREAM_PREMATURE_CLOSE') return error;
  const message = 'the server broke off; its log says why';
  return new PandoError('export-interrupted', message, { cause: error });
}

function textOf({
  path,
  target,
  bytes,
  files,
  directories,
  links,
  specials,
  problems,
  moreProblems,
}: Extracted): string {
  const counts = [plural(files, 'file')];
  if (directories > 0)
    counts.push(directories === 1 ? '1 directory' : `${directories.toLocaleString('en-US')} directories`);
  if (links > 0) counts.push(plural(links, 'link'));
  const left = specials === 0 ? '' : `; not made: ${plural(specials, 'device or pipe')}`;
  const lines = problems.map((problem) => `  not made: ${escaped(problem)}`);
  if (moreProblems > 0) lines.push(`  and ${moreProblems} more`);
  return [`${path} to ${target}: ${counts.join(', ')}, ${formatSize(bytes)}${left}`, ...lines].join('\n');
}
