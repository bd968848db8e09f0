/** Ids of VMs and backups: UUIDv7 that ascend, whatever the clock does meanwhile. */
import type { Catalog } from '@pando/catalog';
import { isPandoError, type Clock, type Random } from '@pando/common';
import { v7 } from 'uuid';

const SEQUENCE_START_MAX = 0x7fff_ffff;
const SEQUENCE_MAX = 0xffff_ffff;

/** Tables whose keys are ids, and in whose order people are shown what there is. */
const TABLES = ['vm', 'backup'] as const;

/** The time in the greatest id of the catalog, in milliseconds since 1970, or -1: what `idSource` has to be past. */
export async function newestIdMs(catalog: Catalog): Promise<number> {
  let newest = -1;
  for (const table of TABLES) {
    try {
      const [last] = await catalog.list(table, { reverse: true, limit: 1 });
      if (last !== undefined) newest = Math.max(newest, msOf(last.key));
    } catch (error) {
      // One damaged record is not to keep everything else from being opened.
      if (!isPandoError(error, 'catalog-corrupt')) throw error;
    }
  }
  return newest;
}

/** The first 48 bits of a UUIDv7. */
function msOf(id: string): number {
  return Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16);
}

/** A source of ids, each greater than all before it in this process, and than all whose time is `afterMs` or before. */
export function idSource(clock: Clock, random: Random, afterMs = -1): () => string {
  const bytes = new Uint8Array(16);
  let milliseconds = afterMs;
  // Of what is taken in that millisecond nobody knows: if it is not past, the next one comes.
  let sequence = SEQUENCE_MAX;
  return () => {
    random.fill(bytes);
    const now = clock.now();
    if (now > milliseconds) {
      milliseconds = now;
      // Half of the room stays above the start: two thousand million ids in this millisecond.
      sequence = new DataView(bytes.buffer).getUint32(0) & SEQUENCE_START_MAX;
    } else if (sequence === SEQUENCE_MAX) {
      milliseconds++;
      sequence = 0;
    } else {
      sequence++;
    }
    return v7({ msecs: milliseconds, seq: sequence, random: bytes });
  };
}
