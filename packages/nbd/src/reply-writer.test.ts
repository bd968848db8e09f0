import type { Socket } from 'node:net';
import { Writable } from 'node:stream';
import { expect, it } from 'vitest';
import { BufferPool } from './buffer-pool.ts';
import { ReplyWriter } from './reply-writer.ts';

const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A socket whose writes end when they are told to. */
class StuckSocket extends Writable {
  readonly ends: ((error?: Error) => void)[] = [];

  override _write(_chunk: unknown, _encoding: unknown, end: (error?: Error) => void): void {
    this.ends.push(end);
  }

  override _writev(_chunks: unknown, end: (error?: Error) => void): void {
    this.ends.push(end);
  }
}

function start(onFreed: (writer: ReplyWriter) => void): {
  pool: BufferPool;
  socket: StuckSocket;
  writer: ReplyWriter;
} {
  const pool = new BufferPool({ bufferBytesMax: 10_000_000, poolBytesMax: 0 });
  const socket = new StuckSocket();
  socket.on('error', () => undefined);
  const writer: ReplyWriter = new ReplyWriter(socket as unknown as Socket, pool, () => {
    onFreed(writer);
  });
  return { pool, socket, writer };
}

function reply(writer: ReplyWriter, bytes: number): void {
  writer.reserve(bytes);
  writer.commit(bytes);
}

it.each([2, 3, 4])(
  'gives each buffer back once when writing fails with %i writes waiting',
  async (waiting) => {
    // What waited for room is answered at once, in two segments.
    const { pool, socket, writer } = start(() => {
      if (again-- <= 0) return;
      reply(writer, 200_000);
      reply(writer, 200_000);
      writer.flush();
    });
    let again = 0;
    for (let i = 0; i <= waiting; i++) {
      reply(writer, 200_000);
      writer.flush();
    }
    expect(socket.ends).toHaveLength(1);
    again = 5;
    socket.ends[0]!(new Error('reset'));
    await nextTurn();
    // As a socket does with what is still under way when it is destroyed.
    for (const end of socket.ends.slice(1)) end();
    again = 0;
    writer.close();
    await nextTurn();
    expect(writer.heldBytes).toBe(0);
    expect(pool.inUseBytes).toBe(0);
  },
);

it('starts one block at a time, also when the last one goes back with it and others were waiting for that', () => {
  const { pool, writer } = start(() => {
    if (again-- > 0) reply(writer, 1_000);
  });
  let again = 0;
  const room = writer.blockBytes(1);
  writer.reserve(room);
  const filled = writer.detach(room);
  // The device fails: its region is free, and the error does not fit behind it.
  writer.release(filled);
  again = 1;
  const at = writer.reserve(300);
  expect(at + 300).toBeLessThanOrEqual(writer.buffer.byteLength);
  writer.commit(300);
  expect(pool.inUseBytes).toBe(room);
  again = 0;
  writer.close();
  expect(pool.inUseBytes).toBe(0);
});
