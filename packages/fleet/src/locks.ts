/**
 * Who may do what at the same time: locks by id, shared or exclusive, first come first served; and
 * names that are being given away.
 *
 * Order, so that nobody waits in a circle: a backup's lock before its VM's.
 */
import { PandoError, SharedLock, type LockMode } from '@pando/common';

export class Locks {
  readonly #locks = new Map<string, SharedLock>();
  readonly #waitersMax: number;

  constructor(waitersMax: number) {
    this.#waitersMax = waitersMax;
  }

  /**
   * Runs the action while the lock is held.
   * @throws `too-busy` when too many wait for this lock already
   */
  async hold<T>(key: string, mode: LockMode, action: () => Promise<T>): Promise<T> {
    const lock = this.#locks.get(key) ?? new SharedLock();
    this.#locks.set(key, lock);
    if (lock.waiting >= this.#waitersMax) {
      throw new PandoError('too-busy', `${this.#waitersMax} operations wait for the same VM or backup`);
    }
    try {
      return await lock.hold(mode, action);
    } finally {
      if (lock.idle && this.#locks.get(key) === lock) this.#locks.delete(key);
    }
  }
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
