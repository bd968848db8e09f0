/**
 * Who may do what at the same time: locks by id, shared or exclusive, first come first served; and
 * names that are being given away.
 *
 * Order, so that nobody waits in a circle: a backup's lock before its VM's.
 */
import { PandoError } from '@pando/common';

export type LockMode = 'shared' | 'exclusive';

interface Waiter {
  readonly mode: LockMode;
  readonly grant: () => void;
}

interface Lock {
  /** Holders: a count of shared ones, or -1 for an exclusive one. */
  holders: number;
  readonly waiting: Waiter[];
}

export class Locks {
  readonly #locks = new Map<string, Lock>();
  readonly #waitersMax: number;

  constructor(waitersMax: number) {
    this.#waitersMax = waitersMax;
  }

  /**
   * Runs the action while the lock is held.
   * @throws `too-busy` when too many wait for this lock already
   */
  async hold<T>(key: string, mode: LockMode, action: () => Promise<T>): Promise<T> {
    const lock = this.#locks.get(key) ?? { holders: 0, waiting: [] };
    this.#locks.set(key, lock);
    if (lock.waiting.length === 0 && canHold(lock, mode)) {
      take(lock, mode);
    } else {
      if (lock.waiting.length >= this.#waitersMax) {
        throw new PandoError('too-busy', `${this.#waitersMax} operations wait for the same VM or backup`);
      }
      await new Promise<void>((grant) => lock.waiting.push({ mode, grant }));
    }
    try {
      return await action();
    } finally {
      lock.holders = mode === 'exclusive' ? 0 : lock.holders - 1;
      while (lock.waiting.length > 0 && canHold(lock, lock.waiting[0]!.mode)) {
        const next = lock.waiting.shift()!;
        take(lock, next.mode);
        next.grant();
      }
      if (lock.holders === 0) this.#locks.delete(key);
    }
  }
}

function canHold(lock: Lock, mode: LockMode): boolean {
  return mode === 'exclusive' ? lock.holders === 0 : lock.holders >= 0;
}

function take(lock: Lock, mode: LockMode): void {
  lock.holders = mode === 'exclusive' ? -1 : lock.holders + 1;
}

/**
 * Names between the check that nobody has them and the commit that gives them away: held in memory, so
 * that two requests for one name never both pass the check, and different names share commits.
 */
export class Reservations {
  readonly #names = new Set<string>();

  /**
   * Reserves all of the keys or none; returns how to give them back.
   * @throws `name-taken` when one of them is reserved
   */
  reserve(keys: readonly string[], describe: (key: string) => string = (key) => key): () => void {
    for (const key of keys) {
      if (this.#names.has(key)) {
        throw new PandoError('name-taken', `${describe(key)} is just being given to another`);
      }
    }
    for (const key of keys) this.#names.add(key);
    return () => {
      for (const key of keys) this.#names.delete(key);
    };
  }
}
