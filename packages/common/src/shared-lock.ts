/** A lock that many may share or one may have alone, first come first served. */

export type LockMode = 'shared' | 'exclusive';

export class SharedLock {
  /** Holders: a count of shared ones, or -1 for an exclusive one. */
  #holders = 0;
  readonly #waiting: { readonly mode: LockMode; readonly grant: () => void }[] = [];

  /** How many wait for it. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** Whether nobody holds it or waits for it. */
  get idle(): boolean {
    return this.#holders === 0 && this.#waiting.length === 0;
  }

  /** Runs the action while the lock is held; what it returns or throws passes through. */
  async hold<T>(mode: LockMode, action: () => Promise<T>): Promise<T> {
    if (this.#waiting.length === 0 && this.#free(mode)) this.#take(mode);
    else await new Promise<void>((grant) => this.#waiting.push({ mode, grant }));
    try {
      return await action();
    } finally {
      this.#holders = mode === 'exclusive' ? 0 : this.#holders - 1;
      while (this.#waiting.length > 0 && this.#free(this.#waiting[0]!.mode)) {
        const next = this.#waiting.shift()!;
        this.#take(next.mode);
        next.grant();
      }
    }
  }

  #free(mode: LockMode): boolean {
    return mode === 'exclusive' ? this.#holders === 0 : this.#holders >= 0;
  }

  #take(mode: LockMode): void {
    this.#holders = mode === 'exclusive' ? -1 : this.#holders + 1;
  }
}
