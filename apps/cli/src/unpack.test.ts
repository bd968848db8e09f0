/** What a hostile guest puts into a tar does not get out of the folder. */
import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  realpath,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Header, type HeaderData } from 'tar';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { escaped, unescaped } from './guest-paths.ts';
import { unpack, type UnpackOptions } from './unpack.ts';

let folder: string;
let target: string;

beforeEach(async () => {
  folder = await realpath(await mkdtemp(join(tmpdir(), 'pando-unpack-')));
  target = join(folder, 'target');
  await mkdir(target);
  await writeFile(join(folder, 'secret'), 'secret');
});
afterEach(() => rm(folder, { recursive: true }));

type Entry = HeaderData & { readonly data?: string };

function tarOf(entries: readonly Entry[]): Buffer {
  const blocks = entries.flatMap(({ data = '', ...about }) => {
    const block = Buffer.alloc(512);
    new Header({ mode: 0o644, mtime: new Date(1e12), ...about, size: data.length }).encode(block);
    return [block, Buffer.from(data), Buffer.alloc((512 - (data.length % 512)) % 512)];
  });
  return Buffer.concat([...blocks, Buffer.alloc(1024)]);
}

async function unpackAll(tar: Buffer, pieceBytes = 700, options: Partial<UnpackOptions> = {}) {
  async function* pieces(): AsyncGenerator<Buffer> {
    for (let at = 0; at < tar.length; at += pieceBytes) yield tar.subarray(at, at + pieceBytes);
    await Promise.resolve();
  }
  return unpack(pieces(), target, { sameOwner: false, signal: new AbortController().signal, ...options });
}

const file = (path: string, data = 'x', more: HeaderData = {}): Entry => ({
  type: 'File',
  path,
  data,
  ...more,
});
const link = (path: string, linkpath: string): Entry => ({ type: 'SymbolicLink', path, linkpath });

test('files, folders and links come out as they are, without owners and set-user-id', async () => {
  const { problems, ...counts } = await unpackAll(
    tarOf([
      { type: 'Directory', path: './', mode: 0o500 },
      { type: 'Directory', path: './a/', mode: 0o500 },
      file('./a/back\\slash', 'hello', { mode: 0o6755, uid: 4242 }),
      { type: 'Link', path: './a/hard', linkpath: './a/back\\slash' },
      link('./a/absolute', '/etc/passwd'),
      link('./a/up', '../../../..'),
    ]),
  );
  expect(problems).toEqual([]);
  expect(counts).toEqual({ files: 2, directories: 2, links: 2, specials: 0, moreProblems: 0 });
  const made = await lstat(join(target, 'a/back\\slash'));
  expect([made.mode & 0o7700, made.nlink, made.uid]).toEqual([0o700, 2, process.getuid!()]);
  expect(await readlink(join(target, 'a/absolute'))).toBe('/etc/passwd');
  expect(await readlink(join(target, 'a/up'))).toBe('../../../..');
});

test('the folder itself gets the mode that the tar has for it, where it is to', async () => {
  const tar = tarOf([{ type: 'Directory', path: './', mode: 0o2775 }, file('./a')]);
  await chmod(target, 0o700);
  const umask = process.umask(0o027);
  await unpackAll(tar, 700, { isFolderOwn: true }).finally(() => process.umask(umask));
  expect((await lstat(target)).mode & 0o7777).toBe(0o750);
});

test.skipIf(process.getuid!() !== 0)('owners come out as they are, and modes to the bit', async () => {
  const owned = { uid: 4242, gid: 4343 };
  const { problems } = await unpackAll(
    tarOf([
      { type: 'Directory', path: './', mode: 0o1777, ...owned },
      { type: 'Directory', path: './a/', mode: 0o2775, ...owned },
      file('./a/program', 'hello', { mode: 0o6775, ...owned }),
      file('./a/shared', 'hello', { mode: 0o666, ...owned }),
      { ...link('./a/link', 'program'), ...owned },
    ]),
    700,
    { sameOwner: true, isFolderOwn: true },
  );
  expect(problems).toEqual([]);
  for (const [path, mode] of [
    ['', 0o1777],
    ['a', 0o2775],
    ['a/program', 0o6775],
    ['a/shared', 0o666],
    ['a/link', 0o777],
  ] as const) {
    const made = await lstat(join(target, path));
    expect([made.mode & 0o7777, made.uid, made.gid], path).toEqual([mode, 4242, 4343]);
  }
});

test('nothing is written outside, nor through links, and what was refused is named', async () => {
  const outside = await unpackAll(
    tarOf([
      file('../escaped'),
      file('a/../../escaped'),
      file(join(folder, 'escaped')),
      link('out', '..'),
      file('out/escaped'),
      link('over', '../secret'),
      file('over', 'written over'),
      link('../escaped', '/'),
      link('ghost/link', '/'),
      { type: 'Link', path: 'stolen', linkpath: '../secret' },
      { type: 'CharacterDevice', path: 'null', devmaj: 1, devmin: 3 },
      { type: 'FIFO', path: 'pipe' },
      file('good', 'good'),
    ]),
  );
  expect(await readFile(join(target, 'good'), 'utf8')).toBe('good');
  expect((await readdir(folder)).sort()).toEqual(['secret', 'target']);
  expect(await readFile(join(folder, 'secret'), 'utf8')).toBe('secret');
  expect((await lstat(join(folder, 'secret'))).nlink).toBe(1);
  // Where a file took the place of a link, the file it is; and a folder is a folder.
  expect(await readFile(join(target, 'over'), 'utf8')).toBe('written over');
  expect((await lstat(join(target, 'out'))).isDirectory()).toBe(true);
  expect(outside).toMatchObject({ links: 0, specials: 2 });
  for (const name of ['../escaped', 'a/../../escaped', 'stolen', 'ghost/link', 'over', 'out'])
    expect(
      outside.problems.some((problem) => problem.startsWith(`${name}:`)),
      name,
    ).toBe(true);
});

test('what was in the folder before is not replaced, nor written through: it has to be empty', async () => {
  await symlink('..', join(target, 'before'));
  const tar = tarOf([file('before/escaped'), link('before/link', '/')]);
  await expect(unpackAll(tar)).rejects.toMatchObject({ code: 'file-exists' });
  expect((await readdir(folder)).sort()).toEqual(['secret', 'target']);
  await rm(join(target, 'before'));
  await writeFile(join(target, '.profile'), 'mine');
  await expect(unpackAll(tarOf([file('./.profile', 'theirs')]))).rejects.toMatchObject({
    code: 'file-exists',
  });
  expect(await readFile(join(target, '.profile'), 'utf8')).toBe('mine');
});

test('of two files whose names differ in what is no UTF-8 one is made, and the other told of', async () => {
  const two = [0xfe, 0xff].map((sign, i) => {
    const tar = tarOf([file('./a_', String(i))]);
    const at = tar.indexOf('_');
    // The sum of the header stands in it, as six octal digits.
    const sum = Number.parseInt(tar.toString('latin1', 148, 154), 8) - tar[at]! + sign;
    tar[at] = sign;
    tar.write(sum.toString(8).padStart(6, '0'), 148, 'latin1');
    return tar.subarray(0, -1024);
  });
  const found = await unpackAll(Buffer.concat([...two, Buffer.alloc(1024)]));
  expect(found).toMatchObject({ files: 1, problems: [expect.stringContaining('no UTF-8')] });
  expect(await readFile(join(target, 'a\ufffd'), 'utf8')).toBe('0');
});

test('what is no tar, or half of one, is not taken for a whole', async () => {
  await expect(unpackAll(Buffer.alloc(2048, 'x'))).rejects.toMatchObject({ code: 'file-failed' });
  const half = tarOf([file('a', 'y'.repeat(5000))]).subarray(0, 3000);
  await expect(unpackAll(half)).rejects.toMatchObject({ code: 'file-failed' });
});

test('paths can be shown, and what is shown means the same bytes again', () => {
  const bytes = Buffer.from([
    0x2f,
    ...Array.from({ length: 255 }, (_, i) => i + 1),
    ...Buffer.from('ä\u202e漢😀\\x41'),
  ]);
  const text = escaped(bytes.toString(), bytes.toString('base64'));
  expect(text).toMatch(/^[^\p{Cc}\u202e\ufffd]+$/u);
  expect(unescaped(text)).toEqual(bytes);
  expect(escaped('/a\nb\\')).toBe('/a\\nb\\\\');
  expect(() => unescaped('/a\\z')).toThrow('backslash');
});
