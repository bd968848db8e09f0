/**
 * An appliance with the disks of one backup: they are served to it, and to nobody else, over NBD on a Unix socket in a folder
 * that only the user of the server can enter; and what of them is mounted.
 */
import { PandoError, type Clock } from '@pando/common';
import { createNbdServer, type ExportHandle, type NbdServer } from '@pando/nbd';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { CommandFailure, Guestfish } from './guestfish.ts';
import type { GuestFilesLimits } from './limits.ts';
import { mayUseKvm, type Tool } from './tool.ts';
import type {
  BackupDisks,
  GuestFileSystem,
  GuestFileSystems,
  OpenDisk,
  OperatingSystem,
  Place,
} from './types.ts';
import {
  argument,
  fileSystemsOf,
  isEncrypted,
  isMountable,
  lines,
  pairs,
  shown,
  statsOf,
  type Stat,
} from './words.ts';

const SOCKET = 'disks';
const NBD_DRAIN_MS = 1_000;

export interface ApplianceOptions {
  readonly backup: BackupDisks;
  readonly open: OpenDisk;
  readonly tool: Tool;
  /** Folders of this prefix are ours. */
  readonly folderPrefix: string;
  readonly clock: Clock;
  readonly limits: GuestFilesLimits;
  /** KVM is there and does not work, so that nobody tries again. */
  readonly kvm: { isBroken: boolean };
  /** Told when KVM turned out not to work. */
  readonly onTrouble: (error: Error) => void;
}

export class Appliance {
  readonly #options: ApplianceOptions;
  readonly #folder: string;
  readonly #nbd: NbdServer;
  #shell: Guestfish | undefined;
  #found: GuestFileSystems | undefined;
  /** What `mount` was called with last: a file system, or '' for those of the operating system. */
  #mounted: string | undefined;
  #death: PandoError | undefined;
  #closing: Promise<void> | undefined;

  private constructor(options: ApplianceOptions, folder: string) {
    this.#options = options;
    this.#folder = folder;
    const { backup, open, clock } = options;
    // By their places: names of disks are not written into commands.
    const names = backup.disks.map((_disk, index) => String(index));
    this.#nbd = createNbdServer({
      exports: {
        list: (limit) => Promise.resolve(names.slice(0, limit)),
        open: async (name) => {
          const disk = backup.disks[names.indexOf(name)];
          if (disk === undefined) throw new PandoError('export-missing', 'there is no such disk');
          const handle = await open(backup.id, disk);
          this.#watch(handle);
          return handle;
        },
      },
      clock,
      socketMode: 0o600,
    });
  }

  /** Starts it; resolves when commands can be given. @throws `files-tool-failed`, what opening the disks throws, the signal's reason */
  static async start(options: ApplianceOptions, signal: AbortSignal): Promise<Appliance> {
    const appliance = new Appliance(options, await mkdtemp(options.folderPrefix));
    const stop = (): void => appliance.kill(signal.reason as PandoError);
    signal.addEventListener('abort', stop, { once: true });
    try {
      signal.throwIfAborted();
      await appliance.#boot(signal);
      return appliance;
    } catch (error) {
      await appliance.close();
      signal.throwIfAborted();
      throw toPandoError(error);
    } finally {
      signal.removeEventListener('abort', stop);
    }
  }

  get isAlive(): boolean {
    return this.#death === undefined && this.#shell?.isAlive === true;
  }

  get shell(): Guestfish {
    return this.#shell!;
  }

  async fileSystems(): Promise<GuestFileSystems> {
    if (this.#found !== undefined) return this.#found;
    const { limits } = this.#options;
    const listed = fileSystemsOf(await this.shell.command('list-filesystems'));
    const items: GuestFileSystem[] = [];
    for (const fileSystem of listed.slice(0, limits.fileSystemsMax)) {
      const device = [argument(Buffer.from(fileSystem.name))];
      const label = await this.#attempt('vfs-label', device);
      const size = Number((await this.#attempt('blockdev-getsize64', device))?.trim());
      items.push({
        ...fileSystem,
        ...(label === undefined || label.trim() === '' ? {} : { label: label.trim() }),
        ...(Number.isSafeInteger(size) && size > 0 ? { sizeBytes: size } : {}),
      });
    }
    const operatingSystems: OperatingSystem[] = [];
    // What cannot be inspected can still be read, file system by file system.
    const roots = lines(Buffer.from((await this.#attempt('inspect-os', [])) ?? ''));
    for (const root of roots.slice(0, limits.operatingSystemsMax)) {
      const device = [argument(Buffer.from(root))];
      const product = await this.#attempt('inspect-get-product-name', device);
      const mounts = pairs(Buffer.from((await this.#attempt('inspect-get-mountpoints', device)) ?? ''));
      operatingSystems.push({
        fileSystem: root,
        ...(product === undefined || product.trim() === '' ? {} : { product: product.trim() }),
        mounts: mounts.slice(0, limits.mountsMax).map(([path, fileSystem]) => ({ path, fileSystem })),
      });
    }
    return (this.#found = { items, operatingSystems });
  }

  /** Makes a place reachable, and says what it is when links are followed. @throws `file-system-missing`, `file-system-encrypted`, `file-missing` */
  async reach({ path, fileSystem }: Place): Promise<{ readonly path: Buffer; readonly stat: Stat }> {
    await this.#mount(fileSystem);
    let resolved: Buffer;
    try {
      const answer = await this.shell.command('realpath', [argument(path)]);
      resolved = answer.subarray(0, answer.length - 1); // the end of the line
    } catch (error) {
      throw missing(error, path);
    }
    return { path: resolved, stat: await this.stat(resolved) };
  }

  /** Of the file itself, also when it is a link. @throws `file-missing` */
  async stat(path: Uint8Array): Promise<Stat> {
    try {
      const [stat] = statsOf(await this.shell.command('lstatns', [argument(path)]));
      if (stat !== undefined) return stat;
    } catch (error) {
      throw missing(error, path);
    }
    throw new PandoError('file-missing', `there is no ${shown(path)} in the backup`);
  }

  kill(reason: PandoError): void {
    this.#death ??= reason;
    this.#shell?.kill(reason);
  }

  /** Ends it and removes what it has left. Idempotent. */
  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  async #close(): Promise<void> {
    this.kill(new PandoError('shutting-down', 'the appliance was ended'));
    await this.#shell?.ended;
    await this.#nbd.close({ drainMsMax: NBD_DRAIN_MS });
    await rm(this.#folder, { recursive: true, force: true });
  }

  async #boot(signal: AbortSignal): Promise<void> {
    const { kvm, tool, onTrouble } = this.#options;
    const socket = join(this.#folder, SOCKET);
    await this.#nbd.listen({ path: socket });
    const withKvm = !kvm.isBroken && (await mayUseKvm(tool));
    try {
      await this.#launch(socket, signal, kvm.isBroken);
    } catch (error) {
      // The device can be there and not work, in a virtual machine for one; only trying tells.
      if (!withKvm || signal.aborted || this.#death !== undefined) throw error;
      await this.#launch(socket, signal, true);
      kvm.isBroken = true;
      onTrouble(error as Error);
    }
  }

  async #launch(socket: string, signal: AbortSignal, isEmulated: boolean): Promise<void> {
    const { tool, clock, limits, backup } = this.#options;
    const uris = backup.disks.map((_disk, i) => `nbd:///${i}?socket=${socket}`);
    await rm(join(this.#folder, 'bytes'), { force: true });
    const parts = { tool, folder: this.#folder, isEmulated, disks: uris, clock, limits };
    const shell = (this.#shell = await Guestfish.start(parts));
    try {
      signal.throwIfAborted();
      await shell.command('set-memsize', [Buffer.from(String(limits.applianceMiB))]);
      await shell.command('run', [], limits.startMs);
    } catch (error) {
      shell.kill(new PandoError('files-tool-failed', 'the appliance did not start'));
      await shell.ended;
      throw error;
    }
  }

  /** A backup that is taken from its readers takes the appliance with it, which would only see a broken disk. */
  #watch({ revoked }: ExportHandle): void {
    const stop = (): void =>
      this.kill(new PandoError('disk-in-use', 'the backup was taken from its readers'));
    if (revoked.aborted) stop();
    else revoked.addEventListener('abort', stop, { once: true });
  }

  async #attempt(name: string, args: readonly Uint8Array[]): Promise<string | undefined> {
    try {
      return (await this.shell.command(name, args)).toString('utf8');
    } catch (error) {
      if (error instanceof CommandFailure) return undefined;
      throw error;
    }
  }

  async #mount(fileSystem = ''): Promise<void> {
    if (this.#mounted === fileSystem) return;
    const mounts = this.#mountsFor(fileSystem, await this.fileSystems());
    this.#mounted = undefined;
    await this.shell.command('umount-all');
    for (const { path, device } of mounts) {
      try {
        await this.shell.command('mount-ro', [argument(Buffer.from(device)), argument(Buffer.from(path))]);
      } catch (error) {
        // Its tables may name what is not there any more; without the root there is nothing.
        if (path === '/' || !(error instanceof CommandFailure)) throw error;
      }
    }
    this.#mounted = fileSystem;
  }

  #mountsFor(fileSystem: string, found: GuestFileSystems): { path: string; device: string }[] {
    const { items, operatingSystems } = found;
    const { name: backup } = this.#options.backup;
    const names = items.map(({ name, type }) => `${name} (${type})`).join(', ');
    if (fileSystem !== '') {
      const item = items.find(({ name }) => name === fileSystem);
      if (item === undefined || item.type === 'swap') {
        const there = names === '' ? 'none' : names;
        throw new PandoError(
          'file-system-missing',
          `${backup} has no file system ${JSON.stringify(fileSystem)}, but: ${there}`,
        );
      }
      if (isEncrypted(item.type)) throw encrypted(backup, item.name);
      return [{ path: '/', device: item.name }];
    }
    const [system] = operatingSystems;
    if (system !== undefined) {
      const mounts = system.mounts.map(({ path, fileSystem: device }) => ({ path, device }));
      // Parents first.
      return mounts.sort((a, b) => a.path.length - b.path.length);
    }
    const readable = items.filter(({ type }) => isMountable(type));
    if (readable.length === 1) return [{ path: '/', device: readable[0]!.name }];
    const locked = items.find(({ type }) => isEncrypted(type));
    if (readable.length === 0 && locked !== undefined) throw encrypted(backup, locked.name);
    throw new PandoError(
      'file-system-missing',
      readable.length === 0
        ? `no file system was found in ${backup}`
        : `no operating system was found in ${backup}; choose a file system: ${names}`,
    );
  }
}

function encrypted(backup: string, name: string): PandoError {
  return new PandoError('file-system-encrypted', `${name} of ${backup} is encrypted`);
}

function missing(error: unknown, path: Uint8Array): unknown {
  if (!(error instanceof CommandFailure)) return error;
  if (!/No such file or directory|Not a directory|Too many levels|File name too long/.test(error.message))
    return error;
  return new PandoError('file-missing', `there is no ${shown(path)} in the backup`, { cause: error });
}

/** What a command failed with, for whoever asked. */
export function toPandoError(error: unknown): unknown {
  if (!(error instanceof CommandFailure)) return error;
  return new PandoError('files-tool-failed', error.message, { cause: error });
}
