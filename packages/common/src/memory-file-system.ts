/** The FileSystem seam in memory, for tests and for stores that need not outlive the process. */
import type { File, FileSystem } from './file-system.ts';

class Content {
  bytes = new Uint8Array(0);
  size = 0;
}

function failure(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}

class MemoryFile implements File {
  readonly path: string;
  readonly #content: Content;
  readonly #writable: boolean;
  #closed = false;

  constructor(path: string, content: Content, writable: boolean) {
    this.path = path;
    this.#content = content;
    this.#writable = writable;
  }

  size(): Promise<number> {
    return Promise.resolve(this.#content.size);
  }

  read(target: Uint8Array, position: number): Promise<number> {
    return Promise.resolve().then(() => this.readSync(target, position));
  }

  readSync(target: Uint8Array, position: number): number {
    if (this.#closed) throw failure('EBADF', this.path);
    const end = Math.min(this.#content.size, position + target.byteLength);
    if (end <= position) return 0;
    target.set(this.#content.bytes.subarray(position, end));
    return end - position;
  }

  write(parts: readonly Uint8Array[], position: number): Promise<void> {
    if (this.#closed || !this.#writable) return Promise.reject(failure('EBADF', this.path));
    let at = position;
    for (const part of parts) {
      this.#reserve(at + part.byteLength);
      this.#content.bytes.set(part, at);
      at += part.byteLength;
    }
    this.#content.size = Math.max(this.#content.size, at);
    return Promise.resolve();
  }

  sync(): Promise<void> {
    return Promise.resolve();
  }

  truncate(size: number): Promise<void> {
    this.#reserve(size);
    if (size < this.#content.size) this.#content.bytes.fill(0, size, this.#content.size);
    this.#content.size = size;
    return Promise.resolve();
  }

  close(): Promise<void> {
    this.#closed = true;
    return Promise.resolve();
  }

  #reserve(size: number): void {
    const content = this.#content;
    if (size <= content.bytes.byteLength) return;
    const bytes = new Uint8Array(Math.max(size, content.bytes.byteLength * 2, 4096));
    bytes.set(content.bytes.subarray(0, content.size));
    content.bytes = bytes;
  }
}

export class MemoryFileSystem implements FileSystem {
  readonly #files = new Map<string, Content>();

  makeDirectory(): Promise<void> {
    return Promise.resolve();
  }

  list(path: string): Promise<string[]> {
    const prefix = `${path}/`;
    const names = [...this.#files.keys()]
      .filter((file) => file.startsWith(prefix) && !file.includes('/', prefix.length))
      .map((file) => file.slice(prefix.length));
    return Promise.resolve(names.sort());
  }

  open(path: string, mode: 'read' | 'write' | 'create'): Promise<File> {
    let content = this.#files.get(path);
    if (mode === 'create') {
      if (content !== undefined) return Promise.reject(failure('EEXIST', path));
      content = new Content();
      this.#files.set(path, content);
    }
    if (content === undefined) return Promise.reject(failure('ENOENT', path));
    return Promise.resolve(new MemoryFile(path, content, mode !== 'read'));
  }

  remove(path: string): Promise<void> {
    if (!this.#files.delete(path)) return Promise.reject(failure('ENOENT', path));
    return Promise.resolve();
  }

  rename(from: string, to: string): Promise<void> {
    const content = this.#files.get(from);
    if (content === undefined) return Promise.reject(failure('ENOENT', from));
    this.#files.delete(from);
    this.#files.set(to, content);
    return Promise.resolve();
  }

  syncDirectory(): Promise<void> {
    return Promise.resolve();
  }
}
