/** Exact numbers of bytes out of a socket, with back-pressure: what the client parses replies with. */
import { PandoError } from '@pando/common';
import type { Socket } from 'node:net';

/** Bytes that may wait here before reading from the socket pauses. */
const BUFFERED_BYTES_MAX = 1024 * 1024;

export class ByteReader {
  readonly #socket: Socket;
  readonly #listeners: readonly (readonly [string, (argument?: unknown) => void])[];
  #chunks: Buffer[] = [];
  #position = 0;
  #bytes = 0;
  #failure: PandoError | undefined;
  #wake: (() => void) | undefined;
  #onData: (() => void) | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    const ended = (cause?: unknown): void => {
      const why = cause instanceof Error ? `: ${cause.message}` : '';
      this.#failure ??= new PandoError('connection-lost', `the NBD server closed the connection${why}`, {
        cause,
      });
      this.#wake?.();
    };
    const took = (chunk: unknown): void => {
      this.#chunks.push(chunk as Buffer);
      this.#bytes += (chunk as Buffer).length;
      if (this.#bytes > BUFFERED_BYTES_MAX) socket.pause();
      this.#onData?.();
      this.#wake?.();
    };
    this.#listeners = [
      ['data', took],
      ['end', () => ended()],
      ['error', ended],
      ['close', () => ended()],
    ];
    for (const [event, listener] of this.#listeners) socket.on(event, listener);
  }

  /** Called whenever bytes have come. */
  set onData(listener: () => void) {
    this.#onData = listener;
  }

  /** Bytes that have come and were not read yet. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Whoever reads gets this error, at once; what has come is thrown away. */
  fail(error: PandoError): void {
    this.#failure = error;
    this.#chunks = [];
    this.#position = 0;
    this.#bytes = 0;
    this.#wake?.();
  }

  /** Lets go of the socket, for a layer above it to take over. */
  detach(): void {
    this.#socket.pause();
    for (const [event, listener] of this.#listeners) this.#socket.off(event, listener);
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
