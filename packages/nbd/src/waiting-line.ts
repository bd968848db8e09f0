/**
 * A line of connections that wait for something bounded: who came first has the first turn, who got something goes to
 * the end, and who got nothing keeps the place: so neither large requests nor late comers starve.
 */
export class WaitingLine {
  /** Had a turn and got nothing. */
  #front: (() => void) | undefined;
  readonly #line = new Set<() => void>();
  #inTurn = false;
  /** How often something was taken. */
  #taken = 0;
  #wakeScheduled = false;

  /** Whether the caller must join the line: others wait, and it is not the caller's turn. */
  get closed(): boolean {
    return !this.#inTurn && !this.isEmpty;
  }

  get isEmpty(): boolean {
    return this.#front === undefined && this.#line.size === 0;
  }

  has(resume: () => void): boolean {
    return resume === this.#front || this.#line.has(resume);
  }

  /** `resume` is called once, when it is its turn. */
  join(resume: () => void): void {
    if (resume !== this.#front) this.#line.add(resume);
  }

  /** Whoever stood behind it may have a turn now: what it was too much for may be enough for them. */
  leave(resume: () => void): void {
    this.#remove(resume);
    this.wake();
  }

  #remove(resume: () => void): void {
    this.#line.delete(resume);
    if (resume === this.#front) this.#front = undefined;
  }

  /** Something was taken: it counts as progress of whoever has the turn. */
  took(): void {
    this.#taken++;
  }

  /** Something came back: turns are given in the next turn of the event loop. */
  wake(): void {
    if (this.#wakeScheduled || this.isEmpty) return;
    this.#wakeScheduled = true;
    setImmediate(this.#giveTurns);
  }

  readonly #giveTurns = (): void => {
    this.#wakeScheduled = false;
    for (;;) {
      const resume = this.#front ?? this.#line.values().next().value;
      if (resume === undefined) return;
      this.#remove(resume);
      this.#inTurn = true;
      const before = this.#taken;
      try {
        resume();
      } finally {
        this.#inTurn = false;
      }
      if (this.#line.has(resume) && this.#taken === before) {
        this.#line.delete(resume);
        this.#front = resume;
        return;
      }
    }
  };
}
