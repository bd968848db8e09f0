/** Appliances, commands and lists, with a program that plays guestfish; the real one is in test/files. */
import { isPandoError, PandoError, systemClock } from '@pando/common';
import type { ExportHandle } from '@pando/nbd';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { openGuestFiles, type GuestFilesLimits, type FilePage, type GuestFiles } from './index.ts';

const FAKE = fileURLToPath(new URL('testing/guestfish.ts', import.meta.url));
const STORE = 'f00dfeed-0000-4000-8000-000000000000';
const HOSTILE = ['!rm -rf', 'a\nb', 'quote"', "it's", 'back\\', '\xff\xfe', '-x', '| tee', ' ', '~', 'win:c'];

let folder: string;
let files: GuestFiles;
let environment: NodeJS.ProcessEnv;

const backup = (id = 'b1') => ({ id, name: `vm@${id}`, disks: ['disk0'] });
const bytes = (text: string): Buffer => Buffer.from(text, 'latin1');

async function open(
  tree: Record<string, string | [string]> = {},
  limits: Partial<GuestFilesLimits> = {},
): Promise<void> {
  // Only what is passed on to libguestfs reaches it, so what it plays is written into the program.
  const program = join(folder, 'guestfish');
  const settings = `export FAKE_FILES='${JSON.stringify(tree).replaceAll("'", "'\\''")}' FAKE_LOG='${join(folder, 'log')}'`;
  await writeFile(program, `#!/bin/sh\n${settings}\nexec '${process.execPath}' '${FAKE}'\n`);
  await chmod(program, 0o755);
  files = await openGuestFiles({
    open: () => Promise.reject<ExportHandle>(new PandoError('internal', 'nobody reads the disks here')),
    ...{ clock: systemClock, storeId: STORE, environment, limits },
  });
}

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pando-guestfish-'));
  vi.stubEnv('TMPDIR', folder);
  environment = { PATH: `${folder}:/usr/bin:/bin`, LIBGUESTFS_BACKEND_SETTINGS: 'force_tcg' };
});
afterEach(async () => {
  await files.close();
  vi.unstubAllEnvs();
  const left = (await readdir(folder)).filter((name) => name.startsWith('pando-files-'));
  await rm(folder, { recursive: true });
  expect(left).toEqual([]);
});

async function ended(path: string, id?: string): Promise<string> {
  const { sizeBytes, bytes: body } = await files.read(backup(id), { path: bytes(path) });
  const pieces: Uint8Array[] = [];
  for await (const piece of body) pieces.push(Buffer.from(piece));
  const all = Buffer.concat(pieces);
  expect(all.byteLength).toBe(sizeBytes);
  return all.toString('latin1');
}

const times = async (command: string): Promise<number> =>
  (await readFile(join(folder, 'log'), 'utf8')).split('\n').filter((line) => line === command).length;
const starts = (): Promise<number> => times('run');

describe('what is in a backup', () => {
  const tree: Record<string, string | [string]> = {
    '/etc/': '',
    '/etc/link': ['../a\nb'],
    '/deep/': '',
    '/deep/er/': '',
  };
  for (const [i, name] of HOSTILE.entries()) {
    tree[`/${name}`] = 'x'.repeat(i * 1000);
    tree[`/deep/er/${name}`] = name;
  }

  test('is listed whole, with names that mean ill to nobody, however it is cut into pages', async () => {
    await open(tree);
    const list = async (limit: number): Promise<string[]> => {
      const found: string[] = [];
      let page: FilePage | undefined;
      do {
        const after = page?.next === undefined ? {} : { after: page.next };
        page = await files.list(backup(), { path: bytes('/'), recursive: true, limit, ...after });
        expect(page.items.length).toBeLessThanOrEqual(limit);
        found.push(...page.items.map(({ path }) => Buffer.from(path).toString('latin1')));
      } while (page.next !== undefined);
      return found;
    };
    const whole = await list(1000);
    const expected = Object.keys(tree).map((path) => path.replace(/\/$/, ''));
    expect([...whole].sort()).toEqual(expected.sort());
    for (const limit of [1, 3, 7]) expect(await list(limit)).toEqual(whole);
    const top = await files.list(backup(), { path: bytes('/'), limit: 1000 });
    expect(top.items.length).toBe(HOSTILE.length + 2);
    const { items } = await files.list(backup(), { path: bytes('/etc'), limit: 10 });
    const about = { mode: 0o777, uid: 3, gid: 4, sizeBytes: 1, modifiedMs: 5006 };
    expect(items).toEqual([
      { path: bytes('/etc/link'), type: 'symlink', target: bytes('../a\nb'), ...about },
    ]);
    expect(await starts()).toBe(1);
  });

  test('is read by its name, whatever that looks like', async () => {
    await open(tree);
    for (const name of HOSTILE) expect(await ended(`/deep/er/${name}`)).toBe(name);
    expect(await ended('/win:c')).toHaveLength(10_000);
    const page = await files.list(backup(), { path: bytes('/a\nb'), limit: 5 });
    expect(page).toMatchObject({ items: [{ type: 'file', sizeBytes: 1000 }] });
  });

  const long = `/${'\x01'.repeat(4000)}`;
  test.each([
    ['/nope', 'file-missing'],
    ['/etc', 'file-type-wrong'],
    ['etc', 'request-invalid'],
    ['/a\0', 'request-invalid'],
    ['/die', 'files-tool-failed'],
    ['/less', 'files-tool-failed'],
    ['/more', 'files-tool-failed'],
    ['a path that is too long', 'request-invalid', long],
  ])('%j is answered with %s, and the next one is served', async (name, code, path = name) => {
    await open({ '/etc/': '', '/a': 'hello', '/less': 'hello', '/more': 'hello' });
    await expect(ended(path)).rejects.toMatchObject({ code });
    expect(await ended('/a')).toBe('hello');
  });

  test('has file systems: what is encrypted, or is not there, is said', async () => {
    await open({ '/a': 'hello' });
    const { items } = await files.fileSystems(backup());
    expect(items[0]).toEqual({ name: '/dev/sda1', type: 'ext4', sizeBytes: 33_554_432 });
    const read = (fileSystem: string) => files.read(backup(), { path: bytes('/a'), fileSystem });
    await expect(read('/dev/sda2')).rejects.toMatchObject({ code: 'file-system-encrypted' });
    await expect(read('/dev/sda3')).rejects.toMatchObject({ code: 'file-system-missing' });
    await expect(read('"; !ls')).rejects.toMatchObject({ code: 'file-system-missing' });
    await (await read('/dev/sda1')).bytes.return();
  });
});

describe('appliances', () => {
  test('are at most so many; one that nobody asks makes room, and one in use does not', async () => {
    await open({ '/a': 'hello' }, { appliancesMax: 2 });
    await ended('/a', 'b1');
    await ended('/a', 'b2');
    const held = await files.read(backup('b3'), { path: bytes('/a') });
    const too = await files.read(backup('b4'), { path: bytes('/a') });
    await expect(ended('/a', 'b5')).rejects.toMatchObject({ code: 'too-busy' });
    await held.bytes.return();
    expect(await ended('/a', 'b5')).toBe('hello');
    await too.bytes.return();
    expect(await starts()).toBe(5);
  });

  test('let go of a backup that nobody reads, and end when nobody has asked for a while', async () => {
    await open({ '/a': 'hello' }, { idleMs: 20 });
    await ended('/a');
    await vi.waitFor(async () =>
      expect((await readdir(folder)).some((name) => name.startsWith('pando-files-'))).toBe(false),
    );
    await files.close();
    await open({ '/a': 'hello' });
    await ended('/a');
    await files.release('b1');
    expect((await readdir(folder)).some((name) => name.startsWith('pando-files-'))).toBe(false);
  });

  test('that say nothing are ended, and so are those that nobody waits for any more', async () => {
    await open({ '/a': 'hello' }, { commandMs: 2000 });
    await expect(ended('/hang')).rejects.toMatchObject({ code: 'files-tool-failed' });
    expect(await ended('/a')).toBe('hello');
    await files.close();
    await open({ '/a': 'hello' });
    const gone = new AbortController();
    const waiting = files.read(backup(), { path: bytes('/hang') }, gone.signal);
    setTimeout(() => gone.abort(new PandoError('cancelled', 'gone')), 300);
    await expect(waiting).rejects.toMatchObject({ code: 'cancelled' });
    expect(await ended('/a')).toBe('hello');
  });

  test('serve one request after another, and end with the server', async () => {
    await open({ '/a': 'hello' }, { waitingMax: 2 });
    const first = await files.read(backup(), { path: bytes('/a') });
    const more = [ended('/a'), ended('/a'), ended('/a')];
    await expect(more[2]).rejects.toMatchObject({ code: 'too-busy' });
    for await (const piece of first.bytes) expect(piece.byteLength).toBeLessThanOrEqual(5);
    expect(await Promise.all(more.slice(0, 2))).toEqual(['hello', 'hello']);
    expect(await starts()).toBe(1);
    const under = ended('/hang').catch((error: unknown) => isPandoError(error, 'shutting-down'));
    await vi.waitFor(async () => expect(await times('realpath')).toBe(4));
    await files.close();
    expect(await under).toBe(true);
    await expect(ended('/a')).rejects.toMatchObject({ code: 'shutting-down' });
  });

  test('may write so much to a file and no more', async () => {
    await open({ '/a': 'hello' }, { writtenBytesMax: 1_048_576 });
    await ended('/a');
    expect(await times('writes 1048576')).toBe(1);
  });

  test('of a server that was killed leave nothing behind once it is started again', async () => {
    const left = join(folder, `pando-files-${STORE.slice(0, 12)}-abcdef`);
    await mkdir(left);
    await writeFile(join(left, 'disks'), '');
    const other = join(dirname(left), 'pando-files-another');
    await mkdir(other);
    await open();
    expect((await readdir(folder)).filter((name) => name.startsWith('pando'))).toEqual([
      'pando-files-another',
    ]);
    await rm(other, { recursive: true });
  });

  test('are not started where that is off, or the program is not there', async () => {
    await open({}, { appliancesMax: 0 });
    await expect(files.fileSystems(backup())).rejects.toMatchObject({ code: 'files-off' });
    await rm(join(folder, 'guestfish'));
    environment['PATH'] = folder;
    files = await openGuestFiles({
      open: () => Promise.reject<ExportHandle>(new Error('never')),
      ...{ clock: systemClock, storeId: STORE, environment },
    });
    await expect(files.fileSystems(backup())).rejects.toMatchObject({ code: 'tool-missing' });
  });
});
