/**
 * What a power cut leaves of a file: what was synced, and of what was not whatever the dice say. Each of these happens on
 * real disks: all of it had been written back; none of it; the older part; each write whole, torn or not at all;
 * each sector as it was at some moment of its own, which is what write-back in any order comes to.
 */

/** Disks write sectors whole. */
export const SECTOR_BYTES = 512;

/** A write or truncation that no sync has covered. */
export type Change = (
  { readonly at: number; readonly bytes: Uint8Array } | { readonly size: number; readonly bytes?: never }
) & {
  /** `lost`: a sync that should have covered it failed, so that no later one will; `safe`: one that came after such a sync has. */
  readonly state?: 'lost' | 'safe';
};

type Random = () => number;

/** The bytes of a file after a power cut: `random` gives numbers in [0, 1). */
export function survivingBytes(durable: Uint8Array, changes: readonly Change[], random: Random): Uint8Array {
  if (changes.length === 0) return durable;
  const dice = random();
  if (dice < 0.15) return changes.reduce(applied, durable);
  if (dice < 0.35) return keepOnly(durable, changes, () => false);
  if (dice < 0.5) {
    const kept = Math.floor(random() * (changes.length + 1));
    return keepOnly(durable, changes, (index) => index < kept);
  }
  if (dice < 0.75 && changes.every(({ bytes }) => bytes !== undefined)) {
    return sectorBySector(durable, changes, random);
  }
  return writeByWrite(durable, changes, random);
}

/** A file with one more change. */
export function applied(bytes: Uint8Array, change: Change): Uint8Array {
  return change.bytes === undefined ? resized(bytes, change.size) : written(bytes, change.at, change.bytes);
}

export function resized(bytes: Uint8Array, size: number): Uint8Array {
  const result = new Uint8Array(size);
  result.set(bytes.subarray(0, size));
  return result;
}

export function written(bytes: Uint8Array, at: number, data: Uint8Array): Uint8Array {
  const end = at + data.byteLength;
  const result = end > bytes.byteLength ? resized(bytes, end) : bytes.slice();
  result.set(data, at);
  return result;
}

function keepOnly(
  durable: Uint8Array,
  changes: readonly Change[],
  isKept: (index: number) => boolean,
): Uint8Array {
  return changes.reduce(
    (bytes, change, index) => (change.state === 'safe' || isKept(index) ? applied(bytes, change) : bytes),
    durable,
  );
}

/** Writes are independent of each other, and tear at multiples of a sector of the file. */
function writeByWrite(durable: Uint8Array, changes: readonly Change[], random: Random): Uint8Array {
  let bytes = durable;
  for (const change of changes) {
    const luck = change.state === 'safe' ? 0 : random();
    if (luck < 0.4) bytes = applied(bytes, change);
    else if (luck < 0.65 && change.bytes !== undefined) {
      const isPrefix = random() < 0.5;
      const last = Math.floor(random() * (change.bytes.byteLength / SECTOR_BYTES + 1));
      for (const [index, [from, to]] of sectorsOf(change.at, change.bytes.byteLength).entries()) {
        if (!(isPrefix ? index < last : random() < 0.5)) continue;
        bytes = written(bytes, from, change.bytes.subarray(from - change.at, to - change.at));
      }
    }
  }
  return bytes;
}

/** Each sector holds what it held after some number of the changes. Only for writes. */
function sectorBySector(durable: Uint8Array, changes: readonly Change[], random: Random): Uint8Array {
  const moments = new Map<number, number>();
  let bytes = durable;
  for (const [index, change] of changes.entries()) {
    if (change.bytes === undefined) continue;
    for (const [from, to] of sectorsOf(change.at, change.bytes.byteLength)) {
      const sector = Math.floor(from / SECTOR_BYTES);
      let moment = moments.get(sector);
      if (moment === undefined) {
        moment = Math.floor(random() * (changes.length + 1));
        moments.set(sector, moment);
      }
      if (change.state !== 'safe' && index >= moment) continue;
      bytes = written(bytes, from, change.bytes.subarray(from - change.at, to - change.at));
    }
  }
  return bytes;
}

/** The parts of a range that lie in one sector each. */
function sectorsOf(at: number, length: number): [from: number, to: number][] {
  const parts: [number, number][] = [];
  for (let from = at; from < at + length;) {
    const to = Math.min(at + length, (Math.floor(from / SECTOR_BYTES) + 1) * SECTOR_BYTES);
    parts.push([from, to]);
    from = to;
  }
  return parts;
}
