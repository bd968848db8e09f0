/**
 * Relief of the log: what damage keeps from the tree is appended to the log once more, so that what lies before can go.
 *
 * A layer that cannot be destaged, and those above it, need their records for as long as the damage lasts; the log is
 * released from its oldest end only, so without this one damaged chunk would fill it for everybody. What is appended is
 * the overlay as it is: every chunk whole, or what is known of a baseless one.
 *
 * A crash in between leaves the old records, the new ones, or both; then replay ends up with the same overlays, because
 * - the layers are frozen, and listed in the records of all their disks first: their order does not depend on the log;
 * - no old record goes before all new ones are synced, and recovery keeps the log from the first `open` of an overlay on;
 * - new records come after all old ones of their layer, and leave nothing of what those said;
 * - those of a layer come after those of the layers below it. A write that was replayed onto a lower layer of
 *   which only the old records were gone already has merged a wrong base; its chunk comes again, whole. So must
 *   those of layers that were opened meanwhile: writers are held back, and the few that had begun are appended in one turn.
 */
import type { Engine } from './engine.ts';
import type { Layer } from './layer.ts';
import { ZERO, isBaseless } from './overlay.ts';

/** Appended before the log is waited for. */
const BATCH_BYTES = 4 * 1024 * 1024;
/** As for any record that has no data. */
const RECORD_BYTES = 64;

/** Only while nothing is destaged. @throws `store-full`, when nothing is changed but that the log is longer; `store-failed` */
export async function relieveLog(engine: Engine): Promise<void> {
  engine.holdsWriters = true;
  try {
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
    for (const layer of engine.pending) {
      if (!positions.has(layer)) for (const append of contentOf(engine, layer)) append();
    }
    await engine.log.written();
    await engine.log.syncOpens();
    for (const [layer, position] of positions) layer.firstPosition = position;
  } finally {
    engine.holdsWriters = false;
    engine.room.open();
  }
  engine.logRewrites++;
  await engine.releaseLog();
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
 * What appends the records of a layer, one after the other; each returns about how many bytes. What an overlay holds is
 * looked up when its turn comes: it may have been let go, or, of a layer that is not frozen, written to.
 */
function* contentOf(engine: Engine, layer: Layer): Generator<() => number> {
  const { log, pool, chunkBytes } = engine;
  const overlay = layer.overlay!;
  const zeros = overlay.zeroRanges();
  const zero = (start: number, end: number): number => {
    const offset = start * chunkBytes;
    log.appendZero(layer.number, offset, Math.min(end * chunkBytes, layer.size) - offset);
    return RECORD_BYTES;
  };
  const write = (chunk: number, from: number, to: number): number => {
    const found = overlay.find(chunk);
    const at = pool.offsetOf(overlay.slotOf(found));
    const offset = chunk * chunkBytes + from;
    const length = Math.min(to - from, layer.size - offset);
    if (length <= 0) return 0;
    const start = at + from;
    log.appendWrite(layer.number, offset, pool.slabOf(overlay.slotOf(found)).subarray(start, start + length));
    return RECORD_BYTES + length;
  };
  for (let i = 0; i < zeros.length; i += 2) yield () => zero(zeros[i]!, zeros[i + 1]!);
  for (const chunk of overlay.chunks()) {
    const found = overlay.find(chunk);
    if (found === ZERO) yield () => zero(chunk, chunk + 1);
    else if (isBaseless(found)) {
      for (const [from, to] of overlay.knownOf(chunk)) yield () => write(chunk, from, to);
    } else if (found >= 0) yield () => write(chunk, 0, chunkBytes);
  }
}
