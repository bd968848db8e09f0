/** The whole way: guests write, destages are counted, days go by, a disk is overwritten with what nothing compresses. */
import { fillRandom, seededRandom } from '@pando/common/testing';
import { afterEach, expect, it } from 'vitest';
import { DAY_MS, STEP_MS, HOUR_MS, MiB } from './testing/profiles.ts';
import { openWorld, type World } from './testing/world.ts';

const RULE = { factor: 4, floorBytes: 4 * MiB };
const rules = { low: { ...RULE, factor: 100 }, normal: RULE, high: RULE };
const DISK_BYTES = 32 * MiB;

let world: World;
afterEach(() => world.close());

/** A log that a guest writes: text, which compresses, and never the same. */
function text(at: number, bytes: number): Buffer {
  const lines: string[] = [];
  for (let line = 0; lines.length * 64 < bytes; line++) {
    lines.push(`${new Date(at).toISOString()} info request ${line} served, status=200 ok`.padEnd(63));
  }
  return Buffer.from(`${lines.join('\n')}\n`).subarray(0, bytes);
}

/** Ordinary days, with a backup at noon of each. */
async function live(vm: string, days: number): Promise<void> {
  const { clock, fleet, activity } = world;
  for (let hour = 0; hour < days * 24; hour += 4) {
    clock.advance(4 * HOUR_MS);
    await world.write(vm, (hour * 65_536) % DISK_BYTES, text(clock.ms, 65_536));
    clock.advance(STEP_MS);
    await activity.flush();
    if (hour % 24 === 12) await fleet.createBackup(vm);
    clock.ms -= STEP_MS;
  }
}

it('locks the last good backup and says so, once, when a disk is overwritten with random bytes', async () => {
  world = await openWorld({ rules });
  const { clock, fleet, activity, events } = world;
  const { id } = await fleet.createVm({ name: 'web', disks: [{ name: 'disk0', sizeBytes: DISK_BYTES }] });
  await live('web', 12);
  expect(events).toEqual([]);
  expect(await activity.tripwire(id)).toMatchObject({ state: 'quiet', limits: { hour: RULE.floorBytes } });
  clock.advance(HOUR_MS);
  const good = (await fleet.listBackups({ vm: 'web', limit: 1 })).items[0]!;

  const began = clock.ms;
  const random = seededRandom(7);
  for (let at = 0; at < DISK_BYTES / 2; at += MiB) {
    await world.write('web', at, fillRandom(random, new Uint8Array(MiB)));
    clock.advance(30_000);
    // Of what is encrypted in half, and too late.
    if (at === 4 * MiB) await fleet.createBackup('web', { name: 'bad' });
    if (at % (4 * MiB) === 0) await activity.flush();
  }
  await activity.flush();

  expect(events).toHaveLength(1);
  const [event] = events;
  expect(event).toMatchObject({ kind: 'encryption-suspected', subject: 'web', data: { backupId: good.id } });
  expect(event!.text).toMatch(/^web writes as if its disk were being encrypted, since 2026-01-17T/);
  expect(event!.text).toContain(`The last backup before that, web@${good.name}, is locked until 2026-02-16T`);
  const { state, trip } = await activity.tripwire(id);
  expect({ state, backup: trip!.backup }).toEqual({
    state: 'jump',
    backup: { id: good.id, name: good.name },
  });
  expect(began - trip!.since).toBeLessThan(STEP_MS);
  expect(trip!.since).toBeLessThanOrEqual(began);
  expect(trip!.lockedUntil).toBe(trip!.at + 30 * DAY_MS);
  expect(activity.stats).toEqual({ trips: 1, uncountedBytes: 0 });

  await expect(fleet.deleteBackup(good.id)).rejects.toMatchObject({ code: 'backup-locked' });
  await fleet.deleteBackup('web@bad');
  await fleet.restoreBackup(good.id);
  // The rest of the same, and what comes when the VM is as it was.
  clock.advance(HOUR_MS);
  await world.write('web', 0, fillRandom(random, new Uint8Array(8 * MiB)));
  await activity.flush();
  await live('web', 4);
  expect(events).toHaveLength(1);
  expect((await activity.tripwire(id)).state).toBe('quiet');
});

it('counts for the VM whose guest wrote, not for its clones and backups, and tells data from nodes', async () => {
  world = await openWorld({ rules });
  const { fleet, activity } = world;
  const { id } = await fleet.createVm({ name: 'web', disks: [{ name: 'disk0', sizeBytes: DISK_BYTES }] });
  const disk = await fleet.attach('web');
  const random = fillRandom(seededRandom(3), new Uint8Array(64 * 1024));
  await disk.write(0, random);
  await disk.write(MiB, text(0, 128 * 1024));
  const [clone] = await fleet.cloneVm('web', { name: 'clone' });
  await fleet.createBackup('web');
  await disk.close();
  await world.write('clone', 2 * MiB, random.subarray(0, 32 * 1024));
  const amounts = async (vm: string): Promise<object | undefined> => {
    const { items } = await activity.buckets(vm, '5m', { limit: 10 });
    const [bucket, ...more] = items;
    expect(more).toEqual([]);
    if (bucket === undefined) return undefined;
    const { writtenBytes, zeroBytes, knownBytes, newBytes, rawBytes } = bucket;
    // With headers of runs.
    expect(bucket.storedBytes).toBeLessThanOrEqual(1.02 * rawBytes + (newBytes - rawBytes) / 3);
    return { writtenBytes, zeroBytes, knownBytes, newBytes, rawBytes };
  };
  const KiB = 1024;
  const source = {
    writtenBytes: 192 * KiB,
    zeroBytes: 0,
    knownBytes: 0,
    newBytes: 192 * KiB,
    rawBytes: 64 * KiB,
  };
  expect(await amounts(id)).toEqual(source);
  const copy = { writtenBytes: 32 * KiB, zeroBytes: 0, knownBytes: 32 * KiB, newBytes: 0, rawBytes: 0 };
  expect(await amounts(clone!.id)).toEqual(copy);
  await activity.flush();
  expect(await amounts(id)).toEqual(source);
  expect((await activity.buckets(id, '1d', { limit: 1 })).items[0]).toMatchObject(source);
});
