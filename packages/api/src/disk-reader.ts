/** Reads an attached disk in order, for downloads: bounded pieces, holes told apart from what is stored. */
import { PandoError, type DiskPart } from '@pando/common';
import type { Attachment } from '@pando/fleet';

const PIECE_BYTES = 256 * 1024;
const EXTENTS_MAX = 1024;
/** One request of allocation covers at most this. */
const MAP_BYTES_MAX = 2 ** 40;

/** The bytes from `start` to `end`, holes included, in fresh buffers. */
export async function* readAll(
  disk: Attachment,
  start: number,
  end: number,
): AsyncGenerator<Uint8Array, void, undefined> {
  for (let at = start; at < end;) {
    throwIfRevoked(disk);
    const piece = Buffer.allocUnsafe(Math.min(PIECE_BYTES, end - at));
    await disk.read(at, piece.byteLength, piece, 0);
    yield piece;
    at += piece.byteLength;
  }
}

/**
 * The same pieces, one later: when the last is given away, nothing more is read and `close` is over. Whoever has all of a
 * download may rely on the disk being free.
 */
export async function* closedBeforeLast(
  pieces: AsyncIterable<Uint8Array>,
  close: () => Promise<void>,
): AsyncGenerator<Uint8Array, void, undefined> {
  let last: Uint8Array | undefined;
  for await (const piece of pieces) {
    if (last !== undefined) yield last;
    last = piece;
  }
  await close();
  if (last !== undefined) yield last;
}

/** All of the disk as parts. */
export async function* readParts(disk: Attachment): AsyncGenerator<DiskPart, void, undefined> {
  for await (const { offset, length, hole } of extents(disk, 0)) {
    if (hole) yield { holeBytes: length };
    else yield* readAll(disk, offset, offset + length);
  }
}

/** What is stored and what is not, from `from` to the end of the disk. */
export async function* extents(
  disk: Attachment,
  from: number,
): AsyncGenerator<{ offset: number; length: number; hole: boolean }, void, undefined> {
  let offset = from;
  while (offset < disk.size) {
    throwIfRevoked(disk);
    const { lengths, holes } = await disk.allocation(
      offset,
      Math.min(disk.size - offset, MAP_BYTES_MAX),
      EXTENTS_MAX,
    );
    for (const [index, length] of lengths.entries()) {
      yield { offset, length, hole: holes[index]! };
      offset += length;
    }
  }
}

export function throwIfRevoked(disk: Attachment): void {
  if (disk.revoked.aborted) throw new PandoError('disk-in-use', 'the disk was taken from its clients');
}
