/**
 * The outgoing side of one connection: replies are gathered in blocks from the pool and handed to the
 * socket once a turn, not once a reply.
 *
 * Invariants: a segment handed to the socket consists of whole replies. A block goes back to the pool when
 * it is no longer the one being filled, the socket has taken all its segments, and no device is
 * still filling a region of it. A connection with nothing to say holds no block.
 */
import type { Socket } from 'node:net';
import type { BufferPool } from './buffer-pool.ts';
import { classBytes } from './buffer-pool.ts';

/** Bytes of the blocks that replies are gathered in; a longer reply gets a block of its own. */
const BLOCK_BYTES = 256 * 1024;

/** Asynchronous replies up to this size are copied into the block being filled: one write instead of many. */
const GATHER_BYTES_MAX = 32 * 1024;

export interface ReplyBlock {
  readonly buffer: Buffer;
  /** Who still needs it: the writer itself, segments in the socket, regions being filled. */
  references: number;
  /** Given to the socket as the callback of each segment. */
  readonly onWritten: () => void;
}

export class ReplyWriter {
  readonly #socket: Socket;
  readonly #pool: BufferPool;
  readonly #onFreed: () => void;
  #block: ReplyBlock | undefined;
  #segmentStart = 0;
  #position = 0;
  #heldBytes = 0;
  #segmentBlocks: ReplyBlock[] = [];
  #segmentBounds: number[] = [];

  /** `onFreed` is called when the socket has taken something or a block went back. */
  constructor(socket: Socket, pool: BufferPool, onFreed: () => void) {
    this.#socket = socket;
    this.#pool = pool;
    this.#onFreed = onFreed;
  }

  /** Bytes of the blocks that this connection holds. */
  get heldBytes(): number {
    return this.#heldBytes;
  }

  describe(): object {
    const block = this.#block;
    return {
      heldBytes: this.#heldBytes,
      unflushed: this.#segmentBlocks.length,
      filling: block && {
        ...{ bytes: block.buffer.byteLength, references: block.references },
        ...{ position: this.#position, segmentStart: this.#segmentStart },
      },
    };
  }

  /** Whether a reply of `bytes` fits into the block being filled. */
  hasRoom(bytes: number): boolean {
    return this.#block !== undefined && bytes <= this.#block.buffer.byteLength - this.#position;
  }

  /** Bytes that a reply of `bytes` would add to `heldBytes` when there is no room. */
  blockBytes(bytes: number): number {
    return classBytes(Math.max(bytes, BLOCK_BYTES));
  }

  /** Makes room for a reply of up to `bytes` and returns where it starts in `buffer`. */
  reserve(bytes: number): number {
    if (!this.hasRoom(bytes)) this.#startBlock(bytes);
    return this.#position;
  }

  /** The block being filled; valid after `reserve` until the next call of anything else. */
  get buffer(): Buffer {
    return this.#block!.buffer;
  }

  /** Ends the reply that was reserved: it has `bytes`. */
  commit(bytes: number): void {
    this.#position += bytes;
  }

  /** Leaves the reserved region of `bytes` to a device that fills it later; `attach` or `release` ends that. */
  detach(bytes: number): ReplyBlock {
    const block = this.#block!;
    this.#closeSegment();
    block.references++;
    this.#position += bytes;
    this.#segmentStart = this.#position;
    return block;
  }

  /** Sends the reply that was made in a detached region. */
  attach(block: ReplyBlock, start: number, bytes: number): void {
    if (bytes > GATHER_BYTES_MAX) {
      // The reference of the region becomes that of the segment.
      this.#segmentBlocks.push(block);
      this.#segmentBounds.push(start, start + bytes);
      return;
    }
    const at = this.reserve(bytes);
    block.buffer.copy(this.buffer, at, start, start + bytes);
    this.commit(bytes);
    this.release(block);
  }

  release(block: ReplyBlock): void {
    if (this.#unreference(block)) this.#onFreed();
  }

  /** Whether the block went back to the pool. */
  #unreference(block: ReplyBlock): boolean {
    block.references--;
    if (block.references > 0) return false;
    this.#heldBytes -= block.buffer.byteLength;
    this.#pool.give(block.buffer);
    return true;
  }

  /** Hands everything gathered to the socket. */
  flush(): void {
    this.#closeSegment();
    const count = this.#segmentBlocks.length;
    if (count === 0) return;
    const socket = this.#socket;
    // Not even `uncork`: one whose write has failed, and which is calling back, would write again what it has called
    // back already, and call back twice.
    if (!socket.writable) {
      this.#dropSegments();
      return;
    }
    if (count > 1) socket.cork();
    for (let i = 0; i < count; i++) {
      const block = this.#segmentBlocks[i]!;
      const view = block.buffer.subarray(this.#segmentBounds[2 * i], this.#segmentBounds[2 * i + 1]);
      socket.write(view, block.onWritten);
    }
    if (count > 1) socket.uncork();
    this.#segmentBlocks.length = 0;
    this.#segmentBounds.length = 0;
  }

  /** Gives the block being filled back; what was gathered and not flushed is dropped. */
  close(): void {
    this.#dropSegments();
    this.#dropBlock();
  }

  #dropSegments(): void {
    this.#segmentBounds.length = 0;
    for (const block of this.#segmentBlocks.splice(0)) this.release(block);
  }

  #closeSegment(): void {
    const block = this.#block;
    if (block === undefined || this.#position === this.#segmentStart) return;
    block.references++;
    this.#segmentBlocks.push(block);
    this.#segmentBounds.push(this.#segmentStart, this.#position);
    this.#segmentStart = this.#position;
  }

  #startBlock(bytes: number): void {
    this.#closeSegment();
    // Without telling of room: whoever is told might start a block as well.
    if (this.#block !== undefined) this.#unreference(this.#block);
    this.#segmentStart = 0;
    this.#position = 0;
    const buffer = this.#pool.take(Math.max(bytes, BLOCK_BYTES));
    this.#heldBytes += buffer.byteLength;
    const block: ReplyBlock = { buffer, references: 1, onWritten: () => this.#written(block) };
    this.#block = block;
  }

  #dropBlock(): void {
    const block = this.#block;
    this.#block = undefined;
    this.#segmentStart = 0;
    this.#position = 0;
    if (block !== undefined) this.release(block);
  }

  #written(block: ReplyBlock): void {
    this.release(block);
    // Alone with its writer and nothing in it: back to the pool, so that the next turn, of whichever connection,
    // starts at the front of memory that is still in the processor's cache.
    if (block === this.#block && block.references === 1 && this.#position === this.#segmentStart)
      this.#dropBlock();
    else this.#onFreed();
  }
}
