/** The routes of files in backups, over files in memory. */
import { PandoError } from '@pando/common';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { FakeFiles } from './testing/fake-files.ts';
import { harness, type Harness } from './testing/harness.ts';

let api: Harness;
let files: FakeFiles;
let id: string;

beforeEach(async () => {
  files = new FakeFiles();
  api = await harness({ files, strict: true });
  await api.fleet.createVm({ name: 'web', disks: [{ name: 'a', sizeBytes: 512 }], tags: ['site'] });
  id = (await api.fleet.createBackup('web', { name: 'b' })).id;
});
afterEach(() => api.close());

async function tokenOf(role: 'viewer' | 'operator', tags?: readonly string[]): Promise<string> {
  const request = {
    name: `${role}-${tags?.join() ?? 'all'}`,
    role,
    ...(tags === undefined ? {} : { scope: { tags } }),
  };
  return (await api.tokens.create(request)).text;
}

async function get(path: string, token?: string) {
  const authorization = `Bearer ${token ?? (await tokenOf('operator').catch(() => ''))}`;
  return api.app.inject({
    url: `/api/v1/backups/${encodeURIComponent('web@b')}${path}`,
    headers: { authorization },
  });
}

test('a directory is listed page by page, and names that are no UTF-8 have their bytes beside them', async () => {
  for (const name of ['/etc/', '/etc/b', '/etc/a', '/etc/x\xff']) files.content.set(name, Buffer.from('1'));
  const token = await tokenOf('operator');
  const first = (await get('/files?path=%2Fetc&limit=2', token)).json<{
    items: { path: string }[];
    nextCursor: string;
  }>();
  expect(first.items.map(({ path }) => path)).toEqual(['/etc/a', '/etc/b']);
  const second = (await get(`/files?path=%2Fetc&limit=2&cursor=${first.nextCursor}`, token)).json<object>();
  expect(second).toEqual({
    items: [
      {
        path: '/etc/x\ufffd',
        pathBase64: Buffer.from('/etc/x\xff', 'latin1').toString('base64'),
        ...{
          type: 'file',
          mode: 0o644,
          uid: 0,
          gid: 0,
          sizeBytes: 1,
          modifiedAt: '2001-09-09T01:46:40.000Z',
        },
      },
    ],
  });
  expect(files.asked[0]!.backup).toEqual({ id, name: 'web@b', disks: ['a'] });
});

test('a file comes as bytes, by its path or by the bytes of its path', async () => {
  files.content.set('/x\xff', Buffer.from('hello'));
  const token = await tokenOf('operator');
  const base64 = encodeURIComponent(Buffer.from('/x\xff', 'latin1').toString('base64'));
  const answer = await get(`/files/content?pathBase64=${base64}&fileSystem=%2Fdev%2Fsda1`, token);
  expect(answer.statusCode).toBe(200);
  expect(answer.body).toBe('hello');
  expect(answer.headers).toMatchObject({
    'content-type': 'application/octet-stream',
    'content-length': '5',
    'content-disposition': 'attachment',
  });
  expect(files.asked[0]!.fileSystem).toBe('/dev/sda1');
  // Told that nobody waits any more, once the answer is out.
  expect(files.asked[0]!.signal!.aborted).toBe(true);
  expect((await get('/files/archive?path=%2F', token)).headers['content-type']).toBe('application/x-tar');
});

test.each([
  ['/files?path=%2F&pathBase64=Lw==', 400, 'request-invalid'],
  ['/files?pathBase64=%21%21', 400, 'request-invalid'],
  ['/files?cursor=%21', 400, 'cursor-invalid'],
  ['/files/content?path=%2Fnope', 404, 'file-missing'],
])('%s is answered with %i %s', async (path, status, code) => {
  const answer = await get(path, await tokenOf('operator'));
  expect([answer.statusCode, answer.json<{ code: string }>().code]).toEqual([status, code]);
});

test('what the machine lacks is said with its code', async () => {
  const token = await tokenOf('operator');
  files.failNext = new PandoError('tool-missing', 'apt install guestfish');
  const answer = await get('/file-systems', token);
  expect(answer.statusCode).toBe(503);
  expect(answer.json()).toMatchObject({ code: 'tool-missing', detail: 'apt install guestfish' });
  expect((await get('/file-systems', token)).json()).toMatchObject({ items: [{ name: '/dev/sda1' }] });
});

test('who may only look at VMs sees no files, and who has another scope not even the backup', async () => {
  const paths = ['/file-systems', '/files', '/files/content?path=%2Fa', '/files/archive'];
  const viewer = await tokenOf('viewer');
  const stranger = await tokenOf('operator', ['other']);
  for (const path of paths) {
    expect((await get(path, viewer)).statusCode).toBe(403);
    expect((await get(path, stranger)).json()).toMatchObject({ code: 'backup-missing' });
  }
  expect(files.asked).toEqual([]);
  expect((await get('/files', await tokenOf('operator', ['site']))).statusCode).toBe(200);
});
