/** Ids of VMs and backups: UUIDv7 that ascend, whatever the clock does meanwhile. */
import type { Clock, Random } from '@pando/common';
import { v7 } from 'uuid';

const SEQUENCE_START_MAX = 0x7fff_ffff;
const SEQUENCE_MAX = 0xffff_ffff;

/** A source of ids, each greater than all before it in this process. */
export function idSource(clock: Clock, random: Random): () => string {
  const bytes = new Uint8Array(16);
  let milliseconds = -1;
  let sequence = 0;
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
