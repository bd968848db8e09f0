/**
 * The read path: nodes and data chunks by id, from memory, or from storage where that is quick, without a promise, else from
 * storage with one.
 *
 * A leaf that the store handed out remembers where its children are. Such a place can go stale when its segment is
 * compacted away, or its run is damaged and the chunk has been stored again; it is then found again through
 * the index. Damage is an error only where the index names no other place.
 */
import { ID_BYTES, idsEqual, idToHex, isHole, isLost, PandoError } from '@pando/common';
import { FANOUT, NODE_BYTES, type ChunkReader, type TreeNode } from '@pando/tree';
import { FOUND, IN_FLIGHT, MISSING, type ChunkLocator, type Found } from './chunk-locator.ts';
import { isDamage, type DamagedRuns } from './damaged-runs.ts';
import type { Hash } from './hashing.ts';
import { LaterRead, type LaterSource } from './later-read.ts';
import { NodeCache, StoreNode } from './node-cache.ts';
import { offsetOfKey, runKey, segmentOfKey, type CachedRun } from './run-cache.ts';
import type { RunLoads } from './run-loads.ts';
import type { RunReader } from './run-reader.ts';
import type { StoreCounters } from './store-counters.ts';

/** How often one chunk is looked up again because it moved while it was read: a compaction moves it once. */
const MOVES_MAX = 8;

export class ChunkSource implements ChunkReader, LaterSource {
  readonly chunkBytes: number;
  readonly nodes: NodeCache;
  readonly #locator: ChunkLocator;
  readonly #runs: RunReader;
  readonly #loads: RunLoads;
  readonly #isGone: (segment: number) => boolean;
  readonly #damaged: DamagedRuns;
  readonly #counters: StoreCounters;
  readonly #hash: Hash;
  /** Of the child whose run was found last, for this turn. */
  #slot = 0;
  /** The run that is worth waiting for, in the same way. */
  #segment = 0;
  #runOffset = 0;
  #runBytes = 0;

  constructor(
    chunkBytes: number,
    nodeCacheBytes: number,
    locator: ChunkLocator,
    runs: RunReader,
    loads: RunLoads,
    isGone: (segment: number) => boolean,
    damaged: DamagedRuns,
    counters: StoreCounters,
    hash: Hash,
  ) {
    this.chunkBytes = chunkBytes;
    this.nodes = new NodeCache(nodeCacheBytes);
    this.#locator = locator;
    this.#runs = runs;
    this.#loads = loads;
    this.#isGone = isGone;
    this.#damaged = damaged;
    this.#counters = counters;
    this.#hash = hash;
  }

  peekNode(ids: Uint8Array, offset: number): TreeNode | undefined {
    const cached = this.nodes.get(ids, offset);
    if (cached !== undefined) {
      this.#counters.nodeHits++;
      return cached;
    }
    const node = this.#readNodeNow(ids, offset);
    // Who gets none reads it with a promise, and that counts.
    if (node !== undefined) this.#counters.nodeMisses++;
    return node;
  }

  async readNode(ids: Uint8Array, offset: number): Promise<TreeNode> {
    const cached = this.nodes.get(ids, offset);
    if (cached !== undefined) {
      this.#counters.nodeHits++;
      return cached;
    }
    this.#counters.nodeMisses++;
    const id = ids.slice(offset, offset + ID_BYTES);
    const bytes = await this.#read(id, 'node');
    return this.nodes.add(id, 0, bytes, 0);
  }

  /** A fresh copy of the chunk of either kind. The id is read before the first await. */
  async readChunk(ids: Uint8Array, offset: number): Promise<Uint8Array> {
    const id = ids.slice(offset, offset + ID_BYTES);
    return (await this.#read(id, 'chunk')).slice();
  }

  readChunks(
    leaf: TreeNode,
    first: number,
    count: number,
    target: Uint8Array,
    targetOffset: number,
  ): Promise<void> | undefined {
    // Measured: about 2 µs a call of one chunk that is in the run cache and has been verified.
    const node = leaf instanceof StoreNode ? leaf : new StoreNode(leaf.bytes);
    const shift = targetOffset - first * this.chunkBytes;
    const end = first + count;
    let later: LaterRead | undefined;
    try {
      for (let child = first; child < end; child++) {
        const at = shift + child * this.chunkBytes;
        if (isHole(node.bytes, child * ID_BYTES)) {
          target.fill(0, at, at + this.chunkBytes);
          continue;
        }
        const run = this.#runNow(node, child);
        if (run === null) {
          later ??= new LaterRead(this, node, target, shift, this.chunkBytes);
          this.#loads.add(this.#segment, this.#runOffset, this.#runBytes, later, child);
        } else if (run === undefined || !this.#copy(run, this.#slot, node, child, target, at)) {
          later ??= new LaterRead(this, node, target, shift, this.chunkBytes);
          later.waitsFor++; // for what is added here
          void this.#addRest(later, node, child, end, target, shift);
          break;
        }
      }
    } catch (error) {
      if (later === undefined) throw error;
      // What was added still writes to the target.
      later.waitsFor++;
      later.release({ error });
    }
    if (later === undefined) return undefined;
    this.#loads.flush();
    return later.done;
  }

  /**
   * The run that holds a leaf's child, for this turn, and its slot; null when it is worth waiting for, and the fields say which it is; undefined when it
   * takes looking up, or is not where it was.
   */
  #runNow(node: StoreNode, child: number): CachedRun | null | undefined {
    const key = placeOf(node, child);
    if (key !== 0) {
      this.#slot = node.slots![child]!;
      return this.#placedNow(segmentOfKey(key), offsetOfKey(key), node.runBytes![child]!);
    }
    const locator = this.#locator;
    if (locator.hint(node.bytes, child * ID_BYTES)) {
      const run = this.#placedNow(locator.segment!.number, locator.runOffset, locator.runBytes);
      if (run === undefined) return undefined;
      if (run !== null) this.#slot = run.slotOf(node.bytes, child * ID_BYTES);
      if (run === null || this.#slot >= 0) {
        locator.hintHeld();
        return run;
      }
    }
    if (locator.ready() !== undefined || this.#resolve(node, child) !== FOUND) return undefined;
    this.#slot = node.slots![child]!;
    const found = node.runKeys![child]!;
    const run =
      this.#runs.cached(found) ??
      this.#runs.loadNow(segmentOfKey(found), offsetOfKey(found), node.runBytes![child]!);
    if (run !== undefined) this.#resolveNeighbours(node, child, run);
    return run;
  }

  /** The run at a place, for this turn; null when it is worth waiting for. */
  #placedNow(segment: number, runOffset: number, runBytes: number): CachedRun | null | undefined {
    const cached = this.#runs.cached(runKey(segment, runOffset));
    if (cached !== undefined) return cached;
    if (!this.#loads.takes(segment, runBytes)) return this.#runs.loadNow(segment, runOffset, runBytes);
    this.#segment = segment;
    this.#runOffset = runOffset;
    this.#runBytes = runBytes;
    return null;
  }

  /** Chunks that were written together lie together: one look-up tells the places of all children in the run. */
  #resolveNeighbours(node: StoreNode, child: number, run: CachedRun): void {
    const { suspect, condemned } = this.#locator.segment!;
    if (suspect || condemned) return;
    const keys = node.runKeys!;
    const at = node.slots![child]! - run.firstSlot;
    const first = Math.max(0, child - at);
    const end = Math.min(FANOUT, child - at + run.ids.byteLength / ID_BYTES);
    for (let other = first; other < end; other++) {
      const slot = at + other - child;
      if (keys[other] !== 0 || !idsEqual(node.bytes, other * ID_BYTES, run.ids, slot * ID_BYTES)) continue;
      keys[other] = run.key;
      node.runBytes![other] = node.runBytes![child]!;
      node.slots![other] = run.firstSlot + slot;
    }
  }

  /** A node that can be read in this turn. Its run is of no use to others: it is not kept. */
  #readNodeNow(ids: Uint8Array, offset: number): StoreNode | undefined {
    const locator = this.#locator;
    const hinted = locator.hint(ids, offset) ? this.#nodeOfRun(ids, offset, -1) : null;
    if (hinted !== null) {
      locator.hintHeld();
      return hinted;
    }
    if (locator.ready() !== undefined || locator.find(ids, offset, false) !== FOUND) return undefined;
    return this.#nodeOfRun(ids, offset, locator.slot) ?? undefined;
  }

  /** A node from the run that the locator has found, in this slot of it or, with −1, wherever it is; null when it is nowhere in it. */
  #nodeOfRun(ids: Uint8Array, offset: number, known: number): StoreNode | null | undefined {
    const { runOffset, runBytes } = this.#locator;
    const segment = this.#locator.segment!.number;
    const cached = this.#runs.cached(runKey(segment, runOffset));
    const run = cached ?? this.#runs.readNow(segment, runOffset, runBytes);
    if (run === undefined) return undefined;
    try {
      const slot = known < 0 ? run.slotOf(ids, offset) : known;
      if (slot < 0) return null;
      if (run.chunkBytes !== NODE_BYTES) return undefined;
      return this.nodes.add(ids, offset, run.raw, run.chunkAt(slot, ids, offset, this.#hash) * NODE_BYTES);
    } catch (error) {
      if (!isDamage(error)) throw error;
      return undefined; // who reads it with a promise is told
    } finally {
      if (cached === undefined) this.#runs.cache.give(run);
    }
  }

  /** Finds the place of a leaf's child and keeps it beside the leaf. */
  #resolve(node: StoreNode, child: number): Found {
    const found = this.#locator.find(node.bytes, child * ID_BYTES, false);
    if (found !== FOUND) return found;
    this.nodes.placesOf(node)[child] = runKey(this.#locator.segment!.number, this.#locator.runOffset);
    node.runBytes![child] = this.#locator.runBytes;
    node.slots![child] = this.#locator.slot;
    return FOUND;
  }

  /** Whether the run holds the chunk undamaged; then it stands in `target`. */
  #copy(
    run: CachedRun,
    slot: number,
    node: StoreNode,
    child: number,
    target: Uint8Array,
    at: number,
  ): boolean {
    try {
      this.#copyChecked(run, slot, node, child, target, at);
      return true;
    } catch (error) {
      if (!isDamage(error)) throw error;
      this.#noteDamage(run.key);
      return false;
    }
  }

  #copyChecked(
    run: CachedRun,
    slot: number,
    node: StoreNode,
    child: number,
    target: Uint8Array,
    at: number,
  ): void {
    const chunk = run.chunkAt(slot, node.bytes, child * ID_BYTES, this.#hash);
    if (run.chunkBytes !== this.chunkBytes) {
      throw new PandoError(
        'chunk-corrupt',
        `chunk ${idToHex(node.bytes, child * ID_BYTES)} is not a data chunk`,
      );
    }
    target.set(run.raw.subarray(chunk * this.chunkBytes, (chunk + 1) * this.chunkBytes), at);
  }

  /** Adds the children `from … end − 1` to a read, when everything can be looked up. What is nowhere then is read by itself later. */
  async #addRest(
    later: LaterRead,
    node: StoreNode,
    from: number,
    end: number,
    target: Uint8Array,
    shift: number,
  ): Promise<void> {
    try {
      await this.#ready();
      for (let child = from; child < end; child++) {
        const at = shift + child * this.chunkBytes;
        if (isHole(node.bytes, child * ID_BYTES)) target.fill(0, at, at + this.chunkBytes);
        else this.#addOne(later, node, child, target, at);
      }
      this.#loads.flush();
      later.release();
    } catch (error) {
      later.release({ error });
    }
  }

  #addOne(later: LaterRead, node: StoreNode, child: number, target: Uint8Array, at: number): void {
    const locator = this.#locator;
    let key = placeOf(node, child);
    let runBytes: number;
    if (key === 0 && locator.hint(node.bytes, child * ID_BYTES)) {
      key = runKey(locator.segment!.number, locator.runOffset);
      runBytes = locator.runBytes;
      locator.hintHeld();
    } else if (key !== 0 || this.#resolve(node, child) === FOUND) {
      key = placeOf(node, child);
      runBytes = node.runBytes![child]!;
    } else {
      later.miss(child);
      return;
    }
    const run = this.#runs.cached(key);
    if (run === undefined) this.#loads.add(segmentOfKey(key), offsetOfKey(key), runBytes, later, child);
    else if (!this.copyLoaded(run, key, node, child, target, at)) later.miss(child);
  }

  copyLoaded(
    run: CachedRun,
    key: number,
    node: StoreNode,
    child: number,
    target: Uint8Array,
    at: number,
  ): boolean {
    const place = placeOf(node, child);
    if (place !== 0 && place !== key) return false; // it has moved meanwhile
    const slot = place === 0 ? run.slotOf(node.bytes, child * ID_BYTES) : node.slots![child]!;
    return slot >= 0 && this.#copy(run, slot, node, child, target, at);
  }

  mayBeElsewhere(key: number, error: unknown): boolean {
    return isDamage(error) || this.#isGone(segmentOfKey(key));
  }

  async readMoved(node: StoreNode, child: number, target: Uint8Array, at: number): Promise<void> {
    const damage = new Damage();
    for (let moves = 0; moves < MOVES_MAX;) {
      await this.#ready();
      const found = this.#resolve(node, child);
      if (found === MISSING) break;
      if (found === IN_FLIGHT) {
        await this.#locator.settled;
        continue;
      }
      const key = placeOf(node, child);
      damage.throwIfAt(key);
      try {
        const run = await this.#loadUnlessGone(key, node.runBytes![child]!);
        if (run !== undefined) {
          this.#copyChecked(run, node.slots![child]!, node, child, target, at);
          return;
        }
      } catch (error) {
        // The next read looks it up again: the chunk may have been stored anew by then.
        forgetPlace(node, child);
        this.#takeDamage(damage, key, error);
      }
      moves++;
    }
    forgetPlace(node, child);
    throw missing('chunk', node.bytes, child * ID_BYTES);
  }

  /** The bytes of a chunk: a view of a cached run. */
  async #read(id: Uint8Array, what: string): Promise<Uint8Array> {
    const damage = new Damage();
    for (let moves = 0; moves < MOVES_MAX;) {
      await this.#ready();
      const found = this.#locator.find(id, 0, false);
      if (found === MISSING) break;
      if (found === IN_FLIGHT) {
        await this.#locator.settled;
        continue;
      }
      const { runOffset, runBytes, slot } = this.#locator;
      const key = runKey(this.#locator.segment!.number, runOffset);
      damage.throwIfAt(key);
      try {
        const run = await this.#loadUnlessGone(key, runBytes);
        if (run !== undefined) {
          const chunk = run.chunkAt(slot, id, 0, this.#hash);
          return run.raw.subarray(chunk * run.chunkBytes, (chunk + 1) * run.chunkBytes);
        }
      } catch (error) {
        this.#takeDamage(damage, key, error);
      }
      moves++;
    }
    throw missing(what, id, 0);
  }

  #takeDamage(damage: Damage, key: number, error: unknown): void {
    if (!isDamage(error)) throw error;
    this.#noteDamage(key);
    damage.take(key, error as Error);
  }

  #noteDamage(key: number): void {
    this.#damaged.add(segmentOfKey(key), offsetOfKey(key));
  }

  /** Waits while nothing can be looked up; what looks up next does so in the same turn. */
  async #ready(): Promise<void> {
    for (let wait = this.#locator.ready(); wait !== undefined; wait = this.#locator.ready()) {
      await wait.catch(() => undefined);
    }
  }

  async #loadUnlessGone(key: number, runBytes: number): Promise<CachedRun | undefined> {
    const segment = segmentOfKey(key);
    try {
      return await this.#runs.load(segment, offsetOfKey(key), runBytes);
    } catch (error) {
      if (this.#isGone(segment)) return undefined;
      throw error;
    }
  }
}

/** The damage that one look-up has met: final when the index names the same run again. */
class Damage {
  #key = 0;
  #error: Error | undefined;

  take(key: number, error: Error): void {
    this.#key = key;
    this.#error = error;
  }

  throwIfAt(key: number): void {
    if (this.#error !== undefined && this.#key === key) throw this.#error;
  }
}

/** The key of the run where the index has found a leaf's child; 0 when it has not been asked. */
function placeOf(node: StoreNode, child: number): number {
  return node.runKeys === undefined ? 0 : node.runKeys[child]!;
}

function forgetPlace(node: StoreNode, child: number): void {
  if (node.runKeys !== undefined) node.runKeys[child] = 0;
}

function missing(what: string, ids: Uint8Array, offset: number): PandoError {
  if (isLost(ids, offset)) return new PandoError('chunk-missing', 'what was written here is lost');
  return new PandoError('chunk-missing', `${what} ${idToHex(ids, offset)} is not in the store`);
}
