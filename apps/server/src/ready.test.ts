import { expect, test } from 'vitest';
import { readyChecks, type ReadyParts } from './ready.ts';

const GOOD: ReadyParts = {
  state: 'ready',
  failure: undefined,
  volumes: { damaged: [], logBytes: 2 ** 20, overlayBytes: 4096 },
  damagedRuns: 0,
  disk: { freeBytes: 5 * 2 ** 30, isScarce: false },
  isMirrorBehind: false,
  failingWebhooks: 0,
  lostEvents: 0,
  certificates: [],
};
const NAMES = ['store', 'disk', 'log', 'damage', 'mirror', 'webhooks', 'events', 'certificates'];

test('a server that nothing is wrong with has all checks, and all are ok', () => {
  const checks = readyChecks(GOOD);
  expect(checks.map(({ name }) => name)).toEqual(NAMES);
  expect(new Set(checks.map(({ status }) => status))).toEqual(new Set(['ok']));
  expect(checks[1]).toEqual({ name: 'disk', status: 'ok', detail: '5.0 GiB free' });
});

test.each<[string, Partial<ReadyParts>, string, 'warning' | 'failed', RegExp]>([
  ['a full disk', { state: 'full' }, 'store', 'failed', /full/],
  ['a failed sync', { state: 'failed', failure: 'EIO' }, 'store', 'failed', /EIO/],
  ['scarce room', { disk: { freeBytes: 2 ** 20, isScarce: true } }, 'disk', 'warning', /1.0 MiB free/],
  ['damage below a write', { volumes: { ...GOOD.volumes, damaged: [3] } }, 'damage', 'warning', /1 disks/],
  ['damaged runs', { damagedRuns: 2 }, 'damage', 'warning', /2 runs/],
  ['a mirror that is behind', { isMirrorBehind: true }, 'mirror', 'warning', /mirrored/],
  ['a webhook that fails', { failingWebhooks: 1 }, 'webhooks', 'warning', /1 do not/],
  ['lost events', { lostEvents: 7 }, 'events', 'warning', /7 came/],
  ['a certificate that ends', { certificates: ['It ends.'] }, 'certificates', 'warning', /It ends/],
])('%s is one check, and no other', (_what, wrong, name, status, detail) => {
  const found = readyChecks({ ...GOOD, ...wrong }).filter((check) => check.status !== 'ok');
  expect(found).toEqual([{ name, status, detail: expect.stringMatching(detail) as string }]);
});
