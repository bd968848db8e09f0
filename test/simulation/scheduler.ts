/**
 * Time and order in the simulated world. Every storage operation waits in a queue, from which one is picked by dice
 * whenever everything else has come to rest; its completion is a second entry of that queue, so operations take effect in
 * one order and are heard of in another. Time passes when nothing else is left to happen, and a little with each operation.
 *
 * No timers: `setImmediate` is used to let the engine run until it waits for something, and nothing else runs in
 * between. So the same seed gives the same run, and a hash over all that happened (`trace`) shows it.
 */
import { createHash, type Hash } from 'node:crypto';
import type { Clock } from '@pando/common';
import type { DiskFault } from '@pando/common/testing';

export interface Operation {
  /** `write`, `sync`, `catalog commit`, … */
  readonly kind: string;
  readonly path: string;
  /** Offset, size, or whatever else tells it from others. */
  readonly at?: number | undefined;
  /** What is to be written. */
  readonly parts?: readonly Uint8Array[] | undefined;
  /** Changes nothing, so that a crash before it is no different from one before the next operation. */
  readonly isRead?: boolean;
}

/** What an observer makes of an operation that is about to take effect. */
export type Observer = (operation: Operation, count: number) => DiskFault | undefined;

interface Waiting {
  readonly start: () => void;
  readonly path: string;
}

interface Sleeper {
  readonly at: number;
  readonly wake: () => void;
}

/** Turns in which nothing happens before time passes: the engine may be busy without storage. */
const IDLE_TURNS = 4;
/** Simulated time without an end of the work after which it is taken to hang. */
const HANG_MS = 3_600_000;
const EPOCH_MS = Date.UTC(2026, 10, 20);

export class Scheduler {
  readonly #random: () => number;
  #waiting: Waiting[] = [];
  readonly #sleepers = new Set<Sleeper>();
  readonly #trace: Hash = createHash('sha256');
  #now: number;
  #epoch = EPOCH_MS;
  #operations = 0;
  #isOver = false;
  /** Called before each operation that changes something. */
  observer: Observer | undefined;
  /** Told of each operation when it takes effect, for people who look into a run. */
  print: ((line: string) => void) | undefined;
  /** Operations on paths that begin so are put off for as long as others wait, as a rule. */
  slow: string | undefined;

  constructor(random: () => number, now = 0) {
    this.#random = random;
    this.#now = now;
  }

  get now(): number {
    return this.#now;
  }

  /** Operations that changed something, or were to. */
  get operations(): number {
    return this.#operations;
  }

  readonly clock: Clock = {
    now: () => this.#epoch + Math.floor(this.#now),
    monotonic: () => this.#now,
    sleep: (ms, signal) =>
      new Promise((resolve, reject) => {
        if (signal?.aborted === true) {
          reject(signal.reason as Error);
          return;
        }
        const onAbort = (): void => {
          this.#sleepers.delete(sleeper);
          reject(signal!.reason as Error);
        };
        const sleeper: Sleeper = {
          at: this.#now + Math.max(0, ms),
          wake: () => {
            signal?.removeEventListener('abort', onAbort);
            resolve();
          },
        };
        this.#sleepers.add(sleeper);
        signal?.addEventListener('abort', onAbort, { once: true });
      }),
  };

  /** Lets an operation take effect some time from now, and its caller hear of it some time after that. */
  run<T>(operation: Operation, apply: (fault?: DiskFault) => T): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#enqueue(operation.path, () => {
        const fault = this.#begin(operation);
        let done: () => void;
        try {
          const result = apply(fault);
          done = () => resolve(result);
        } catch (error) {
          const failure = error as Error;
          this.note(`${operation.kind} ${operation.path} failed: ${String(failure)}`);
          done = () => reject(failure);
        }
        if (this.#random() < 0.3) this.#enqueue('', done);
        else done();
      });
    });
  }

  /** Somebody sets the clock that people read. Time as deadlines measure it goes on. */
  jump(ms: number): void {
    this.#epoch += ms;
  }

  /** Adds to what the trace is a hash of. */
  note(what: string): void {
    this.#trace.update(what).update('\n');
  }

  /** A hash of everything that happened so far. */
  trace(): string {
    return this.#trace.copy().digest('hex').slice(0, 16);
  }

  /** Lets the world go on until `work` has settled. @throws what it throws; an error when it hangs */
  async drive<T>(work: Promise<T>): Promise<T> {
    const state = { isOver: false };
    work.finally(() => (state.isOver = true)).catch(() => undefined);
    const hangsAt = this.#now + HANG_MS;
    let idle = 0;
    for (;;) {
      await new Promise((resolve) => setImmediate(resolve));
      if (state.isOver) return work;
      if (this.#isOver) throw new Error('the machine is off');
      if (this.#waiting.length > 0 && !(this.#sleepers.size > 0 && this.#random() < 0.02)) {
        idle = 0;
        this.#step();
      } else if (this.#waiting.length > 0 || ++idle > IDLE_TURNS) {
        if (this.#now > hangsAt || this.#sleepers.size === 0)
          throw new Error('everybody waits for something that does not come');
        this.#pass();
      }
    }
  }

  /** Power off: nothing that waits ever happens, and `drive` ends with an error. */
  stop(): void {
    this.#isOver = true;
    this.#waiting = [];
    this.#sleepers.clear();
  }

  #enqueue(path: string, start: () => void): void {
    if (!this.#isOver) this.#waiting.push({ path, start });
  }

  #step(): void {
    let chosen = Math.floor(this.#random() * this.#waiting.length);
    if (this.slow !== undefined && this.#random() < 0.95) {
      const others = this.#waiting.flatMap(({ path }, i) => (path.startsWith(this.slow!) ? [] : [i]));
      chosen = others[Math.floor(this.#random() * others.length)] ?? chosen;
    }
    const [next] = this.#waiting.splice(chosen, 1);
    this.#now += this.#random();
    next!.start();
  }

  /** On to the next moment at which somebody wants to be woken. */
  #pass(): void {
    let next: Sleeper | undefined;
    for (const sleeper of this.#sleepers) if (next === undefined || sleeper.at < next.at) next = sleeper;
    this.#now = Math.max(this.#now, next!.at);
    this.#sleepers.delete(next!);
    next!.wake();
  }

  #begin(operation: Operation): DiskFault | undefined {
    const { kind, path, at = '', parts = [], isRead = false } = operation;
    this.#trace.update(`${kind} ${path} ${at} ${this.#now}\n`);
    for (const part of parts) this.#trace.update(part);
    if (!isRead) this.#operations++;
    this.print?.(`${isRead ? '' : this.#operations} ${kind} ${path} ${at} ${byteCount(parts)}`);
    return this.observer?.(operation, this.#operations);
  }
}

function byteCount(parts: readonly Uint8Array[]): string {
  return parts.length === 0 ? '' : `${parts.reduce((sum, part) => sum + part.byteLength, 0)} bytes`;
}
