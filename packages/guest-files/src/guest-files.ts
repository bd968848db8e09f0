/** Appliances by the backups that they have: at most so many, each for one request at a time, ended when nobody asks any more. */
import { PandoError, type Clock } from '@pando/common';
import { readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { Appliance, toPandoError } from './appliance.ts';
import { DEFAULT_LIMITS, PATH_BYTES_MAX, type GuestFilesLimits } from './limits.ts';
import { entryOf, listPage } from './listing.ts';
import { findTool } from './tool.ts';
import type { BackupDisks, GuestFiles, OpenDisk, Place } from './types.ts';
import { argument as quoted, shown } from './words.ts';

/**
 * A socket may have a path of 107 bytes, and libguestfs makes one in a folder of its own in ours; and what QEMU is told has meanings
 * of its own for other characters.
 */
const TEMPORARY_PLAIN = /^[\w./-]{1,40}$/;
const SLASH = 0x2f;

export interface GuestFilesOptions {
  readonly open: OpenDisk;
  readonly clock: Clock;
  /** Of the store, which one process has open: what folders of this name are there at the start is left over. */
  readonly storeId: string;
  readonly environment?: NodeJS.ProcessEnv;
  readonly limits?: Partial<GuestFilesLimits>;
  readonly onTrouble?: (error: Error) => void;
}

interface Poured {
  /** Where it is known. */
  readonly sizeBytes?: number;
  readonly bytes: AsyncGenerator<Uint8Array, void, undefined>;
}

interface Slot {
  readonly backupId: string;
  appliance: Promise<Appliance> | undefined;
  /** Requests that have it or wait for it. */
  users: number;
  /** The end of the last of them. */
  turn: Promise<unknown>;
  /** Aborted when it is to end, also while it starts. */
  readonly stop: AbortController;
  idle: AbortController | undefined;
}

/** Removes what a killed server has left. */
export async function openGuestFiles(options: GuestFilesOptions): Promise<GuestFiles> {
  const parent = TEMPORARY_PLAIN.test(tmpdir()) ? tmpdir() : '/tmp';
  const folderPrefix = join(parent, `pando-files-${options.storeId.slice(0, 12)}-`);
  for (const name of await readdir(dirname(folderPrefix)).catch(() => [])) {
    // What cannot be removed is somebody else's.
    if (name.startsWith(basename(folderPrefix)))
      await rm(join(parent, name), { recursive: true, force: true }).catch(() => undefined);
  }
  return new Appliances(options, folderPrefix);
}

class Appliances implements GuestFiles {
  readonly #options: GuestFilesOptions;
  readonly #limits: GuestFilesLimits;
  readonly #folderPrefix: string;
  readonly #slots = new Map<string, Slot>();
  /** Those that are being ended still have their memory. */
  readonly #ending = new Set<Promise<void>>();
  readonly #kvm = { isBroken: false };
  #isClosed = false;

  constructor(options: GuestFilesOptions, folderPrefix: string) {
    this.#options = options;
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.#folderPrefix = folderPrefix;
  }

  fileSystems: GuestFiles['fileSystems'] = (backup, signal) =>
    this.#with(backup, signal, async (appliance) => appliance.fileSystems());

  list: GuestFiles['list'] = (backup, { recursive = false, after, limit, ...place }, signal) => {
    checkPath(place);
    return this.#with(backup, signal, async (appliance) => {
      const { path, stat } = await appliance.reach(place);
      const { shell } = appliance;
      if (stat.type !== 'directory') {
        const own = await appliance.stat(place.path);
        return { items: [await entryOf(shell, place.path, own)] };
      }
      return listPage({ shell, limits: this.#limits, directory: path, recursive, after, limit });
    });
  };

  read: GuestFiles['read'] = (backup, place, signal) => {
    checkPath(place);
    return this.#pour(backup, signal, async (appliance) => {
      const { path, stat } = await appliance.reach(place);
      // Anything else that can be opened, a device of a hostile guest for one, has no end.
      if (stat.type !== 'file') {
        throw new PandoError('file-type-wrong', `${shown(place.path)} is no regular file, but: ${stat.type}`);
      }
      return {
        sizeBytes: stat.sizeBytes,
        bytes: await appliance.shell.bytes('download', [quoted(path)]),
      };
    });
  };

  archive: GuestFiles['archive'] = async (backup, place, signal) => {
    checkPath(place);
    const { bytes } = await this.#pour(backup, signal, async (appliance) => {
      const { path, stat } = await appliance.reach(place);
      if (stat.type !== 'directory') {
        throw new PandoError('file-type-wrong', `${shown(place.path)} is no directory, but: ${stat.type}`);
      }
      const options = [Buffer.from('numericowner:true')];
      return { bytes: await appliance.shell.bytes('tar-out', [quoted(path)], options) };
    });
    return bytes;
  };

  async release(backupId: string): Promise<void> {
    const slot = this.#slots.get(backupId);
    if (slot !== undefined && slot.users === 0) this.#end(slot);
    await Promise.all(this.#ending);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    for (const slot of this.#slots.values()) this.#end(slot);
    await Promise.all(this.#ending);
  }

  /** As `#with`, for what goes on until its bytes have been taken. */
  async #pour<T extends Poured>(
    backup: BackupDisks,
    signal: AbortSignal | undefined,
    open: (appliance: Appliance) => Promise<T>,
  ): Promise<T> {
    const opened = Promise.withResolvers<T>();
    const over = Promise.withResolvers<undefined>();
    const held = this.#with(backup, signal, async (appliance) => {
      const body = await open(appliance);
      opened.resolve(body);
      // Whoever takes the bytes may have stopped taking them; then the tool is ended after a while.
      await Promise.race([over.promise, appliance.shell.ended]);
    }).catch((error: unknown) => opened.reject(error));
    const body = await opened.promise;
    const bytes = pour();
    await bytes.next(); // begun, so that ending it is heard of
    return { ...body, bytes };

    async function* pour(): AsyncGenerator<Uint8Array, void, undefined> {
      try {
        yield Buffer.alloc(0);
        yield* body.sizeBytes === undefined ? body.bytes : exactly(body.bytes, body.sizeBytes);
      } catch (error) {
        throw toPandoError(error);
      } finally {
        await body.bytes.return();
        over.resolve(undefined);
        await held; // whoever has taken all may ask for something else
      }
    }
  }

  /** Does something with the appliance of a backup, one after another. */
  async #with<T>(
    backup: BackupDisks,
    signal: AbortSignal | undefined,
    action: (appliance: Appliance) => Promise<T>,
  ): Promise<T> {
    signal?.throwIfAborted();
    const slot = await this.#slotOf(backup);
    if (slot.users > this.#limits.waitingMax)
      throw new PandoError('too-busy', `${slot.users} requests read files of ${backup.name}`);
    slot.idle?.abort();
    slot.users++;
    const before = slot.turn;
    const turn = Promise.withResolvers<undefined>();
    slot.turn = before.then(() => turn.promise);
    // Who waits for an appliance that starts, or is doing something, and goes away: nobody else wants that done.
    let appliance: Appliance | undefined;
    const leave = (): void => {
      if (slot.users === 1 && appliance?.shell.isBusy !== false) this.#end(slot);
    };
    signal?.addEventListener('abort', leave, { once: true });
    let hadTurn = false;
    try {
      await this.#wait(before, signal);
      // Whoever was before us may have ended it.
      if (!slot.stop.signal.aborted) {
        hadTurn = true;
        appliance = await (slot.appliance ??= this.#start(backup, slot));
        return await action(appliance);
      }
    } catch (error) {
      signal?.throwIfAborted();
      throw toPandoError(error);
    } finally {
      signal?.removeEventListener('abort', leave);
      slot.users--;
      if (hadTurn && (await slot.appliance?.catch(() => undefined))?.isAlive !== true) this.#end(slot);
      if (slot.users === 0) this.#endLater(slot);
      turn.resolve(undefined);
    }
    return this.#with(backup, signal, action);
  }

  /** The backup's own, or a new one where there is room. */
  async #slotOf({ id }: BackupDisks): Promise<Slot> {
    const { appliancesMax } = this.#limits;
    if (appliancesMax === 0) throw new PandoError('files-off', 'this server reads no files out of backups');
    for (;;) {
      if (this.#isClosed) throw new PandoError('shutting-down', 'the server is stopping');
      const found = this.#slots.get(id);
      if (found !== undefined) return found;
      if (this.#slots.size + this.#ending.size < appliancesMax) break;
      const unused = [...this.#slots.values()].find(({ users }) => users === 0);
      if (unused !== undefined) this.#end(unused);
      else if (this.#ending.size === 0)
        throw new PandoError('too-busy', `files of ${appliancesMax} other backups are being read`);
      await Promise.all(this.#ending);
    }
    const slot: Slot = {
      backupId: id,
      appliance: undefined,
      users: 0,
      turn: Promise.resolve(),
      stop: new AbortController(),
      idle: undefined,
    };
    this.#slots.set(id, slot);
    return slot;
  }

  async #start(backup: BackupDisks, { stop }: Slot): Promise<Appliance> {
    const { open, clock, environment = process.env, onTrouble = () => undefined } = this.#options;
    const tool = await findTool(environment);
    const parts = { backup, open, tool, clock, limits: this.#limits, kvm: this.#kvm, onTrouble };
    return Appliance.start({ ...parts, folderPrefix: this.#folderPrefix }, stop.signal);
  }

  async #wait(before: Promise<unknown>, signal: AbortSignal | undefined): Promise<void> {
    const tooLong = new AbortController();
    const gone = Promise.withResolvers<never>();
    const onGone = (): void => gone.reject(signal!.reason as Error);
    signal?.addEventListener('abort', onGone, { once: true });
    try {
      await Promise.race([
        before,
        gone.promise,
        this.#options.clock.sleep(this.#limits.waitMs, tooLong.signal).then(() => {
          throw new PandoError('too-busy', 'another request reads files of this backup for long');
        }),
      ]);
    } finally {
      signal?.removeEventListener('abort', onGone);
      tooLong.abort();
    }
  }

  #endLater(slot: Slot): void {
    if (slot.stop.signal.aborted) return;
    const idle = (slot.idle = new AbortController());
    this.#options.clock.sleep(this.#limits.idleMs, idle.signal).then(
      () => this.#end(slot),
      () => undefined,
    );
  }

  #end(slot: Slot): void {
    if (slot.stop.signal.aborted) return;
    slot.idle?.abort();
    slot.stop.abort(
      this.#isClosed
        ? new PandoError('shutting-down', 'the server is stopping')
        : new PandoError('cancelled', 'the appliance of this backup was ended; ask again'),
    );
    if (this.#slots.get(slot.backupId) === slot) this.#slots.delete(slot.backupId);
    // One that did not start has ended itself.
    const ended = slot.appliance?.then(
      (appliance) => appliance.close(),
      () => undefined,
    );
    if (ended === undefined) return;
    const ending = ended.catch((error: unknown) => this.#options.onTrouble?.(error as Error));
    this.#ending.add(ending);
    void ending.then(() => this.#ending.delete(ending));
  }
}

/**
 * As many bytes as were announced, or an error: whoever has been told a length takes what comes behind it for something else, and what is
 * missing from whatever comes next.
 */
async function* exactly(bytes: AsyncIterable<Uint8Array>, size: number): AsyncGenerator<Uint8Array> {
  let left = size;
  for await (const piece of bytes) {
    left -= piece.byteLength;
    if (left < 0) break;
    yield piece;
  }
  if (left === 0) return;
  const what = left < 0 ? 'more' : `${left} bytes less`;
  throw new PandoError(
    'files-tool-failed',
    `${what} came than the ${size} bytes that the file is said to have`,
  );
}

function checkPath({ path }: Place): void {
  if (path[0] !== SLASH || path.includes(0) || path.byteLength > PATH_BYTES_MAX) {
    throw new PandoError(
      'request-invalid',
      `a path begins with / and has at most ${PATH_BYTES_MAX} bytes, none of them zero`,
    );
  }
}
