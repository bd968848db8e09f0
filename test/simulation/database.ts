/**
 * LevelDB as the engine may count on it, with crashes. A batch is atomic; one that was written with sync is durable when
 * that resolves, others survive up to some point of the log that they are in. A sync covers only the log that LevelDB is
 * writing, so an older log may still lose its end for as long as its memory table has not become a table.
 * `packages/*` run the same suites over the real one, and test/crash kills a real server.
 */

interface Log<Batch> {
  batches: Batch[];
  /** So many of them survive whatever happens. */
  durable: number;
}

export class Database<Batch> {
  #logs: Log<Batch>[] = [{ batches: [], durable: 0 }];

  append(batch: Batch): void {
    this.#logs.at(-1)!.batches.push(batch);
  }

  /** Makes the current log durable; `all`: older ones too. */
  sync(all = false): void {
    for (const log of all ? this.#logs : this.#logs.slice(-1)) log.durable = log.batches.length;
  }

  /** The memory table is full: the next batch goes into a new log. The one before is a table soon. */
  rotate(): void {
    for (const log of this.#logs.slice(0, -1)) log.durable = log.batches.length;
    this.#logs.push({ batches: [], durable: 0 });
  }

  /** All batches, in order. */
  batches(): Batch[] {
    return this.#logs.flatMap((log) => log.batches);
  }

  copy(): Database<Batch> {
    const next = new Database<Batch>();
    next.#logs = this.#logs.map(({ batches, durable }) => ({ batches: [...batches], durable }));
    return next;
  }

  /** As it is opened after a power cut. */
  powerCut(random: () => number): Database<Batch> {
    const next = new Database<Batch>();
    const all = random();
    for (const { batches, durable } of this.#logs) {
      const luck = all < 0.2 ? 0 : all < 0.4 ? 1 : random();
      const kept = durable + Math.floor(luck * (batches.length - durable + 1));
      for (const batch of batches.slice(0, kept)) next.append(batch);
    }
    next.sync();
    return next;
  }

  /** As it is opened after the process was killed: opening makes tables of the logs. */
  kill(): Database<Batch> {
    const next = new Database<Batch>();
    for (const batch of this.batches()) next.append(batch);
    next.sync();
    return next;
  }
}
