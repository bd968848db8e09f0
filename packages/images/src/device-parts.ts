/** A device read from its start to its end: what is stored with many reads in flight, what is not as holes. */
import type { BlockDevice } from '@pando/block-device';
import { splitZeros, type DiskPart } from '@pando/common';

const PIECE_BYTES = 1024 * 1024;
/** Reads in flight; also what is held in memory, in pieces. */
const AHEAD_MAX = 8;
const EXTENTS_MAX = 4096;
/** One question about allocation covers at most this. */
const MAP_BYTES_MAX = 2 ** 40;

interface Piece {
  readonly offset: number;
  readonly length: number;
  /** Set for data. */
  readonly read: Promise<Buffer> | undefined;
}

/** The parts in order; holes are not joined. A piece's buffer holds until the next pull. */
export async function* deviceParts(
  device: Pick<BlockDevice, 'size' | 'read' | 'allocation'>,
  signal: AbortSignal,
): AsyncGenerator<DiskPart, void, undefined> {
  const buffers: Buffer[] = [];
  const line: Piece[] = [];
  let count = 0;
  try {
    for await (const { offset, length, hole } of extents(device, signal)) {
      for (let at = offset; at < offset + length;) {
        const bytes = hole ? offset + length - at : Math.min(PIECE_BYTES, offset + length - at);
        let read: Promise<Buffer> | undefined;
        if (!hole) {
          const buffer = (buffers[count++ % (AHEAD_MAX + 1)] ??= Buffer.allocUnsafe(PIECE_BYTES)).subarray(
            0,
            bytes,
          );
          read = device.read(at, bytes, buffer, 0)?.then(() => buffer) ?? Promise.resolve(buffer);
          // It is awaited in its turn; a failure before that must not count as unhandled.
          read.catch(() => undefined);
        }
        line.push({ offset: at, length: bytes, read });
        at += bytes;
        while (line.length >= AHEAD_MAX) yield* next();
      }
    }
    while (line.length > 0) yield* next();
  } finally {
    // The buffers go when nothing writes into them any more.
    for (const { read } of line) await read?.catch(() => undefined);
  }

  async function* next(): AsyncGenerator<DiskPart, void, undefined> {
    signal.throwIfAborted();
    const { length, read } = line[0]!;
    const data = await read;
    line.shift();
    signal.throwIfAborted();
    if (data === undefined) yield { holeBytes: length };
    else yield* splitZeros(data);
  }
}

/** Parts with neighbouring holes made one and none of no bytes. */
export async function* joinHoles(parts: AsyncIterable<DiskPart>): AsyncGenerator<DiskPart, void, undefined> {
  let holeBytes = 0;
  for await (const part of parts) {
    if (!(part instanceof Uint8Array)) {
      holeBytes += part.holeBytes;
      continue;
    }
    if (part.byteLength === 0) continue;
    if (holeBytes > 0) yield { holeBytes };
    holeBytes = 0;
    yield part;
  }
  if (holeBytes > 0) yield { holeBytes };
}

async function* extents(
  device: Pick<BlockDevice, 'size' | 'allocation'>,
  signal: AbortSignal,
): AsyncGenerator<{ offset: number; length: number; hole: boolean }, void, undefined> {
  let offset = 0;
  while (offset < device.size) {
    signal.throwIfAborted();
    const asked = Math.min(device.size - offset, MAP_BYTES_MAX);
    const { lengths, holes } = await device.allocation(offset, asked, EXTENTS_MAX);
    for (const [index, length] of lengths.entries()) {
      yield { offset, length, hole: holes[index]! };
      offset += length;
    }
  }
}
