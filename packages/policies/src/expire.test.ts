import type { Backup } from '@pando/fleet';
import { expect, test } from 'vitest';
import type { PolicyContext } from './context.ts';
import { look } from './expire.ts';
import { EXPIRED_MAX } from './limits.ts';
import { partsOf } from './records.ts';
import { START } from './testing/world.ts';

const MINUTE_MS = 60_000;

test('the oldest of very many backups go as they get too old', async () => {
  const keepForMinutes = 30_000;
  const tooOld = EXPIRED_MAX + 1;
  const at = (minutes: number): string => new Date(START - minutes * MINUTE_MS).toISOString();
  // Newest first, one a minute.
  const there = Array.from({ length: keepForMinutes + tooOld }, (_, i) => ({
    id: String(i),
    createdAt: at(i),
  }));
  const gone: string[] = [];
  const fleet = {
    trustedTime: () => ({ now: START, isBehind: false }),
    listBackups: ({ cursor = '0', limit }: { cursor?: string; limit: number }) => {
      const end = Number(cursor) + limit;
      const items = there.slice(Number(cursor), end) as unknown as readonly Backup[];
      return Promise.resolve(end < there.length ? { items, nextCursor: String(end) } : { items });
    },
    expireBackup: (id: string) => {
      gone.push(id);
      return Promise.resolve(true);
    },
  };
  const ctx = { fleet, counters: { runs: 0, backups: 0, failures: 0, expired: 0 } };
  const rule = { name: 'r', schedule: { timeZone: 'UTC', everyMinutes: 1 }, retention: { keepForMinutes } };
  const [next] = await look(ctx as unknown as PolicyContext, 'p', rule, 'vm');
  expect(gone).toEqual(there.slice(keepForMinutes, keepForMinutes + EXPIRED_MAX).map(({ id }) => id));
  expect(ctx.counters.expired).toBe(EXPIRED_MAX);
  expect(partsOf(next!.key).at).toBe(START);
});
