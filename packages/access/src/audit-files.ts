/** The files of the audit trail, read: page by page from the newest line, and from end to end to see whether anything is missing. */
import { createHash } from 'node:crypto';
import { PandoError, type File, type FileSystem } from '@pando/common';
import type { AuditHead, AuditKnown } from './audit-head.ts';
import type { AuditEntry } from './types.ts';

/** Behind the day in a file's name. */
export const AUDIT_FILE = '.jsonl';

const WINDOW_BYTES = 256 * 1024;
/** A page looks through so much at most, and says where it came to. */
const PAGE_BYTES_MAX = 8 * 1024 * 1024;
/** Places that `verifyAudit` names. */
const PROBLEMS_MAX = 100;

/** A day has one file, and another for each that a sync failed of: `2026-11-20.jsonl`, then `2026-11-20~01.jsonl`, which sorts behind it. */
const NAME = /^\d{4}-\d\d-\d\d(?:~(\d\d))?\.jsonl$/;
const NUMBER_MAX = 99;

/** The name of another file of the day, behind all that there are; undefined when there are too many. */
export function nextName(day: string, names: readonly string[]): string | undefined {
  const taken = names.filter((name) => name.startsWith(day)).map((name) => Number(NAME.exec(name)?.[1] ?? 0));
  if (taken.length === 0) return `${day}${AUDIT_FILE}`;
  const number = Math.max(...taken) + 1;
  return number > NUMBER_MAX ? undefined : `${day}~${String(number).padStart(2, '0')}${AUDIT_FILE}`;
}

/** Names of the files, oldest first. */
export async function auditFiles(fs: FileSystem, directory: string): Promise<string[]> {
  return (await fs.list(directory)).filter((name) => NAME.test(name));
}

export interface AuditQuery {
  /** Milliseconds since 1970. */
  readonly since?: number;
  readonly until?: number;
  /** Name or id of a token. */
  readonly actor?: string;
  readonly operation?: string;
  readonly subject?: string;
  readonly cursor?: string;
  readonly limit: number;
}

/** Lines, newest first; a page may be short and not the last. @throws `cursor-invalid`, the system's errors */
export async function listAudit(
  fs: FileSystem,
  directory: string,
  query: AuditQuery,
): Promise<{ items: AuditEntry[]; nextCursor?: string }> {
  const from = query.cursor === undefined ? undefined : decodeCursor(query.cursor);
  const names = (await auditFiles(fs, directory)).filter((name) => from === undefined || name <= from.name);
  const items: AuditEntry[] = [];
  let budget = PAGE_BYTES_MAX;
  for (const name of names.reverse()) {
    // A day is over before what came the day after; one that was written to later, by a clock set back, is looked at as well.
    if (query.since !== undefined && Date.parse(`${name.slice(0, 10)}T23:59:59.999Z`) < query.since) break;
    const file = await fs.open(`${directory}/${name}`, 'read').catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    });
    if (file === undefined) continue;
    try {
      const size = await file.size();
      const end = from?.name === name ? Math.min(from.end, size) : size;
      for await (const { line, start } of linesBackwards(file, end)) {
        const entry = parse(line);
        if (entry !== undefined && matches(entry, query)) items.push(entry);
        budget -= line.length;
        if (items.length >= query.limit || budget <= 0)
          return { items, nextCursor: encodeCursor(name, start) };
      }
    } finally {
      await file.close();
    }
  }
  return { items };
}

export interface AuditVerification {
  readonly files: number;
  readonly lines: number;
  readonly problems: readonly { readonly file: string; readonly line: number; readonly problem: string }[];
  /** Whether the catalog said how far the trail goes; otherwise nobody knows whether lines are missing at its end. */
  readonly isHeadKnown: boolean;
}

/** Whether each line is followed by one that knows it, and those are there that the catalog knows of. Of the oldest file nobody knows what was before. */
export async function verifyAudit(
  fs: FileSystem,
  directory: string,
  { head, cuts }: AuditKnown = { cuts: [] },
): Promise<AuditVerification> {
  const problems: { file: string; line: number; problem: string }[] = [];
  const names = await auditFiles(fs, directory);
  let prev: string | undefined;
  let oldest: number | undefined;
  let lines = 0;
  let last = { file: '', line: 0 };
  /** The last number before that of the head; and whether the head has become too old to be there. */
  let before = 0;
  let isHeadThere = false;
  /** Of the lines that breaks go on from, by their numbers. */
  const sure = new Map<number, string | undefined>([[0, '']]);
  for (const name of names) {
    const after = await brokenAfter(fs, directory, name);
    if (after !== undefined && !sure.has(after)) sure.set(after, undefined);
  }
  for (const name of names) {
    const file = await fs.open(`${directory}/${name}`, 'read');
    let line = 0;
    const tell = (problem: string): void => {
      if (problems.length < PROBLEMS_MAX) problems.push({ file: name, line, problem });
    };
    try {
      for await (const text of linesForwards(file)) {
        line++;
        lines++;
        const entry = parse(text);
        if (entry === undefined) tell('is no line of an audit trail');
        else if (line === 1 && entry.kind === 'break') {
          const after = entry.after ?? 0;
          // What went with a file that was too old cannot be looked at.
          const isKnown = after === 0 || (oldest !== undefined && after >= oldest);
          if (isKnown && entry.prev !== sure.get(after)) tell('does not follow the line before it');
          tell(`a sync failed: what was written after number ${after}, before this one, may be missing`);
        } else if (prev !== undefined && entry.prev !== prev) tell('does not follow the line before it');
        prev = hashOf(text);
        if (entry === undefined) continue;
        oldest ??= entry.n;
        if (sure.has(entry.n)) sure.set(entry.n, prev);
        last = { file: name, line };
        if (head === undefined) continue;
        if (entry.n < head.n) before = entry.n;
        else if (entry.n > head.n) isHeadThere ||= before === 0;
        if (entry.n !== head.n) continue;
        isHeadThere = true;
        if (prev !== head.hash) tell('is not the line that the catalog knows by this number');
      }
    } finally {
      await file.close();
    }
  }
  const missing = (after: number, until: number): string =>
    `what was written after number ${after}, up to ${until}, is missing or was changed`;
  const ends = cuts.map(
    ({ after, until, at }) =>
      `${missing(after, until)}, and was when the server started at ${new Date(at).toISOString()}`,
  );
  if (head !== undefined && !isHeadThere) ends.push(missing(before, head.n));
  const room = Math.max(0, PROBLEMS_MAX - problems.length);
  for (const problem of ends.slice(-room)) problems.push({ file: last.file, line: last.line, problem });
  return { files: names.length, lines, problems, isHeadKnown: head !== undefined };
}

/** The number of the line that a file goes on from which begins with a break; undefined for one that does not. */
async function brokenAfter(fs: FileSystem, directory: string, name: string): Promise<number | undefined> {
  const file = await fs.open(`${directory}/${name}`, 'read');
  try {
    for await (const text of linesForwards(file)) return parse(text)?.after;
    return undefined;
  } finally {
    await file.close();
  }
}

/**
 * Looks for the line that is known, from the end: the number of the last line that is there when it is not, or is another one. Undefined: it is there, or
 * further back than it is looked for.
 */
export async function lastBefore(
  fs: FileSystem,
  directory: string,
  head: AuditHead,
): Promise<number | undefined> {
  let budget = PAGE_BYTES_MAX;
  let isLaterThere = false;
  for (const name of (await auditFiles(fs, directory)).reverse()) {
    const file = await fs.open(`${directory}/${name}`, 'read');
    try {
      for await (const { line } of linesBackwards(file, await file.size())) {
        const entry = parse(line);
        isLaterThere ||= entry !== undefined && entry.n > head.n;
        if (entry !== undefined && entry.n === head.n)
          return hashOf(line) === head.hash ? undefined : head.n - 1;
        if (entry !== undefined && entry.n < head.n) return entry.n;
        budget -= line.length;
        if (budget <= 0) return undefined;
      }
    } finally {
      await file.close();
    }
  }
  // Where there are later ones its file has become too old.
  return isLaterThere ? undefined : 0;
}

export function hashOf(line: string): string {
  return createHash('sha256').update(line).digest('hex');
}

/** The last line of a file that has an end, and where that is. */
export async function lastWholeLine(
  file: File,
): Promise<{ line: string | undefined; entry: AuditEntry | undefined; end: number }> {
  for await (const { line, start, whole } of linesBackwards(file, await file.size())) {
    const entry = whole ? parse(line) : undefined;
    if (entry !== undefined) return { line, entry, end: start + Buffer.byteLength(line) + 1 };
  }
  return { line: undefined, entry: undefined, end: 0 };
}

/** Lines before `end`, last first, with where they begin; the very last may lack its end. */
async function* linesBackwards(
  file: File,
  end: number,
): AsyncGenerator<{ line: string; start: number; whole: boolean }> {
  let rest = Buffer.alloc(0);
  let whole = false;
  for (let at = end; at > 0;) {
    const bytes = Math.min(WINDOW_BYTES, at);
    at -= bytes;
    const window = Buffer.alloc(bytes);
    await file.read(window, at);
    let text = Buffer.concat([window, rest]);
    for (let newline; (newline = text.lastIndexOf(10)) >= 0; whole = true) {
      const line = text.subarray(newline + 1);
      if (line.byteLength > 0) yield { line: line.toString(), start: at + newline + 1, whole };
      text = text.subarray(0, newline);
    }
    rest = text;
  }
  if (rest.byteLength > 0) yield { line: rest.toString(), start: 0, whole };
}

async function* linesForwards(file: File): AsyncGenerator<string> {
  const size = await file.size();
  let rest = Buffer.alloc(0);
  for (let at = 0; at < size; at += WINDOW_BYTES) {
    const window = Buffer.alloc(Math.min(WINDOW_BYTES, size - at));
    await file.read(window, at);
    let text = Buffer.concat([rest, window]);
    for (let newline; (newline = text.indexOf(10)) >= 0;) {
      yield text.subarray(0, newline).toString();
      text = text.subarray(newline + 1);
    }
    rest = text;
  }
  if (rest.byteLength > 0) yield rest.toString();
}

function matches(entry: AuditEntry, { since, until, actor, operation, subject }: AuditQuery): boolean {
  const at = Date.parse(entry.at);
  return (
    (since === undefined || at >= since) &&
    (until === undefined || at < until) &&
    (actor === undefined || entry.actor?.name === actor || entry.actor?.tokenId === actor) &&
    (operation === undefined || entry.operation === operation) &&
    (subject === undefined || entry.subjects?.includes(subject) === true)
  );
}

function parse(line: string): AuditEntry | undefined {
  try {
    const entry = JSON.parse(line) as Partial<AuditEntry> | null;
    return typeof entry?.n === 'number' && typeof entry.prev === 'string' ? (entry as AuditEntry) : undefined;
  } catch {
    return undefined;
  }
}

function encodeCursor(name: string, end: number): string {
  return Buffer.from(JSON.stringify([1, 'audit', name, end])).toString('base64url');
}

function decodeCursor(cursor: string): { name: string; end: number } {
  try {
    const [version, list, name, end] = JSON.parse(Buffer.from(cursor, 'base64url').toString()) as unknown[];
    if (
      version === 1 &&
      list === 'audit' &&
      typeof name === 'string' &&
      Number.isSafeInteger(end) &&
      (end as number) >= 0
    )
      return { name, end: end as number };
  } catch {
    // Said below.
  }
  throw new PandoError('cursor-invalid', 'the cursor is not one of this list');
}
