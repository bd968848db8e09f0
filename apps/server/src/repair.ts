/**
 * Repair: chunks that disks need and that are damaged or missing, out of a source that holds the same bytes.
 *
 * What is lost is known from a verification. The source is read from front to back and made into a tree as an import makes
 * it, without storing it; where a chunk or node turns up whose id is wanted, that one is stored anew, and the store counts
 * on the new copy from then on. Nothing else of the source is stored. As ids are hashes, a source cannot lie.
 *
 * Below a damaged node nobody knows what else is lost. So after a reading that brought a node back it is looked again, and
 * when more is wanted then, the source is read again: as often as a tree is high, at most.
 */
import type { RepairReport, RepairSource } from '@pando/api';
import type { ChunkStore, WriteSession } from '@pando/chunk-store';
import { ID_BYTES, IdSet } from '@pando/common';
import { NODE_BYTES, rootOf } from '@pando/tree';
import {
  keepVerification,
  lastFull,
  verifyAndTell,
  type StoredVerification,
  type VerificationParts,
} from './verification.ts';
import { verifyAll, type Verified, type VerifyWork } from './verify.ts';

/** Lost chunks that are looked for in one reading: 40 MiB of memory. */
const WANTED_MAX = 1_000_000;

export type RepairWork = Pick<VerifyWork, 'signal' | 'onProgress'>;

/**
 * Repairs what the last full verification found damaged, what has become known since, and what is in segments that came
 * since; without one that found damage, everything is verified first. When the source fails, or the work is cancelled, what was
 * found until then is repaired. No collection may run meanwhile.
 * @throws what the source throws; `cancelled`, `store-full`, `store-failed`
 */
export async function repair(
  parts: VerificationParts,
  source: RepairSource,
  work: RepairWork = {},
): Promise<RepairReport> {
  const base = await knownDamage(parts, work);
  const from = base.position!;
  const look = async (): Promise<Verified & { wanted: Wanted }> => {
    const wanted = new Wanted();
    const onLost = (ids: Uint8Array, offset: number, level: number): void => wanted.add(ids, offset, level);
    return { ...(await verifyAll(parts, work, { from, onLost })), wanted };
  };
  const before = await look();
  const counts = { lostChunks: 0, lostNodes: 0, repairedChunks: 0, repairedNodes: 0 };
  before.wanted.count(counts, 'lost');
  let readBytes = 0;
  let now = before;
  let again = now.wanted.size > 0;
  while (again) {
    const asked = now.wanted;
    readBytes += await heal(parts, source, asked, work).finally(async () => {
      now = await look();
      asked.count(counts, 'repaired', now.wanted);
      now.wanted.count(counts, 'lost', asked);
      await keepVerification(parts, { ...base, ...upToDate(parts, now) });
    });
    // What was looked for and not found will not be found the next time.
    again = now.wanted.hasOthersThan(asked);
    if (source.isOnce === true) break;
  }
  if (readBytes === 0) await keepVerification(parts, { ...base, ...upToDate(parts, now) });
  const { report } = upToDate(parts, now);
  const isDamaged = new Set(report.disks.map(({ id, disk }) => `${id}/${disk}`));
  return {
    verifiedAt: new Date(base.endedAt).toISOString(),
    readBytes,
    ...counts,
    repairedDisks: before.report.disks
      .filter(({ id, disk }) => !isDamaged.has(`${id}/${disk}`))
      .map(({ kind, id, name, disk }) => ({ kind, id, name, disk })),
    again,
    report,
  };
}

/** A verification that knows of damage, or a new one. */
async function knownDamage(parts: VerificationParts, work: RepairWork): Promise<StoredVerification> {
  const last = await lastFull(parts.catalog);
  if (last?.position !== undefined) {
    const { damaged, disks, isComplete } = last.report;
    if (damaged.length > 0 || disks.length > 0 || !isComplete) return last;
    if ((await parts.store.stats()).damagedRuns > 0) return last;
  }
  return verifyAndTell(parts, work);
}

/** The verification's report without what has been repaired; it has not become a new one by that. */
function upToDate(
  { clock }: VerificationParts,
  { report: { resumedBytes: _, ...report }, position }: Verified,
): Pick<StoredVerification, 'report' | 'position' | 'updatedAt'> {
  return { report, position, updatedAt: clock.now() };
}

/** Reads the source once and stores what of it is wanted. Resolves to the bytes read. */
async function heal(
  { store }: VerificationParts,
  source: RepairSource,
  wanted: Wanted,
  { signal, onProgress }: RepairWork,
): Promise<number> {
  const { chunkBytes } = store;
  const session = store.openSession();
  const healer = new Healer(store, session, wanted);
  try {
    let read = 0;
    try {
      await rootOf(source.parts(signal ?? new AbortController().signal), {
        chunkBytes,
        hash: store.hash,
        visit: (bytes, count, ids, level) => healer.visit(bytes, count, ids, level),
        onProgress: (done) => {
          signal?.throwIfAborted();
          read = done;
          const all = source.sizeBytes;
          onProgress?.({ phase: 'source', done, ...(all === undefined ? {} : { all }) });
        },
      });
    } finally {
      await session.flush();
    }
    return read;
  } finally {
    session.release();
  }
}

/** Ids of lost chunks, and at which level they are missed. */
class Wanted {
  readonly #ids = new IdSet();
  readonly #levels: number[] = [];

  get size(): number {
    return this.#ids.size;
  }

  add(ids: Uint8Array, offset: number, level: number): void {
    if (this.#ids.size >= WANTED_MAX) return;
    const entry = this.#ids.add(ids, offset);
    // As a node where it is both: who reads it as data gets the same bytes.
    this.#levels[entry] = Math.max(this.#levels[entry] ?? 0, level);
  }

  /** The level at which the id is wanted, or -1. */
  levelOf(ids: Uint8Array, offset: number): number {
    const entry = this.#ids.indexOf(ids, offset);
    return entry < 0 ? -1 : this.#levels[entry]!;
  }

  hasNodes(): boolean {
    return this.#levels.some((level) => level > 0);
  }

  hasOthersThan(before: Wanted): boolean {
    return this.#notIn(before).length > 0;
  }

  /** Adds up how many of these there are that `but` does not hold. */
  count(
    counts: Record<'lostChunks' | 'lostNodes' | 'repairedChunks' | 'repairedNodes', number>,
    what: 'lost' | 'repaired',
    but = new Wanted(),
  ): void {
    for (const level of this.#notIn(but)) counts[`${what}${level > 0 ? 'Nodes' : 'Chunks'}`]++;
  }

  /** Levels of those that are not in the other. */
  #notIn(other: Wanted): number[] {
    const { ids } = this.#ids;
    return this.#levels.filter((_, entry) => other.levelOf(ids, entry * ID_BYTES) < 0);
  }
}

/** Stores what is wanted of the chunks that it is shown. */
class Healer {
  readonly #hash: ChunkStore['hash'];
  readonly #session: WriteSession;
  readonly #wanted: Wanted;
  readonly #looksForNodes: boolean;

  constructor({ hash }: ChunkStore, session: WriteSession, wanted: Wanted) {
    this.#hash = hash;
    this.#session = session;
    this.#wanted = wanted;
    // Nodes stand among large chunks where the source is a store: a disk has them nowhere.
    this.#looksForNodes = session.chunkBytes !== NODE_BYTES && wanted.hasNodes();
  }

  async visit(bytes: Uint8Array, count: number, ids: Uint8Array, level: number): Promise<void> {
    const each = level === 0 ? this.#session.chunkBytes : NODE_BYTES;
    for (let i = 0; i < count; i++) {
      const chunk = bytes.subarray(i * each, (i + 1) * each);
      await this.#store(chunk, ids, i * ID_BYTES);
      if (level > 0 || !this.#looksForNodes) continue;
      for (let at = 0; at < each; at += NODE_BYTES) {
        const node = chunk.subarray(at, at + NODE_BYTES);
        await this.#store(node, this.#hash(node), 0);
      }
    }
  }

  async #store(chunk: Uint8Array, ids: Uint8Array, offset: number): Promise<void> {
    const level = this.#wanted.levelOf(ids, offset);
    if (level < 0) return;
    if (level > 0) await this.#session.writeNodes(chunk, 1, level);
    else await this.#session.writeChunks(chunk, 1);
  }
}
