/**
 * Looking for damage in a log, which may be in use meanwhile: nothing is changed.
 *
 * At any moment the files are as a process would leave them that is killed then, so what tells damage from a torn end when a
 * log is opened tells it here. Only that files are listed, and witnesses read, one after another while the log goes on can
 * look like damage. So damage is what is found at the same place twice.
 */
import { basename, join } from 'node:path';
import { isPandoError, Witness, fromIoError, type File, type FileSystem } from '@pando/common';
import { logFiles, survey, type ReadsFiles } from './recover.ts';

/** Attempts, when files are let go of while they are opened. */
const ATTEMPTS_MAX = 10;

export interface LogToVerify {
  readonly fs: FileSystem;
  readonly directory: string;
  readonly storeId: Uint8Array;
}

export interface DamagedPlace {
  /** Name of a file of the log, or '' where it is about all of it. */
  readonly file: string;
  readonly offset: number;
  readonly problem: string;
}

/** What is damaged of what had been synced; reads all of the log. @throws `store-failed` */
export async function verifyLog(log: LogToVerify): Promise<DamagedPlace[]> {
  try {
    const first = await look(log);
    if (first.length === 0) return first;
    const again = new Set((await look(log)).map(keyOf));
    return first.filter((place) => again.has(keyOf(place)));
  } catch (error) {
    throw fromIoError(error, 'read the write log', 'store-failed');
  }
}

function keyOf({ file, offset, problem }: DamagedPlace): string {
  return `${file} ${offset} ${problem}`;
}

async function look(log: LogToVerify): Promise<DamagedPlace[]> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await lookOnce(log);
    } catch (error) {
      if (isPandoError(error, 'store-foreign') || isPandoError(error, 'store-newer'))
        return [{ file: '', offset: 0, problem: error.message }];
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'ENOENT' || attempt === ATTEMPTS_MAX) throw error;
    }
  }
}

/**
 * Files first: one is let go of after `oldest` says so, and synced before `synced` does. All are opened before one is read, as
 * they can be read on then, when they are removed.
 */
async function lookOnce({ fs, directory, storeId }: LogToVerify): Promise<DamagedPlace[]> {
  const names = await logFiles(fs, directory);
  const files = new Map<string, File>();
  const witnesses: Witness[] = [];
  try {
    for (const path of names.map((name) => join(directory, name)))
      files.set(path, await fs.open(path, 'read'));
    for (const name of ['synced', 'oldest']) witnesses.push(await Witness.open(fs, `${directory}.${name}`));
    const [synced, oldest] = witnesses as [Witness, Witness];
    const { damage } = await survey({ fs: opened(files), directory, storeId, synced, oldest }, names);
    const places = (damage?.places ?? []).map(({ file, offset, problem }) => ({
      file: file === directory ? '' : basename(file),
      offset,
      problem,
    }));
    // One that was let go of may have been written over while it was read; then those before it are gone as well.
    const kept = new Set(await logFiles(fs, directory));
    return places.filter(({ file }) => file === '' || kept.has(file));
  } finally {
    await Promise.all([...witnesses, ...files.values()].map((each) => each.close()));
  }
}

/** Gives files that are open already, and leaves them open. */
function opened(files: ReadonlyMap<string, File>): ReadsFiles {
  return {
    open: (path) => {
      const file = files.get(path)!;
      return Promise.resolve({
        size: () => file.size(),
        read: (target, position) => file.read(target, position),
        close: () => Promise.resolve(),
      });
    },
  };
}
