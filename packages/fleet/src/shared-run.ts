/** Work that costs much and answers everybody the same. */
import { PandoError } from '@pando/common';
import type { Work } from './types.ts';

export interface SpaceProgress {
  readonly phase: string;
  readonly done: number;
  readonly all: number;
}

/** One piece of work that several wait for; it is cancelled when none of them is left. */
export class SharedRun<T> {
  readonly ended: Promise<T>;
  readonly #abort = new AbortController();
  readonly #listeners = new Set<(progress: SpaceProgress) => void>();
  #waiting = 0;

  constructor(start: (work: Required<Work<SpaceProgress>>) => Promise<T>) {
    this.ended = start({
      signal: this.#abort.signal,
      onProgress: (progress) => {
        for (const listener of this.#listeners) listener(progress);
      },
    });
  }

  /** @throws `cancelled` when the caller's signal aborts; the work goes on for the others */
  async join(work: Work<SpaceProgress>, onAbandoned: () => void): Promise<T> {
    const { signal, onProgress } = work;
    if (onProgress !== undefined) this.#listeners.add(onProgress);
    this.#waiting++;
    const left = Promise.withResolvers<never>();
    const leave = (): void => {
      left.reject(new PandoError('cancelled', 'the report was cancelled', { cause: signal?.reason }));
    };
    signal?.addEventListener('abort', leave, { once: true });
    if (signal?.aborted === true) leave();
    try {
      return await Promise.race([this.ended, left.promise]);
    } finally {
      signal?.removeEventListener('abort', leave);
      if (onProgress !== undefined) this.#listeners.delete(onProgress);
      if (--this.#waiting === 0) {
        onAbandoned();
        this.#abort.abort();
      }
    }
  }
}
