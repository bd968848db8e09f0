/**
 * Downloads past HTTP: a client that asks for it (`Connection: Upgrade`, `Upgrade: pando-sparse`) gets 101 and then nothing but a sparse
 * stream on the connection, to whose end the connection is closed. Everything before, routes and guards included, is as for any other
 * request.
 *
 * Measured on an image of 540 MiB: HTTP's own streams take a fresh buffer for each piece on this side and two on the other, and
 * collecting them was a third of all processor time. Here a few buffers go round: each is used again once the system has taken it.
 */
import {
  FRAME_BYTES_MAX,
  FRAME_HEADER_BYTES,
  PandoError,
  SPARSE_PROTOCOL,
  writeFrameHeader,
} from '@pando/common';
import type { Attachment } from '@pando/fleet';
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { extents, throwIfRevoked } from './disk-reader.ts';

const BUFFER_BYTES = 512 * 1024;
/** Of one download: one is filled while the others are on their way. */
const BUFFERS = 3;

/** Most that is read at once: also what a turn of the event loop takes. */
const READ_BYTES_MAX = 256 * 1024;

/** A frame is begun where at least so much room is left. */
const FRAME_ROOM_MIN = 4096 + FRAME_HEADER_BYTES;

/** Whether the client asks for a connection of its own. */
export function wantsTunnel({ method, headers }: IncomingMessage): boolean {
  return (
    method === 'GET' &&
    headers.upgrade?.toLowerCase() === SPARSE_PROTOCOL &&
    /(^|,)\s*upgrade\s*(,|$)/i.test(headers.connection ?? '')
  );
}

/**
 * Sends the answer with these headers, which hold nothing that anybody made up, and all of the disk. Whatever goes wrong, the connection
 * is cut without an end frame, which is how the client knows. `close` is over before the end frame is sent: whoever has it may rely on
 * the disk being free. Where it does not come to that, the caller closes.
 * @throws what reading throws; `export-interrupted` when the client goes
 */
export async function sendTunnel(
  socket: Socket,
  headers: Readonly<Record<string, string | number>>,
  disk: Attachment,
  close: () => Promise<void>,
): Promise<void> {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${SPARSE_PROTOCOL}\r\n${lines.join('')}\r\n`,
  );
  const buffers = new Buffers(socket);
  try {
    let buffer = await buffers.take();
    let filled = 0;
    for await (const { offset, length, hole } of extents(disk, 0)) {
      if (hole) continue;
      for (let at = offset; at < offset + length;) {
        if (BUFFER_BYTES - filled < FRAME_ROOM_MIN) {
          buffers.send(buffer.subarray(0, filled));
          filled = 0;
          buffer = await buffers.take();
        }
        throwIfRevoked(disk);
        const room = BUFFER_BYTES - filled - FRAME_HEADER_BYTES;
        const bytes = Math.min(offset + length - at, room, READ_BYTES_MAX, FRAME_BYTES_MAX);
        writeFrameHeader(buffer, filled, at, bytes);
        await disk.read(at, bytes, buffer, filled + FRAME_HEADER_BYTES);
        filled += FRAME_HEADER_BYTES + bytes;
        at += bytes;
      }
    }
    await close();
    // There is always room for it.
    writeFrameHeader(buffer, filled, disk.size, 0);
    buffers.send(buffer.subarray(0, filled + FRAME_HEADER_BYTES));
    await buffers.idle();
    socket.end();
  } catch (error) {
    socket.destroy();
    throw error;
  } finally {
    buffers.close();
  }
}

/** The buffers of one download. */
class Buffers {
  readonly #socket: Socket;
  readonly #free: Buffer[] = [];
  #made = 0;
  #wakeUp: (() => void) | undefined;
  readonly #onClose = (): void => this.#wakeUp?.();

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('close', this.#onClose);
  }

  /** A buffer that nobody uses; in a later turn of the event loop, because both ends may be quicker than everybody else. */
  async take(): Promise<Buffer> {
    await new Promise((resolve) => setImmediate(resolve));
    for (;;) {
      this.#throwIfClosed();
      const free = this.#free.pop();
      if (free !== undefined) return free;
      if (this.#made < BUFFERS) {
        this.#made++;
        return Buffer.allocUnsafeSlow(BUFFER_BYTES);
      }
      await this.#change();
    }
  }

  /** Sends what a buffer begins with. */
  send(bytes: Buffer): void {
    const whole = Buffer.from(bytes.buffer);
    this.#socket.write(bytes, (error) => {
      // After a failure the system may still have it.
      if (error === undefined || error === null) this.#free.push(whole);
      this.#wakeUp?.();
    });
  }

  /** Resolves when all has been taken by the system. */
  async idle(): Promise<void> {
    while (this.#free.length < this.#made) {
      this.#throwIfClosed();
      await this.#change();
    }
  }

  close(): void {
    this.#socket.off('close', this.#onClose);
  }

  async #change(): Promise<void> {
    await new Promise<void>((resolve) => (this.#wakeUp = resolve));
  }

  #throwIfClosed(): void {
    if (this.#socket.destroyed) throw new PandoError('export-interrupted', 'the client has gone');
  }
}
