/**
 * The audit trail: who has changed what, from where, and what came of it. One file a day (UTC), lines of JSON, only ever appended.
 *
 * Each line carries the SHA-256 of the line before, over the files' ends, so that whoever takes a line out or changes one, in the middle,
 * has to write all that come after anew (docs/access.md says what that is worth).
 *
 * Before a change is acknowledged, the line that says it was asked for is durable. It is written while the change itself runs, and those
 * that wait share a sync. The line with the outcome follows; nobody waits for it. A crash leaves at most the end of a line behind,
 * which the next start cuts off. When a line cannot be written, `failure` says so until one can be: whoever changes something asks
 * first (`begin`), and is refused, but for what makes room.
 *
 * A failed sync is final for its file: what that holds is not known then, and it is never written to again. The trail goes on in a new file, which begins
 * with a line that says so (`break`) and follows the last line that is durable for certain; what was waiting is written there. What was written
 * in between without a sync, outcomes and refusals, may be missing. Where a new file fails too, nothing is tried for a while.
 *
 * How far the trail goes is kept in the catalog too, once it is durable here: so a start sees when lines that were are not (audit-head.ts).
 */
import type { Catalog } from '@pando/catalog';
import { PandoError, type Clock, type File, type FileSystem } from '@pando/common';
import {
  AUDIT_FILE,
  auditFiles,
  hashOf,
  lastBefore,
  lastWholeLine,
  listAudit,
  nextName,
  type AuditQuery,
} from './audit-files.ts';
import { keepAuditCut, keepAuditHead, readAuditKnown, type AuditCut, type AuditHead } from './audit-head.ts';
import type { Audited, AuditEntry, Outcome } from './types.ts';

/** Lines that wait to be written. */
const WAITING_MAX = 10_000;
/** How often it is kept how far the trail goes. */
const HEAD_EVERY_MS = 60_000;
/** Whoever fails to log in is written down so often a minute at most; the rest is counted. */
const REFUSALS_PER_MINUTE_MAX = 60;
/** After a new file could not be written either, so long until the next one. */
const NEW_FILE_AGAIN_MS = 60_000;
/** At the end of the file that is there at the start, so much is written anew. */
const REWRITTEN_BYTES = 1024 * 1024;
/** What was asked for is left out of a longer one. */
const LINE_BYTES_MAX = 8 * 1024;

export interface AuditOptions {
  readonly fs: FileSystem;
  readonly directory: string;
  readonly clock: Clock;
  /** How long files are kept, and how big all are together. */
  readonly keepDays: number;
  readonly bytesMax: number;
  /** Keeps how far the trail goes. To be closed after it. Absent: nobody knows whether its end is missing. */
  readonly catalog?: Catalog;
  readonly onTrouble?: (error: unknown) => void;
}

interface Waiting {
  readonly entry: Omit<AuditEntry, 'n' | 'at' | 'prev'>;
  readonly at: number;
  /** Absent: nobody waits, and no sync is needed for it. */
  readonly resolve?: () => void;
  readonly reject?: (error: unknown) => void;
}

export class AuditTrail {
  readonly #options: AuditOptions;
  #file: File | undefined;
  #day = '';
  #end = 0;
  #n: number;
  #prev: string;
  #waiting: Waiting[] = [];
  #writing: Promise<void> | undefined;
  #failure: PandoError | undefined;
  /** What the file holds is not known, after a failed sync. */
  #isDoubted = false;
  /** No new file before then, on the clock's own time. */
  #newFileAt = -Infinity;
  #minute = 0;
  #refusals = 0;
  #left = 0;
  /** The last line that was written; one that is durable; and one that the catalog knows as such. */
  #last: AuditHead | undefined;
  #synced: AuditHead | undefined;
  #kept: AuditHead | undefined;
  readonly #closing = new AbortController();
  #keeping = Promise.resolve();
  /** What was missing when it was opened. */
  #cut: AuditCut | undefined;

  private constructor(options: AuditOptions, last: { day: string; n: number; prev: string }) {
    this.#options = options;
    this.#day = last.day;
    this.#n = last.n;
    this.#prev = last.prev;
  }

  /** Goes on where the last line is; what a crash left behind it is cut off. @throws the system's errors */
  static async open(options: AuditOptions): Promise<AuditTrail> {
    const trail = await AuditTrail.#opened(options);
    if (options.catalog === undefined) return trail;
    const { head, cuts } = await readAuditKnown(options.catalog);
    const after = head === undefined ? undefined : await lastBefore(options.fs, options.directory, head);
    if (head !== undefined && after !== undefined) {
      trail.#cut = { after, until: head.n, at: options.clock.now() };
      await keepAuditCut(options.catalog, trail.#cut, cuts);
      // No number twice.
      trail.#n = Math.max(trail.#n, head.n);
    }
    // Of a file that could not be made durable at the start nothing else is known.
    else trail.#synced ??= head;
    trail.#kept = head;
    trail.#keeping = trail.#keepHeads();
    return trail;
  }

  static async #opened(options: AuditOptions): Promise<AuditTrail> {
    const { fs, directory } = options;
    await fs.makeDirectory(directory);
    const names = await auditFiles(fs, directory);
    const newest = names.at(-1);
    if (newest === undefined) return new AuditTrail(options, { day: '', n: 0, prev: '' });
    const day = newest.slice(0, 10);
    const file = await fs.open(`${directory}/${newest}`, 'write');
    const found = await lastWholeLine(file);
    // A crash may have left a file without a line: then the last one is in one before.
    const { entry, line } = found.line === undefined ? await lastLineBefore(fs, directory, names) : found;
    const trail = new AuditTrail(options, {
      day,
      n: entry?.n ?? 0,
      prev: line === undefined ? '' : hashOf(line),
    });
    trail.#file = file;
    trail.#end = found.end;
    try {
      await writeEndAnew(file, found.end);
      if (entry !== undefined) trail.#synced = { n: entry.n, hash: trail.#prev };
    } catch (error) {
      trail.#isDoubted = true;
      options.onTrouble?.(error);
    }
    await trail.#removeOld();
    return trail;
  }

  /** Lines that were known and were not there when it was opened, or were others. */
  get cut(): AuditCut | undefined {
    return this.#cut;
  }

  /** Why lines cannot be written at the moment. */
  get failure(): PandoError | undefined {
    return this.#failure;
  }

  /** Writes that something is asked for; durable when it resolves. @throws `audit-unavailable` */
  begin(audited: Audited): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#add({ entry: { kind: 'change', ...audited }, at: this.#options.clock.now(), resolve, reject });
    });
  }

  /** Writes what came of it, soon. */
  end({ request, operation, actor, from, subjects }: Audited, outcome: Outcome): void {
    const about = {
      ...(actor === undefined ? {} : { actor }),
      ...(from === undefined ? {} : { from }),
      ...(subjects === undefined ? {} : { subjects }),
    };
    const entry = { kind: 'outcome', request, operation, ...about, ...outcome } as const;
    this.#add({ entry, at: this.#options.clock.now() });
  }

  /** Writes that somebody was not let through, soon, and not too often. */
  refuse(audited: Audited, outcome: Outcome): void {
    const now = this.#options.clock.now();
    const minute = Math.floor(now / 60_000);
    if (minute !== this.#minute) {
      this.#minute = minute;
      this.#refusals = 0;
    }
    if (++this.#refusals > REFUSALS_PER_MINUTE_MAX) {
      this.#left++;
      return;
    }
    const left = this.#left === 0 ? {} : { left: this.#left };
    this.#left = 0;
    this.#add({ entry: { kind: 'refusal', ...audited, ...outcome, ...left }, at: now });
  }

  /** Lines, newest first: see listAudit. */
  list(query: AuditQuery): Promise<{ items: AuditEntry[]; nextCursor?: string }> {
    return listAudit(this.#options.fs, this.#options.directory, query);
  }

  /** Writes what waits. */
  async close(): Promise<void> {
    while (this.#writing !== undefined) await this.#writing;
    await this.#file?.sync().then(
      () => this.#syncedAll(),
      (error: unknown) => this.#options.onTrouble?.(error),
    );
    await this.#file?.close();
    this.#file = undefined;
    this.#closing.abort();
    await this.#keeping;
    await this.#keepHead();
  }

  /** To be called after a sync, when nothing was written since. */
  #syncedAll(): void {
    if (!this.#isDoubted && this.#last !== undefined) this.#synced = this.#last;
  }

  async #keepHeads(): Promise<void> {
    for (;;) {
      try {
        await this.#options.clock.sleep(HEAD_EVERY_MS, this.#closing.signal);
      } catch {
        return;
      }
      await this.#keepHead();
    }
  }

  async #keepHead(): Promise<void> {
    const { catalog, onTrouble } = this.#options;
    const head = this.#synced;
    if (catalog === undefined || head === undefined || head.n === this.#kept?.n) return;
    try {
      await keepAuditHead(catalog, head);
      this.#kept = head;
    } catch (error) {
      // It is tried again.
      onTrouble?.(error);
    }
  }

  #add(waiting: Waiting): void {
    if (this.#waiting.length >= WAITING_MAX) {
      waiting.reject?.(new PandoError('too-busy', `${WAITING_MAX} lines wait for the audit trail`));
      return;
    }
    this.#waiting.push(waiting);
    this.#writing ??= this.#write();
  }

  async #write(): Promise<void> {
    // What is asked for in this turn goes together.
    await Promise.resolve();
    while (this.#waiting.length > 0) {
      const group = this.#waiting;
      this.#waiting = [];
      try {
        await this.#appendSomewhere(group);
        this.#failure = undefined;
        for (const { resolve } of group) resolve?.();
      } catch (error) {
        const cause = error instanceof Error ? error.message : String(error);
        if (this.#failure === undefined) this.#options.onTrouble?.(error);
        this.#failure =
          error instanceof PandoError && error.code === 'audit-unavailable'
            ? error
            : new PandoError('audit-unavailable', `the audit trail cannot be written: ${cause}`, {
                cause: error,
              });
        for (const { reject } of group) reject?.(this.#failure);
      }
    }
    this.#writing = undefined;
  }

  /** Into the file that is open, or into a new one when what that holds is not known, or has just ceased to be. */
  async #appendSomewhere(group: readonly Waiting[]): Promise<void> {
    const { fs, directory, clock, onTrouble } = this.#options;
    if (!this.#isDoubted) {
      try {
        await this.#append(group);
        return;
      } catch (error) {
        this.#n += group.length;
        if (!this.#isSyncLost()) throw error;
        onTrouble?.(error);
      }
    }
    if (clock.monotonic() < this.#newFileAt) {
      this.#n += group.length;
      throw this.#failure ?? new Error('a sync failed');
    }
    const at = group.at(-1)!.at;
    const entry = { kind: 'break', request: '', operation: '', after: this.#synced?.n ?? 0 } as const;
    // Somebody waits for the break, so that there is a sync.
    const begin: Waiting = { entry, at, resolve: () => undefined };
    try {
      await this.#openNew(at);
      this.#prev = this.#synced?.hash ?? '';
      await this.#append([begin, ...group]);
    } catch (error) {
      this.#n += group.length + 1;
      this.#isDoubted = true;
      this.#newFileAt = clock.monotonic() + NEW_FILE_AGAIN_MS;
      // Nobody was told that anything in it is durable.
      if (this.#file !== undefined) {
        await fs.remove(this.#file.path).catch(() => undefined);
        await fs.syncDirectory(directory).catch(() => undefined);
      }
      throw error;
    }
  }

  /** Asked after something else has run. */
  #isSyncLost(): boolean {
    return this.#isDoubted;
  }

  async #append(group: readonly Waiting[]): Promise<void> {
    const file = await this.#fileOf(group.at(-1)!.at);
    let { prev, n } = { prev: this.#prev, n: this.#n };
    const lines = group.map(({ entry, at }) => {
      let text = lineOf({ n: ++n, at: new Date(at).toISOString(), ...entry, prev });
      if (Buffer.byteLength(text) > LINE_BYTES_MAX)
        text = lineOf({ n, at: new Date(at).toISOString(), ...entry, asked: 'too long', prev });
      prev = hashOf(text);
      return text;
    });
    const bytes = Buffer.from(lines.map((line) => `${line}\n`).join(''));
    // After a write that failed half-way there may be something behind the end.
    if (this.#failure !== undefined) await file.truncate(this.#end);
    await file.write([bytes], this.#end);
    if (group.some(({ resolve }) => resolve !== undefined)) {
      await this.#sync(file);
    }
    this.#prev = prev;
    this.#n = n;
    this.#last = { n, hash: prev };
    this.#end += bytes.byteLength;
    if (group.some(({ resolve }) => resolve !== undefined)) this.#syncedAll();
  }

  async #sync(file: File): Promise<void> {
    await file.sync().catch((error: unknown) => {
      this.#isDoubted = true;
      throw error;
    });
  }

  /** A new file in place of one that nobody trusts any more. */
  async #openNew(at: number): Promise<void> {
    const { fs, directory } = this.#options;
    await this.#file?.close().catch(() => undefined);
    this.#file = undefined;
    const day = dayOf(at) > this.#day ? dayOf(at) : this.#day;
    const name = nextName(day, await auditFiles(fs, directory));
    if (name === undefined) throw new Error('syncs failed too often on this day');
    this.#file = await fs.open(`${directory}/${name}`, 'create');
    await fs.syncDirectory(directory);
    this.#day = day;
    this.#end = 0;
    this.#isDoubted = false;
  }

  /** The file of the day, never of one before that of the last line: a clock that is set back changes no order. */
  async #fileOf(at: number): Promise<File> {
    const day = dayOf(at);
    if (this.#file !== undefined && day <= this.#day) return this.#file;
    const { fs, directory } = this.#options;
    const next = day > this.#day ? day : this.#day;
    if (this.#file !== undefined) await this.#sync(this.#file);
    const path = `${directory}/${next}${AUDIT_FILE}`;
    const file = await fs.open(path, 'create').catch((error: unknown) => {
      // Made by an attempt that failed after this.
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') return fs.open(path, 'write');
      throw error;
    });
    await fs.syncDirectory(directory);
    await this.#file?.close();
    this.#file = file;
    this.#day = next;
    this.#end = await file.size();
    await this.#removeOld();
    return file;
  }

  /** Files that are too old, or the oldest while all are too big; never the newest. */
  async #removeOld(): Promise<void> {
    const { fs, directory, clock, keepDays, bytesMax } = this.#options;
    const oldest = new Date(clock.now() - keepDays * 86_400_000).toISOString().slice(0, 10);
    let bytes = 0;
    try {
      const names = await auditFiles(fs, directory);
      for (const name of names.reverse()) {
        const file = await fs.open(`${directory}/${name}`, 'read');
        bytes += await file.size();
        await file.close();
        if (name.slice(0, 10) < this.#day && (name.slice(0, 10) < oldest || bytes > bytesMax))
          await fs.remove(`${directory}/${name}`);
      }
    } catch (error) {
      // They are looked at again tomorrow.
      this.#options.onTrouble?.(error);
    }
  }
}

function dayOf(at: number): string {
  return new Date(at).toISOString().slice(0, 10);
}

/** The last line of all files but the newest. */
async function lastLineBefore(
  fs: FileSystem,
  directory: string,
  names: readonly string[],
): Promise<Pick<Awaited<ReturnType<typeof lastWholeLine>>, 'line' | 'entry'>> {
  for (const name of names.slice(0, -1).reverse()) {
    const file = await fs.open(`${directory}/${name}`, 'read');
    try {
      const found = await lastWholeLine(file);
      if (found.line !== undefined) return found;
    } finally {
      await file.close();
    }
  }
  return { line: undefined, entry: undefined };
}

/**
 * Cuts off what is behind the end, and makes durable what is before it. A sync of the process before may have failed: what it was about is in memory then, and
 * counts as written, so a sync alone would not write it.
 */
async function writeEndAnew(file: File, end: number): Promise<void> {
  if (end < (await file.size())) await file.truncate(end);
  const from = Math.max(0, end - REWRITTEN_BYTES);
  const bytes = Buffer.alloc(end - from);
  await file.read(bytes, from);
  if (bytes.byteLength > 0) await file.write([bytes], from);
  await file.sync();
}

function lineOf(entry: AuditEntry): string {
  return JSON.stringify(entry);
}
