/**
 * Group commit: batches in the order of their calls, those that wait while one is being synced go
 * together in the next one.
 */
import { PandoError } from '@pando/common';

/** One operation, encoded; `value` undefined deletes. */
export interface StoredOperation {
  readonly key: Buffer;
  readonly value: Buffer | undefined;
}

/** Most operations that are gathered into one synced batch (a single larger batch still goes, alone). */
export const GROUP_OPERATIONS_MAX = 20_000;

/** Most batches that wait; more are refused with `too-busy` and have no effect. */
export const WAITING_BATCHES_MAX = 100_000;

interface Waiting {
  readonly operations: readonly StoredOperation[];
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class CommitQueue {
  readonly #apply: (operations: readonly StoredOperation[]) => Promise<void>;
  #waiting: Waiting[] = [];
  #running: Promise<void> | undefined;
  #closed = false;

  /** @param apply applies all operations in order as one atomic batch, or rejects and has had no effect; called one at a time */
  constructor(apply: (operations: readonly StoredOperation[]) => Promise<void>) {
    this.#apply = apply;
  }

  submit(operations: readonly StoredOperation[]): Promise<void> {
    if (this.#closed) return Promise.reject(new PandoError('shutting-down', 'the catalog is closed'));
    if (this.#waiting.length >= WAITING_BATCHES_MAX) {
      return Promise.reject(
        new PandoError('too-busy', `${WAITING_BATCHES_MAX} batches wait for the catalog`),
      );
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ operations, resolve, reject });
      this.#running ??= this.#run();
    });
  }

  /** Refuses further batches and waits for those that were submitted. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#running;
  }

  async #run(): Promise<void> {
    // Everything that is submitted in this turn of the event loop goes into the first group already.
    await Promise.resolve();
    while (this.#waiting.length > 0) {
      const group = this.#takeGroup();
      try {
        await this.#apply(group.flatMap((batch) => batch.operations));
        for (const batch of group) batch.resolve();
      } catch (error) {
        for (const batch of group) batch.reject(error);
      }
    }
    this.#running = undefined;
  }

  #takeGroup(): Waiting[] {
    let batches = 1;
    let operations = this.#waiting[0]!.operations.length;
    while (batches < this.#waiting.length) {
      operations += this.#waiting[batches]!.operations.length;
      if (operations > GROUP_OPERATIONS_MAX) break;
      batches++;
    }
    return this.#waiting.splice(0, batches);
  }
}
