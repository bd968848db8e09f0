/**
 * Writing again what stands in a file already.
 *
 * When a sync fails, Linux marks the pages as written although they may not be on the disk, and tells that to one caller
 * only. A process that comes after reads them from the page cache, whole, and its own sync has nothing to write. So whoever
 * builds on bytes that an earlier process may not have synced writes them once more first: then its own sync is about them.
 * (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020.)
 */
import type { File } from './file-system.ts';
import { readAround } from './read-around.ts';

const WINDOW_BYTES = 1024 * 1024;

/**
 * Writes the bytes of `file` from `from` up to `to` again, where they are; what cannot be read is left as it is. Durable after
 * the caller's sync.
 */
export async function rewriteInPlace(file: File, from: number, to: number): Promise<void> {
  if (from >= to) return;
  const window = Buffer.alloc(Math.min(WINDOW_BYTES, to - from));
  for (let at = from; at < to;) {
    const begin = at;
    let written = begin;
    const writeUpTo = async (end: number): Promise<void> => {
      if (end > written) await file.write([window.subarray(written - begin, end - begin)], written);
    };
    const gaps: [offset: number, bytes: number][] = [];
    const part = window.subarray(0, Math.min(window.byteLength, to - begin));
    const count = await readAround(file, part, begin, (offset, bytes) => gaps.push([offset, bytes]));
    if (count === 0) return;
    for (const [offset, bytes] of gaps) {
      await writeUpTo(offset);
      written = offset + bytes;
    }
    await writeUpTo(begin + count);
    at = begin + count;
  }
}
