/** The index in memory, for tests and for stores that need not outlive the process. */
import { ID_BYTES } from '@pando/common';
import { IdTable } from './id-table.ts';
import { readPlace } from './place.ts';
import { PLACE_BYTES, type ChunkIndex } from './types.ts';

export class MemoryChunkIndex implements ChunkIndex {
  readonly #table = new IdTable();
  readonly #marks = new Map<string, Uint8Array>();
  #places = new Uint8Array(this.#table.capacity * PLACE_BYTES);

  get(ids: Uint8Array, offset: number): Uint8Array | undefined {
    const entry = this.#table.indexOf(ids, offset);
    return entry < 0 ? undefined : this.#places.slice(entry * PLACE_BYTES, (entry + 1) * PLACE_BYTES);
  }

  write(
    batch: { ids: Uint8Array; places: Uint8Array; count: number; deletes?: Uint8Array },
    _durable: boolean,
  ): Promise<void> {
    const deletes = batch.deletes;
    if (deletes !== undefined) {
      for (let at = 0; at < deletes.byteLength; at += ID_BYTES) this.#table.remove(deletes, at);
    }
    for (let i = 0; i < batch.count; i++) {
      const entry = this.#table.add(batch.ids, i * ID_BYTES);
      this.#reserve();
      this.#places.set(batch.places.subarray(i * PLACE_BYTES, (i + 1) * PLACE_BYTES), entry * PLACE_BYTES);
    }
    return Promise.resolve();
  }

  findStale(
    isGone: (segment: number) => boolean,
    after: Uint8Array,
    max: number,
  ): Promise<{ ids: Uint8Array; next: Uint8Array | undefined }> {
    const ids: Buffer[] = [];
    this.#table.forEach((entry) => {
      const id = Buffer.from(this.#table.ids.subarray(entry * ID_BYTES, (entry + 1) * ID_BYTES));
      if (id.compare(after) > 0) ids.push(id);
    });
    ids.sort((a, b) => a.compare(b));
    const seen = ids.slice(0, max);
    const stale = seen.filter((id) => isGone(readPlace(this.get(id, 0)!).segment));
    const next = ids.length > max ? seen.at(-1) : undefined;
    return Promise.resolve({ ids: new Uint8Array(Buffer.concat(stale)), next });
  }

  setMark(name: string, value: Uint8Array): Promise<void> {
    this.#marks.set(name, value.slice());
    return Promise.resolve();
  }

  getMark(name: string): Promise<Uint8Array | undefined> {
    return Promise.resolve(this.#marks.get(name)?.slice());
  }

  count(): Promise<number> {
    return Promise.resolve(this.#table.size);
  }

  bytes(): Promise<number> {
    return Promise.resolve(this.#table.size * (ID_BYTES + PLACE_BYTES));
  }

  clear(): Promise<void> {
    this.#table.clear();
    this.#marks.clear();
    return Promise.resolve();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #reserve(): void {
    const bytes = this.#table.capacity * PLACE_BYTES;
    if (bytes === this.#places.byteLength) return;
    const places = new Uint8Array(bytes);
    places.set(this.#places);
    this.#places = places;
  }
}
