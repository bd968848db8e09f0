/** A full disk is when collecting matters most: what needs room is left for later, the rest goes on. */
import { isPandoError } from '@pando/common';

/** The result, or undefined when there was no room for it. Rejects with any other error. */
export async function unlessFull<T>(result: Promise<T>): Promise<T | undefined> {
  try {
    return await result;
  } catch (error) {
    if (isPandoError(error, 'store-full')) return undefined;
    throw error;
  }
}
