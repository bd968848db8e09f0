/**
 * Verifications of a store, one by one, and what is kept of them in the catalog, so that a restart does not forget it:
 *
 *     verification    full | quick    → the last that ran to its end
 *     verification    unfinished      → how far a full one has come that is under way, or was cut off
 */
import type { LastVerifications, VerifyReport } from '@pando/api';
import { checkRecord, type Catalog } from '@pando/catalog';
import type { VerifyPosition } from '@pando/chunk-store';
import type { Clock } from '@pando/common';
import { verifyAll, type Verifiable, type VerifyWork } from './verify.ts';

const TABLE = 'verification';
const VERSION = 1;

/** Damaged places that are kept; those of the job's own result are more. */
const KEPT_PLACES_MAX = 100;

/** A machine that slept, or was busy elsewhere, does not make up for more than this. */
const LATE_MS_MAX = 100;

/** How far one is, is kept so often: what a killed server has to read again. */
const KEEP_MS = 30_000;

/** What was read longer ago says little: who goes on with it begins anew. 100 TiB at 100 MiB a second take 12 days. */
const RESUME_MS_MAX = 30 * 24 * 60 * 60_000;

export interface StoredVerification {
  readonly version: 1;
  /** Milliseconds since 1970. */
  readonly startedAt: number;
  readonly endedAt: number;
  readonly seconds: number;
  readonly scheduled: boolean;
  readonly report: VerifyReport;
  /** Of a full one: what came since, and what is damaged, is found from here. Absent in records of before there was this field. */
  readonly position?: VerifyPosition;
  /** When a repair last looked again at what is damaged by `report`. */
  readonly updatedAt?: number;
}

interface StoredUnfinished {
  readonly version: 1;
  /** Milliseconds since 1970, of its beginning and of this record. */
  readonly startedAt: number;
  readonly keptAt: number;
  /** That it took so far. */
  readonly seconds: number;
  /** Of all segments, when this was kept. */
  readonly allBytes: number;
  readonly position: VerifyPosition;
}

export interface VerificationParts extends Verifiable {
  readonly clock: Clock;
  /** Told of a verification that found damage: it may be in what no disk refers to. */
  readonly onDamage?: () => void;
  /** Told what is amiss beside the verification itself: its result could not be kept. */
  readonly onNotKept?: (error: unknown) => void;
}

export interface VerificationOptions {
  /** The server began it by itself. */
  readonly scheduled?: boolean;
  /** Go on where an unfinished one was cut off, when there is one; not for quick ones. */
  readonly resume?: boolean;
}

/** As `verifyAll`, and keeps the result; of a full one also, now and then, how far it is. */
export async function verifyAndKeep(
  parts: VerificationParts,
  work: VerifyWork = {},
  options: VerificationOptions = {},
): Promise<VerifyReport> {
  return (await verifyAndTell(parts, work, options)).report;
}

/** As `verifyAndKeep`. Resolves to what there is to be kept, all damaged places included. */
export async function verifyAndTell(
  parts: VerificationParts,
  work: VerifyWork = {},
  { scheduled = false, resume = false }: VerificationOptions = {},
): Promise<StoredVerification> {
  const { catalog, clock } = parts;
  const before = resume && work.quick !== true ? await unfinished(catalog, clock) : undefined;
  const startedAt = before?.startedAt ?? clock.now();
  const start = clock.monotonic() - (before?.seconds ?? 0) * 1000;
  const seconds = (): number => (clock.monotonic() - start) / 1000;
  const trail = new Trail(parts, { startedAt, seconds });
  const { report, position } = await trail.run(work, before?.position);
  if (report.damaged.length > 0) parts.onDamage?.();
  const ended: StoredVerification = {
    version: VERSION,
    startedAt,
    endedAt: clock.now(),
    seconds: seconds(),
    scheduled,
    report,
    ...(report.quick ? {} : { position }),
  };
  await keepVerification(parts, ended);
  return ended;
}

/** Keeps what a verification found as the last one of its kind; of a full one, no unfinished one stays. */
export async function keepVerification(parts: VerificationParts, ended: StoredVerification): Promise<void> {
  const { report } = ended;
  const { damaged, moreDamaged } = report;
  const cut = Math.max(0, damaged.length - KEPT_PLACES_MAX);
  const value: StoredVerification = {
    ...ended,
    report: { ...report, damaged: damaged.slice(0, KEPT_PLACES_MAX), moreDamaged: moreDamaged + cut },
  };
  await orNotKept(parts, () =>
    parts.catalog.commit([
      { type: 'put', table: TABLE, key: report.quick ? 'quick' : 'full', value },
      ...(report.quick ? [] : [{ type: 'delete', table: TABLE, key: 'unfinished' } as const]),
    ]),
  );
}

/** The last full one. @throws `catalog-corrupt`, `store-newer` */
export function lastFull(catalog: Catalog): Promise<StoredVerification | undefined> {
  return read<StoredVerification>(catalog, 'full');
}

/** What is to be kept is worth less than what was found: a full disk, too, leaves the latter. */
async function orNotKept({ onNotKept }: VerificationParts, keep: () => Promise<void>): Promise<void> {
  try {
    await keep();
  } catch (error) {
    onNotKept?.(error);
  }
}

/** A verification that leaves a trail: where another one can go on when it is cut off. */
class Trail {
  readonly #parts: VerificationParts;
  readonly #about: { readonly startedAt: number; readonly seconds: () => number };
  #position: VerifyPosition | undefined;
  #allBytes = 0;
  #keptAtMs: number;

  constructor(parts: VerificationParts, about: { startedAt: number; seconds: () => number }) {
    this.#parts = parts;
    this.#about = about;
    this.#keptAtMs = parts.clock.monotonic();
  }

  async run(work: VerifyWork, from: VerifyPosition | undefined): ReturnType<typeof verifyAll> {
    if (work.quick === true) return verifyAll(this.#parts, work);
    const { clock } = this.#parts;
    try {
      return await verifyAll(
        this.#parts,
        {
          ...work,
          onProgress: (progress) => {
            if (progress.phase === 'segments') this.#allBytes = progress.all ?? 0;
            work.onProgress?.(progress);
          },
          // Between two pieces, so that nothing goes on meanwhile.
          pace: async (bytes, signal) => {
            if (clock.monotonic() - this.#keptAtMs >= KEEP_MS) await this.#keep();
            await work.pace?.(bytes, signal);
          },
        },
        {
          ...(from === undefined ? {} : { from }),
          onPosition: (position) => (this.#position = position),
        },
      );
    } catch (error) {
      await this.#keep();
      throw error;
    }
  }

  async #keep(): Promise<void> {
    const { clock, catalog } = this.#parts;
    this.#keptAtMs = clock.monotonic();
    const position = this.#position;
    if (position === undefined) return;
    const value: StoredUnfinished = {
      version: VERSION,
      startedAt: this.#about.startedAt,
      keptAt: clock.now(),
      seconds: this.#about.seconds(),
      allBytes: this.#allBytes,
      position,
    };
    await orNotKept(this.#parts, () =>
      catalog.commit([{ type: 'put', table: TABLE, key: 'unfinished', value }]),
    );
  }
}

/** The one to go on with. A clock that was set back tells nothing about how old it is. */
async function unfinished(catalog: Catalog, clock: Clock): Promise<StoredUnfinished | undefined> {
  const found = await read<StoredUnfinished>(catalog, 'unfinished');
  if (found === undefined) return undefined;
  const age = clock.now() - found.startedAt;
  return age >= 0 && age <= RESUME_MS_MAX ? found : undefined;
}

/**
 * What the last verifications of each kind found, and how far an unfinished one is that can be gone on with.
 * @throws `catalog-corrupt`, `store-newer`
 */
export async function lastVerifications(catalog: Catalog, clock: Clock): Promise<LastVerifications> {
  const [full, quick, cutOff] = await Promise.all([
    lastFull(catalog),
    read<StoredVerification>(catalog, 'quick'),
    unfinished(catalog, clock),
  ]);
  return {
    ...(full === undefined ? {} : { full: asShown(full) }),
    ...(quick === undefined ? {} : { quick: asShown(quick) }),
    ...(cutOff === undefined ? {} : { unfinished: asUnfinished(cutOff) }),
  };
}

/** Whether it is time for a full one: `everyMs` after the last, or after the store was made. */
export async function isDue(
  catalog: Catalog,
  clock: Clock,
  everyMs: number,
  createdAt: number,
): Promise<boolean> {
  const age = clock.now() - ((await lastFull(catalog))?.endedAt ?? createdAt);
  return age >= everyMs || age < 0; // a clock that was set back tells nothing about when that was
}

/** Takes so much time that at most `bytesPerSecond` go by. */
export function paceOf(clock: Clock, bytesPerSecond: number): NonNullable<VerifyWork['pace']> {
  let due = clock.monotonic();
  return async (bytes, signal) => {
    due = Math.max(due, clock.monotonic() - LATE_MS_MAX) + (bytes / bytesPerSecond) * 1000;
    const ms = due - clock.monotonic();
    if (ms >= 1) await clock.sleep(ms, signal);
  };
}

async function read<R>(catalog: Catalog, key: string): Promise<R | undefined> {
  const value = await catalog.get(TABLE, key);
  if (value === undefined) return undefined;
  checkRecord(TABLE, key, value, VERSION);
  return value as R;
}

const shown = (ms: number): string => new Date(ms).toISOString();

function asUnfinished({
  startedAt,
  keptAt,
  allBytes,
  position,
}: StoredUnfinished): NonNullable<LastVerifications['unfinished']> {
  return {
    startedAt: shown(startedAt),
    keptAt: shown(keptAt),
    doneBytes: position.bytes,
    allBytes,
    damagedSegments: position.damagedSegments.length,
  };
}

function asShown({
  startedAt,
  endedAt,
  seconds,
  scheduled,
  report,
  updatedAt,
}: StoredVerification): NonNullable<LastVerifications['full']> {
  return {
    startedAt: shown(startedAt),
    endedAt: shown(endedAt),
    seconds,
    scheduled,
    report,
    ...(updatedAt === undefined ? {} : { updatedAt: shown(updatedAt) }),
  };
}
