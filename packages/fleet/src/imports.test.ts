import { hashChunk } from '@pando/chunk-store';
import { PandoError } from '@pando/common';
import { between, fillRandom, runSeed, seededRandom } from '@pando/common/testing';
import { TreeBuilder, rootsEqual } from '@pando/tree';
import { beforeEach, describe, expect, test } from 'vitest';
import { MiB, makeFixture, oneDisk, sourceOf, type Fixture } from './testing/fixture.ts';

const CHUNK = 4096;
let f: Fixture;
beforeEach(async () => {
  f = await makeFixture({ importsMax: 2, importBatchesMax: 3 });
});

type Part = Uint8Array | { holeBytes: number };

/** What a disk of these parts holds. */
function flatten(parts: readonly Part[]): Uint8Array {
  const length = parts.reduce(
    (sum, part) => sum + (part instanceof Uint8Array ? part.byteLength : part.holeBytes),
    0,
  );
  const bytes = new Uint8Array(Math.ceil(length / 512) * 512);
  let at = 0;
  for (const part of parts) {
    if (part instanceof Uint8Array) bytes.set(part, at);
    at += part instanceof Uint8Array ? part.byteLength : part.holeBytes;
  }
  return bytes;
}

async function contents(exportName: string): Promise<Uint8Array> {
  const disk = await f.fleet.attach(exportName);
  const bytes = new Uint8Array(disk.size);
  await disk.read(0, disk.size, bytes, 0);
  await disk.close();
  return bytes;
}

const bytesOf = (length: number, seed = 1): Uint8Array =>
  fillRandom(seededRandom(seed), new Uint8Array(length));
const turns = async (): Promise<void> => {
  for (let i = 0; i < 50; i++) await new Promise((resolve) => setImmediate(resolve));
};

/** Nothing is left of an import that failed but chunks: no VM, no disk, the session released, the name free. */
async function expectNothing(name: string): Promise<void> {
  expect((await f.fleet.listVms()).items).toEqual([]);
  expect(await f.disks()).toEqual([]);
  expect(f.store.sessions.map((session) => [session.released, session.writing])).toEqual(
    f.store.sessions.map(() => [1, 0]),
  );
  f.store.beforeWrite = f.store.beforeFlush = f.catalog.beforeCommit = undefined;
  await f.fleet.importVm({ name, source: sourceOf([bytesOf(512)]) });
}

describe('importVm', () => {
  test.each([512, 1024, CHUNK - 512, CHUNK, CHUNK + 512, MiB - 512, MiB, MiB + 512, 3 * MiB + 512])(
    'a source of %i bytes becomes a disk that holds them',
    async (length) => {
      const bytes = bytesOf(length);
      const parts = [bytes.subarray(0, length >> 1), new Uint8Array(0), bytes.subarray(length >> 1)];
      const { vm, ...result } = await f.fleet.importVm({
        name: 'golden',
        diskName: 'root',
        source: sourceOf(parts, { sizeBytes: length }),
      });
      expect(vm.disks).toEqual([{ name: 'root', sizeBytes: length }]);
      expect(vm.lineage).toBe(vm.id);
      expect(Buffer.compare(await contents('golden'), flatten(parts))).toBe(0);
      expect(result.readBytes).toBe(length);
      expect(result.chunks).toBe(Math.ceil(length / CHUNK));
      expect(result.zeroChunks).toBe(0);
      expect(f.store.sessions[0]).toMatchObject({ released: 1, flushed: 1 });
    },
  );

  test.each([0, 1, 511, 513, CHUNK + 1])('a source of %i bytes is no disk', async (length) => {
    const parts = [bytesOf(length)];
    const known = { name: 'a', source: sourceOf(parts, { sizeBytes: length }) };
    await expect(f.fleet.importVm(known)).rejects.toMatchObject({ code: 'size-invalid' });
    const unknown = { name: 'a', source: sourceOf(parts) };
    await expect(f.fleet.importVm(unknown)).rejects.toMatchObject({ code: 'size-invalid' });
    await expect(f.fleet.getVm('a')).rejects.toMatchObject({ code: 'vm-missing' });
  });

  test('chunks may come by their ids, between bytes and holes, and only such as are stored', async () => {
    const random = seededRandom(runSeed());
    const stored = bytesOf(300 * CHUNK, 7);
    await f.fleet.importVm({ name: 'stored', source: sourceOf([stored]) });
    const idsOf = (first: number, count: number): Uint8Array =>
      Buffer.concat(
        Array.from({ length: count }, (_, i) =>
          hashChunk(stored.subarray((first + i) * CHUNK, (first + i + 1) * CHUNK)),
        ),
      );
    const bytes: Part[] = [];
    const ids: (Part | { ids: Uint8Array })[] = [];
    for (let i = 0; i < 60; i++) {
      const first = between(random, 0, 200);
      const count = between(random, 1, 100);
      const kind = between(random, 0, 3);
      const part = kind === 0 ? bytesOf(count * CHUNK, i) : { holeBytes: 10 * count * CHUNK };
      bytes.push(kind > 1 ? stored.subarray(first * CHUNK, (first + count) * CHUNK) : part);
      ids.push(kind > 1 ? { ids: idsOf(first, count) } : part);
    }
    bytes.push(new Uint8Array(2 * CHUNK), bytesOf(512));
    ids.push({ ids: new Uint8Array(64) }, bytesOf(512));
    const whole = await f.fleet.importVm({ name: 'bytes', source: sourceOf(bytes) });
    const { vm: _vm, ...byIds } = await f.fleet.importVm({ name: 'ids', source: sourceOf(ids) });
    expect(byIds).toMatchObject({ root: whole.root, sizeBytes: whole.sizeBytes, newBytes: 0 });
    expect(byIds).toMatchObject({ chunks: whole.chunks, zeroChunks: whole.zeroChunks });
    expect(byIds.readBytes, 'ids of zeros are a hole').toBe(whole.readBytes - 2 * CHUNK);

    for (const [parts, code] of [
      [[{ ids: idsOf(0, 2) }, { ids: new Uint8Array(32).fill(3) }], 'chunk-unknown'],
      [[bytesOf(512), { ids: idsOf(0, 2) }], 'stream-invalid'],
    ] as const) {
      await expect(f.fleet.importVm({ name: 'no', source: sourceOf(parts) })).rejects.toMatchObject({ code });
    }
    await expect(f.fleet.getVm('no')).rejects.toMatchObject({ code: 'vm-missing' });
    expect(f.store.sessions.every(({ released }) => released === 1)).toBe(true);
    expect([
      ...(await f.fleet.knownChunks(Buffer.concat([idsOf(5, 1), new Uint8Array(32).fill(3)]))),
    ]).toEqual([1, 0]);
  });

  test('where ids are keyed, none of them is asked about, and no chunk comes by its id', async () => {
    const stored = bytesOf(CHUNK, 7);
    const { keyed } = await f.fleet.importVm({ name: 'stored', source: sourceOf([stored]) });
    expect(keyed).toBe(false);
    f.store.isKeyed = true;
    const ids = hashChunk(stored);
    await expect(f.fleet.knownChunks(ids)).rejects.toMatchObject({ code: 'ids-keyed' });
    const byId = f.fleet.importVm({ name: 'no', source: sourceOf([{ ids }]) });
    await expect(byId).rejects.toMatchObject({ code: 'ids-keyed' });
    await expect(f.fleet.getVm('no')).rejects.toMatchObject({ code: 'vm-missing' });
    expect(await f.fleet.importVm({ name: 'yes', source: sourceOf([stored]) })).toMatchObject({
      keyed: true,
      newBytes: 0,
    });
  });

  test('holes and zeros are the same disk, and holes cost no writing', async () => {
    const data = bytesOf(CHUNK);
    const holed = await f.fleet.importVm({
      name: 'a',
      source: sourceOf([data, { holeBytes: 40 * MiB }, data]),
    });
    const zeros = await f.fleet.importVm({
      name: 'b',
      source: sourceOf([data, new Uint8Array(40 * MiB), data]),
    });
    const [a, b] = await Promise.all([f.rooms.volumes.settle(1), f.rooms.volumes.settle(2)]);
    expect(rootsEqual(a, b)).toBe(true);
    expect(holed).toMatchObject({ readBytes: 2 * CHUNK, chunks: 10_242, zeroChunks: 10_240 });
    expect(zeros).toMatchObject({
      readBytes: 40 * MiB + 2 * CHUNK,
      chunks: 10_242,
      zeroChunks: 10_240,
      newChunks: 0,
    });
    expect(f.store.sessions[0]!.counts.chunks).toBeLessThan(100);
  });

  test('a hole of 64 TiB, also in pieces, is a disk in no time, and nothing is stored for it', async () => {
    const { vm, chunks } = await f.fleet.importVm({
      name: 'huge',
      source: sourceOf(Array.from({ length: 64 }, () => ({ holeBytes: 1024 * 1024 * MiB }))),
    });
    expect(vm.disks[0]!.sizeBytes).toBe(64 * 1024 * 1024 * MiB);
    expect(chunks).toBe((64 * 1024 * 1024 * MiB) / CHUNK);
    expect(f.store.chunks.chunks.size).toBe(0);
  });

  test('sources of any parts make the tree that their bytes make (seeded)', async () => {
    const seed = runSeed();
    const random = seededRandom(seed);
    for (let round = 0; round < 25; round++) {
      const parts: Part[] = [];
      for (let i = between(random, 1, 12); i > 0; i--) {
        const sizes = [1, 100, CHUNK - 1, CHUNK, CHUNK + 1, between(random, 1, 300_000), MiB, MiB + 4097];
        const bytes = sizes[between(random, 0, sizes.length - 1)]!;
        const kind = random();
        if (kind < 0.4) parts.push({ holeBytes: bytes * between(random, 0, 3) });
        else if (kind < 0.5) parts.push(new Uint8Array(bytes));
        else parts.push(bytesOf(bytes, between(random, 1, 4)));
      }
      // Parts of any sizes, and together whole sectors.
      const length = parts.reduce(
        (sum, part) => sum + (part instanceof Uint8Array ? part.byteLength : part.holeBytes),
        0,
      );
      parts.push(bytesOf(512 - (length % 512)));
      const reused = new Uint8Array(4 * MiB);
      const source = {
        async *parts() {
          for (const part of parts) {
            if (!(part instanceof Uint8Array)) yield part;
            else {
              reused.set(part);
              yield reused.subarray(0, part.byteLength);
              reused.fill(0xee); // the source uses its buffer again
            }
          }
        },
      };
      const name = `vm-${round}`;
      const before = (await f.disks()).length;
      const { readBytes, chunks, zeroChunks } = await f.fleet.importVm({ name, source });
      const expected = flatten(parts);
      const padded = new Uint8Array(Math.ceil(expected.byteLength / CHUNK) * CHUNK);
      padded.set(expected);
      const builder = new TreeBuilder(f.store.chunks);
      const count = padded.byteLength / CHUNK;
      await builder.append(await f.store.chunks.writeChunks(padded, count), count);
      const root = await builder.finish(expected.byteLength);
      expect(
        rootsEqual(await f.rooms.volumes.settle((await f.disks())[before]!), root),
        `seed ${seed}, round ${round}`,
      ).toBe(true);
      expect(readBytes).toBe(
        parts.reduce((sum, part) => sum + (part instanceof Uint8Array ? part.byteLength : 0), 0),
      );
      expect(chunks).toBe(count);
      let zeros = 0;
      for (let i = 0; i < count; i++)
        if (padded.subarray(i * CHUNK, (i + 1) * CHUNK).every((byte) => byte === 0)) zeros++;
      expect(zeroChunks, `seed ${seed}, round ${round}`).toBe(zeros);
    }
  });

  test('another chunk size works as well', async () => {
    f = await makeFixture({}, 65_536);
    const bytes = bytesOf(700_416);
    await f.fleet.importVm({ name: 'a', source: sourceOf([bytes]) });
    expect(Buffer.compare(await contents('a'), flatten([bytes]))).toBe(0);
  });

  test('several batches are under way at once, never more than importBatchesMax, and late ones come in order', async () => {
    const random = seededRandom(3);
    f.store.beforeWrite = async () => {
      for (let i = between(random, 0, 20); i > 0; i--) await new Promise((resolve) => setImmediate(resolve));
    };
    const bytes = bytesOf(20 * MiB);
    await f.fleet.importVm({ name: 'a', source: sourceOf([bytes]) });
    expect(f.store.sessions[0]!.writingMax).toBe(3);
    expect(Buffer.compare(await contents('a'), bytes)).toBe(0);
  });

  test('what is written stays pinned until it is released', async () => {
    const pinned: number[] = [];
    f.store.beforeWrite = async (session) => {
      // The first batch comes last: the others' ids have to wait, pinned.
      if (pinned.length === 0) {
        pinned.push(0);
        await turns();
        let pins = 0;
        session.pins!.forEachPin(() => pins++);
        pinned.push(pins);
      }
    };
    f.store.beforeFlush = async () => {
      let pins = 0;
      f.store.sessions[0]!.pins!.forEachPin(() => pins++);
      pinned.push(pins);
    };
    await f.fleet.importVm({ name: 'a', source: sourceOf([bytesOf(8 * MiB)]) });
    expect(pinned).toEqual([0, 512, 1]);
  });

  test('progress comes at most every 100 ms, and once at the end', async () => {
    const told: number[] = [];
    const source = {
      sizeBytes: 50 * CHUNK,
      async *parts() {
        for (let i = 0; i < 50; i++) {
          f.clock.advance(10);
          yield await Promise.resolve(bytesOf(CHUNK));
        }
      },
    };
    await f.fleet.importVm(
      { name: 'a', source },
      {
        onProgress: ({ doneBytes, allBytes }) => {
          expect(allBytes).toBe(50 * CHUNK);
          told.push(doneBytes / CHUNK);
        },
      },
    );
    expect(told).toEqual([10, 20, 30, 40, 50, 50]);
  });
});

describe('an import that is refused', () => {
  test.each([
    ['a taken name', { name: 'taken', source: sourceOf([]) }, 'name-taken'],
    ['a bad name', { name: 'a/b', source: sourceOf([]) }, 'name-invalid'],
    ['a bad disk name', { name: 'a', diskName: '', source: sourceOf([]) }, 'name-invalid'],
    ['a size of 0', { name: 'a', source: sourceOf([], { sizeBytes: 0 }) }, 'size-invalid'],
    [
      'a size past 64 TiB',
      { name: 'a', source: sourceOf([], { sizeBytes: 64 * 1024 * 1024 * MiB + 1 }) },
      'size-invalid',
    ],
  ])('for %s has read nothing', async (_, request, code) => {
    await f.fleet.createVm(oneDisk('taken'));
    await expect(f.fleet.importVm(request)).rejects.toMatchObject({ code });
    expect(request.source.signal).toBeUndefined();
    expect(f.store.sessions).toEqual([]);
  });

  test('a name is taken from the beginning of an import to its end', async () => {
    const { promise, resolve } = Promise.withResolvers<Uint8Array>();
    const first = f.fleet.importVm({
      name: 'a',
      source: {
        async *parts() {
          yield await promise;
        },
      },
    });
    await turns();
    const second = sourceOf([bytesOf(512)]);
    await expect(f.fleet.importVm({ name: 'a', source: second })).rejects.toMatchObject({
      code: 'name-taken',
    });
    await expect(f.fleet.createVm(oneDisk('a'))).rejects.toMatchObject({ code: 'name-taken' });
    expect(second.signal).toBeUndefined();
    resolve(bytesOf(512));
    await first;
    await expect(f.fleet.importVm({ name: 'a', source: second })).rejects.toMatchObject({
      code: 'name-taken',
    });
  });

  test('more than importsMax at once are refused', async () => {
    const { promise, resolve } = Promise.withResolvers<Uint8Array>();
    const running = ['a', 'b'].map((name) =>
      f.fleet.importVm({
        name,
        source: {
          async *parts() {
            yield await promise;
          },
        },
      }),
    );
    await turns();
    await expect(f.fleet.importVm({ name: 'c', source: sourceOf([bytesOf(512)]) })).rejects.toMatchObject({
      code: 'too-busy',
    });
    resolve(bytesOf(512));
    await Promise.all(running);
    await f.fleet.importVm({ name: 'c', source: sourceOf([bytesOf(512)]) });
  });
});

describe('an import that breaks off', () => {
  test.each([
    [
      'the source throws',
      sourceOf([bytesOf(2 * MiB)], { fail: new Error('connection reset') }),
      'import-interrupted',
    ],
    [
      'the source throws an error of ours',
      sourceOf([bytesOf(512)], { fail: new PandoError('import-not-a-file', 'x') }),
      'import-not-a-file',
    ],
    ['the source ends early', sourceOf([bytesOf(MiB)], { sizeBytes: MiB + 512 }), 'import-interrupted'],
    [
      'the source goes on past its size',
      sourceOf([bytesOf(MiB), bytesOf(512)], { sizeBytes: MiB }),
      'size-invalid',
    ],
    ['the source is empty', sourceOf([]), 'size-invalid'],
    [
      'the source is longer than a disk',
      sourceOf([bytesOf(512), { holeBytes: 64 * 1024 * 1024 * MiB }]),
      'size-invalid',
    ],
    ['a hole has no size', sourceOf([{ holeBytes: -1 }]), 'request-invalid'],
  ])('because %s leaves nothing', async (_, source, code) => {
    await expect(f.fleet.importVm({ name: 'a', source })).rejects.toMatchObject({ code });
    expect(source.signal!.aborted || code === 'import-interrupted' || code === 'size-invalid').toBe(true);
    await expectNothing('a');
  });

  test('the cause of an interruption is kept', async () => {
    const fail = new Error('connection reset');
    await expect(
      f.fleet.importVm({ name: 'a', source: sourceOf([bytesOf(512)], { fail }) }),
    ).rejects.toMatchObject({ cause: fail });
  });

  test.each([0, 1, 5, 9])(
    'because write %i fails stops the source, waits for the other writes, and leaves nothing',
    async (failing) => {
      let calls = 0;
      f.store.beforeWrite = async () => {
        const call = calls++;
        await turns();
        if (call === failing) throw new PandoError('store-full', 'full');
      };
      const source = sourceOf(Array.from({ length: 40 }, (_, i) => bytesOf(MiB / 4, i)));
      await expect(f.fleet.importVm({ name: 'a', source })).rejects.toMatchObject({ code: 'store-full' });
      await expectNothing('a');
    },
  );

  test('because the flush or the commit fails leaves nothing', async () => {
    f.store.beforeFlush = () => Promise.reject(new PandoError('store-failed', 'sync'));
    await expect(f.fleet.importVm({ name: 'a', source: sourceOf([bytesOf(512)]) })).rejects.toMatchObject({
      code: 'store-failed',
    });
    f.store.beforeFlush = undefined;
    f.catalog.beforeCommit = () => Promise.reject(new PandoError('store-full', 'full'));
    await expect(f.fleet.importVm({ name: 'a', source: sourceOf([bytesOf(512)]) })).rejects.toMatchObject({
      code: 'store-full',
    });
    await expectNothing('a');
  });

  /** A source that waits until it is told to stop. */
  const endless = {
    async *parts(signal: AbortSignal) {
      yield bytesOf(MiB);
      await new Promise((_, reject) =>
        signal.addEventListener('abort', () => reject(new Error('stopped reading'))),
      );
    },
  };

  test('because it is cancelled leaves nothing', async () => {
    const cancel = new AbortController();
    const running = f.fleet.importVm({ name: 'a', source: endless }, { signal: cancel.signal });
    await turns();
    cancel.abort();
    await expect(running).rejects.toMatchObject({ code: 'cancelled' });
    await expect(
      f.fleet.importVm({ name: 'a', source: endless }, { signal: cancel.signal }),
    ).rejects.toMatchObject({ code: 'cancelled' });
    await expectNothing('a');
  });

  test('because the fleet closes ends with shutting-down', async () => {
    const running = f.fleet.importVm({ name: 'a', source: endless });
    const outcome = expect(running).rejects.toMatchObject({ code: 'shutting-down' });
    await turns();
    await f.fleet.close();
    await outcome;
    expect(await f.disks()).toEqual([]);
    expect(f.store.sessions[0]!.released).toBe(1);
  });
});
