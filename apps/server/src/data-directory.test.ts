import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { nodeFileSystem, systemClock } from '@pando/common';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { formatAddress, isLoopback, parseAddress } from './addresses.ts';
import { openDataDirectory, type DataDirectory } from './data-directory.ts';
import { runOptions } from './options.ts';
import { openChunks } from './store.ts';

let path: string;
beforeEach(async () => {
  path = await mkdtemp(join(tmpdir(), 'pando-server-'));
});
afterEach(() => rm(path, { recursive: true }));

const open = (chunkBytes?: number, keyedHash?: boolean): Promise<DataDirectory> =>
  openDataDirectory(path, { clock: systemClock, create: true, chunkBytes, keyedHash });

const refusal = (code: string): object => expect.objectContaining({ code }) as object;

test('an empty directory becomes a store, and stays the same one', async () => {
  const first = await open(8192);
  expect(first.isNew).toBe(true);
  expect(first.store).toMatchObject({ program: 'pando', format: 2, chunkBytes: 8192 });
  expect(Buffer.from(first.storeId).toString('hex')).toBe(first.store.storeId.replaceAll('-', ''));
  expect(JSON.parse(await readFile(join(path, 'store.json'), 'utf8'))).toMatchObject(first.store);
  expect((await readdir(path)).sort()).toEqual(['catalog', 'index', 'log', 'segments', 'store.json']);
  await first.catalog.close();
  const second = await open();
  expect(second).toMatchObject({ isNew: false, store: first.store });
  await second.catalog.close();
});

test('a directory that is missing is made with its parents; the root of a file system counts as empty', async () => {
  path = join(path, 'a', 'b');
  const made = await open();
  await made.catalog.close();
  path = join(path, '..', '..');
  await mkdir(join(path, 'c', 'lost+found'), { recursive: true });
  const inRoot = await openDataDirectory(join(path, 'c'), { clock: systemClock, create: true });
  expect(inRoot.isNew).toBe(true);
  await inRoot.catalog.close();
});

test('nobody else can read anything in it, also where an older version left it open', async () => {
  const directory = join(path, 'store');
  const opened = async (): Promise<string[]> => {
    const { catalog, ...store } = await openDataDirectory(directory, { clock: systemClock, create: true });
    await (await openChunks(store)).close();
    await catalog.close();
    const readable: string[] = [];
    const look = async (at: string): Promise<void> => {
      const found = await stat(at);
      if ((found.mode & 0o077) === 0) return;
      if (found.isDirectory()) for (const name of await readdir(at)) await look(join(at, name));
      else readable.push(at);
    };
    // As if somebody had opened the way to it.
    await chmod(directory, 0o755);
    await look(directory);
    return readable;
  };
  expect(await opened()).toEqual([]);
  for (const name of ['catalog', 'index']) await chmod(join(directory, name), 0o755);
  expect(await opened()).toEqual([]);
});

test('one opens it at a time', async () => {
  const first = await open();
  await expect(open()).rejects.toEqual(refusal('store-locked'));
  await first.catalog.close();
  await (await open()).catalog.close();
});

test('of two that make it at the same time one has it, and the other changes nothing', async () => {
  const both = await Promise.allSettled([open(4096), open(65_536)]);
  const opened = both.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
  const failed = both.flatMap((each) => (each.status === 'rejected' ? [each.reason as unknown] : []));
  expect(opened).toHaveLength(1);
  expect(failed).toEqual([refusal('store-locked')]);
  expect(JSON.parse(await readFile(join(path, 'store.json'), 'utf8'))).toMatchObject(opened[0]!.store);
  await opened[0]!.catalog.close();
});

test('a creation that was cut short is begun anew', async () => {
  const first = await open();
  await first.catalog.close();
  for (const name of ['index', 'segments', 'log']) await rm(join(path, name), { recursive: true });
  await rm(join(path, 'store.json'));
  await writeFile(join(path, 'store.json.new'), '{"progr');
  const second = await open();
  expect(second.isNew).toBe(true);
  await second.catalog.close();
  expect(await readdir(path)).not.toContain('store.json.new');
});

test('what a process made that was killed before the names were durable is durable when it opens', async () => {
  await (await open()).catalog.close();
  const spy = vi.spyOn(nodeFileSystem, 'syncDirectory');
  await (await open()).catalog.close();
  const synced = spy.mock.calls.map(([directory]) => directory);
  spy.mockRestore();
  expect(synced).toContain(path);
});

test.each([
  ['of another program', '{"program":"other","format":1}', 'store-foreign'],
  ['that is no JSON', '{', 'store-foreign'],
  ['that is null', 'null', 'store-foreign'],
  ['without an id', '{"program":"pando","format":1,"chunkBytes":4096,"createdAt":"x"}', 'store-foreign'],
  [
    'with odd chunks',
    '{"program":"pando","format":1,"storeId":"0b0e5c5e-0000-4000-8000-000000000000","chunkBytes":5000,"createdAt":"x"}',
    'store-foreign',
  ],
  ['of a newer format', '{"program":"pando","format":4}', 'store-newer'],
])('a store.json %s is refused, and nothing is touched', async (_what, text, code) => {
  await writeFile(join(path, 'store.json'), text);
  await expect(open()).rejects.toEqual(refusal(code));
  expect(await readdir(path)).toEqual(['store.json']);
});

/** A store with one segment, closed. */
async function storeWithData(keyedHash?: boolean): Promise<DataDirectory> {
  const made = await open(8192, keyedHash);
  const store = await openChunks(made);
  const session = store.openSession();
  await session.writeChunks(Buffer.alloc(8192, 1), 1);
  await session.flush();
  session.release();
  await store.close();
  await made.catalog.close();
  return made;
}

test.each([
  ['plain', undefined],
  ['keyed', true],
])(
  'a store.json with any bit flipped, cut or gone is made again from the segments, %s',
  async (_how, keyedHash) => {
    const made = await storeWithData(keyedHash);
    const file = join(path, 'store.json');
    const whole = await readFile(file);
    const damages: (Buffer | undefined)[] = [
      undefined,
      Buffer.alloc(0),
      whole.subarray(0, 50),
      Buffer.alloc(100),
    ];
    // With a key, here and there.
    for (let at = 0; at < whole.length; at += keyedHash === true ? 17 : 1) {
      const bad = Buffer.from(whole);
      bad[at]! ^= 1 << (at % 8);
      damages.push(bad);
    }
    for (const bytes of damages) {
      if (bytes === undefined) await rm(file);
      else await writeFile(file, bytes);
      const again = await open();
      await again.catalog.close();
      expect(again.isNew).toBe(false);
      const { createdAt: _, ...same } = made.store;
      expect(again.store).toMatchObject(same);
      expect(again.mended).toBe(bytes === undefined ? 'store.json is missing' : 'store.json is damaged');
      const after = await open();
      await after.catalog.close();
      expect(after).toMatchObject({ store: again.store, mended: undefined });
    }
  },
);

test('a store.json that is gone is not made up where no segment says what it said, or they disagree', async () => {
  await (await open()).catalog.close();
  await rm(join(path, 'store.json'));
  await expect(open()).rejects.toThrow(/store\.json is missing, and there are no segments/);
  await writeFile(join(path, 'store.json'), '{');
  await expect(open()).rejects.toEqual(refusal('store-foreign'));
});

test('a store.json of another store is refused with the segment that it is not of', async () => {
  await storeWithData();
  const other = await mkdtemp(join(tmpdir(), 'pando-server-'));
  try {
    await (
      await openDataDirectory(other, { clock: systemClock, create: true, chunkBytes: 8192 })
    ).catalog.close();
    await writeFile(join(path, 'store.json'), await readFile(join(other, 'store.json')));
    const opened = await open();
    await rm(opened.index, { recursive: true });
    await mkdir(opened.index);
    await expect(openChunks(opened)).rejects.toThrow(
      /segment 1 says that it is segment 1 of store .* or store\.json was/,
    );
    await opened.catalog.close();
  } finally {
    await rm(other, { recursive: true });
  }
});

test('chunk sizes that a store cannot have, or does not have, are refused', async () => {
  for (const bytes of [0, 2048, 5000, 131_072])
    await expect(open(bytes)).rejects.toEqual(refusal('request-invalid'));
  await (await open(4096)).catalog.close();
  await expect(open(8192)).rejects.toEqual(refusal('request-invalid'));
  await (await open(4096)).catalog.close();
});

test('a store is made with keyed ids when that is asked for, with a key of its own, and stays as it is made', async () => {
  const made = await open(undefined, true);
  await made.catalog.close();
  expect(made.store).toMatchObject({ format: 3, hashKey: expect.stringMatching(/^[0-9a-f]{64}$/) as string });
  expect(Buffer.from(made.identity.hashKey!).toString('hex')).toBe(made.store.hashKey);
  // The file that says so may stay in place, or go.
  for (const keyedHash of [true, undefined]) {
    const again = await open(undefined, keyedHash);
    await again.catalog.close();
    expect(again).toMatchObject({ isNew: false, store: made.store });
  }
  const before = await readFile(join(path, 'store.json'));
  await expect(open(undefined, false)).rejects.toMatchObject({
    code: 'store-hash-fixed',
    message: expect.stringContaining('with keyed ids') as string,
  });
  expect(await readFile(join(path, 'store.json'))).toEqual(before);
  const other = await mkdtemp(join(path, 'other-'));
  const second = await openDataDirectory(other, { clock: systemClock, create: true, keyedHash: true });
  await second.catalog.close();
  expect(second.store.hashKey).not.toBe(made.store.hashKey);
});

test('a store without keyed ids is not made keyed by asking for it', async () => {
  const made = await open();
  await made.catalog.close();
  expect(made.store).not.toHaveProperty('hashKey');
  await expect(open(undefined, true)).rejects.toMatchObject({
    code: 'store-hash-fixed',
    message: expect.stringContaining('without keyed ids') as string,
  });
  await (await open(undefined, false)).catalog.close();
});

test('a store.json whose format and key do not go together is damaged', async () => {
  const made = await storeWithData(true);
  const { hashKey: _, ...without } = made.store;
  for (const wrong of [without, { ...made.store, format: 2 }, { ...made.store, hashKey: 'ab' }]) {
    await writeFile(join(path, 'store.json'), JSON.stringify(wrong));
    const mended = await open(undefined, true);
    await mended.catalog.close();
    expect(mended.mended).toBe('store.json is damaged');
    expect(mended.store).toMatchObject({ format: 3, hashKey: made.store.hashKey });
  }
});

test('a store.json with another key is refused by the segments', async () => {
  const made = await storeWithData(true);
  const wrong = { ...made.store, hashKey: 'ab'.repeat(32) };
  await writeFile(join(path, 'store.json'), JSON.stringify(wrong));
  const opened = await open(undefined, true);
  for (const isIndexGone of [false, true]) {
    if (isIndexGone) await rm(opened.index, { recursive: true });
    await mkdir(opened.index, { recursive: true });
    await expect(openChunks(opened)).rejects.toMatchObject({
      code: 'store-foreign',
      message: expect.stringMatching(/with another key of ids/) as string,
    });
  }
  await opened.catalog.close();
});

test('who must not make a store gets none', async () => {
  const looking = openDataDirectory(path, { clock: systemClock, create: false });
  await expect(looking).rejects.toEqual(refusal('store-missing'));
  expect(await readdir(path)).toEqual([]);
});

test.each([
  ['127.0.0.1:7400', { host: '127.0.0.1', port: 7400 }],
  ['localhost:0', { host: 'localhost', port: 0 }],
  ['[::1]:65535', { host: '::1', port: 65_535 }],
])('the address %s is read and printed', (text, address) => {
  expect(parseAddress(text)).toEqual(address);
  expect(formatAddress(address)).toBe(text);
  expect(isLoopback(address.host)).toBe(true);
});

test.each([
  '',
  '7400',
  ':7400',
  'host',
  'host:',
  'host:x',
  'host:65536',
  '::1:7400',
  '[::1]',
  '[host]:1',
  'a b:1',
])('the address %j is refused', (text) => {
  expect(() => parseAddress(text)).toThrow(expect.objectContaining({ code: 'address-invalid' }));
});

test('flags become options, and wrong values are refused', () => {
  expect(runOptions({})).toEqual({
    dataDirectory: './pando-data',
    connectionsOfAddress: 250,
    fileAppliances: 2,
    http: { host: '127.0.0.1', port: 7400 },
    nbd: { host: '127.0.0.1', port: 10_809 },
    nbdSocketMode: 0o600,
    nbdTlsFiles: {},
    trustImages: false,
    insecureNbd: false,
    gcEveryMs: 3_600_000,
    verifyEveryMs: 7 * 24 * 3_600_000,
    verifyBytesPerSecond: 100 * 2 ** 20,
    tripwireLockDays: 30,
    auditDays: 400,
    auditBytes: 2 ** 30,
    httpSocketMode: 0o600,
    insecureHttp: false,
    ...{ rateLimit: 1000, rateLimitAddress: 100, wrongTokens: 60 },
    logLevel: 'info',
    json: false,
  });
  expect(
    runOptions({
      'chunk-bytes': '16K',
      'host-name': ['a', 'b'],
      'gc-every': '0',
      'verify-every': '0',
      'verify-rate': '8',
      'tripwire-lock': '0',
      'rate-limit': '0',
      'wrong-tokens': '7',
      'keyed-hash': false,
      'json': true,
    }),
  ).toMatchObject({
    chunkBytes: 16_384,
    hostNames: ['a', 'b'],
    gcEveryMs: 0,
    verifyEveryMs: 0,
    verifyBytesPerSecond: 8 * 2 ** 20,
    tripwireLockDays: 0,
    ...{ rateLimit: 0, rateLimitAddress: 100, wrongTokens: 7 },
    keyedHash: false,
    json: true,
  });
  for (const wrong of [
    { 'log-level': 'loud' },
    { 'gc-every': '-1' },
    { 'gc-every': 'x' },
    { 'verify-every': '-1' },
    { 'verify-every': 'weekly' },
    { 'verify-rate': '0' },
    { 'tripwire-lock': '-1' },
    { 'tripwire-lock': 'x' },
    { 'rate-limit': '-1' },
    { 'rate-limit-address': '1.5' },
    { 'wrong-tokens': 'many' },
    { 'chunk-bytes': 'x' },
    { http: 'x' },
  ]) {
    expect(() => runOptions(wrong)).toThrow(expect.objectContaining({ kind: 'invalid' }));
  }
});
