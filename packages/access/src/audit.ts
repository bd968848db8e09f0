/**
 * The audit trail: who has changed what, from where, and what came of it. One file a day (UTC), lines of JSON, only ever appended.
 *
 * Each line carries the SHA-256 of the line before, over the files' ends, so that whoever takes a line out or changes one, in the middle,
 * has to write all that come after anew (docs/access.md says what that is worth).
 *
 * Before a change is acknowledged, the line that says it was asked for is durable. It is written while the change itself runs, and those
 * that wait share a sync. The line with the outcome follows; nobody waits for it. A crash leaves at most the end of a line behind,
 * which the next start cuts off. When a line cannot be written, `failure` says so until one can be: whoever changes something asks
 * first (`begin`), and is refused, but for what makes room. A failed sync is final: what the file holds is not known then.
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
  /** After a failed sync. */
  #dead = false;
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
    trail.#kept = head;
    trail.#keeping = trail.#keepHeads();
    return trail;
  }

  static async #opened(options: AuditOptions): Promise<AuditTrail> {
    const { fs, directory } = options;
    await fs.makeDirectory(directory);
    const newest = (await auditFiles(fs, directory)).at(-1);
    if (newest === undefined) return new AuditTrail(options, { day: '', n: 0, prev: '' });
    const day = newest.slice(0, 10);
    const file = await fs.open(`${directory}/${newest}`, 'write');
    const found = await lastWholeLine(file);
    if (found.end < (await file.size())) {
      await file.truncate(found.end);
      await file.sync();
    }
    const { entry, line } = found;
    const trail = new AuditTrail(options, {
      day,
      n: entry?.n ?? 0,
      prev: line === undefined ? '' : hashOf(line),
    });
    trail.#file = file;
    trail.#end = found.end;
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
    if (!this.#dead) this.#synced = this.#last;
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
        if (this.#dead) throw this.#failure!;
        await this.#append(group);
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
        this.#n += group.length;
        for (const { reject } of group) reject?.(this.#failure);
      }
    }
    this.#writing = undefined;
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
      await file.sync().catch((error: unknown) => {
        this.#dead = true;
        throw error;
      });
    }
    this.#prev = prev;
    this.#n = n;
    this.#last = { n, hash: prev };
    this.#end += bytes.byteLength;
    if (group.some(({ resolve }) => resolve !== undefined)) this.#syncedAll();
  }

  /** The file of the day, never of one before that of the last line: a clock that is set back changes no order. */
  async #fileOf(at: number): Promise<File> {
    const day = new Date(at).toISOString().slice(0, 10);
    if (this.#file !== undefined && day <= this.#day) return this.#file;
    const { fs, directory } = this.#options;
    const next = day > this.#day ? day : this.#day;
    await this.#file?.sync().catch((error: unknown) => {
      this.#dead = true;
      throw error;
    });
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

function lineOf(entry: AuditEntry): string {
  return JSON.stringify(entry);
}
