/** The bound on device operations of all connections together. */
import { WaitingLine } from './waiting-line.ts';

export class RequestSlots {
  readonly #max: number;
  readonly #line = new WaitingLine();
  #taken = 0;

  constructor(max: number) {
    this.#max = max;
  }

  get taken(): number {
    return this.#taken;
  }

  /** Whether one more operation may begin; who is told no joins the line with `wait`. */
  admits(): boolean {
    return this.#taken < this.#max && !this.#line.closed;
  }

  take(): void {
    this.#taken++;
    this.#line.took();
  }

  give(): void {
    this.#taken--;
    this.#line.wake();
  }

  /** Calls `resume` once when it is its turn. */
  wait(resume: () => void): void {
    this.#line.join(resume);
  }

  hasWaiting(resume: () => void): boolean {
    return this.#line.has(resume);
  }

  stopWaiting(resume: () => void): void {
    this.#line.leave(resume);
  }
}
