/** Files of every backup, out of a map in memory: for tests of the routes. */
import { PandoError } from '@pando/common';
import type { BackupDisks, FileEntry, GuestFiles, Place } from '@pando/guest-files';

/** Path, in bytes as latin1, to content; a directory ends with a slash. */
export class FakeFiles implements GuestFiles {
  readonly content = new Map<string, Buffer>();
  /** What was asked for. */
  readonly asked: (Place & { readonly backup: BackupDisks; readonly signal: AbortSignal | undefined })[] = [];
  /** Set by a test: what the next call throws. */
  failNext: Error | undefined;

  fileSystems: GuestFiles['fileSystems'] = async (backup, signal) => {
    this.#note(backup, { path: Buffer.from('/') }, signal);
    return { items: [{ name: '/dev/sda1', type: 'ext4', label: 'root' }], operatingSystems: [] };
  };

  list: GuestFiles['list'] = async (backup, { limit, after, recursive = false, ...place }, signal) => {
    this.#note(backup, place, signal);
    const names = [...this.content.keys()].sort();
    const above = Buffer.from(place.path).toString('latin1').replace(/\/?$/, '/');
    const last = after === undefined ? undefined : above + Buffer.from(after).toString('latin1');
    const found = names
      .filter((name) => name.startsWith(above) && name !== above)
      .filter((name) => recursive || !name.slice(above.length, -1).includes('/'))
      .filter((name) => last === undefined || name.replace(/\/$/, '') > last);
    const items = found.slice(0, limit).map((name) => this.#entry(name));
    if (found.length <= limit) return { items };
    return { items, next: Buffer.from(items.at(-1)!.path).subarray(above.length) };
  };

  read: GuestFiles['read'] = async (backup, place, signal) => {
    this.#note(backup, place, signal);
    const bytes = this.content.get(Buffer.from(place.path).toString('latin1'));
    if (bytes === undefined) throw new PandoError('file-missing', 'there is no such file');
    return { sizeBytes: bytes.byteLength, bytes: one(bytes) };
  };

  archive: GuestFiles['archive'] = async (backup, place, signal) => {
    this.#note(backup, place, signal);
    return one(Buffer.alloc(1024));
  };

  release(): Promise<void> {
    return Promise.resolve();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #note(backup: BackupDisks, place: Place, signal: AbortSignal | undefined): void {
    this.asked.push({ ...place, backup, signal });
    const error = this.failNext;
    this.failNext = undefined;
    if (error !== undefined) throw error;
  }

  #entry(name: string): FileEntry {
    const isDirectory = name.endsWith('/');
    return {
      path: Buffer.from(isDirectory ? name.slice(0, -1) : name, 'latin1'),
      type: isDirectory ? 'directory' : 'file',
      ...{ mode: 0o644, uid: 0, gid: 0, modifiedMs: 1e12 },
      sizeBytes: this.content.get(name)!.byteLength,
    };
  }
}

async function* one(bytes: Buffer): AsyncGenerator<Uint8Array, void, undefined> {
  yield bytes;
  await Promise.resolve();
}
