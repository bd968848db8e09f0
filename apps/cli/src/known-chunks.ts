/**
 * A disk as a stream without the chunks that the server has: the disk is cut into chunks and hashed here, the server is asked a window
 * at a time which of them it stores, and those go as ids. Where it turns out to have few, most windows go unasked and unhashed.
 *
 * No object, closure or promise for each chunk: at 4 KiB there are a quarter of a million in a gibibyte.
 */
import { hashChunk } from '@pando/chunk-store/hashing';
import {
  FRAME_BYTES_MAX,
  frameHeader,
  ID_BYTES,
  IDS_FRAME_MAX,
  idsFrameHeader,
  type DiskPart,
} from '@pando/common';

/** Chunks that the server is asked about at once. */
export const WINDOW_CHUNKS = 2048;

/** Windows whose answers are on their way. */
const ASKED_MAX = 3;

/** Fewer known chunks than this beside one that is not are sent as bytes: cheaper than two frames more. */
const KNOWN_RUN_MIN = 8;

/** A hole of up to so many chunks between known ones goes as ids of chunks of zeros. */
const ZERO_IDS_MAX = 256;

/** When less than one chunk in so many is known, windows are skipped: one, then two, and so on, up to SKIPPED_MAX. */
const WORTH_ASKING = 8;
const SKIPPED_MAX = 32;

/** Which of these chunks the server has at the moment: a byte for each, 1 or 0. */
export type LookUp = (ids: Uint8Array) => Promise<Uint8Array>;

/** Neighbours on the disk: from the `first`-th chunk of the window to that of the next stretch. */
interface Stretch {
  readonly offset: number;
  readonly first: number;
}

class Window {
  readonly bytes: Buffer;
  readonly words: Int32Array;
  readonly ids = new Uint8Array(WINDOW_CHUNKS * ID_BYTES);
  readonly stretches: Stretch[] = [];
  filled = 0;
  answer: Promise<Uint8Array | undefined> | undefined;

  constructor(chunkBytes: number) {
    this.bytes = Buffer.allocUnsafeSlow(WINDOW_CHUNKS * chunkBytes);
    this.words = new Int32Array(this.bytes.buffer);
  }

  clear(): void {
    this.stretches.length = 0;
    this.filled = 0;
    this.answer = undefined;
  }
}

/**
 * The stream (`application/vnd.pando.sparse-ids`) of a disk whose bytes are the parts, in order. Each piece is valid until the next one is
 * asked for.
 */
export async function* encodeKnown(
  parts: AsyncIterable<DiskPart>,
  chunkBytes: number,
  lookUp: LookUp,
): AsyncGenerator<Uint8Array, void, undefined> {
  const free: Window[] = [];
  const asked: Window[] = [];
  const asking = new Asking(chunkBytes, lookUp);
  const writer = new Frames(chunkBytes);
  let window = new Window(chunkBytes);
  let position = 0;

  const next = (): void => {
    asking.ask(window);
    asked.push(window);
    window = free.pop() ?? new Window(chunkBytes);
  };
  async function* first(): AsyncGenerator<Uint8Array, void, undefined> {
    const oldest = asked.shift()!;
    const known = await oldest.answer;
    asking.learn(known, Math.floor(oldest.filled / chunkBytes));
    yield* writer.window(oldest, known);
    oldest.clear();
    free.push(oldest);
  }

  try {
    for await (const part of parts) {
      if (!(part instanceof Uint8Array)) {
        // The rest of a chunk that began as bytes.
        const rest = Math.min(part.holeBytes, (chunkBytes - (window.filled % chunkBytes)) % chunkBytes);
        window.bytes.fill(0, window.filled, window.filled + rest);
        window.filled += rest;
        position += part.holeBytes;
      } else {
        for (let done = 0; done < part.byteLength;) {
          if (window.filled % chunkBytes === 0) begin(window, position, chunkBytes);
          const count = Math.min(part.byteLength - done, window.bytes.byteLength - window.filled);
          window.bytes.set(part.subarray(done, done + count), window.filled);
          window.filled += count;
          position += count;
          done += count;
          if (window.filled === window.bytes.byteLength) {
            next();
            if (asked.length === ASKED_MAX) yield* first();
          }
        }
      }
      if (window.filled === window.bytes.byteLength) next();
      while (asked.length >= ASKED_MAX) yield* first();
    }
    next();
    while (asked.length > 0) yield* first();
    yield* writer.ids();
    yield frameHeader(position, 0);
  } finally {
    for (const { answer } of asked) answer?.catch(() => undefined);
  }
}

/** Begins a chunk at the end of the window: zeros up to `position` where that lies inside of it. */
function begin(window: Window, position: number, chunkBytes: number): void {
  const skipped = position % chunkBytes;
  const offset = position - skipped;
  const last = window.stretches.at(-1);
  const chunk = window.filled / chunkBytes;
  if (last?.offset !== offset - (chunk - (last?.first ?? 0)) * chunkBytes) {
    window.stretches.push({ offset, first: chunk });
  }
  window.bytes.fill(0, window.filled, window.filled + skipped);
  window.filled += skipped;
}

/** Which windows are asked about. */
class Asking {
  readonly #chunkBytes: number;
  readonly #lookUp: LookUp;
  #skip = 0;
  #skipNext = 1;

  constructor(chunkBytes: number, lookUp: LookUp) {
    this.#chunkBytes = chunkBytes;
    this.#lookUp = lookUp;
  }

  ask(window: Window): void {
    if (this.#skip > 0) {
      this.#skip--;
      return;
    }
    const chunkBytes = this.#chunkBytes;
    // What is left over at the end of the disk is no whole chunk: it goes as bytes.
    const count = Math.floor(window.filled / chunkBytes);
    const words = chunkBytes / 4;
    for (let i = 0; i < count; i++) {
      if (isZero(window.words, i * words, words)) window.ids.fill(0, i * ID_BYTES, (i + 1) * ID_BYTES);
      else {
        const chunk = window.bytes.subarray(i * chunkBytes, (i + 1) * chunkBytes);
        window.ids.set(hashChunk(chunk), i * ID_BYTES);
      }
    }
    if (count === 0) return;
    window.answer = this.#lookUp(window.ids.subarray(0, count * ID_BYTES));
    window.answer.catch(() => undefined); // reported when it is its turn
  }

  learn(known: Uint8Array | undefined, count: number): void {
    if (known === undefined) return;
    let hits = 0;
    for (let i = 0; i < count; i++) hits += known[i]!;
    if (hits * WORTH_ASKING >= count) this.#skipNext = 1;
    else {
      this.#skip = this.#skipNext;
      this.#skipNext = Math.min(2 * this.#skipNext, SKIPPED_MAX);
    }
  }
}

/** Turns windows into frames; ids are gathered over windows and over short holes. */
class Frames {
  readonly #chunkBytes: number;
  readonly #ids = new Uint8Array(IDS_FRAME_MAX * ID_BYTES);
  #idsAt = 0;
  #count = 0;

  constructor(chunkBytes: number) {
    this.#chunkBytes = chunkBytes;
  }

  *window(window: Window, known: Uint8Array | undefined): Generator<Uint8Array, void, undefined> {
    const chunkBytes = this.#chunkBytes;
    const whole = Math.floor(window.filled / chunkBytes);
    for (const [index, { offset, first }] of window.stretches.entries()) {
      const end = window.stretches[index + 1]?.first ?? whole;
      for (let at = first; at < end;) {
        const isKnown = known?.[at] === 1;
        let to = at + 1;
        while (to < end && (known?.[to] === 1) === isKnown) to++;
        if (isKnown && (to - at >= KNOWN_RUN_MIN || (at === first && to === end))) {
          yield* this.#known(window, offset + (at - first) * chunkBytes, at, to);
        } else {
          const from = at * chunkBytes;
          yield* this.#bytes(
            offset + (at - first) * chunkBytes,
            window.bytes.subarray(from, to * chunkBytes),
          );
        }
        at = to;
      }
      const isLast = index === window.stretches.length - 1;
      if (isLast && window.filled > whole * chunkBytes) {
        const rest = window.bytes.subarray(whole * chunkBytes, window.filled);
        yield* this.#bytes(offset + (whole - first) * chunkBytes, rest);
      }
    }
  }

  /** What has been gathered. */
  *ids(): Generator<Uint8Array, void, undefined> {
    if (this.#count === 0) return;
    yield idsFrameHeader(this.#idsAt, this.#count);
    yield this.#ids.subarray(0, this.#count * ID_BYTES);
    this.#count = 0;
  }

  *#known(window: Window, offset: number, at: number, to: number): Generator<Uint8Array, void, undefined> {
    const zeros = (offset - this.#idsAt) / this.#chunkBytes - this.#count;
    if (this.#count > 0 && zeros > 0) {
      if (zeros <= ZERO_IDS_MAX && this.#count + zeros <= IDS_FRAME_MAX) {
        this.#ids.fill(0, this.#count * ID_BYTES, (this.#count + zeros) * ID_BYTES);
        this.#count += zeros;
      } else yield* this.ids();
    }
    for (let done = at; done < to;) {
      if (this.#count === IDS_FRAME_MAX) yield* this.ids();
      if (this.#count === 0) this.#idsAt = offset + (done - at) * this.#chunkBytes;
      const count = Math.min(to - done, IDS_FRAME_MAX - this.#count);
      this.#ids.set(window.ids.subarray(done * ID_BYTES, (done + count) * ID_BYTES), this.#count * ID_BYTES);
      this.#count += count;
      done += count;
    }
  }

  *#bytes(offset: number, bytes: Uint8Array): Generator<Uint8Array, void, undefined> {
    yield* this.ids();
    for (let at = 0; at < bytes.byteLength; at += FRAME_BYTES_MAX) {
      const data = bytes.subarray(at, at + FRAME_BYTES_MAX);
      yield frameHeader(offset + at, data.byteLength);
      yield data;
    }
  }
}

function isZero(words: Int32Array, from: number, count: number): boolean {
  for (let i = from; i < from + count; i++) {
    if (words[i] !== 0) return false;
  }
  return true;
}
