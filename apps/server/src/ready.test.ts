import { expect, test } from 'vitest';
import { readyChecks, sharedLook, type ReadyParts } from './ready.ts';
import { TestClock } from './testing/test-clock.ts';

const GOOD: ReadyParts = {
  state: 'ready',
  failure: undefined,
  volumes: { damaged: [], logBytes: 2 ** 20, logBytesMax: 2 ** 30, overlayBytes: 4096 },
  damagedRuns: 0,
  disk: { freeBytes: 5 * 2 ** 30, isScarce: false },
  policies: { lagMs: 20_000, failingRules: 0, failing: [] },
  auditFailure: undefined,
  isMirrorBehind: false,
  failingWebhooks: 0,
  lostEvents: 0,
  certificates: [],
};
const NAMES = [
  'store',
  'disk',
  'log',
  'damage',
  'policies',
  'audit',
  'mirror',
  'webhooks',
  'events',
  'certificates',
];

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
  [
    'a log that fills up',
    { volumes: { ...GOOD.volumes, logBytes: 9e8 } },
    'log',
    'warning',
    /858 MiB of 1.0/,
  ],
  [
    'a policy that leaves VMs without a backup',
    { policies: { lagMs: 0, failingRules: 4, failing: [{ policy: 'nightly', rule: 'daily', vms: 3 }] } },
    'policies',
    'warning',
    /of nightly\/daily and 3 more: /,
  ],
  [
    'policies that are overdue',
    { policies: { ...GOOD.policies, lagMs: 3_600_000 } },
    'policies',
    'warning',
    /waits for 60 minutes/,
  ],
  [
    'policies whose records are damaged',
    { policies: { unreadable: 'record x is damaged' } },
    'policies',
    'warning',
    /cannot be read: record x/,
  ],
  [
    'an audit trail that cannot be written',
    { auditFailure: 'ENOSPC' },
    'audit',
    'failed',
    /refused.*: ENOSPC/,
  ],
  ['a mirror that is behind', { isMirrorBehind: true }, 'mirror', 'warning', /mirrored/],
  ['a webhook that fails', { failingWebhooks: 1 }, 'webhooks', 'warning', /1 do not/],
  ['lost events', { lostEvents: 7 }, 'events', 'warning', /7 came/],
  ['a certificate that ends', { certificates: ['It ends.'] }, 'certificates', 'warning', /It ends/],
])('%s is one check, and no other', (_what, wrong, name, status, detail) => {
  const found = readyChecks({ ...GOOD, ...wrong }).filter((check) => check.status !== 'ok');
  expect(found).toEqual([{ name, status, detail: expect.stringMatching(detail) as string }]);
});

test('whoever asks at about the same time is given one answer; a look that failed is none', async () => {
  const clock = new TestClock();
  let looks = 0;
  const ask = sharedLook(clock, 500, () => {
    looks++;
    return looks === 2 ? Promise.reject(new Error('no')) : Promise.resolve(readyChecks(GOOD));
  });
  const first = await Promise.all([ask(), ask()]);
  expect(first[0]).toBe(first[1]);
  clock.ms += 499;
  expect(await ask()).toBe(first[0]);
  clock.ms += 1;
  await expect(ask()).rejects.toThrow('no');
  expect(await ask()).toEqual(first[0]);
  expect(looks).toBe(3);
});
