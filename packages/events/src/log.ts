/**
 * The event log: what was raised, kept in table `event` of the catalog, bounded in number and age, and followed from any place on.
 *
 *     event    id, 16 digits    → EventRecord
 *
 * An id is the time in milliseconds, or one more than the newest, whichever is greater: so ids ascend over restarts also where the newest events
 * could not be kept. An event is shown once its commit has ended, well or not: when the catalog takes no more writes (the store
 * failed, the disk is full), events stay in memory, a bounded number, and go into the catalog with the next ones if that works again.
 */
import { checkRecord, type Catalog, type CatalogOperation } from '@pando/catalog';
import { PandoError, type Clock } from '@pando/common';
import {
  EVENT_KINDS,
  SEVERITIES,
  type EventKind,
  type KeptEvent,
  type OnEvent,
  type Severity,
} from './types.ts';

const TABLE = 'event';
const VERSION = 1;
const ID_DIGITS = 16;

export interface EventLimits {
  /** Events that are kept; the oldest go first. */
  readonly events: number;
  readonly ageMs: number;
  /** Events in memory that wait for the catalog; what comes past them is counted, not kept. */
  readonly waiting: number;
  /** Events that one commit writes, and that it removes; what a follower reads at a time. */
  readonly batch: number;
  /** Records that one page looks at for what the filter takes. */
  readonly scanned: number;
  /** A text, and a value in `data`, is cut to so many characters. */
  readonly textCharacters: number;
}

export const EVENT_LIMITS: EventLimits = {
  events: 10_000,
  ageMs: 90 * 24 * 60 * 60_000,
  waiting: 1000,
  batch: 100,
  scanned: 2000,
  textCharacters: 2000,
};

interface EventRecord {
  readonly version: 1;
  readonly at: number;
  readonly kind: string;
  readonly severity: Severity;
  readonly text: string;
  readonly subject?: string;
  readonly data?: NonNullable<KeptEvent['data']>;
}

export interface EventFilter {
  readonly kinds?: readonly string[];
  /** This bad or worse. */
  readonly severity?: Severity;
  readonly subject?: string;
  /** Milliseconds since 1970. */
  readonly since?: number;
}

export class EventLog {
  readonly #catalog: Catalog;
  readonly #clock: Clock;
  readonly #limits: EventLimits;
  readonly #onTrouble: (error: unknown, waiting: number) => void;
  /** Those that are not in the catalog, oldest first; bounded by `waiting`. */
  readonly #waiting: KeptEvent[] = [];
  readonly #followers = new Set<() => void>();
  #newest: number;
  /** Events up to this one are shown. */
  #shown: number;
  #count: number;
  #lost = 0;
  #writing: Promise<void> | undefined;
  #closed = false;

  private constructor(options: OpenOptions, newest: number, count: number) {
    this.#catalog = options.catalog;
    this.#clock = options.clock;
    this.#limits = { ...EVENT_LIMITS, ...options.limits };
    this.#onTrouble = options.onTrouble ?? (() => undefined);
    this.#newest = newest;
    this.#shown = newest;
    this.#count = count;
  }

  static async open(options: OpenOptions): Promise<EventLog> {
    const { catalog } = options;
    const { batch } = { ...EVENT_LIMITS, ...options.limits };
    let newest = 0;
    let count = 0;
    for (let after: string | undefined; ;) {
      const found = await catalog.list(TABLE, { limit: batch, ...(after === undefined ? {} : { after }) });
      count += found.length;
      after = found.at(-1)?.key;
      if (after !== undefined) newest = Number(after);
      if (found.length < batch) break;
    }
    return new EventLog(options, newest, count);
  }

  /** Takes an event; neither waits nor fails. */
  readonly raise: OnEvent = ({ kind, text, subject, data }) => {
    if (this.#closed) return;
    if (this.#waiting.length >= this.#limits.waiting) {
      this.#lost++;
      return;
    }
    const at = this.#clock.now();
    const id = Math.max(this.#newest + 1, at);
    this.#newest = id;
    this.#waiting.push({
      ...{ id, at, kind, severity: EVENT_KINDS[kind].severity, text: this.#cut(text) },
      ...(subject === undefined ? {} : { subject: this.#cut(subject) }),
      ...(data === undefined ? {} : { data: this.#cutAll(data) }),
    });
    this.#writing ??= this.#write().finally(() => {
      this.#writing = undefined;
    });
  };

  /** Events that were raised while too many waited: nothing else tells of them. */
  get lost(): number {
    return this.#lost;
  }

  get newestId(): number {
    return this.#shown;
  }

  /**
   * Events before the one that `before` names, newest first. A page may have fewer than `limit` and still a next one: it looks at a bounded
   * number of records.
   */
  async list({
    before,
    limit,
    ...filter
  }: EventFilter & { readonly before?: number; readonly limit: number }): Promise<{
    readonly items: readonly KeptEvent[];
    readonly next?: number;
  }> {
    const items: KeptEvent[] = [];
    let from = Math.min(before ?? Infinity, this.#shown + 1);
    for (let scanned = 0; ;) {
      if (items.length >= limit || scanned >= this.#limits.scanned) return { items, next: from };
      const found = await this.#read({ before: from }, Math.min(this.#limits.batch, this.#limits.scanned));
      if (found.length === 0) return { items };
      for (const event of found) {
        if (items.length >= limit) break;
        scanned++;
        from = event.id;
        if (matches(event, filter)) items.push(event);
      }
    }
  }

  /**
   * Events after the one that `after` names, then those that come, in order; `undefined` when there was none for `quietMs`. Reads on only when
   * it is asked for more, so that a slow reader keeps nothing waiting but itself. What has been removed meanwhile is left out.
   */
  async *follow(
    after: number,
    filter: EventFilter,
    signal: AbortSignal,
    quietMs: number,
  ): AsyncGenerator<KeptEvent | undefined, void, undefined> {
    let wake = (): void => undefined;
    const notice = (): void => wake();
    this.#followers.add(notice);
    signal.addEventListener('abort', notice);
    try {
      for (let at = after; !signal.aborted && !this.#closed;) {
        if (at < this.#shown) {
          const found = await this.#read({ after: at }, this.#limits.batch);
          for (const event of found) {
            at = event.id;
            if (matches(event, filter)) yield event;
          }
          if (found.length === 0) at = this.#shown;
          continue;
        }
        const isQuiet = await this.#quiet(
          quietMs,
          (woken) => (wake = woken),
          () => at < this.#shown || signal.aborted,
        );
        if (isQuiet) yield undefined;
      }
    } finally {
      this.#followers.delete(notice);
      signal.removeEventListener('abort', notice);
    }
  }

  /** Writes what waits, and ends followers. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#writing;
    await this.#write();
    for (const notice of this.#followers) notice();
  }

  /** Waits for `wake`; whether nobody called it. */
  async #quiet(ms: number, onWake: (wake: () => void) => void, isOver: () => boolean): Promise<boolean> {
    const woken = new AbortController();
    onWake(() => woken.abort());
    if (isOver() || this.#closed) return false;
    return this.#clock.sleep(ms, woken.signal).then(
      () => true,
      () => false,
    );
  }

  /** Of the catalog and of what waits for it, in the order asked for. */
  async #read(range: { before: number } | { after: number }, limit: number): Promise<KeptEvent[]> {
    const isBackwards = 'before' in range;
    // Before the catalog is asked: what it takes meanwhile is in both, not in neither.
    const waiting = this.#waiting.filter(
      ({ id }) => id <= this.#shown && (isBackwards ? id < range.before : id > range.after),
    );
    const stored = await this.#catalog.list(
      TABLE,
      isBackwards
        ? { before: keyOf(range.before), reverse: true, limit }
        : { after: keyOf(range.after), limit },
    );
    const shown = this.#shown;
    const found = new Map(waiting.map((event) => [event.id, event]));
    for (const { key, value } of stored)
      if (Number(key) <= shown) found.set(Number(key), eventOf(key, value));
    const order = isBackwards ? -1 : 1;
    return [...found.values()].sort((a, b) => (a.id - b.id) * order).slice(0, limit);
  }

  async #write(): Promise<void> {
    // In a turn of its own: those who raise several at once get one commit.
    await Promise.resolve();
    for (let tried = -1; ;) {
      const batch = this.#waiting.slice(0, this.#limits.batch);
      const last = this.#waiting.at(-1)?.id;
      if (batch.length === 0 || last === undefined || tried === last) return;
      try {
        const removals = await this.#removals(batch.length);
        const puts = batch.map(({ id, ...event }): CatalogOperation => {
          return { type: 'put', table: TABLE, key: keyOf(id), value: { version: VERSION, ...event } };
        });
        await this.#catalog.commit([...puts, ...removals]);
        this.#count += puts.length - removals.length;
        this.#show(batch.at(-1)!.id);
        this.#waiting.splice(0, batch.length);
      } catch (error) {
        this.#onTrouble(error, this.#waiting.length);
        // Once more only when another one comes.
        tried = last;
        this.#show(last);
      }
    }
  }

  #show(id: number): void {
    this.#shown = Math.max(this.#shown, id);
    for (const notice of this.#followers) notice();
  }

  /** The oldest that are too many or too old, a bounded number of them. */
  async #removals(coming: number): Promise<CatalogOperation[]> {
    const { batch, events, ageMs } = this.#limits;
    const excess = this.#count + coming - events;
    const oldest = await this.#catalog.list(TABLE, { limit: 2 * batch });
    const from = this.#clock.now() - ageMs;
    return oldest
      .filter(({ key, value }, i) => i < excess || eventOf(key, value).at < from)
      .map(({ key }) => ({ type: 'delete', table: TABLE, key }));
  }

  #cut(text: string): string {
    return text.slice(0, this.#limits.textCharacters).toWellFormed();
  }

  #cutAll(data: NonNullable<KeptEvent['data']>): NonNullable<KeptEvent['data']> {
    return Object.fromEntries(
      Object.entries(data).map(([name, value]) => [
        name,
        typeof value === 'string' ? this.#cut(value) : value,
      ]),
    );
  }
}

export interface OpenOptions {
  readonly catalog: Catalog;
  readonly clock: Clock;
  readonly limits?: Partial<EventLimits>;
  /** Events could not be kept; so many wait in memory. */
  readonly onTrouble?: (error: unknown, waiting: number) => void;
}

export function matches(event: KeptEvent, { kinds, severity, subject, since }: EventFilter): boolean {
  return (
    (kinds === undefined || kinds.includes(event.kind)) &&
    (severity === undefined || SEVERITIES.indexOf(event.severity) >= SEVERITIES.indexOf(severity)) &&
    (subject === undefined || event.subject === subject) &&
    (since === undefined || event.at >= since)
  );
}

function keyOf(id: number): string {
  if (!Number.isSafeInteger(id) || id < 0) throw new PandoError('internal', `${id} is no id of an event`);
  return String(id).padStart(ID_DIGITS, '0');
}

function eventOf(key: string, value: unknown): KeptEvent {
  checkRecord(TABLE, key, value, VERSION);
  const { version: _version, kind, ...event } = value as EventRecord;
  // A kind of a later version stays what it is: its text is for people.
  return { id: Number(key), kind: kind as EventKind, ...event };
}
