/** Where a read met stored bytes that are damaged: what ERROR_OFFSET tells the client. */
import type { BlockDevice } from '@pando/block-device';
import { PandoError } from '@pando/common';

/** Whether an error says that stored bytes are wrong, rather than that something did not work. */
export function isDamage(error: unknown): boolean {
  return error instanceof PandoError && error.kind === 'data';
}

/**
 * The first offset of a block in the range that is damaged; undefined when none is any more. Reads by halves: the bytes of
 * the range at most once or twice more, in a dozen reads, where block by block it would be thousands.
 *
 * Scribbles over `length` bytes of `scratch` from `at` on. @throws whatever else a read throws
 */
export async function findDamage(
  device: BlockDevice,
  offset: number,
  length: number,
  scratch: Uint8Array,
  at: number,
): Promise<number | undefined> {
  const { blockBytes } = device;
  const isDamaged = async (from: number, to: number): Promise<boolean> => {
    try {
      await device.read(from, to - from, scratch, at);
      return false;
    } catch (error) {
      if (!isDamage(error)) throw error;
      return true;
    }
  };
  // Everything before `from` can be read, and something before `to` cannot.
  let from = offset;
  let to = offset + length;
  for (;;) {
    const lowest = (Math.floor(from / blockBytes) + 1) * blockBytes;
    const middle = Math.max(lowest, Math.floor((from + to) / 2 / blockBytes) * blockBytes);
    if (middle >= to) break;
    if (await isDamaged(from, middle)) to = middle;
    else from = middle;
  }
  return (await isDamaged(from, to)) ? from : undefined;
}
