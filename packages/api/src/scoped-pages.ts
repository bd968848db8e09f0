/**
 * Pages of a list for a token with a scope. A page must not tell of what it leaves out: neither how much that is, nor, by the key in its cursor,
 * what it is called.
 *
 * So PAGE_ITEMS_MAX of what is listed are looked through for a page, however few it may have. It has a cursor when there is more in the scope for
 * certain, or when it came to the end of what is looked through: that much alone is told. And the cursor is sealed, with a key that ends with the process.
 */
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { PandoError } from '@pando/common';
import type { Page, PageRequest } from '@pando/fleet';
import { PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX } from './schemas/index.ts';

const CIPHER = 'aes-256-gcm';
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
/** Of one page: what is listed may come in many short ones. */
const READS_MAX = 100;

export class ScopedPages {
  readonly #key = randomBytes(KEY_BYTES);

  /**
   * The page of a list that was asked for, with those items alone that `own` leaves of the ones it is given.
   * @throws `cursor-invalid`, and what both of them throw
   */
  async page<T>(
    { cursor, limit = PAGE_ITEMS_DEFAULT }: PageRequest,
    list: (request: PageRequest) => Promise<Page<T>>,
    own: (items: readonly T[]) => readonly T[] | Promise<readonly T[]>,
  ): Promise<Page<T>> {
    const items: T[] = [];
    let from = cursor === undefined ? undefined : this.#open(cursor);
    for (let reads = 0, looked = 0; ; reads++) {
      // A page may be short although it is not the last: one that tells nothing is not worth a page to the one who asks.
      if (reads === READS_MAX || looked >= PAGE_ITEMS_MAX) return this.#sealed(items, from);
      const read = (most: number): Promise<Page<T>> =>
        list({ ...(from === undefined ? {} : { cursor: from }), limit: most });
      const found = await read(PAGE_ITEMS_MAX);
      const more = await own(found.items);
      const room = limit - items.length;
      if (more.length > room) {
        if (room === 0) return this.#sealed(items, from);
        // Read once more, as far as there is room, for the cursor of that place.
        const shorter = await read(found.items.indexOf(more[room - 1]!) + 1);
        return this.#sealed([...items, ...(await own(shorter.items))], shorter.nextCursor);
      }
      items.push(...more);
      looked += found.items.length;
      from = found.nextCursor;
      if (from === undefined) return { items };
    }
  }

  #sealed<T>(items: readonly T[], cursor: string | undefined): Page<T> {
    return cursor === undefined ? { items } : { items, nextCursor: this.#seal(cursor) };
  }

  #seal(cursor: string): string {
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv(CIPHER, this.#key, nonce);
    const sealed = Buffer.concat([cipher.update(cursor), cipher.final()]);
    return Buffer.concat([nonce, cipher.getAuthTag(), sealed]).toString('base64url');
  }

  #open(sealed: string): string {
    const bytes = Buffer.from(sealed, 'base64url');
    const from = NONCE_BYTES + TAG_BYTES;
    try {
      const decipher = createDecipheriv(CIPHER, this.#key, bytes.subarray(0, NONCE_BYTES), {
        authTagLength: TAG_BYTES,
      });
      decipher.setAuthTag(bytes.subarray(NONCE_BYTES, from));
      return Buffer.concat([decipher.update(bytes.subarray(from)), decipher.final()]).toString();
    } catch {
      throw new PandoError(
        'cursor-invalid',
        'the cursor is not one of this list, or the server was started anew',
      );
    }
  }
}
