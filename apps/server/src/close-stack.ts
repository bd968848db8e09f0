/** What is open, in the order in which it was opened: closed in reverse, when starting fails as when the server stops. */
import type { Logger } from 'pino';

export class CloseStack {
  readonly #logger: Logger;
  readonly #closers: (() => Promise<void>)[] = [];
  #closing: Promise<void> | undefined;

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  /** `close` is called after those that are pushed later have ended. */
  push(close: () => Promise<void>): void {
    this.#closers.push(close);
  }

  /** Closes all, also when one does not close. Idempotent. @throws the first failure, when all have been tried */
  close(): Promise<void> {
    this.#closing ??= this.#closeAll();
    return this.#closing;
  }

  async #closeAll(): Promise<void> {
    const failures: unknown[] = [];
    for (const close of this.#closers.reverse()) {
      await close().catch((error: unknown) => {
        this.#logger.error({ err: error }, 'a part did not close');
        failures.push(error);
      });
    }
    if (failures.length > 0) throw failures[0];
  }
}
