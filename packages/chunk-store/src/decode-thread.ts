/**
 * A thread that checks and decompresses runs while the main thread answers requests.
 *
 * It starts with the first work that would be worth it, and takes none before it runs. It never keeps the process alive while nothing is under
 * way. If it dies, whoever submitted runs is told so, and it takes no more.
 */
import { Worker } from 'node:worker_threads';
import { DecodeRing, RING_BYTES, RING_SLOTS, type DecodedRun } from './decode-ring.ts';
import type { DecodeWork } from './decode-worker.ts';

/** It makes garbage only and keeps nothing. */
const YOUNG_MIB_MAX = 2;

export class DecodeThread {
  readonly #chunkBytes: number;
  readonly #hashKey: Uint8Array | undefined;
  readonly #onDecoded: () => void;
  #ring: DecodeRing | undefined;
  #worker: Worker | undefined;
  #ended = false;
  #submitted = 0;
  #taken = 0;
  #listening = false;

  /** @param onDecoded is called when `take` has something, or never will again */
  constructor(chunkBytes: number, onDecoded: () => void, hashKey?: Uint8Array) {
    this.#chunkBytes = chunkBytes;
    this.#hashKey = hashKey;
    this.#onDecoded = onDecoded;
  }

  /** Whether it takes work. */
  get isReady(): boolean {
    return !this.#ended && this.#ring?.isReady === true;
  }

  /** Whether it died, or was closed: what was submitted and not taken is lost. */
  get hasEnded(): boolean {
    return this.#ended;
  }

  /** Has it take work as soon as it runs; once is enough. */
  start(): void {
    if (this.#ended || this.#ring !== undefined) return;
    const buffer = new SharedArrayBuffer(RING_BYTES);
    this.#ring = new DecodeRing(buffer);
    const file = import.meta.url.endsWith('.ts') ? './decode-worker.ts' : './decode-worker.js';
    const work: DecodeWork = { buffer, chunkBytes: this.#chunkBytes, hashKey: this.#hashKey };
    try {
      const worker = new Worker(new URL(file, import.meta.url), {
        workerData: work,
        resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MIB_MAX },
      });
      worker.unref();
      worker.on('error', (error) => this.#died(error));
      worker.on('exit', () => this.#died(undefined));
      this.#worker = worker;
    } catch (error) {
      this.#died(error);
    }
  }

  get underWay(): number {
    return (this.#submitted - this.#taken) | 0;
  }

  get hasRoom(): boolean {
    return this.underWay < RING_SLOTS;
  }

  /** Where the next run goes. */
  next(): Uint8Array {
    return this.#ring!.stored(this.#submitted);
  }

  /** Adds the run that stands in `next()`; `ids` as DecodeRing.ask. It is begun with the next `submit`. */
  add(runBytes: number, seed: number, ids: Uint8Array | undefined, offset: number): void {
    this.#ring!.ask(this.#submitted, runBytes, seed, ids, offset);
    if (this.underWay === 0) this.#worker!.ref();
    this.#submitted = (this.#submitted + 1) | 0;
  }

  submit(): void {
    this.#ring!.submit(this.#submitted);
    this.#listen();
  }

  /** Whether the run that was added first, of those not taken yet, is done. */
  get hasNext(): boolean {
    return !this.#ended && this.underWay > 0 && this.#ring!.finished !== this.#taken;
  }

  /** What came of it: undefined when anything is wrong. To be used before the next `add`. */
  take(): DecodedRun | undefined {
    const result = this.#ring!.result(this.#taken);
    this.#taken = (this.#taken + 1) | 0;
    if (this.underWay === 0) this.#worker!.unref();
    return result;
  }

  /** After its end: how many runs were submitted and not taken, and will not come back. */
  drop(): number {
    const dropped = this.underWay;
    this.#taken = this.#submitted;
    return dropped;
  }

  async close(): Promise<void> {
    this.#end();
    await this.#worker?.terminate();
  }

  #listen(): void {
    if (this.#listening || this.#ended || this.underWay === 0) return;
    const more = this.#ring!.more(this.#taken);
    this.#listening = true;
    if (more === undefined) setImmediate(this.#decoded);
    else void more.then(this.#decoded);
  }

  readonly #decoded = (): void => {
    this.#listening = false;
    if (this.#ended) return;
    this.#onDecoded();
    this.#listen();
  };

  #died(error: unknown): void {
    if (this.#ended) return;
    const reason = error instanceof Error ? error.message : 'it exited';
    process.emitWarning(`a thread for decompression died, so the main thread takes over: ${reason}`, {
      code: 'PANDO_NO_WORKERS',
    });
    this.#end();
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#onDecoded();
  }
}
