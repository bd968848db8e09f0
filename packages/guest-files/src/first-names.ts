/**
 * The first names of a directory, in order of their bytes and each once, out of a stream of all of them: how many a guest has in a directory is
 * for the guest to say, and the memory is ours.
 */
import { PandoError } from '@pando/common';
import { PATH_BYTES_MAX } from './limits.ts';

const SLASH = 0x2f;

export class FirstNames {
  readonly #most: number;
  readonly #from: Uint8Array | undefined;
  readonly #isFromIn: boolean;
  #kept: Buffer[] = [];
  /** What stands behind it is not wanted: there are enough before it. */
  #last: Buffer | undefined;
  /** A name whose end has not come. */
  #begun: Buffer = Buffer.alloc(0);
  #isWhole = true;

  /** @param from only names behind it are wanted, or it as well if `isFromIn` */
  constructor(most: number, from: Uint8Array | undefined, isFromIn: boolean) {
    this.#most = most;
    this.#from = from;
    this.#isFromIn = isFromIn;
  }

  /** Names that are held at the moment: at most twice as many as are wanted. */
  get held(): number {
    return this.#kept.length;
  }

  /** Whether all names that are wanted are among the first ones. */
  get isWhole(): boolean {
    return this.#isWhole;
  }

  /** The next piece of the stream, in which a zero byte is behind each name. @throws `files-tool-failed` */
  add(piece: Uint8Array): void {
    const bytes = Buffer.concat([this.#begun, piece]);
    let at = 0;
    for (let end: number; (end = bytes.indexOf(0, at)) >= 0; at = end + 1)
      this.#take(bytes.subarray(at, end));
    this.#begun = bytes.subarray(at);
    if (this.#begun.length > PATH_BYTES_MAX)
      throw new PandoError('files-tool-failed', 'a name in the directory is longer than any can be');
  }

  /** When all of the stream has come. */
  names(): Buffer[] {
    this.#take(this.#begun);
    this.#cut();
    return this.#kept;
  }

  #take(name: Buffer): void {
    // No file system may have these, and a hostile one may.
    if (name.length === 0 || name.includes(SLASH) || ['.', '..'].includes(name.toString('latin1'))) return;
    if (this.#from !== undefined) {
      const order = Buffer.compare(name, this.#from);
      if (order < 0 || (order === 0 && !this.#isFromIn)) return;
    }
    if (this.#last !== undefined && Buffer.compare(name, this.#last) >= 0) {
      if (!name.equals(this.#last)) this.#isWhole = false;
      return;
    }
    this.#kept.push(Buffer.from(name));
    if (this.#kept.length === 2 * this.#most) this.#cut();
  }

  #cut(): void {
    this.#kept.sort((a, b) => Buffer.compare(a, b));
    const each = this.#kept.filter((name, i) => i === 0 || !name.equals(this.#kept[i - 1]!));
    this.#kept = each.slice(0, this.#most);
    if (each.length > this.#most) this.#isWhole = false;
    if (this.#kept.length === this.#most) this.#last = this.#kept.at(-1);
  }
}
