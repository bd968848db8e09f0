/**
 * Checks the files of a LevelDB database: what LevelDB itself does not do.
 *
 * It skips damage in the middle of its log without an error, does not verify the checksums of its tables (its binding for
 * Node cannot ask for that), takes a directory without CURRENT for an empty one and then removes everything in
 * it, and when the end of its manifest is lost it removes the tables that only that end knew of. So this is done before a
 * database is opened, and from time to time while it is open.
 */
import { readFile, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fromIoError } from '../errors.ts';
import { checkLog, type IsSynced } from './log-file.ts';
import { checkTable } from './table-file.ts';
import { LevelReader } from './varint.ts';

export interface LevelDamage {
  readonly file: string;
  readonly offset: number;
  readonly problem: string;
}

/** How often the files are looked at again when they change meanwhile. */
const LOOKS_MAX = 20;

/**
 * Everything in the files of the database in `directory` that is not as LevelDB wrote it. A torn end of a log is none:
 * a crash leaves it. May be called while the database is open. `tables`: their blocks too, that is all bytes; else
 * only whether they are there. `isSynced`: which records of logs were written with a sync, where not all were; what came
 * after the last of them a power cut may have torn anywhere.
 * @throws `store-failed` when the directory cannot be read
 */
export async function checkLevelFiles(
  directory: string,
  { tables, isSynced = () => true }: { readonly tables: boolean; readonly isSynced?: IsSynced },
): Promise<LevelDamage[]> {
  // Tables never change, so that later looks are short ones, however long it takes to read all of them.
  const whole = new Set<string>();
  for (let look = 1; ; look++) {
    const before = await namesIn(directory);
    const damage = await lookAt(directory, before, tables, isSynced, whole);
    // A compaction may have removed what the manifest still named when it was read.
    if (damage.length === 0 || look === LOOKS_MAX || sameNames(before, await namesIn(directory)))
      return damage;
  }
}

/** `whole`: tables that need not be read again; those that are whole are added. */
async function lookAt(
  directory: string,
  names: readonly string[],
  tables: boolean,
  isSynced: IsSynced,
  whole: Set<string>,
): Promise<LevelDamage[]> {
  const found: LevelDamage[] = [];
  const report = (file: string, offset: number, problem: string): void =>
    void found.push({ file, offset, problem });
  /** Undefined, and reported, when the file cannot be read. */
  const read = async (file: string): Promise<Buffer | undefined> => {
    try {
      return await readFile(join(directory, file));
    } catch (error) {
      const gone = (error as NodeJS.ErrnoException).code === 'ENOENT';
      report(file, 0, gone ? 'the file is missing' : (error as Error).message);
      return undefined;
    }
  };

  if (!names.includes('CURRENT')) {
    if (names.some((name) => /\.(log|ldb|sst)$/.test(name))) report('CURRENT', 0, 'the file is missing');
    return found;
  }
  /** Ends of logs that a crash may have torn, unless something in a later log was synced. */
  const ends: { readonly name: string; readonly at: number }[] = [];
  for (const name of names.filter((each) => each.endsWith('.log'))) {
    const bytes = await read(name);
    if (bytes === undefined) continue;
    const { records, endsAt, isDamaged } = checkLog(bytes, isSynced);
    if (isDamaged || records.some(isSynced)) {
      for (const end of ends.splice(0)) report(end.name, end.at, 'the end of the log is damaged');
    }
    if (endsAt === undefined) continue;
    if (isDamaged) report(name, endsAt, 'a record in the middle of the log is damaged');
    else ends.push({ name, at: endsAt });
  }
  const current = (await read('CURRENT'))?.toString('latin1');
  const manifest = /^(MANIFEST-\d+)\n$/.exec(current ?? '')?.[1];
  if (manifest === undefined) {
    if (current !== undefined) report('CURRENT', 0, 'it does not name a manifest');
    return found;
  }
  const bytes = await read(manifest);
  if (bytes === undefined) return found;
  const { records, endsAt, isDamaged } = checkLog(bytes);
  if (isDamaged || records.length === 0) {
    report(manifest, endsAt ?? 0, 'a record of the manifest is damaged');
    return found;
  }
  const { live, logNumber } = versionOf(records);
  if (logNumber > 0 && !names.includes(`${numberText(logNumber)}.log`))
    report(`${numberText(logNumber)}.log`, 0, 'the log that the manifest names is missing');
  for (const [number, size] of live) {
    const name = ['ldb', 'sst']
      .map((end) => `${numberText(number)}.${end}`)
      .find((each) => names.includes(each));
    if (name === undefined) {
      report(`${numberText(number)}.ldb`, 0, 'the file is missing');
      continue;
    }
    const there = await sizeOf(join(directory, name));
    if (there !== undefined && there !== size)
      report(name, Math.min(there, size), `it has ${there} bytes, not ${size}`);
    else if (tables && !whole.has(name)) {
      const table = await read(name);
      if (table === undefined) continue;
      const damageBefore = found.length;
      checkTable(table, (offset, problem) => report(name, offset, problem));
      if (found.length === damageBefore) whole.add(name);
    }
  }
  return found;
}

/** The tables (number and bytes) and the oldest log that the edits of a manifest (db/version_edit.cc) leave. */
function versionOf(records: readonly Buffer[]): { live: Map<number, number>; logNumber: number } {
  const live = new Map<number, number>();
  let logNumber = 0;
  for (const record of records) {
    const edit = new LevelReader(record);
    while (!edit.done) {
      const tag = edit.varint();
      if (tag === 2) logNumber = edit.varint();
      else if (tag === 3 || tag === 4 || tag === 9) edit.varint();
      else if (tag === 1) edit.slice();
      else {
        edit.varint(); // level
        if (tag === 5) edit.slice();
        else {
          const number = edit.varint();
          if (tag === 6) live.delete(number);
          else {
            live.set(number, edit.varint());
            edit.slice();
            edit.slice();
          }
        }
      }
    }
  }
  return { live, logNumber };
}

async function namesIn(directory: string): Promise<string[]> {
  try {
    return (await readdir(directory)).sort();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw fromIoError(error, `reading ${directory}`, 'store-failed');
  }
}

async function sizeOf(path: string): Promise<number | undefined> {
  return (await stat(path).catch(() => undefined))?.size;
}

function sameNames(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((name, i) => name === b[i]);
}

function numberText(number: number): string {
  return String(number).padStart(6, '0');
}
