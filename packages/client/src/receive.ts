/**
 * What comes on a connection that is ours alone, in large pieces out of a few buffers that go round: fresh memory for each read of a
 * socket is what the garbage collector would be busy with.
 */
import { shareReceiveBuffer } from '@pando/nbd/client';
import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';

const PIECE_BYTES = 1024 * 1024;
/** One is filled, one is full, and one is with whoever asked for it. */
const PIECES = 3;
/** A socket hands out no more at once. */
const ROOM_MIN = 128 * 1024;

/**
 * The bytes of `head` and then of the connection up to its end, in pieces that are valid until the next one is asked for. Ends the connection.
 * @throws what breaks the connection
 */
export function receive(connection: Duplex, head: Uint8Array): AsyncGenerator<Uint8Array, void, undefined> {
  const free: Buffer[] = Array.from({ length: PIECES }, () => Buffer.allocUnsafeSlow(PIECE_BYTES));
  const full: { readonly buffer: Buffer; readonly bytes: number }[] = [];
  let buffer = free.pop();
  let filled = 0;
  let isEnded = false;
  let failure: Error | undefined;
  let wakeUp: (() => void) | undefined;

  const handOver = (): void => {
    full.push({ buffer: buffer!, bytes: filled });
    buffer = free.pop();
    filled = 0;
    wakeUp?.();
  };
  /** Takes the bytes; false when there is no room for more. */
  const take = (bytes: Uint8Array): boolean => {
    for (let done = 0; done < bytes.byteLength;) {
      // More than ROOM_MIN at once, or more after a no, is not lost either.
      buffer ??= Buffer.allocUnsafeSlow(PIECE_BYTES);
      const count = Math.min(bytes.byteLength - done, PIECE_BYTES - filled);
      buffer.set(bytes.subarray(done, done + count), filled);
      filled += count;
      done += count;
      if (PIECE_BYTES - filled < ROOM_MIN) handOver();
    }
    if (buffer !== undefined) return true;
    connection.pause();
    return false;
  };
  const ended = (error?: Error | null): void => {
    if (error instanceof Error) failure ??= error;
    if (!isEnded && filled > 0) handOver();
    isEnded = true;
    wakeUp?.();
  };

  connection.on('end', () => ended());
  connection.on('error', ended);
  connection.on('close', () => ended(isEnded ? undefined : new Error('the connection was cut')));
  connection.on('data', (bytes: Buffer) => void take(bytes));
  if (head.byteLength > 0) take(head);
  if (connection instanceof Socket) shareReceiveBuffer(connection, take);
  connection.resume();
  // What listens is there before anybody pulls: nothing that happens to the connection goes unheard.
  return pieces();

  async function* pieces(): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      for (;;) {
        const piece = full.shift();
        if (piece !== undefined) {
          yield piece.buffer.subarray(0, piece.bytes);
          if (buffer === undefined) {
            buffer = piece.buffer;
            connection.resume();
          } else if (free.length < PIECES) free.push(piece.buffer);
          continue;
        }
        if (failure !== undefined) throw failure;
        if (isEnded) return;
        await new Promise<void>((resolve) => (wakeUp = resolve));
      }
    } finally {
      connection.destroy();
    }
  }
}
