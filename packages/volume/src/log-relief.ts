/**
 * Relief of the log: what damage keeps from the tree is appended to the log once more, so that what lies before can go.
 *
 * A layer that cannot be destaged, and those above it, need their records for as long as the damage lasts; the log is
 * released from its oldest end only, so without this one damaged chunk would fill it for everybody. What is appended is
 * the overlay as it is: every chunk whole, or what is known of a baseless one.
 *
 * A crash in between leaves the old records, the new ones, or both; then replay ends up with the same overlays, because
 * - nothing writes to the layers any more: they are frozen, those who had been let in to write have done so, and new ones are held
 *   back. So all old records of all layers come before all new ones, and the new ones say everything that the overlays hold;
 * - the layers are listed in the records of all their disks, so their order does not depend on what the log still holds;
 * - no old record goes before all new ones are synced, and recovery keeps the log from the first `open` of an overlay on: where that
 *   is an old one, the new ones may be incomplete;
 * - where some of the old records have gone, those that are left mean nothing: they depend on what the layers below held. Recovery
 *   sees that because the `open` of such a layer, which is its oldest record, has not come yet, and waits for the new ones.
 * A layer that is opened meanwhile, because a disk grows, has no records but its `open`, and the log is kept from there.
 */
import type { Engine } from './engine.ts';
import type { Layer } from './layer.ts';
import { ABSENT, ZERO, isBaseless } from './overlay.ts';

/** Appended before the log is waited for. */
const BATCH_BYTES = 4 * 1024 * 1024;
/** As for any record that has no data. */
const RECORD_BYTES = 64;
/** How long writers that were let in may take, which read what lies below them first. The others are held back meanwhile. */
export const WRITERS_MS_MAX = 5_000;

/**
 * Only while nothing is destaged. Resolves with false when a writer did not come to an end, or when writes are lost with damage
 * to the log: nothing has changed then.
 * @throws `store-full`, when nothing has changed but that the log is longer; `store-failed`
 */
export async function relieveLog(engine: Engine): Promise<boolean> {
  // That something is lost is in no record that could be appended again.
  if (engine.pending.some(({ overlay }) => overlay !== undefined && overlay.lost > 0)) return false;
  engine.holdsWriters = true;
  try {
    if (!(await writersAreGone(engine))) return false;
    const layers = [...engine.pending];
    for (const layer of layers) if (!layer.frozen) for (const disk of layer.disks) disk.freeze();
    await list(engine, layers);
    const positions = new Map<Layer, number>();
    for (const layer of layers) {
      if (layer.disks.size === 0) continue;
      positions.set(layer, engine.log.appendOpen(layer.number, [...layer.disks][0]!.number, layer.size));
      let bytes = 0;
      for (const append of contentOf(engine, layer)) {
        bytes += append();
        if (bytes < BATCH_BYTES) continue;
        await engine.log.written();
        bytes = 0;
      }
      await engine.log.written();
    }
    await engine.log.syncOpens();
    for (const [layer, position] of positions) layer.firstPosition = position;
  } finally {
    engine.holdsWriters = false;
    engine.room.open();
  }
  engine.logRewrites++;
  await engine.releaseLog();
  return true;
}

async function writersAreGone(engine: Engine): Promise<boolean> {
  const timer = new AbortController();
  const late = engine.clock.sleep(WRITERS_MS_MAX, timer.signal).then(
    () => false,
    () => false,
  );
  const gone = await Promise.race([engine.room.emptied().then(() => true), late]);
  timer.abort();
  return gone;
}

/** Names the layers in the records of all disks that hold them. */
async function list(engine: Engine, layers: readonly Layer[]): Promise<void> {
  await engine.log.syncOpens();
  await engine.exclusively(async () => {
    const disks = new Set(layers.flatMap((layer) => [...layer.disks]));
    for (const layer of layers) layer.listed = true;
    await engine.commit([...disks].flatMap((disk) => engine.operationsFor(disk)));
  });
}

/**
 * What appends the records of a layer, those of one chunk or range at a time; each returns about how many bytes. What an overlay
 * holds is looked up when its turn comes: it may have been let go, or a base filled in.
 */
function* contentOf(engine: Engine, layer: Layer): Generator<() => number> {
  const { log, pool, chunkBytes } = engine;
  const overlay = layer.overlay!;
  const zero = (start: number, end: number): number => {
    const offset = start * chunkBytes;
    log.appendZero(layer.number, offset, Math.min(end * chunkBytes, layer.size) - offset);
    return RECORD_BYTES;
  };
  const write = (slot: number, chunk: number, from: number, to: number): number => {
    const offset = chunk * chunkBytes + from;
    const length = Math.min(to - from, layer.size - offset);
    if (length <= 0) return 0;
    const start = pool.offsetOf(slot) + from;
    log.appendWrite(layer.number, offset, pool.slabOf(slot).subarray(start, start + length));
    return RECORD_BYTES + length;
  };
  const entry = (chunk: number): number => {
    const found = overlay.find(chunk);
    if (found === ABSENT) return 0;
    if (found === ZERO) return zero(chunk, chunk + 1);
    const slot = overlay.slotOf(found);
    if (!isBaseless(found)) return write(slot, chunk, 0, chunkBytes);
    let bytes = 0;
    for (const [from, to] of overlay.knownOf(chunk)) bytes += write(slot, chunk, from, to);
    return bytes;
  };
  const zeros = overlay.zeroRanges();
  for (let i = 0; i < zeros.length; i += 2) yield () => zero(zeros[i]!, zeros[i + 1]!);
  for (const chunk of overlay.chunks()) yield () => entry(chunk);
}
