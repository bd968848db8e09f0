/** Reading a file of which a device cannot read everything any more. */
import type { File } from './file-system.ts';

/** What a device says of sectors that it cannot read, and a file system of what it finds wrong in its own structures. */
const UNREADABLE: ReadonlySet<string> = new Set(['EIO', 'EBADMSG', 'EUCLEAN']);
/** The grain of the page cache: what is in one of them is read together. */
const PAGE_BYTES = 4096;

/** What the system, as an error or as the cause of one of ours, says when the bytes cannot be read; undefined when it says something else. */
export function unreadableCode(error: unknown): string | undefined {
  for (let at = error; at instanceof Error; at = at.cause) {
    const { code } = at as NodeJS.ErrnoException;
    if (code !== undefined && UNREADABLE.has(code)) return code;
  }
  return undefined;
}

/**
 * As `File.read`, but pages that cannot be read come as zeros.
 * @param unreadable told where they begin in the file, and how long they are; in order
 */
export async function readAround(
  file: Pick<File, 'read'>,
  target: Uint8Array,
  position: number,
  unreadable: (offset: number, bytes: number) => void,
): Promise<number> {
  try {
    return await file.read(target, position);
  } catch (error) {
    if (unreadableCode(error) === undefined) throw error;
  }
  let done = 0;
  while (done < target.byteLength) {
    const at = position + done;
    const part = target.subarray(done, Math.min(target.byteLength, done + PAGE_BYTES - (at % PAGE_BYTES)));
    let count = part.byteLength;
    try {
      count = await file.read(part, at);
    } catch (error) {
      if (unreadableCode(error) === undefined) throw error;
      part.fill(0);
      unreadable(at, part.byteLength);
    }
    done += count;
    if (count < part.byteLength) break;
  }
  return done;
}
