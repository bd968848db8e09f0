import { MemoryCatalog, type CatalogOperation } from '@pando/catalog';
import { PandoError } from '@pando/common';
import { beforeEach, expect, test } from 'vitest';
import { EventLog, type EventFilter, type EventLimits } from './log.ts';
import { ManualClock, START_MS } from './testing/manual-clock.ts';
import type { KeptEvent } from './types.ts';

class RefusingCatalog extends MemoryCatalog {
  refusal: PandoError | undefined;
  commits = 0;

  override async commit(operations: readonly CatalogOperation[]): Promise<void> {
    if (this.refusal !== undefined) throw this.refusal;
    this.commits++;
    await super.commit(operations);
  }
}

let catalog: RefusingCatalog;
let clock: ManualClock;
let troubles: unknown[];
beforeEach(() => {
  catalog = new RefusingCatalog();
  clock = new ManualClock();
  troubles = [];
});

const open = (limits: Partial<EventLimits> = {}): Promise<EventLog> =>
  EventLog.open({ catalog, clock, limits, onTrouble: (error) => troubles.push(error) });

const raise = (log: EventLog, text: string): void => log.raise({ kind: 'job-failed', text, subject: 'web' });

async function all(log: EventLog, filter: EventFilter = {}, limit = 1000): Promise<KeptEvent[]> {
  const found: KeptEvent[] = [];
  for (let before: number | undefined; ;) {
    const page = await log.list({ ...filter, limit, ...(before === undefined ? {} : { before }) });
    expect(page.items.length).toBeLessThanOrEqual(limit);
    found.push(...page.items);
    if (page.next === undefined) return found;
    before = page.next;
  }
}
const texts = (events: readonly KeptEvent[]): string[] => events.map(({ text }) => text);
/** Until what was raised is shown. */
const settled = async (log: EventLog, id: number): Promise<void> => {
  while (log.newestId < id) await new Promise((resolve) => setImmediate(resolve));
};

test('what is raised is kept, newest first, with an id, the time and how bad it is; a restart loses none of it', async () => {
  const log = await open();
  log.raise({ kind: 'store-full', text: 'full', data: { freeBytes: 5, where: 'disk', ok: false } });
  log.raise({ kind: 'store-ready', text: 'ready' });
  clock.advance(1000);
  raise(log, 'later');
  await log.close();
  raise(log, 'after the end');
  const again = await open();
  expect(await all(again)).toEqual([
    {
      ...{ id: START_MS + 1000, at: START_MS + 1000, kind: 'job-failed', severity: 'warning' },
      ...{ text: 'later', subject: 'web' },
    },
    { id: START_MS + 1, at: START_MS, kind: 'store-ready', severity: 'info', text: 'ready' },
    {
      ...{ id: START_MS, at: START_MS, kind: 'store-full', severity: 'error', text: 'full' },
      data: { freeBytes: 5, where: 'disk', ok: false },
    },
  ]);
});

test('events raised in one turn go in one commit', async () => {
  const log = await open();
  for (let i = 0; i < 50; i++) raise(log, String(i));
  await log.close();
  expect(catalog.commits).toBe(1);
});

test('ids ascend although the clock is set back, over a restart too', async () => {
  const first = await open();
  raise(first, 'a');
  await first.close();
  clock.advance(-3_600_000);
  const log = await open();
  raise(log, 'b');
  await settled(log, START_MS + 1);
  const [b, a] = await all(log);
  expect(b).toMatchObject({ text: 'b', id: START_MS + 1, at: START_MS - 3_600_000 });
  expect(a!.id).toBe(START_MS);
});

test('pages of any size give all events once, filters those that they name', async () => {
  const log = await open({ batch: 3, scanned: 5 });
  for (let i = 0; i < 23; i++) {
    clock.advance(10);
    if (i % 3 === 0) log.raise({ kind: 'gc-failed', text: `g${i}` });
    else log.raise({ kind: 'store-ready', text: `r${i}`, subject: `vm${i % 2}` });
  }
  await log.close();
  const whole = texts(await all(log));
  expect(whole).toHaveLength(23);
  for (const limit of [1, 2, 4, 22, 23, 24])
    expect(texts(await all(log, {}, limit)), String(limit)).toEqual(whole);
  expect(texts(await all(log, { kinds: ['gc-failed'] }, 2))).toEqual(
    whole.filter((text) => text.startsWith('g')),
  );
  expect(texts(await all(log, { severity: 'warning' }))).toEqual(
    whole.filter((text) => text.startsWith('g')),
  );
  expect(await all(log, { subject: 'vm0' })).toHaveLength(8);
  expect(texts(await all(log, { since: START_MS + 210 }))).toEqual(['r22', 'g21', 'r20']);
});

test('the oldest go when there are too many, and when they are too old', async () => {
  const log = await open({ events: 10, ageMs: 60_000, batch: 4 });
  for (let i = 0; i < 25; i++) {
    raise(log, String(i));
    await settled(log, START_MS + i);
  }
  const kept = texts(await all(log));
  expect(kept.slice(0, 10)).toEqual(Array.from({ length: 10 }, (_, i) => String(24 - i)));
  expect(kept.length).toBeLessThanOrEqual(10);
  clock.advance(60_001);
  for (const text of ['x', 'y']) {
    raise(log, text);
    await new Promise((resolve) => setImmediate(resolve));
  }
  await log.close();
  expect(texts(await all(log))).toEqual(['y', 'x']);
});

test('a follower gets what came after its place, then what comes, each once, however it came; it is told when nothing does', async () => {
  const log = await open({ batch: 2 });
  for (let i = 0; i < 5; i++) raise(log, String(i));
  await settled(log, START_MS + 4);
  const stop = new AbortController();
  const found: (string | undefined)[] = [];
  const reading = (async () => {
    for await (const event of log.follow(START_MS + 1, {}, stop.signal, 5)) {
      found.push(event?.text);
      if (event?.text === 'last') return;
    }
  })();
  while (!found.includes(undefined)) {
    clock.advance(5);
    await new Promise((resolve) => setImmediate(resolve));
  }
  for (const text of ['a', 'b', 'last']) raise(log, text);
  await reading;
  expect(found.filter((text) => text !== undefined)).toEqual(['2', '3', '4', 'a', 'b', 'last']);
  const stopped = log.follow(0, { kinds: ['none'] }, stop.signal, 60_000).next();
  stop.abort();
  expect(await stopped).toEqual({ done: true, value: undefined });
  const closed = log.follow(0, { kinds: ['none'] }, new AbortController().signal, 60_000).next();
  await log.close();
  expect(await closed).toEqual({ done: true, value: undefined });
});

test('when the catalog takes nothing, events are shown all the same, a bounded number waits, and they are kept once it works again', async () => {
  const log = await open({ waiting: 3 });
  raise(log, 'before');
  await settled(log, START_MS);
  catalog.refusal = new PandoError('store-full', 'no room');
  for (const text of ['a', 'b']) {
    raise(log, text);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  expect(texts(await all(log))).toEqual(['b', 'a', 'before']);
  expect(troubles).toHaveLength(2);
  raise(log, 'c');
  raise(log, 'too many');
  expect(log.lost).toBe(1);
  await new Promise((resolve) => setTimeout(resolve, 1));
  const stop = new AbortController();
  const followed: string[] = [];
  for await (const event of log.follow(START_MS, {}, stop.signal, 1000)) {
    followed.push(event!.text);
    if (followed.length === 3) break;
  }
  expect(followed).toEqual(['a', 'b', 'c']);
  expect(texts(await all(await open()))).toEqual(['before']);
  catalog.refusal = undefined;
  await log.close();
  expect(texts(await all(await open()))).toEqual(['c', 'b', 'a', 'before']);
});

test('long texts are cut, and what is no text of Unicode does not keep others out', async () => {
  const log = await open({ textCharacters: 5 });
  log.raise({ kind: 'job-failed', text: '123456', subject: 'ab\ud800', data: { why: 'abcdefg' } });
  await log.close();
  expect(await all(log)).toMatchObject([{ text: '12345', subject: 'ab\ufffd', data: { why: 'abcde' } }]);
});
