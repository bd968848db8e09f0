/** What of a disk is allocated and what is hole: the difference to a disk that is all hole. */
import { differences } from './diff.ts';
import { emptyRoot } from './shape.ts';
import type { ChunkReader, Root } from './types.ts';

/**
 * Extents of `count` chunks from `startChunk` on: lengths in chunks, neighbours of different kind, without
 * gaps. They cover all that was asked for, or `extentsMax` extents and less. Subtrees that are holes cost nothing.
 * @throws the errors of the reader
 */
export async function allocationOf(
  reader: ChunkReader,
  root: Root,
  startChunk: number,
  count: number,
  extentsMax: number,
): Promise<{ counts: number[]; holes: boolean[] }> {
  const counts: number[] = [];
  const holes: boolean[] = [];
  const end = startChunk + count;
  let at = startChunk;
  for await (const range of differences(
    reader,
    root,
    emptyRoot(root.size, reader.chunkBytes),
    startChunk,
    end,
  )) {
    if (counts.length >= extentsMax) return { counts, holes };
    if (range.start > at) {
      counts.push(range.start - at);
      holes.push(true);
      if (counts.length >= extentsMax) return { counts, holes };
    }
    counts.push(range.count);
    holes.push(false);
    at = range.start + range.count;
    if (counts.length >= extentsMax) return { counts, holes };
  }
  if (at < end && counts.length < extentsMax) {
    counts.push(end - at);
    holes.push(true);
  }
  return { counts, holes };
}
