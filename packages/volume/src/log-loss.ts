/** What damage to the log costs: which disks have lost writes, and where. */
import { PandoError } from '@pando/common';
import type { LogDamage } from '@pando/write-log';
import type { Disk } from './disk.ts';
import type { Layer } from './layer.ts';
import { ABSENT, LOST, isBaseless } from './overlay.ts';
import type { DiskNumber, DiskLoss, LogLoss } from './types.ts';

/** Ranges of a disk, and disks, that are named. */
const RANGES_MAX = 50;
const DISKS_MAX = 1000;

/** `log-corrupt`, with what is lost when the log is opened all the same. */
export class LogLossError extends PandoError {
  readonly loss: LogLoss;

  constructor(message: string, loss: LogLoss) {
    super('log-corrupt', message);
    this.loss = loss;
  }
}

/**
 * Before the log is replayed: the writes that are lost, for each disk that has them, over which later ones may lie.
 * `disksOf`: the disks that an overlay counts for, the one that opened it in the log given.
 */
export async function lossOf(
  damage: LogDamage,
  disksOf: (overlay: number, opener: DiskNumber | undefined) => Promise<readonly DiskNumber[]>,
): Promise<LogLoss> {
  const ranges = new Map<DiskNumber, { offset: number; bytes: number }[]>();
  for (const { overlay, offset, length } of damage.lost) {
    for (const disk of await disksOf(overlay, damage.disks.get(overlay))) {
      const of = ranges.get(disk) ?? [];
      of.push({ offset, bytes: length });
      ranges.set(disk, of);
    }
  }
  const disks = [...ranges].map(([disk, of]) => ({ disk, ranges: joined(of) }));
  const maybe = new Set<DiskNumber>();
  if (!damage.isAllKnown) {
    for (const [overlay, opener] of damage.disks)
      for (const disk of await disksOf(overlay, opener)) maybe.add(disk);
  }
  return lossFrom(damage, disks, maybe);
}

/** After the log was replayed: what nobody can read now. `maybe`: disks that may have lost more, nobody knows where. */
export function lossNow(
  damage: LogDamage,
  disks: Iterable<Disk>,
  layers: Iterable<Layer>,
  maybe: ReadonlySet<DiskNumber>,
  chunkBytes: number,
): LogLoss {
  const chunks = new Set<number>();
  for (const { overlay } of layers) {
    if (overlay === undefined || overlay.lost === 0) continue;
    for (const chunk of overlay.chunks()) if (overlay.find(chunk) === LOST) chunks.add(chunk);
  }
  const found: DiskLoss[] = [];
  for (const disk of disks) {
    const ranges = [...chunks]
      .filter((chunk) => isLostOf(disk.top, chunk))
      .map((chunk) => ({
        offset: chunk * chunkBytes,
        bytes: Math.min(chunkBytes, disk.size - chunk * chunkBytes),
      }));
    if (ranges.length > 0) found.push({ disk: disk.number, ranges: joined(ranges) });
  }
  return lossFrom(damage, found, maybe);
}

/** Whether a chunk is lost on the way down from `top`, or written in part above where it is. */
function isLostOf(top: Layer, chunk: number): boolean {
  for (let layer = top; layer.root === undefined && chunk < layer.chunks; layer = layer.parent!) {
    const found = layer.overlay!.find(chunk);
    if (found === LOST) return true;
    if (found !== ABSENT && !isBaseless(found)) return false;
  }
  return false;
}

function lossFrom(damage: LogDamage, disks: readonly DiskLoss[], maybe: ReadonlySet<DiskNumber>): LogLoss {
  return {
    places: damage.places,
    isAllKnown: damage.isAllKnown,
    isAnyDisk: damage.isAnyDisk,
    disks: disks
      .slice(0, DISKS_MAX)
      .map(({ disk, ranges }) => ({ disk, ranges: ranges.slice(0, RANGES_MAX) })),
    maybe: [...maybe].sort((a, b) => a - b).slice(0, DISKS_MAX),
  };
}

/** Ascending, those that touch as one. */
function joined(ranges: readonly { offset: number; bytes: number }[]): { offset: number; bytes: number }[] {
  const all: { offset: number; bytes: number }[] = [];
  for (const { offset, bytes } of [...ranges].sort((a, b) => a.offset - b.offset)) {
    const last = all.at(-1);
    if (last === undefined || last.offset + last.bytes < offset) all.push({ offset, bytes });
    else last.bytes = Math.max(last.bytes, offset + bytes - last.offset);
  }
  return all;
}
