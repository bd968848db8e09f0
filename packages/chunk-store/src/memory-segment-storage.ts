/** Segments in memory, for tests and for stores that need not outlive the process. */
import { PandoError } from '@pando/common';
import type { SegmentStorage, SegmentWriter } from './types.ts';

class Content {
  bytes = new Uint8Array(0);
  size = 0;

  append(part: Uint8Array): void {
    const end = this.size + part.byteLength;
    if (end > this.bytes.byteLength) {
      const bytes = new Uint8Array(Math.max(end, this.bytes.byteLength * 2, 4096));
      bytes.set(this.bytes.subarray(0, this.size));
      this.bytes = bytes;
    }
    this.bytes.set(part, this.size);
    this.size = end;
  }
}

class MemorySegmentWriter implements SegmentWriter {
  readonly segment: number;
  readonly #content: Content;
  #closed = false;

  constructor(segment: number, content: Content) {
    this.segment = segment;
    this.#content = content;
  }

  get size(): number {
    return this.#content.size;
  }

  append(parts: readonly Uint8Array[]): Promise<void> {
    if (this.#closed) return Promise.reject(new PandoError('internal', `segment ${this.segment} is closed`));
    for (const part of parts) this.#content.append(part);
    return Promise.resolve();
  }

  sync(): Promise<void> {
    return Promise.resolve();
  }

  close(): Promise<void> {
    this.#closed = true;
    return Promise.resolve();
  }
}

export class MemorySegmentStorage implements SegmentStorage {
  readonly #segments = new Map<number, Content>();

  list(): Promise<{ segment: number; size: number }[]> {
    const found = [...this.#segments].map(([segment, content]) => ({ segment, size: content.size }));
    return Promise.resolve(found.sort((a, b) => a.segment - b.segment));
  }

  create(segment: number): Promise<SegmentWriter> {
    if (this.#segments.has(segment)) {
      return Promise.reject(new PandoError('internal', `segment ${segment} exists already`));
    }
    const content = new Content();
    this.#segments.set(segment, content);
    return Promise.resolve(new MemorySegmentWriter(segment, content));
  }

  async read(segment: number, target: Uint8Array, position: number): Promise<number> {
    await Promise.resolve(); // as a disk would: never in the turn of the call
    return this.readSync(segment, target, position);
  }

  readSync(segment: number, target: Uint8Array, position: number): number {
    const content = this.#segments.get(segment);
    if (content === undefined) throw new PandoError('chunk-missing', `segment ${segment} does not exist`);
    const end = Math.min(content.size, position + target.byteLength);
    if (end <= position) return 0;
    target.set(content.bytes.subarray(position, end));
    return end - position;
  }

  truncate(segment: number, size: number): Promise<void> {
    const content = this.#segments.get(segment);
    if (content === undefined) {
      return Promise.reject(new PandoError('chunk-missing', `segment ${segment} does not exist`));
    }
    content.size = Math.min(content.size, size);
    return Promise.resolve();
  }

  rewrite(): Promise<void> {
    return Promise.resolve();
  }

  reopen(segment: number): Promise<SegmentWriter> {
    const content = this.#segments.get(segment);
    if (content === undefined) {
      return Promise.reject(new PandoError('chunk-missing', `segment ${segment} does not exist`));
    }
    return Promise.resolve(new MemorySegmentWriter(segment, content));
  }

  remove(segment: number): Promise<void> {
    this.#segments.delete(segment);
    return Promise.resolve();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
