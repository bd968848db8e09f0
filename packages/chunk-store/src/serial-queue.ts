/** Runs asynchronous tasks one after another, in the order of the calls; a failed one does not stop the next. */
export class SerialQueue {
  #tail: Promise<unknown> = Promise.resolve();

  run<T>(task: () => Promise<T>): Promise<T> {
    const done = this.#tail.then(task);
    this.#tail = done.catch(() => undefined);
    return done;
  }

  /** Resolves when every task that was asked for so far has ended. */
  async idle(): Promise<void> {
    await this.#tail;
  }
}
