/**
 * The jobs of this process: long work with a state, progress and an end that many can watch.
 *
 * Jobs live in memory. A restart forgets them, which loses nothing: work that was cut off has left only
 * garbage for gc, and everything that lasts is in the catalog. Jobs of one lane run one after another
 * in the order of their start.
 */
import { randomUUID } from 'node:crypto';
import { actorKey, type Actor } from '@pando/access';
import { ERROR_CODES, isPandoError, PandoError, type Clock } from '@pando/common';
import type { Job, JobKind, Progress } from './schemas/index.ts';

/** Ended jobs that are remembered. */
const HISTORY_MAX = 1000;
/** Jobs that run or wait at the same time. */
const ACTIVE_MAX = 64;

export interface JobWork {
  readonly signal: AbortSignal;
  readonly onProgress: (progress: Progress) => void;
}

interface Entry {
  job: Job;
  readonly lane: string | undefined;
  /** Key of the actor that started it; undefined: the server itself. */
  readonly by: string | undefined;
  readonly abort: AbortController;
  readonly watchers: Set<() => void>;
}

export interface StartedJob<R> {
  readonly job: Job;
  /** The result of the work, or its error. Need not be awaited: the job keeps both. */
  readonly ended: Promise<R>;
}

export class Jobs {
  readonly #clock: Clock;
  readonly #onInternalError: (job: Job, error: unknown) => void;
  readonly #onEnded: (job: Job) => void;
  /** In the order of their start. */
  readonly #entries = new Map<string, Entry>();
  readonly #active = new Set<Promise<unknown>>();
  readonly #lanes = new Map<string, Promise<unknown>>();
  #closing = false;

  constructor(options: {
    clock: Clock;
    onInternalError?: (job: Job, error: unknown) => void;
    /** A job is done, failed or cancelled. */
    onEnded?: (job: Job) => void;
  }) {
    this.#clock = options.clock;
    this.#onEnded = options.onEnded ?? (() => undefined);
    this.#onInternalError = options.onInternalError ?? (() => undefined);
  }

  /**
   * Starts work, at once or when its lane is free.
   * @throws `shutting-down`, `too-busy`
   */
  start<R extends NonNullable<Job['result']>>(
    request: { kind: JobKind; subject?: string; lane?: string; by?: Actor },
    work: (work: JobWork) => Promise<R>,
  ): StartedJob<R> {
    if (this.#closing) throw new PandoError('shutting-down', 'the server is stopping and starts no jobs');
    if (this.#active.size >= ACTIVE_MAX) throw new PandoError('too-busy', `${ACTIVE_MAX} jobs are under way`);
    const job: Job = {
      id: randomUUID(),
      kind: request.kind,
      ...(request.subject === undefined ? {} : { subject: request.subject }),
      state: 'queued',
      createdAt: this.#now(),
    };
    const by = request.by === undefined ? undefined : actorKey(request.by);
    const entry: Entry = { job, lane: request.lane, by, abort: new AbortController(), watchers: new Set() };
    this.#entries.set(job.id, entry);
    this.#forgetOld();

    const before = request.lane === undefined ? undefined : this.#lanes.get(request.lane);
    const ended = before === undefined ? this.#run(entry, work) : before.then(() => this.#run(entry, work));
    const release = (): void => {
      this.#active.delete(settled);
      if (request.lane !== undefined && this.#lanes.get(request.lane) === settled)
        this.#lanes.delete(request.lane);
    };
    const settled: Promise<void> = ended.then(release, release);
    this.#active.add(settled);
    if (request.lane !== undefined) this.#lanes.set(request.lane, settled);
    return { job: entry.job, ended };
  }

  /** Whether a job waits for the lane to be free. */
  isWaitedFor(lane: string): boolean {
    for (const entry of this.#entries.values()) {
      if (entry.lane === lane && entry.job.state === 'queued') return true;
    }
    return false;
  }

  /** Jobs that have not ended. */
  active(): { readonly queued: number; readonly running: number } {
    let queued = 0;
    let running = 0;
    for (const { job } of this.#entries.values()) {
      if (job.state === 'queued') queued++;
      else if (job.state === 'running') running++;
    }
    return { queued, running };
  }

  /** @throws `job-missing` */
  get(id: string): Job {
    return this.#entry(id).job;
  }

  /** Who has a scope sees what they started. @throws `job-missing` */
  checkVisible(id: string, actor: Actor): void {
    if (!isVisible(this.#entry(id), actor)) throw jobMissing(id);
  }

  /** Newest first; those that the actor may see; absent: all. @throws `cursor-invalid` */
  list(request: { cursor?: string; limit: number; actor?: Actor }): { items: Job[]; nextCursor?: string } {
    const seen = [...this.#entries.values()].filter(
      (entry) => request.actor === undefined || isVisible(entry, request.actor),
    );
    const jobs = seen.map((entry) => entry.job).reverse();
    let from = 0;
    if (request.cursor !== undefined) {
      from = jobs.findIndex((job) => job.id === request.cursor) + 1;
      if (from === 0) throw new PandoError('cursor-invalid', 'the job that the cursor names is forgotten');
    }
    const items = jobs.slice(from, from + request.limit);
    const last = items.at(-1);
    return from + items.length < jobs.length && last !== undefined
      ? { items, nextCursor: last.id }
      : { items };
  }

  /** Asks the job to end; one that has ended stays as it is. @throws `job-missing` */
  cancel(id: string): Job {
    const entry = this.#entry(id);
    if (!isEnded(entry.job)) entry.abort.abort(new PandoError('cancelled', 'the job was cancelled'));
    return entry.job;
  }

  /**
   * The job now, then after every change, last when it has ended. Slow watchers see fewer states, never a
   * queue of them; `undefined` when nothing changed for `quietMs`.
   * @throws `job-missing`, at once
   */
  watch(id: string, signal: AbortSignal, quietMs: number): AsyncGenerator<Job | undefined, void, undefined> {
    return this.#watch(this.#entry(id), signal, quietMs);
  }

  /** Cancels everything and waits for it to end. */
  async close(): Promise<void> {
    this.#closing = true;
    for (const entry of this.#entries.values()) {
      if (!isEnded(entry.job)) entry.abort.abort(new PandoError('shutting-down', 'the server is stopping'));
    }
    await Promise.all(this.#active);
  }

  async *#watch(
    entry: Entry,
    signal: AbortSignal,
    quietMs: number,
  ): AsyncGenerator<Job | undefined, void, undefined> {
    const news = { pending: true, wake: (): void => undefined };
    const onChange = (): void => {
      news.pending = true;
      news.wake();
    };
    entry.watchers.add(onChange);
    signal.addEventListener('abort', onChange);
    try {
      while (!signal.aborted) {
        const changed = news.pending;
        news.pending = false;
        yield changed ? entry.job : undefined;
        // Things may have happened while the watcher was busy with what it got.
        if (isPending(news)) continue;
        if (isEnded(entry.job)) return;
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, quietMs);
          news.wake = () => {
            clearTimeout(timer);
            resolve();
          };
        });
      }
    } finally {
      entry.watchers.delete(onChange);
      signal.removeEventListener('abort', onChange);
    }
  }

  async #run<R extends NonNullable<Job['result']>>(
    entry: Entry,
    work: (work: JobWork) => Promise<R>,
  ): Promise<R> {
    const { signal } = entry.abort;
    try {
      signal.throwIfAborted();
      this.#change(entry, { state: 'running', startedAt: this.#now() });
      const result = await work({
        signal,
        onProgress: (progress) => {
          if (!isEnded(entry.job)) this.#change(entry, { progress });
        },
      });
      this.#change(entry, { state: 'done', endedAt: this.#now(), result });
      return result;
    } catch (error) {
      // Whatever the work threw when it noticed: that it was asked to stop is the reason.
      const reason: unknown = signal.aborted ? signal.reason : error;
      const known = isPandoError(reason)
        ? reason
        : new PandoError('internal', 'unexpected error; see the log of the server');
      this.#change(entry, {
        state: signal.aborted ? 'cancelled' : 'failed',
        endedAt: this.#now(),
        error: { code: known.code, detail: known.message, remedy: ERROR_CODES[known.code].remedy },
      });
      if (known.kind === 'internal' || known.kind === 'data') this.#onInternalError(entry.job, error);
      throw reason;
    }
  }

  #change(entry: Entry, change: Partial<Job>): void {
    entry.job = { ...entry.job, ...change };
    for (const notify of entry.watchers) notify();
    if (isEnded(entry.job)) this.#onEnded(entry.job);
  }

  #entry(id: string): Entry {
    const entry = this.#entries.get(id);
    if (entry === undefined) throw jobMissing(id);
    return entry;
  }

  #forgetOld(): void {
    let excess = this.#entries.size - HISTORY_MAX;
    for (const [id, entry] of this.#entries) {
      if (excess <= 0) break;
      if (!isEnded(entry.job)) continue;
      this.#entries.delete(id);
      excess--;
    }
  }

  #now(): string {
    return new Date(this.#clock.now()).toISOString();
  }
}

function isVisible(entry: Entry, actor: Actor): boolean {
  return actor.scope === undefined || entry.by === actorKey(actor);
}

function jobMissing(id: string): PandoError {
  return new PandoError('job-missing', `no job ${JSON.stringify(id)}`);
}

function isEnded(job: Job): boolean {
  return job.state === 'done' || job.state === 'failed' || job.state === 'cancelled';
}

function isPending(news: { readonly pending: boolean }): boolean {
  return news.pending;
}
