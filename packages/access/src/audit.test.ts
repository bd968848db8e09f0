import { MemoryCatalog } from '@pando/catalog';
import { MemoryFileSystem, systemClock, type Clock, type File, type FileSystem } from '@pando/common';
import { between, CrashFileSystem, runSeed, seededRandom } from '@pando/common/testing';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { AuditTrail, type AuditOptions } from './audit.ts';
import type { AuditEntry } from './types.ts';
import { listAudit, verifyAudit } from './audit-files.ts';
import { readAuditKnown } from './audit-head.ts';

const DIRECTORY = '/audit';
let now: number;
const clock: Clock = { ...systemClock, now: () => now };
let disk: MemoryFileSystem;
let syncs: number;
/** What the next write, or sync, fails with. */
let failing: { write?: string; sync?: string; isOnce?: boolean };
let trail: AuditTrail;
/** What was asked of files. */
let asked: string[] = [];

/** The disk with faults. */
function faulty(): FileSystem {
  const wrap = (file: File): File =>
    new Proxy(file, {
      get(target, name: keyof File) {
        if (name === 'write' || name === 'sync') asked.push(name);
        if (name === 'write' && failing.write !== undefined)
          return async (parts: readonly Uint8Array[], at: number) => {
            // A part of it is there, as on a full disk.
            await target.write([parts[0]!.subarray(0, 10)], at);
            throw Object.assign(new Error(failing.write), { code: failing.write });
          };
        if (name === 'sync') {
          syncs++;
          const { sync, isOnce = false } = failing;
          if (isOnce) failing = {};
          if (sync !== undefined) return () => Promise.reject(new Error(sync));
        }
        const value: unknown = target[name];
        return typeof value === 'function' ? (value as () => unknown).bind(target) : value;
      },
    });
  return new Proxy(disk, {
    get(target, name: keyof FileSystem) {
      if (name === 'open')
        return async (path: string, mode: 'read' | 'write' | 'create') => wrap(await target.open(path, mode));
      const value: unknown = target[name];
      return typeof value === 'function' ? (value as () => unknown).bind(target) : value;
    },
  });
}

const open = (more: Partial<AuditOptions> = {}): Promise<AuditTrail> =>
  AuditTrail.open({ fs: faulty(), directory: DIRECTORY, clock, keepDays: 400, bytesMax: 2 ** 30, ...more });
const change = (request: string, more: object = {}) => ({
  ...{ request, operation: 'createVm', actor: { name: 'ci', tokenId: 't1' }, from: '10.0.0.1' },
  ...more,
});
async function lines(limit = 1000): Promise<AuditEntry[]> {
  return (await trail.list({ limit })).items;
}
async function content(name: string): Promise<string> {
  const file = await disk.open(`${DIRECTORY}/${name}`, 'read');
  const bytes = Buffer.alloc(await file.size());
  await file.read(bytes, 0);
  await file.close();
  return bytes.toString();
}
async function replace(name: string, text: string): Promise<void> {
  const file = await disk.open(`${DIRECTORY}/${name}`, 'write');
  await file.truncate(0);
  await file.write([Buffer.from(text)], 0);
  await file.close();
}

beforeEach(async () => {
  now = Date.UTC(2026, 10, 20, 23, 59);
  disk = new MemoryFileSystem();
  syncs = 0;
  failing = {};
  trail = await open();
});
afterEach(() => trail.close());

describe('the audit trail', () => {
  test('has what was asked for and what came of it, newest first, over restarts and days', async () => {
    const audited = change('r1', { subjects: ['web'], asked: { body: { name: 'web' } } });
    await trail.begin(audited);
    trail.end(audited, { status: 201, ms: 3 });
    await trail.close();
    now += 60_000;
    trail = await open();
    await trail.begin(change('r2'));
    expect(await lines()).toMatchObject([
      { n: 3, kind: 'change', request: 'r2', at: '2026-11-21T00:00:00.000Z' },
      { n: 2, kind: 'outcome', request: 'r1', operation: 'createVm', subjects: ['web'], status: 201, ms: 3 },
      { n: 1, kind: 'change', request: 'r1', actor: { name: 'ci', tokenId: 't1' }, from: '10.0.0.1' },
    ]);
    expect(await disk.list(DIRECTORY)).toEqual(['2026-11-20.jsonl', '2026-11-21.jsonl']);
    expect(await verifyAudit(disk, DIRECTORY)).toEqual({
      files: 2,
      lines: 3,
      problems: [],
      isHeadKnown: false,
    });
  });

  test('syncs once for all that wait, and not for outcomes', async () => {
    await trail.begin(change('first'));
    syncs = 0;
    await Promise.all(Array.from({ length: 50 }, (_, i) => trail.begin(change(`r${i}`))));
    expect(syncs).toBeLessThanOrEqual(2);
    const before = syncs;
    trail.end(change('r1'), { status: 200 });
    await lines();
    await new Promise((resolve) => setImmediate(resolve));
    expect(syncs).toBe(before);
    expect(await lines()).toHaveLength(52);
  });

  test('is listed by actor, operation, subject and time, page by page', async () => {
    await trail.begin(change('r1', { subjects: ['web'] }));
    now += 1000;
    await trail.begin(change('r2', { operation: 'deleteVm', actor: { name: 'socket' } }));
    now += 86_400_000;
    await trail.begin(change('r3', { subjects: ['db', 'id-1'] }));
    const requests = async (query: object) =>
      (await trail.list({ limit: 10, ...query })).items.map(({ request }) => request);
    expect(await requests({ actor: 'ci' })).toEqual(['r3', 'r1']);
    expect(await requests({ actor: 't1', subject: 'id-1' })).toEqual(['r3']);
    expect(await requests({ operation: 'deleteVm' })).toEqual(['r2']);
    expect(await requests({ since: now - 86_400_000 })).toEqual(['r3', 'r2']);
    expect(await requests({ until: now })).toEqual(['r2', 'r1']);
    const found: string[] = [];
    let cursor: string | undefined;
    do {
      const page = await trail.list({ limit: 1, ...(cursor === undefined ? {} : { cursor }) });
      found.push(...page.items.map(({ request }) => request));
      cursor = page.nextCursor;
    } while (cursor !== undefined);
    expect(found).toEqual(['r3', 'r2', 'r1']);
    await expect(trail.list({ limit: 1, cursor: 'nonsense' })).rejects.toMatchObject({
      code: 'cursor-invalid',
    });
  });

  test('shows a line that was changed or taken out, but for the last ones', async () => {
    for (const request of ['r1', 'r2', 'r3', 'r4']) await trail.begin(change(request));
    const name = '2026-11-20.jsonl';
    const text = await content(name);
    const all = text.trimEnd().split('\n');
    await replace(name, text.replace('"r2"', '"r9"'));
    const wrong = { file: name, problem: 'does not follow the line before it' };
    expect((await verifyAudit(disk, DIRECTORY)).problems).toEqual([{ ...wrong, line: 3 }]);
    await replace(name, `${[all[0], all[2], all[3]].join('\n')}\n`);
    expect((await verifyAudit(disk, DIRECTORY)).problems).toEqual([{ ...wrong, line: 2 }]);
    await replace(name, text.replace(all[1]!, 'x'));
    expect((await verifyAudit(disk, DIRECTORY)).problems).toHaveLength(2);
  });

  describe('whose end is kept in a catalog', () => {
    const NAME = '2026-11-20.jsonl';
    let catalog: MemoryCatalog;
    const reopen = async (): Promise<void> => {
      trail = await open({ catalog });
    };
    const problems = async (): Promise<string[]> =>
      (await verifyAudit(disk, DIRECTORY, await readAuditKnown(catalog))).problems.map(
        ({ problem }) => problem,
      );
    beforeEach(async () => {
      catalog = new MemoryCatalog();
      await reopen();
      for (const request of ['r1', 'r2', 'r3']) await trail.begin(change(request));
      trail.end(change('r3'), { status: 200 });
      await trail.close();
    });

    test('shows that the last lines are gone, at the start and ever after', async () => {
      expect(await problems()).toEqual([]);
      const all = (await content(NAME)).trimEnd().split('\n');
      await replace(NAME, `${all.slice(0, 2).join('\n')}\n`);
      const gone = 'what was written after number 2, up to 4, is missing or was changed';
      expect(await problems()).toEqual([gone]);
      await reopen();
      expect(trail.cut).toEqual({ after: 2, until: 4, at: now });
      await trail.begin(change('r4'));
      await trail.close();
      expect((await lines()).map(({ n }) => n)).toEqual([5, 2, 1]);
      expect(await problems()).toEqual([
        `${gone}, and was when the server started at 2026-11-20T23:59:00.000Z`,
      ]);
      await reopen();
      expect(trail.cut).toBeUndefined();
    });

    test('shows that all of it is gone, or that the last line is another', async () => {
      const text = await content(NAME);
      await replace(NAME, text.replace('"status":200', '"status":404'));
      const gone = 'what was written after number 3, up to 4, is missing or was changed';
      expect(await problems()).toEqual(['is not the line that the catalog knows by this number']);
      await reopen();
      expect(trail.cut).toMatchObject({ after: 3, until: 4 });
      expect(await problems()).toContainEqual(expect.stringContaining(gone));
      await trail.close();
      await disk.remove(`${DIRECTORY}/${NAME}`);
      await reopen();
      expect(trail.cut).toMatchObject({ after: 0, until: 4 });
    });

    test('takes lines that came later, a crash before they were kept, and files that are too old, for what they are', async () => {
      await reopen();
      await trail.begin(change('r4'));
      // Not closed: what is in the catalog is older.
      const stale = trail;
      await reopen();
      expect(trail.cut).toBeUndefined();
      expect(await problems()).toEqual([]);
      now += 86_400_000;
      await trail.begin(change('r5'));
      await disk.remove(`${DIRECTORY}/${NAME}`);
      await reopen();
      expect(trail.cut).toBeUndefined();
      expect(await problems()).toEqual([]);
      await stale.close();
    });

    test('is kept again and again, and only what is durable', async () => {
      let wake = (): void => undefined;
      const slow: Clock = {
        ...clock,
        sleep: (_ms, signal) =>
          new Promise((resolve, reject) => {
            wake = resolve;
            signal!.addEventListener('abort', () => reject(new Error('closed')));
          }),
      };
      trail = await open({ catalog, clock: slow });
      await trail.begin(change('r4'));
      trail.end(change('r4'), { status: 200 });
      while ((await lines()).length < 6) await Promise.resolve();
      wake();
      while ((await readAuditKnown(catalog)).head!.n === 4)
        await new Promise((resolve) => setImmediate(resolve));
      expect((await readAuditKnown(catalog)).head!.n).toBe(5);
    });
  });

  test('goes on behind the last whole line after a crash', async () => {
    await trail.begin(change('r1'));
    const name = '2026-11-20.jsonl';
    await replace(name, `${await content(name)}{"n":2,"at":"2026`);
    trail = await open();
    await trail.begin(change('r2'));
    expect((await lines()).map(({ request, n }) => [request, n])).toEqual([
      ['r2', 2],
      ['r1', 1],
    ]);
    expect((await verifyAudit(disk, DIRECTORY)).problems).toEqual([]);
  });

  test('refuses while nothing can be written, and goes on with whole lines when it can', async () => {
    await trail.begin(change('r1'));
    failing = { write: 'ENOSPC' };
    await expect(trail.begin(change('r2'))).rejects.toMatchObject({ code: 'audit-unavailable' });
    expect(trail.failure).toMatchObject({ code: 'audit-unavailable' });
    failing = {};
    await trail.begin(change('r3'));
    expect(trail.failure).toBeUndefined();
    expect((await lines()).map(({ request, n }) => [request, n])).toEqual([
      ['r3', 3],
      ['r1', 1],
    ]);
    expect((await verifyAudit(disk, DIRECTORY)).problems).toEqual([]);
  });

  describe('does not believe in a file of which a sync has failed', () => {
    const FIRST = '2026-11-20.jsonl';
    const SECOND = '2026-11-20~01.jsonl';
    const told = 'a sync failed: what was written after number 1, before this one, may be missing';
    const problems = async (): Promise<object[]> => (await verifyAudit(disk, DIRECTORY)).problems as object[];
    const seen = async () => (await lines()).map(({ n, kind, request }) => `${n} ${kind} ${request}`.trim());

    test('and goes on in another, with a line that says so', async () => {
      await trail.begin(change('r1'));
      trail.end(change('r1'), { status: 200 });
      while ((await lines()).length < 2) await Promise.resolve();
      failing = { sync: 'EIO', isOnce: true };
      await trail.begin(change('r2'));
      expect(trail.failure).toBeUndefined();
      await trail.begin(change('r3'));
      const kept = ['6 change r3', '5 change r2', '4 break'];
      expect(await seen()).toEqual([...kept, '3 change r2', '2 outcome r1', '1 change r1']);
      expect(await disk.list(DIRECTORY)).toEqual([FIRST, SECOND]);
      expect(await problems()).toEqual([{ file: SECOND, line: 1, problem: told }]);
      // After a power cut what was not durable is gone, or half there.
      const all = (await content(FIRST)).split('\n');
      for (const left of [`${all[0]}\n`, `${all[0]}\n${all[1]}\n`, `${all[0]}\n${all[1]!.slice(0, 9)}`]) {
        await replace(FIRST, left);
        expect(await problems()).toContainEqual({ file: SECOND, line: 1, problem: told });
        expect(await problems()).not.toContainEqual(expect.objectContaining({ file: SECOND, line: 2 }));
      }
      await replace(FIRST, `${all[0]}\n`);
      await trail.close();
      trail = await open();
      await trail.begin(change('r4'));
      expect(await seen()).toEqual(['7 change r4', ...kept, '1 change r1']);
      expect(await problems()).toEqual([{ file: SECOND, line: 1, problem: told }]);
    });

    test('and shows it when the line is gone that the break goes on from', async () => {
      for (const request of ['r0', 'r1']) await trail.begin(change(request));
      failing = { sync: 'EIO', isOnce: true };
      await trail.begin(change('r2'));
      const all = (await content(FIRST)).split('\n');
      await replace(FIRST, `${all[0]}\n`);
      expect(await problems()).toContainEqual({
        ...{ file: SECOND, line: 1, problem: 'does not follow the line before it' },
      });
      // It has become too old.
      await disk.remove(`${DIRECTORY}/${FIRST}`);
      expect(await problems()).toHaveLength(1);
    });

    test('refuses for a while where another fails too, and leaves nothing of that', async () => {
      let monotonic = 0;
      await trail.close();
      trail = await open({ clock: { ...clock, monotonic: () => monotonic } });
      await trail.begin(change('r1'));
      failing = { sync: 'EIO' };
      const refused = { code: 'audit-unavailable' };
      await expect(trail.begin(change('r2'))).rejects.toMatchObject(refused);
      failing = {};
      monotonic += 59_999;
      await expect(trail.begin(change('r3'))).rejects.toMatchObject(refused);
      expect(await disk.list(DIRECTORY)).toEqual([FIRST]);
      monotonic += 1;
      await trail.begin(change('r4'));
      expect(trail.failure).toBeUndefined();
      expect((await seen()).slice(0, 2)).toEqual(['7 change r4', '6 break']);
      expect(await problems()).toEqual([{ file: SECOND, line: 1, problem: told }]);
    });

    test('also not at the start: the end is written anew before anything follows it', async () => {
      await trail.begin(change('r1'));
      await trail.close();
      const before = await content(FIRST);
      asked = [];
      trail = await open();
      expect(asked).toEqual(['write', 'sync']);
      expect(await content(FIRST)).toBe(before);
      // Where that fails it goes on elsewhere.
      await trail.close();
      failing = { sync: 'EIO', isOnce: true };
      trail = await open();
      await trail.begin(change('r2'));
      expect(await disk.list(DIRECTORY)).toEqual([FIRST, SECOND]);
    });
  });

  test('has all that was acknowledged, whatever syncs fail and whenever the power goes', async () => {
    const random = seededRandom(runSeed());
    for (let round = 0; round < 60; round++) {
      let fs = new CrashFileSystem();
      const acknowledged: string[] = [];
      for (let life = 0; life < 4; life++) {
        let monotonic = 0;
        const audit = await open({ fs, clock: { ...clock, monotonic: () => monotonic } });
        for (let step = between(random, 1, 12); step > 0; step--) {
          const request = `${round}/${life}/${step}`;
          monotonic += between(random, 0, 40_000);
          now += between(random, 0, 20_000_000);
          if (random() < 0.3) fs.faults.failSyncOf = '.jsonl';
          if (random() < 0.3) audit.refuse(change(request), { status: 403 });
          const asking = Promise.all([audit.begin(change(request)), audit.begin(change(`${request}b`))]);
          await asking.then(
            () => acknowledged.push(request, `${request}b`),
            () => undefined,
          );
          audit.end(change(request), { status: 200 });
        }
        fs.faults.failSyncOf = undefined;
        if (random() < 0.3) await audit.close();
        const files = fs.paths().length;
        fs = random() < 0.5 ? fs.powerCut(random) : fs.kill();
        const { items } = await listAudit(fs, DIRECTORY, { limit: 1000 });
        const there = new Set(items.map(({ request }) => request));
        expect(
          acknowledged.filter((request) => !there.has(request)),
          `${files} files`,
        ).toEqual([]);
      }
      await (await open({ fs })).close();
      const { problems } = await verifyAudit(fs, DIRECTORY);
      // What was not acknowledged may be torn; each file goes on from what is certain.
      const untrue = problems.filter(
        ({ line, problem }) => line === 1 && !problem.startsWith('a sync failed'),
      );
      expect(untrue).toEqual([]);
    }
  });

  test('goes on from the last line where a crash has left a file without one', async () => {
    await trail.begin(change('r1'));
    await trail.close();
    await (await disk.open(`${DIRECTORY}/2026-11-21.jsonl`, 'create')).close();
    now += 60_000;
    trail = await open();
    await trail.begin(change('r2'));
    expect((await lines()).map(({ request, n }) => [request, n])).toEqual([
      ['r2', 2],
      ['r1', 1],
    ]);
    expect((await verifyAudit(disk, DIRECTORY)).problems).toEqual([]);
  });

  test('counts refusals that are too many', async () => {
    for (let i = 0; i < 100; i++) trail.refuse({ request: `r${i}`, operation: 'listVms' }, { status: 401 });
    now += 60_000;
    trail.refuse({ request: 'later', operation: 'listVms' }, { status: 401 });
    await trail.begin(change('r'));
    const found = await lines();
    expect(found).toHaveLength(62);
    expect(found[1]).toMatchObject({ kind: 'refusal', request: 'later', left: 40, status: 401 });
  });

  test('keeps files for so long, and so many bytes of them, and always the newest', async () => {
    for (let day = 0; day < 5; day++) {
      await trail.begin(change(`r${day}`, { asked: 'x'.repeat(500) }));
      now += 86_400_000;
    }
    await trail.close();
    const days = async () => (await disk.list(DIRECTORY)).map((name) => name.slice(8, 10));
    expect(await days()).toEqual(['20', '21', '22', '23', '24']);
    trail = await open({ keepDays: 3 });
    expect(await days()).toEqual(['22', '23', '24']);
    await trail.close();
    trail = await open({ bytesMax: 1500 });
    expect(await days()).toEqual(['23', '24']);
    await trail.close();
    trail = await open({ bytesMax: 1 });
    expect(await days()).toEqual(['24']);
    expect((await verifyAudit(disk, DIRECTORY)).problems).toEqual([]);
  });

  test('keeps its order when the clock is set back', async () => {
    await trail.begin(change('r1'));
    now -= 3 * 86_400_000;
    await trail.begin(change('r2'));
    trail = await open();
    await trail.begin(change('r3'));
    expect(await disk.list(DIRECTORY)).toEqual(['2026-11-20.jsonl']);
    expect((await lines()).map(({ request }) => request)).toEqual(['r3', 'r2', 'r1']);
  });

  test('leaves out of a line what makes it too long', async () => {
    await trail.begin(change('r1', { asked: 'x'.repeat(20_000) }));
    expect((await lines())[0]).toMatchObject({ asked: 'too long' });
  });
});
