/** Whether two files are equal, and where they first differ. */
import { open } from 'node:fs/promises';

const PIECE_BYTES = 1024 * 1024;

/** Offset of the first byte that differs, or -1. Files of different lengths differ at the end of the shorter one. */
export async function firstDifference(left: string, right: string): Promise<number> {
  const [a, b] = [await open(left, 'r'), await open(right, 'r')];
  try {
    const [bytesA, bytesB] = [Buffer.alloc(PIECE_BYTES), Buffer.alloc(PIECE_BYTES)];
    for (let position = 0; ; position += PIECE_BYTES) {
      const [readA, readB] = [
        await a.read(bytesA, 0, PIECE_BYTES, position),
        await b.read(bytesB, 0, PIECE_BYTES, position),
      ];
      const common = Math.min(readA.bytesRead, readB.bytesRead);
      if (bytesA.compare(bytesB, 0, common, 0, common) !== 0) {
        let index = 0;
        while (bytesA[index] === bytesB[index]) index++;
        return position + index;
      }
      if (readA.bytesRead !== readB.bytesRead) return position + common;
      if (readA.bytesRead < PIECE_BYTES) return -1;
    }
  } finally {
    await a.close();
    await b.close();
  }
}
