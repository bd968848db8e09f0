/**
 * Opening a log that is there: replay in order, and decide what an unreadable record means.
 *
 * After a crash the log may end in a torn record, and because files are synced in the background, the
 * tear may even lie in a file before the last. Whatever follows a tear was not synced, unless a later
 * record says that it was: `synced` records carry the position up to which everything had been synced
 * when they were written, and so does the witness beside the log. So: a tear after the greatest such position is the end
 * of the log, and what lies behind it goes; a tear before it is damage, and the log is refused (`log-corrupt`), unless
 * whoever opens it accepts that: then everything else is replayed.
 *
 * A file may have been another one of the log before (spares.ts). Behind its last record stands then what it held, which is no
 * tear when the next file says that nothing is missing before it; it is cut off here, so that no file that stays has any.
 */
import { join } from 'node:path';
import { PandoError, rewriteInPlace, type File, type FileSystem, type Witness } from '@pando/common';
import { FILE_HEADER_BYTES, RECORD_HEADER_BYTES, crcSeedOf, readFileHeader } from './format.ts';
import { scanFile, type Gap } from './scan.ts';
import { removeSpares } from './spares.ts';
import { LogDamageError, type LogDamage, type LogRecord } from './types.ts';

/** A file of the log that holds records which are still needed. */
export interface OldFile {
  readonly path: string;
  /** Position of the first record that may be in it. */
  readonly firstPosition: number;
  readonly bytes: number;
  readonly lastPosition: number;
}

export interface Recovered {
  readonly files: OldFile[];
  readonly lastPosition: number;
  readonly damage: LogDamage | undefined;
}

export interface SurveyOptions {
  readonly fs: ReadsFiles;
  readonly directory: string;
  readonly storeId: Uint8Array;
  /** The position up to which everything was synced. */
  readonly synced: Witness;
  /** First position of the oldest file. */
  readonly oldest: Witness;
}

/** As much of a file system as looking takes. */
export interface ReadsFiles {
  open(path: string, mode: 'read'): Promise<Pick<File, 'size' | 'read' | 'close'>>;
}

export interface RecoverOptions extends SurveyOptions {
  readonly fs: FileSystem;
  readonly acceptDamage: boolean;
}

const FILE_NAME = /^\d{16}\.log$/;

export function logFileName(firstPosition: number): string {
  return `${String(firstPosition).padStart(16, '0')}.log`;
}

/** Names of the log's files, in order. */
export async function logFiles(fs: FileSystem, directory: string): Promise<string[]> {
  return (await fs.list(directory)).filter((name) => FILE_NAME.test(name));
}

/**
 * Replays what the directory holds and leaves it so that every file in it is durable, and whole but for damage that is
 * accepted. `visit` gets the records in order; those behind a tear that ends the log are never handed over.
 * @throws `log-corrupt` (a LogDamageError), `store-newer`, `store-foreign`
 */
export async function recover(
  options: RecoverOptions,
  visit: (record: LogRecord) => void | Promise<void>,
): Promise<Recovered> {
  const { fs, directory, storeId } = options;
  const names = await logFiles(fs, directory);
  const { tear, ends, damage, synced } = await survey(options, names);
  if (damage !== undefined && !options.acceptDamage) throw new LogDamageError(damage);
  await removeSpares(fs, directory);
  // What is accepted is accepted, and positions may begin anew from here on.
  await options.synced.set(0);
  await options.oldest.set(0);
  // In a log that is damaged, what says how far it was synced may be wrong as well.
  const settled = damage === undefined ? synced : 0;
  const crcSeed = crcSeedOf(storeId);
  const files: OldFile[] = [];
  let lastPosition = 0;
  for (const [index, name] of names.entries()) {
    const path = join(directory, name);
    if (tear !== undefined && (index > tear.index || (index === tear.index && tear.offset === 0))) {
      await fs.remove(path);
      await fs.syncDirectory(directory);
      continue;
    }
    const file = await fs.open(path, 'write');
    let bytes: number;
    try {
      const end = index === tear?.index ? tear.offset : ends.get(index);
      if (end !== undefined) await file.truncate(end);
      const scan = await scanFile(file, lastPosition, crcSeed, visit, settled);
      // What was only in the page cache when the process died is counted on from here on.
      await rewriteInPlace(file, scan.settledBytes, scan.bytes);
      await file.sync();
      lastPosition = scan.lastPosition;
      bytes = scan.bytes;
    } finally {
      await file.close();
    }
    // A file without a record would be in the way of the next one, which starts at the same position.
    if (bytes > FILE_HEADER_BYTES)
      files.push({ path, firstPosition: firstPositionOf(name), bytes, lastPosition });
    else {
      await fs.remove(path);
      await fs.syncDirectory(directory);
    }
  }
  const [first] = files;
  if (first !== undefined) options.oldest.note(first.firstPosition);
  return { files, lastPosition, damage };
}

function firstPositionOf(name: string): number {
  return Number.parseInt(name, 10);
}

const MISSING = 'what stood before it is missing';
const UNREADABLE = 'the device cannot read it';

interface Survey {
  /** Where the log ends, when that is before the end of its files. */
  readonly tear: { readonly index: number; readonly offset: number } | undefined;
  /** Where files before the last one end, by their index, when something else stands behind that. */
  readonly ends: ReadonlyMap<number, number>;
  readonly damage: LogDamage | undefined;
  /** The position up to which everything had been synced. */
  readonly synced: number;
}

interface Place extends Gap {
  readonly index: number;
  readonly problem: string;
}

/** Reads all of the log, changes nothing, and tells damage from its end. @throws `store-newer`, `store-foreign` */
export async function survey(options: SurveyOptions, names: readonly string[]): Promise<Survey> {
  const { fs, directory, storeId } = options;
  const crcSeed = crcSeedOf(storeId);
  const places: Place[] = [];
  const ends = new Map<number, number>();
  const disks = new Map<number, number>();
  const lost: (LogRecord & { type: 'lost' })[] = [];
  let lastPosition = 0;
  let synced = 0;
  const note = (record: LogRecord): void => {
    if (record.type === 'open') disks.set(record.overlay, record.disk);
    else if (record.type === 'lost') lost.push(record);
  };
  for (const [index, name] of names.entries()) {
    const file = await fs.open(join(directory, name), 'read');
    try {
      const first = firstPositionOf(name);
      const { header: found, isUnreadable } = await readFileHeader(file);
      if (found !== undefined && !Buffer.from(found.storeId).equals(storeId)) {
        throw new PandoError(
          'store-foreign',
          `${join(directory, name)} belongs to another store (id ${Buffer.from(found.storeId).toString('hex')}); take it away from here`,
        );
      }
      // The header of when it was another file: its own was not synced.
      const header = found !== undefined && found.firstPosition >= first ? found : undefined;
      const last = places.at(-1);
      if (
        last?.index === index - 1 &&
        isTail(last) &&
        last.after === (header?.previousPosition ?? first - 1)
      ) {
        ends.set(last.index, last.offset);
        places.pop();
      }
      const place = { index, offset: 0, end: 0, unknownBytes: 0, after: lastPosition, isUnreadable };
      const isOldestGone = index === 0 && options.oldest.value > 0 && options.oldest.value < first;
      if (isOldestGone) places.push({ ...place, after: options.oldest.value - 1, problem: MISSING });
      if (header === undefined) {
        // None before the first of this file are lost with it: its name says where it begins.
        const after = Math.max(lastPosition, first - 1);
        places.push({
          ...place,
          end: FILE_HEADER_BYTES,
          after,
          problem: isUnreadable ? UNREADABLE : 'the header of the file is damaged',
        });
      } else if (index > 0 && header.previousPosition > lastPosition && !endsInGap(places, index - 1)) {
        places.push({ ...place, problem: MISSING });
      }
      lastPosition = Math.max(lastPosition, header?.previousPosition ?? 0, first - 1);
      const scan = await scanFile(file, lastPosition, crcSeed, note);
      for (const gap of scan.gaps) {
        const problem = gap.isUnreadable ? UNREADABLE : 'no whole record stands there';
        places.push({ ...gap, index, problem });
      }
      synced = Math.max(synced, scan.syncedPosition);
      lastPosition = scan.lastPosition;
    } finally {
      await file.close();
    }
  }
  synced = Math.max(synced, options.synced.value);
  // A crash leaves what can be read: what cannot was not torn, and may have been acknowledged.
  const tearAt = places.findIndex(({ after, isUnreadable }) => after >= synced && !isUnreadable);
  const tear = places[tearAt];
  const damaged = (tear === undefined ? places : places.slice(0, tearAt)).filter(
    ({ after, isUnreadable }) => after < synced || isUnreadable,
  );
  const end = tear?.after ?? lastPosition;
  // The last whole record is before what was synced, and nothing that is damaged stands behind it: the end is gone.
  const isCut = end < synced && (damaged.length === 0 || !endsInGap(damaged, names.length - 1));
  if (damaged.length === 0 && !isCut) return { tear, ends, damage: undefined, synced };
  const before = tear?.after ?? Infinity;
  const last = names.at(-1);
  return {
    tear,
    ends,
    synced,
    damage: {
      places: [
        ...damaged.map(({ index, offset, end: to, problem }) => ({
          file: join(directory, names[index]!),
          offset,
          bytes: to - offset,
          problem,
        })),
        ...(isCut
          ? [
              {
                file: last === undefined ? directory : join(directory, last),
                offset: last === undefined ? 0 : await sizeOf(fs, join(directory, last)),
                bytes: 0,
                problem: `the log ends with position ${end}, and was synced up to ${synced}`,
              },
            ]
          : []),
      ],
      lost: lost.filter(({ position }) => position <= before),
      isAllKnown: !isCut && damaged.every(({ end: to, unknownBytes }) => unknownBytes === 0 && to > 0),
      isAnyDisk: isCut || damaged.some(mayHoldOpen),
      disks,
    },
  };
}

/** Whether it is the end of a file, behind its last record. */
function isTail({ end, before, unknownBytes, offset }: Place): boolean {
  return end > FILE_HEADER_BYTES && before === undefined && unknownBytes === end - offset;
}

/** Whether an `open` record may have been lost there: it is shorter than what is lost when that was a single record. */
function mayHoldOpen({ offset, end, unknownBytes, after, before }: Place): boolean {
  if (end > 0 && unknownBytes === 0) return false;
  return end - offset <= RECORD_HEADER_BYTES || before !== after + 2;
}

/** Whether a file is damaged at its end, so that what comes after it may begin anywhere. */
function endsInGap(places: readonly Place[], index: number): boolean {
  return places.some(
    (place) => place.index === index && place.unknownBytes > 0 && place.end > FILE_HEADER_BYTES,
  );
}

async function sizeOf(fs: ReadsFiles, path: string): Promise<number> {
  const file = await fs.open(path, 'read');
  try {
    return await file.size();
  } finally {
    await file.close();
  }
}
