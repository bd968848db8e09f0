/**
 * A disk in memory that can be crashed: the FileSystem seam with what was written and what was synced
 * kept apart, and faults that can be switched on. For tests of what survives.
 *
 * A crash keeps what was synced. Of each file's unsynced writes it keeps a random choice, whole or torn at
 * multiples of 512 bytes; names that were made, removed or renamed without syncDirectory stay or go, as
 * the dice fall, in order.
 *
 * After a failed sync nobody knows what became of the pages: what it should have covered stays at risk, whatever
 * later syncs say.
 */
import type { File, FileSystem } from '../file-system.ts';
import { SECTOR_BYTES, applied, resized, survivingBytes, written, type Change } from './survivors.ts';

/** A file. Its bytes are replaced, never changed in place, so that a copy shares them. */
interface Node {
  current: Uint8Array;
  durable: Uint8Array;
  /** Writes and truncations since the last sync, in order. */
  unsynced: Change[];
}

type NameChange = { readonly path: string; readonly node: Node | undefined };
/** What happens to names at once. */
type NameChanges = readonly NameChange[];

export interface Faults {
  /** Bytes that still fit on the disk; writes past it fail with ENOSPC after a short write. */
  freeBytes: number;
  /** The next sync of a file whose path contains this fails with EIO. */
  failSyncOf: string | undefined;
  /** Called before each operation that changes something; throw to fail it. */
  before: ((operation: string, path: string) => void) | undefined;
}

export interface DiskOperation {
  readonly kind:
    'open' | 'create' | 'remove' | 'rename' | 'syncDirectory' | 'read' | 'write' | 'sync' | 'truncate';
  readonly path: string;
  /** Where a read or write begins, or the size to cut to. */
  readonly at?: number;
  /** What is to be written, one after another. */
  readonly parts?: readonly Uint8Array[];
}

/** How an operation fails: a write after its first `bytes` bytes, everything else without an effect. */
export interface DiskFault {
  readonly code: 'EIO' | 'ENOSPC';
  readonly bytes?: number;
}

/** Decides when each operation takes effect, and whether it fails; without one it does so in the next microtask. */
export type Schedule = <T>(operation: DiskOperation, run: (fault?: DiskFault) => T) => Promise<T>;

function failure(code: string, what: string): Error {
  return Object.assign(new Error(`${code}: ${what}`), { code });
}

export class CrashFileSystem implements FileSystem {
  readonly faults: Faults = { freeBytes: Infinity, failSyncOf: undefined, before: undefined };
  schedule: Schedule | undefined;
  #names = new Map<string, Node>();
  #durableNames = new Map<string, Node>();
  #nameChanges: NameChanges[] = [];
  #dead = false;

  makeDirectory(): Promise<void> {
    return Promise.resolve();
  }

  list(path: string): Promise<string[]> {
    const prefix = `${path}/`;
    return Promise.resolve(
      [...this.#names.keys()]
        .filter((name) => name.startsWith(prefix) && !name.includes('/', prefix.length))
        .map((name) => name.slice(prefix.length))
        .sort(),
    );
  }

  open(path: string, mode: 'read' | 'write' | 'create'): Promise<File> {
    return this.#do({ kind: mode === 'create' ? 'create' : 'open', path }, () => {
      let node = this.#names.get(path);
      if (mode === 'create') {
        if (node !== undefined) throw failure('EEXIST', path);
        this.faults.before?.('create', path);
        node = { current: new Uint8Array(0), durable: new Uint8Array(0), unsynced: [] };
        this.#setNames([{ path, node }]);
      }
      if (node === undefined) throw failure('ENOENT', path);
      return this.#file(path, node, mode !== 'read');
    });
  }

  remove(path: string): Promise<void> {
    return this.#do({ kind: 'remove', path }, () => {
      const node = this.#names.get(path);
      if (node === undefined) throw failure('ENOENT', path);
      this.faults.before?.('remove', path);
      this.faults.freeBytes += node.current.byteLength;
      this.#setNames([{ path, node: undefined }]);
    });
  }

  rename(from: string, to: string): Promise<void> {
    return this.#do({ kind: 'rename', path: from }, () => {
      const node = this.#names.get(from);
      if (node === undefined) throw failure('ENOENT', from);
      this.faults.before?.('rename', from);
      this.#setNames([
        { path: to, node },
        { path: from, node: undefined },
      ]);
    });
  }

  syncDirectory(path: string): Promise<void> {
    return this.#do({ kind: 'syncDirectory', path }, () => {
      this.faults.before?.('syncDirectory', path);
      const rest: NameChanges[] = [];
      for (const changes of this.#nameChanges) {
        if (changes.some((change) => change.path.slice(0, change.path.lastIndexOf('/')) === path))
          applyNames(this.#durableNames, changes);
        else rest.push(changes);
      }
      this.#nameChanges = rest;
    });
  }

  /** Paths of all files as they are now. */
  paths(): string[] {
    return [...this.#names.keys()].sort();
  }

  /** Bytes of a file as they are now, for tests that damage or inspect them. */
  bytesOf(path: string): Uint8Array {
    const node = this.#names.get(path);
    if (node === undefined) throw failure('ENOENT', path);
    return node.current;
  }

  /** Replaces a file's bytes, durably: a flipped bit, a cut tail. */
  damage(path: string, change: (bytes: Uint8Array) => Uint8Array): void {
    const node = this.#names.get(path)!;
    node.current = change(node.current.slice());
    node.durable = node.current.slice();
    node.unsynced = [];
  }

  /** Flips bits of the byte at `offset`, on the disk and in the page cache: as the disk does it, unnoticed. */
  flip(path: string, offset: number, bits: number): void {
    const node = this.#names.get(path)!;
    const isDurable = node.durable === node.current;
    node.current = flipped(node.current, offset, bits);
    node.durable = isDurable ? node.current : flipped(node.durable, offset, bits);
  }

  /** The same disk once more, from here on independent of this one. Costs what there are files, not what they hold. */
  copy(): CrashFileSystem {
    const copies = new Map<Node, Node>();
    const copyOf = (node: Node): Node => {
      let copy = copies.get(node);
      if (copy === undefined) copies.set(node, (copy = { ...node, unsynced: [...node.unsynced] }));
      return copy;
    };
    const next = new CrashFileSystem();
    next.faults.freeBytes = this.faults.freeBytes;
    for (const [path, node] of this.#names) next.#names.set(path, copyOf(node));
    for (const [path, node] of this.#durableNames) next.#durableNames.set(path, copyOf(node));
    next.#nameChanges = this.#nameChanges.map((changes) =>
      changes.map(({ path, node }) => ({ path, node: node === undefined ? undefined : copyOf(node) })),
    );
    return next;
  }

  /** The process is killed: the disk as the next one finds it, unsynced changes still unsynced. This one is dead. */
  kill(): CrashFileSystem {
    this.#dead = true;
    return this.copy();
  }

  /** Power loss, with all that real disks do to what was not synced: see survivors.ts. */
  powerCut(random: () => number): CrashFileSystem {
    const luck = random();
    const { length } = this.#nameChanges;
    const names = luck < 0.2 ? 0 : luck < 0.4 ? length : Math.floor(random() * (length + 1));
    return this.#restart(names, (node) => survivingBytes(node.durable, node.unsynced, random));
  }

  /**
   * The machine loses power: unsynced changes stay or go by `random` (0 … 1). Returns the disk as the next boot finds
   * it; this one and its open files are dead, so that what still runs of the old process can do no more.
   */
  crash(random: () => number): CrashFileSystem {
    const names = Math.floor(random() * (this.#nameChanges.length + 1));
    return this.#restart(names, ({ durable, unsynced }) => {
      let bytes: Uint8Array = durable.slice();
      for (const change of unsynced) {
        const luck = change.state === 'safe' ? 0 : random();
        if (change.bytes === undefined) {
          if (luck < 0.5) bytes = applied(bytes, change);
        } else if (luck < 0.4) {
          bytes = applied(bytes, change);
        } else if (luck < 0.6) {
          const sectors = Math.floor((random() * change.bytes.byteLength) / SECTOR_BYTES);
          bytes = written(bytes, change.at, change.bytes.subarray(0, sectors * SECTOR_BYTES));
        }
      }
      return bytes;
    });
  }

  /** Directory operations are journaled in order: so many of them survive. */
  #restart(nameChanges: number, bytesOf: (node: Node) => Uint8Array): CrashFileSystem {
    this.#dead = true;
    const next = new CrashFileSystem();
    for (const changes of this.#nameChanges.slice(0, nameChanges)) applyNames(this.#durableNames, changes);
    const survivors = new Map<Node, Node>();
    for (const [path, node] of this.#durableNames) {
      let survivor = survivors.get(node);
      if (survivor === undefined) {
        const bytes = bytesOf(node);
        survivors.set(node, (survivor = { current: bytes, durable: bytes, unsynced: [] }));
      }
      next.#names.set(path, survivor);
      next.#durableNames.set(path, survivor);
    }
    return next;
  }

  async #do<T>(operation: DiskOperation, run: (fault?: DiskFault) => T): Promise<T> {
    const attempt = (fault?: DiskFault): T => {
      if (this.#dead) throw failure('EIO', 'the machine has lost power');
      if (fault !== undefined && operation.kind !== 'write' && operation.kind !== 'sync')
        throw failure(fault.code, operation.path);
      return run(fault);
    };
    if (this.schedule !== undefined) return this.schedule(operation, attempt);
    await Promise.resolve();
    return attempt();
  }

  #setNames(changes: NameChanges): void {
    applyNames(this.#names, changes);
    this.#nameChanges.push(changes);
  }

  #file(path: string, node: Node, writable: boolean): File {
    let closed = false;
    const check = (): void => {
      if (this.#dead) throw failure('EIO', 'the machine has lost power');
      if (closed) throw failure('EBADF', path);
    };
    const readSync = (target: Uint8Array, position: number): number => {
      check();
      const part = node.current.subarray(position, position + target.byteLength);
      target.set(part);
      return part.byteLength;
    };
    const writeSync = (parts: readonly Uint8Array[], position: number, fault?: DiskFault): void => {
      check();
      if (!writable) throw failure('EBADF', path);
      const all = Buffer.concat(parts);
      this.faults.before?.('write', path);
      const growth = Math.max(0, position + all.byteLength - node.current.byteLength);
      const free = Math.max(0, this.faults.freeBytes);
      const fits = growth <= this.faults.freeBytes;
      const room = fits ? all.byteLength : Math.max(0, all.byteLength - growth + free);
      const bytes = all.subarray(0, fault === undefined ? room : Math.min(room, fault.bytes ?? 0));
      this.faults.freeBytes -= Math.min(growth, free);
      if (bytes.byteLength > 0) {
        node.current = written(node.current, position, bytes);
        node.unsynced.push({ at: position, bytes: new Uint8Array(bytes) });
      }
      if (fault !== undefined) throw failure(fault.code, path);
      if (!fits) throw failure('ENOSPC', path);
    };
    return {
      path,
      size: () => Promise.resolve(node.current.byteLength),
      read: (target, position) =>
        this.#do({ kind: 'read', path, at: position }, () => readSync(target, position)),
      readSync,
      write: (parts, position) =>
        this.#do({ kind: 'write', path, at: position, parts }, (fault) => writeSync(parts, position, fault)),
      // What is scheduled takes effect when the schedule says so, and that is later.
      ...(this.schedule === undefined ? { writeSync } : {}),
      sync: () =>
        this.#do({ kind: 'sync', path }, (fault) => {
          check();
          this.faults.before?.('sync', path);
          const { failSyncOf } = this.faults;
          if (fault !== undefined || (failSyncOf !== undefined && path.includes(failSyncOf))) {
            node.unsynced = node.unsynced.map((change) => ({ ...change, state: change.state ?? 'lost' }));
            throw failure(fault?.code ?? 'EIO', path);
          }
          if (node.unsynced.some(({ state }) => state === 'lost')) {
            node.unsynced = node.unsynced.map((change) => ({ ...change, state: change.state ?? 'safe' }));
            return;
          }
          node.durable = node.current;
          node.unsynced = [];
        }),
      truncate: (size) =>
        this.#do({ kind: 'truncate', path, at: size }, () => {
          check();
          this.faults.before?.('truncate', path);
          if (size < node.current.byteLength) this.faults.freeBytes += node.current.byteLength - size;
          node.current = resized(node.current, size);
          node.unsynced.push({ size });
        }),
      close: () => {
        closed = true;
        return Promise.resolve();
      },
    };
  }
}

function applyNames(names: Map<string, Node>, changes: NameChanges): void {
  for (const { path, node } of changes) {
    if (node === undefined) names.delete(path);
    else names.set(path, node);
  }
}

function flipped(bytes: Uint8Array, offset: number, bits: number): Uint8Array {
  if (offset >= bytes.byteLength) return bytes;
  const result = bytes.slice();
  result[offset]! ^= bits;
  return result;
}
