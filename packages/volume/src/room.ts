/** Where writers wait while overlays or log are full, and where they learn why when it will not get better. */
import type { PandoError } from '@pando/common';

export class Room {
  readonly #isFull: () => boolean;
  #waiting: { resolve: () => void; reject: (error: Error) => void }[] = [];
  #refusal: PandoError | undefined;
  #inside = 0;
  #emptied: (() => void)[] = [];

  constructor(isFull: () => boolean) {
    this.#isFull = isFull;
  }

  /** Why writers that find no room are refused, while they are. */
  get refusal(): PandoError | undefined {
    return this.#refusal;
  }

  get isFull(): boolean {
    return this.#isFull();
  }

  /** Resolves when there is room. @throws the refusal */
  async wait(): Promise<void> {
    while (this.#isFull()) {
      if (this.#refusal !== undefined) throw this.#refusal;
      await new Promise<void>((resolve, reject) => this.#waiting.push({ resolve, reject }));
    }
  }

  /** Room may have come up: lets those who wait look again. */
  open(): void {
    if (this.#waiting.length === 0 || this.#isFull()) return;
    for (const waiter of this.#waiting.splice(0)) waiter.resolve();
  }

  /** While destage cannot go on, those who find no room are told why instead of waiting for ever. */
  refuse(reason: PandoError | undefined): void {
    this.#refusal = reason;
    if (reason === undefined) this.open();
    else for (const waiter of this.#waiting.splice(0)) waiter.reject(reason);
  }

  /** Counts a writer that was let in, in the turn in which that was found, until `leave`. */
  enter(): void {
    this.#inside++;
  }

  leave(): void {
    if (--this.#inside > 0) return;
    for (const resolve of this.#emptied.splice(0)) resolve();
  }

  /** Resolves when none of the writers that were let in is inside any more. */
  async emptied(): Promise<void> {
    if (this.#inside > 0) await new Promise<void>((resolve) => this.#emptied.push(resolve));
  }
}
