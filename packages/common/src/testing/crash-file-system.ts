/**
 * A disk in memory that can be crashed: the FileSystem seam with what was written and what was synced
 * kept apart, and faults that can be switched on. For tests of what survives.
 *
 * A crash keeps what was synced. Of each file's unsynced writes it keeps a random choice, each whole, or torn at a
 * multiple of 512 bytes; names that were made, removed or renamed without syncDirectory stay or go, as
 * the dice fall, each directory's in order.
 */
import type { File, FileSystem } from '../file-system.ts';

const SECTOR = 512;

class Node {
  current: Uint8Array = new Uint8Array(0);
  durable: Uint8Array = new Uint8Array(0);
  /** Writes and truncations since the last sync, in order. */
  unsynced: ({ at: number; bytes: Uint8Array } | { size: number })[] = [];
}

type NameChange = { readonly path: string; readonly node: Node | undefined };

export interface Faults {
  /** Bytes that still fit on the disk; writes past it fail with ENOSPC after a short write. */
  freeBytes: number;
  /** The next sync of a file whose path contains this fails with EIO. */
  failSyncOf: string | undefined;
  /** Called before each operation that changes something; throw to fail it. */
  before: ((operation: string, path: string) => void) | undefined;
}

function failure(code: string, what: string): Error {
  return Object.assign(new Error(`${code}: ${what}`), { code });
}

export class CrashFileSystem implements FileSystem {
  readonly faults: Faults = { freeBytes: Infinity, failSyncOf: undefined, before: undefined };
  #names = new Map<string, Node>();
  #durableNames = new Map<string, Node>();
  #nameChanges: NameChange[] = [];
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

  async open(path: string, mode: 'read' | 'write' | 'create'): Promise<File> {
    await Promise.resolve();
    this.#alive();
    let node = this.#names.get(path);
    if (mode === 'create') {
      if (node !== undefined) throw failure('EEXIST', path);
      this.faults.before?.('create', path);
      node = new Node();
      this.#setName(path, node);
    }
    if (node === undefined) throw failure('ENOENT', path);
    return this.#file(path, node, mode !== 'read');
  }

  async remove(path: string): Promise<void> {
    await Promise.resolve();
    this.#alive();
    const node = this.#names.get(path);
    if (node === undefined) throw failure('ENOENT', path);
    this.faults.before?.('remove', path);
    this.faults.freeBytes += node.current.byteLength;
    this.#setName(path, undefined);
  }

  async rename(from: string, to: string): Promise<void> {
    await Promise.resolve();
    this.#alive();
    const node = this.#names.get(from);
    if (node === undefined) throw failure('ENOENT', from);
    this.faults.before?.('rename', from);
    this.#setName(to, node);
    this.#setName(from, undefined);
  }

  async syncDirectory(path: string): Promise<void> {
    await Promise.resolve();
    this.#alive();
    this.faults.before?.('syncDirectory', path);
    const rest: NameChange[] = [];
    for (const change of this.#nameChanges) {
      if (change.path.slice(0, change.path.lastIndexOf('/')) === path) apply(this.#durableNames, change);
      else rest.push(change);
    }
    this.#nameChanges = rest;
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

  /**
   * The machine loses power: unsynced changes stay or go by `random` (0 … 1). Returns the disk as the next boot finds
   * it; this one and its open files are dead, so that what still runs of the old process can do no more.
   */
  crash(random: () => number): CrashFileSystem {
    this.#dead = true;
    const next = new CrashFileSystem();
    let kept = 0;
    const order = this.#nameChanges;
    // Directory operations are journaled in order: a prefix of them survives.
    const survivors = Math.floor(random() * (order.length + 1));
    for (const change of order) if (kept++ < survivors) apply(this.#durableNames, change);
    for (const [path, node] of this.#durableNames) {
      let bytes: Uint8Array = node.durable.slice();
      for (const change of node.unsynced) {
        const luck = random();
        if ('size' in change) {
          if (luck < 0.5) bytes = resized(bytes, change.size);
        } else if (luck < 0.4) {
          bytes = written(bytes, change.at, change.bytes);
        } else if (luck < 0.6) {
          const sectors = Math.floor((random() * change.bytes.byteLength) / SECTOR);
          bytes = written(bytes, change.at, change.bytes.subarray(0, sectors * SECTOR));
        }
      }
      const survivor = new Node();
      survivor.current = bytes;
      survivor.durable = bytes.slice();
      next.#names.set(path, survivor);
      next.#durableNames.set(path, survivor);
    }
    return next;
  }

  #alive(): void {
    if (this.#dead) throw failure('EIO', 'the machine has lost power');
  }

  #setName(path: string, node: Node | undefined): void {
    apply(this.#names, { path, node });
    this.#nameChanges.push({ path, node });
  }

  #file(path: string, node: Node, writable: boolean): File {
    let closed = false;
    const check = (): void => {
      this.#alive();
      if (closed) throw failure('EBADF', path);
    };
    const readSync = (target: Uint8Array, position: number): number => {
      check();
      const part = node.current.subarray(position, position + target.byteLength);
      target.set(part);
      return part.byteLength;
    };
    return {
      path,
      size: () => Promise.resolve(node.current.byteLength),
      read: async (target, position) => {
        await Promise.resolve();
        return readSync(target, position);
      },
      readSync,
      write: async (parts, position) => {
        await Promise.resolve();
        check();
        if (!writable) throw failure('EBADF', path);
        this.faults.before?.('write', path);
        const all = Buffer.concat(parts);
        const growth = Math.max(0, position + all.byteLength - node.current.byteLength);
        const fits = growth <= this.faults.freeBytes;
        const bytes = fits
          ? all
          : all.subarray(0, Math.max(0, all.byteLength - growth + Math.max(0, this.faults.freeBytes)));
        this.faults.freeBytes -= Math.min(growth, Math.max(0, this.faults.freeBytes));
        if (bytes.byteLength > 0) {
          node.current = written(node.current, position, bytes);
          node.unsynced.push({ at: position, bytes: new Uint8Array(bytes) });
        }
        if (!fits) throw failure('ENOSPC', path);
      },
      sync: async () => {
        await Promise.resolve();
        check();
        this.faults.before?.('sync', path);
        if (this.faults.failSyncOf !== undefined && path.includes(this.faults.failSyncOf))
          throw failure('EIO', path);
        node.durable = node.current.slice();
        node.unsynced = [];
      },
      truncate: async (size) => {
        await Promise.resolve();
        check();
        this.faults.before?.('truncate', path);
        if (size < node.current.byteLength) this.faults.freeBytes += node.current.byteLength - size;
        node.current = resized(node.current, size);
        node.unsynced.push({ size });
      },
      close: () => {
        closed = true;
        return Promise.resolve();
      },
    };
  }
}

function apply(names: Map<string, Node>, change: NameChange): void {
  if (change.node === undefined) names.delete(change.path);
  else names.set(change.path, change.node);
}

function resized(bytes: Uint8Array, size: number): Uint8Array {
  const result = new Uint8Array(size);
  result.set(bytes.subarray(0, size));
  return result;
}

function written(bytes: Uint8Array, at: number, data: Uint8Array): Uint8Array {
  const end = at + data.byteLength;
  const result = end > bytes.byteLength ? resized(bytes, end) : bytes.slice();
  result.set(data, at);
  return result;
}
