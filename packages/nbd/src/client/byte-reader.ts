/** Exact numbers of bytes out of a socket, with back-pressure: what the client parses replies with. */
import { PandoError } from '@pando/common';
import type { Socket } from 'node:net';

/** Bytes that may wait here before reading from the socket pauses. */
const BUFFERED_BYTES_MAX = 1024 * 1024;

export class ByteReader {
  readonly #socket: Socket;
  #chunks: Buffer[] = [];
  #position = 0;
  #bytes = 0;
  #failure: PandoError | undefined;
  #wake: (() => void) | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#bytes += chunk.length;
      if (this.#bytes > BUFFERED_BYTES_MAX) socket.pause();
      this.#wake?.();
    });
    const ended = (cause?: unknown): void => {
      this.#failure ??= new PandoError('connection-lost', 'the NBD server closed the connection', { cause });
      this.#wake?.();
    };
    socket.on('end', () => {
      ended();
    });
    socket.on('error', ended);
    socket.on('close', () => {
      ended();
    });
  }

  /** Fills `target[from … from + length − 1]`. @throws `connection-lost` when the stream ends first */
  async readInto(target: Uint8Array, from: number, length: number): Promise<void> {
    let done = 0;
    while (done < length) {
      const chunk = this.#chunks[0];
      if (chunk === undefined) {
        if (this.#failure !== undefined) throw this.#failure;
        this.#socket.resume();
        await new Promise<void>((resolve) => (this.#wake = resolve));
        this.#wake = undefined;
        continue;
      }
      const count = Math.min(length - done, chunk.length - this.#position);
      target.set(chunk.subarray(this.#position, this.#position + count), from + done);
      done += count;
      this.#bytes -= count;
      this.#position += count;
      if (this.#position === chunk.length) {
        this.#chunks.shift();
        this.#position = 0;
      }
    }
  }

  async read(length: number): Promise<Buffer> {
    const bytes = Buffer.allocUnsafe(length);
    await this.readInto(bytes, 0, length);
    return bytes;
  }
}
