import { seededRandom } from '@pando/common/testing';
import { describe, expect, it } from 'vitest';
import { RULES, type Rule } from './detector.ts';
import {
  archive,
  camera,
  database,
  DAY_MS,
  desktop,
  during,
  encrypting,
  fileServer,
  fresh,
  GiB,
  HOUR_MS,
  live,
  MiB,
  MONDAY_MS,
  NOTHING,
  PROFILES,
  STEP_MS,
  webServer,
  type Lived,
  type Profile,
} from './testing/profiles.ts';

/** Machines of each kind; more are asked for to measure rates: docs/adr/0018. */
const SEEDS = Number(process.env['PANDO_TRIPWIRE_SEEDS'] ?? 2);
const DAYS = Number(process.env['PANDO_TRIPWIRE_DAYS'] ?? 25);

function lived(profile: Profile, days: number, seed = 1, rule: Rule = RULES.normal): Lived {
  return live(profile, days * DAY_MS, seededRandom(seed), rule);
}

const tripsOf = (profile: Profile, days: number, seed = 1): readonly number[] =>
  lived(profile, days, seed).trips.map(({ at }) => at);

describe('does not trip', () => {
  it.each(Object.keys(PROFILES) as (keyof typeof PROFILES)[])('for the daily life of a %s', (kind) => {
    let trips = 0;
    for (let seed = 0; seed < SEEDS; seed++) trips += lived(PROFILES[kind], DAYS, seed).trips.length;
    if (SEEDS > 10) console.info(`${kind}: ${trips} trips in ${SEEDS * DAYS} days`);
    // Who downloads may do so far beyond the habit of his first days.
    else expect(trips).toBeLessThanOrEqual(kind === 'desktop' ? 1 : 0);
  });

  const [from, until] = [20 * DAY_MS, 20 * DAY_MS + 6 * HOUR_MS];
  const sudden: Record<string, Profile> = {
    'a database is loaded': () => fresh(3 * GiB, 0.03),
    'all packages are upgraded': (at) => (at < HOUR_MS ? fresh(300 * MiB, 0.3) : NOTHING),
    'a file system is defragmented': () => fresh(20 * MiB, 0.5, 4 * GiB),
    'a disk is trimmed, or overwritten with zeros': () => ({
      ...fresh(0, 0),
      writtenBytes: 10 * GiB,
      zeroBytes: 10 * GiB,
    }),
    'what was deleted is copied back': () => fresh(50 * MiB, 0.3, 5 * GiB),
  };
  it.each(Object.keys(sudden))('when %s', (what) => {
    for (const profile of [webServer, database, fileServer]) {
      expect(tripsOf(during(profile, sudden[what]!, from, until), 24)).toEqual([]);
    }
  });

  it('for a machine that is new, however much it writes', () => {
    const filled: Profile = (_at, random) => fresh((1 + random()) * GiB, 0.9);
    expect(tripsOf(during(NOTHING_WRITTEN, filled, 0, 8.9 * DAY_MS), 8.9)).toEqual([]);
    // Filled in its first two days, and then with less.
    const setUp = during(database, () => fresh(5 * GiB, 0.97), 0, 2 * DAY_MS);
    expect(tripsOf(setUp, 30)).toEqual([]);
  });

  it('for a habit, weekly or monthly, after it was seen once', () => {
    const monthly = (first: number): Profile => {
      return (at, random) =>
        at >= first && (at - first) % (30 * DAY_MS) < HOUR_MS ? fresh(2 * GiB, 0.99) : webServer(at, random);
    };
    expect(tripsOf(monthly(5 * DAY_MS), 130)).toEqual([]);
    // The first time that it happened when it was known that it does not happen.
    expect(tripsOf(monthly(15 * DAY_MS), 130).map((at) => Math.floor(at / DAY_MS))).toEqual([15]);
  });

  it('where everything is raw already, and says so', () => {
    const { trips, isBlind } = lived(during(camera, encrypting(100 * MiB, 500 * GiB), from), 21);
    expect({ trips, isBlind }).toEqual({ trips: [], isBlind: true });
  });
});

describe('trips', () => {
  const start = 20 * DAY_MS + 10 * HOUR_MS + 7 * STEP_MS;

  it.each(['webServer', 'database', 'fileServer', 'ciRunner', 'logHost', 'desktop', 'archive'] as const)(
    'when the disk of a %s is encrypted',
    (kind) => {
      const delays: number[] = [];
      for (let seed = 0; seed < SEEDS; seed++) {
        const { trips } = lived(during(PROFILES[kind], encrypting(60 * MiB, 150 * GiB), start), 21, seed);
        const trip = trips.find(({ at }) => at > start);
        if (trip === undefined) continue;
        delays.push((trip.at - start) / 60_000);
        // Not after it, and not so early that hours of good backups are given away.
        const since = trip.jump.since - MONDAY_MS;
        expect(since).toBeLessThanOrEqual(start);
        expect(since).toBeGreaterThanOrEqual(start - HOUR_MS);
      }
      delays.sort((a, b) => a - b);
      const middle = delays[delays.length >> 1];
      if (SEEDS > 10)
        console.info(`${kind}: ${delays.length} of ${SEEDS}, after ${middle} min, ${delays.at(-1)} at most`);
      else expect(delays.length).toBe(SEEDS);
    },
  );

  it('when it goes slowly', () => {
    // GiB a day; no hour of it is unlike what a file server does.
    for (const [profile, gib] of [
      [webServer, 4],
      [fileServer, 16],
      [archive, 4],
    ] as const) {
      const [at] = tripsOf(during(profile, encrypting((gib * GiB) / 86_400, 200 * GiB), start), 24);
      expect(at! - start).toBeLessThan(2 * DAY_MS);
    }
  });

  it('once while it goes on, and again when it happens again', () => {
    const twice = during(
      during(webServer, encrypting(10 * MiB, 100 * GiB), start),
      encrypting(100 * MiB, 500 * GiB),
      start + 10 * DAY_MS,
    );
    expect(tripsOf(twice, 40)).toHaveLength(2);
  });

  it('also when an attack was in the history, once that is long enough to tell an exception', () => {
    const before = during(webServer, encrypting(50 * MiB, 100 * GiB), 40 * DAY_MS, 40 * DAY_MS + HOUR_MS);
    const again = during(before, encrypting(50 * MiB, 100 * GiB), 75 * DAY_MS);
    expect(tripsOf(again, 77).map((at) => Math.floor(at / DAY_MS))).toEqual([40, 75]);
  });

  it('the sooner the more sensitive it is', () => {
    const slowly = during(desktop, encrypting(MiB, 100 * GiB), start);
    const [high, normal, low] = [RULES.high, RULES.normal, RULES.low].map((rule) => {
      return lived(slowly, 24, 3, rule).trips.find(({ at }) => at > start)?.at ?? Infinity;
    });
    expect(high).toBeLessThan(normal!);
    expect(normal).toBeLessThan(low!);
  });
});

const NOTHING_WRITTEN: Profile = () => NOTHING;
