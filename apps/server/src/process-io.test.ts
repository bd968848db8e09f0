import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { readProcessIo } from './process-io.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pando-io-'));
});
afterAll(() => rm(folder, { recursive: true }));

it('the numbers of the kernel are found by their names', async () => {
  const path = join(folder, 'io');
  const text = 'rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 4096\nwrite_bytes: 9437184\n';
  await writeFile(path, `${text}cancelled_write_bytes: 8192\n`);
  expect(await readProcessIo(path)).toEqual({
    readBytes: 4096,
    writtenBytes: 9_437_184,
    cancelledBytes: 8192,
  });
});

it('a kernel that does not tell all of them tells nothing', async () => {
  const path = join(folder, 'less');
  await writeFile(path, 'rchar: 1\nread_bytes: 4096\n');
  expect(await readProcessIo(path)).toBeUndefined();
  expect(await readProcessIo(join(folder, 'absent'))).toBeUndefined();
});
