import { fillRandom, seededRandom } from '@pando/common/testing';
import { checkProof, PROOF_RANGE_BYTES_MAX } from '@pando/proof';
import { beforeEach, describe, expect, test } from 'vitest';
import type { DiffItem, DiffRequest } from './answer-types.ts';
import { FLEET_LIMITS } from './limits.ts';
import { makeFixture, sourceOf, useRealRooms, type Fixture } from './testing/fixture.ts';

useRealRooms();

const CHUNK = 4096;
let f: Fixture;
beforeEach(async () => {
  f = await makeFixture();
});

const bytesOf = (chunks: number, seed: number): Uint8Array =>
  fillRandom(seededRandom(seed), new Uint8Array(chunks * CHUNK));

async function write(vm: string, at: number, chunks: number, seed: number): Promise<void> {
  const disk = await f.fleet.attach(vm);
  await disk.write(at * CHUNK, bytesOf(chunks, seed));
  await disk.close();
}

async function allOf(request: DiffRequest): Promise<DiffItem[]> {
  const items: DiffItem[] = [];
  let cursor: string | undefined;
  let compared = 0;
  do {
    const page = await f.fleet.answers.diff({ ...request, ...(cursor === undefined ? {} : { cursor }) });
    expect(page.changedBytes).toBe(page.items.reduce((sum, item) => sum + item.changedBytes, 0));
    items.push(...page.items);
    compared += page.comparedBytes;
    cursor = page.nextCursor;
    if (cursor === undefined) expect(compared).toBe(Math.max(page.a.sizeBytes, page.b.sizeBytes));
  } while (cursor !== undefined);
  return items;
}

const chunks = (items: readonly DiffItem[]): [number, number, number][] =>
  items.map(({ offset, bytes, changedBytes }) => [offset / CHUNK, bytes / CHUNK, changedBytes / CHUNK]);

async function populate(): Promise<void> {
  await f.fleet.importVm({ name: 'golden', source: sourceOf([bytesOf(300, 1), { holeBytes: 700 * CHUNK }]) });
  await f.fleet.cloneVm('golden', { name: 'web' });
  await write('web', 10, 2, 2);
  await write('web', 14, 1, 3);
  await write('web', 900, 5, 4);
  await f.fleet.createBackup('web', { name: 'mon' });
}

describe('a comparison', () => {
  test('of any two disks names what differs, merged to a grain, in pages of any size', async () => {
    await populate();
    const exact: [number, number, number][] = [
      [10, 2, 2],
      [14, 1, 1],
      [900, 5, 5],
    ];
    for (const [a, b] of [
      ['golden', 'web'],
      ['web', 'golden'],
      ['golden', 'web@mon'],
      ['web@mon/disk0', 'golden/disk0'],
    ] as const) {
      for (const limit of [1, 2, 100]) expect(chunks(await allOf({ a, b, limit }))).toEqual(exact);
      expect(chunks(await allOf({ a, b, grainBytes: 4 * CHUNK }))).toEqual([
        [10, 5, 3],
        [900, 5, 5],
      ]);
    }
    expect(await allOf({ a: 'web', b: 'web@mon' })).toEqual([]);
    expect(await allOf({ a: 'web', b: 'web' })).toEqual([]);
    // What is still in overlays counts, and so does what was written with what it held.
    await write('web', 500, 1, 9);
    expect(chunks(await allOf({ a: 'web', b: 'web@mon' }))).toEqual([[500, 1, 1]]);
    await write('golden', 500, 1, 9);
    expect(chunks(await allOf({ a: 'golden', b: 'web' }))).toEqual(exact);
  });

  test('of disks of different sizes counts what the larger one holds past the end of the other', async () => {
    await f.fleet.importVm({ name: 'small', source: sourceOf([bytesOf(3, 1)]) });
    await f.fleet.importVm({
      name: 'large',
      source: sourceOf([bytesOf(3, 1), { holeBytes: 9 * CHUNK }, bytesOf(2, 2)]),
    });
    for (const [a, b] of [
      ['small', 'large'],
      ['large', 'small'],
    ] as const)
      expect(chunks(await allOf({ a, b }))).toEqual([[12, 2, 2]]);
  });

  test('beside deletions neither waits in a circle nor finds half of something', async () => {
    await populate();
    const compare = Promise.allSettled(
      Array.from({ length: 20 }, (_, i) =>
        i % 2 === 0
          ? f.fleet.answers.diff({ a: 'web@mon', b: 'web' })
          : f.fleet.answers.diff({ a: 'web', b: 'web@mon' }),
      ),
    );
    await Promise.all([f.fleet.deleteBackup('web@mon'), compare]);
    for (const result of await compare) {
      if (result.status === 'rejected') expect(result.reason).toMatchObject({ code: 'backup-missing' });
      else expect(result.value.items).toEqual([]);
    }
    await f.fleet.deleteVm('web');
  });

  test('says what is wrong with what it is asked', async () => {
    await populate();
    const diff = (request: DiffRequest) => f.fleet.answers.diff(request);
    await expect(diff({ a: 'web', b: 'nobody' })).rejects.toMatchObject({ code: 'vm-missing' });
    await expect(diff({ a: 'web', b: 'web@never' })).rejects.toMatchObject({ code: 'backup-missing' });
    await expect(diff({ a: 'web/disk7', b: 'golden' })).rejects.toMatchObject({ code: 'disk-missing' });
    await expect(diff({ a: 'web', b: 'golden', grainBytes: 100 })).rejects.toMatchObject({
      code: 'request-invalid',
    });
    const { nextCursor } = await diff({ a: 'web', b: 'golden', limit: 1 });
    const [version, list] = JSON.parse(Buffer.from(nextCursor!, 'base64url').toString()) as unknown[];
    for (const forged of ['x', '-4096', '1', '1e300', '']) {
      const cursor = Buffer.from(JSON.stringify([version, list, forged])).toString('base64url');
      if (forged === '') expect((await diff({ a: 'web', b: 'golden', cursor })).items.length).toBe(3);
      else
        await expect(diff({ a: 'web', b: 'golden', cursor })).rejects.toMatchObject({
          code: 'cursor-invalid',
        });
    }
    await expect(diff({ a: 'web', b: 'web@mon', cursor: nextCursor! })).rejects.toMatchObject({
      code: 'cursor-invalid',
    });
  });
});

describe('roots and proofs', () => {
  test('equal disks have equal roots, whoever they belong to', async () => {
    await populate();
    const rootOf = async (owner: string) => (await f.fleet.answers.roots(owner)).items[0]!;
    const mon = await rootOf('web@mon');
    expect(mon).toEqual({ disk: 'disk0', height: 2, ...(await f.fleet.diskRoot('web@mon', 'disk0')) });
    expect(await rootOf('web')).toEqual(mon);
    expect((await rootOf('golden')).root).not.toBe(mon.root);
    await write('golden', 10, 2, 2);
    await write('golden', 14, 1, 3);
    await write('golden', 900, 5, 4);
    expect(await rootOf('golden')).toEqual(mon);
    await write('golden', 0, 1, 77);
    expect((await rootOf('golden')).root).not.toBe(mon.root);
    await expect(f.fleet.answers.roots('nobody')).rejects.toMatchObject({ code: 'vm-missing' });
  });

  test('where ids are keyed, roots say so, and there are no proofs: whoever checked one would need the key', async () => {
    await populate();
    const [plain] = (await f.fleet.answers.roots('web@mon')).items;
    f = await makeFixture({}, CHUNK, new Uint8Array(32).fill(9));
    await populate();
    const [keyed] = (await f.fleet.answers.roots('web@mon')).items;
    expect([plain!.keyed, keyed!.keyed]).toEqual([false, true]);
    expect(keyed!.root).not.toBe(plain!.root);
    expect((await f.fleet.answers.roots('web')).items).toEqual([keyed]);
    expect(chunks(await allOf({ a: 'golden', b: 'web' }))).toEqual([
      [10, 2, 2],
      [14, 1, 1],
      [900, 5, 5],
    ]);
    await expect(f.fleet.answers.prove('web@mon', undefined, { offset: 0, length: 1 })).rejects.toMatchObject(
      { code: 'ids-keyed' },
    );
  });

  test('a proof of any range of a backup gives its bytes under its root', async () => {
    await populate();
    const { root, sizeBytes } = await f.fleet.diskRoot('web@mon', 'disk0');
    await write('web', 10, 2, 88); // the backup stays what it is
    const disk = await f.fleet.attach('web@mon');
    for (const [offset, length] of [
      [0, 1],
      [9 * CHUNK - 3, 8 * CHUNK],
      [299 * CHUNK, 3 * CHUNK],
      [600 * CHUNK + 5, 100],
      [sizeBytes - 96 * CHUNK - 1, 96 * CHUNK + 1],
    ] as const) {
      const proven = checkProof(await f.fleet.answers.prove('web@mon', undefined, { offset, length }));
      expect(Buffer.from(proven.rootId).toString('hex')).toBe(root);
      expect(proven).toMatchObject({ sizeBytes, offset, length });
      const bytes = new Uint8Array(length);
      await disk.read(offset, length, bytes, 0);
      expect(Buffer.compare(proven.data, bytes)).toBe(0);
    }
    await disk.close();
  });

  test('only so many proofs are made at one time', async () => {
    await populate();
    const range = { offset: 0, length: 100 * CHUNK };
    const made = await Promise.allSettled(
      Array.from({ length: 20 }, () => f.fleet.answers.prove('web@mon', 'disk0', range)),
    );
    const refused = made.filter(({ status }) => status === 'rejected');
    expect(refused.length).toBe(20 - FLEET_LIMITS.proofsMax);
    for (const one of refused) expect(one).toMatchObject({ reason: { code: 'too-busy' } });
    expect(checkProof(await f.fleet.answers.prove('web@mon', 'disk0', range)).chunks).toBe(100);
  });

  test('there is no proof of what is no range of the disk, or longer than a proof may be', async () => {
    await f.fleet.createVm({ name: 'big', disks: [{ name: 'disk0', sizeBytes: 64 * 1024 * 1024 }] });
    await f.fleet.createBackup('big', { name: 'x' });
    const prove = (...args: Parameters<Fixture['fleet']['answers']['prove']>) =>
      f.fleet.answers.prove(...args);
    for (const range of [
      { offset: -1, length: 1 },
      { offset: 0, length: 0 },
      { offset: 64 * 1024 * 1024, length: 1 },
      { offset: 0, length: PROOF_RANGE_BYTES_MAX + 1 },
    ]) {
      await expect(prove('big@x', undefined, range)).rejects.toMatchObject({ code: 'range-invalid' });
    }
    expect(
      checkProof(await prove('big@x', 'disk0', { offset: 512, length: PROOF_RANGE_BYTES_MAX })).chunks,
    ).toBe(0);
    await expect(prove('big@x', 'disk1', { offset: 0, length: 1 })).rejects.toMatchObject({
      code: 'disk-missing',
    });
    await expect(prove('big', undefined, { offset: 0, length: 1 })).rejects.toMatchObject({
      code: 'backup-missing',
    });
  });
});
