/**
 * Memory that two threads share: runs as they are stored go in, decompressed and checked runs come out, in order. One thread submits, one works.
 *
 * A slot belongs to the worker from `submitted` until `finished` has passed it, else to the other side. Both counters only grow (modulo 2³²).
 */
import { ID_BYTES, idsEqual } from '@pando/common';
import { expandRunInto } from './codec.ts';
import type { Hash } from './hashing.ts';
import { RUN_RAW_BYTES } from './limits.ts';
import { chunkBytesOf, decodeRunHeader, isRunBodyIntact, RUN_HEADER_BYTES } from './segment-format.ts';

/** Runs under way, a power of two: 2 MiB of memory, and a millisecond or two of work. */
export const RING_SLOTS = 64;

/** Chunks of the smallest size in a run. */
const CHUNKS_MAX = RUN_RAW_BYTES / 4096;
/** The longest run that has a place: header, ids and payload. */
export const RING_RUN_BYTES_MAX = RUN_HEADER_BYTES + CHUNKS_MAX * ID_BYTES + RUN_RAW_BYTES;

const COUNTER_BYTES = 64;
const FIELDS = 8;
const STORED_BYTES = RING_RUN_BYTES_MAX + (64 - (RING_RUN_BYTES_MAX % 64));
const SLOT_BYTES = FIELDS * 4 + ID_BYTES + STORED_BYTES + RUN_RAW_BYTES;
export const RING_BYTES = COUNTER_BYTES + RING_SLOTS * SLOT_BYTES;

/** Of the counters. */
const SUBMITTED = 0;
const FINISHED = 1;
const READY = 2;

/** Of the fields of a slot: what is asked for, and what came of it. */
const RUN_BYTES = 0;
const SEED = 1;
const WANTED = 2;
const STATUS = 3;
const RAW_BYTES = 4;
const FIRST_SLOT = 5;
const CHUNK_BYTES = 6;
const VERIFIED = 7;

/** After so many runs the other side is woken, though more are to be done: it has enough for a turn. */
const WAKE_EVERY = 8;

interface Slot {
  readonly fields: Int32Array;
  /** Where the id stands of the one chunk that has to be verified; zeros: all have to be. */
  readonly wanted: Uint8Array;
  readonly stored: Uint8Array;
  readonly raw: Uint8Array;
}

export class DecodeRing {
  readonly #counters: Int32Array;
  readonly #slots: readonly Slot[];

  constructor(buffer: SharedArrayBuffer) {
    this.#counters = new Int32Array(buffer, 0, COUNTER_BYTES / 4);
    this.#slots = Array.from({ length: RING_SLOTS }, (_, index) => {
      let at = COUNTER_BYTES + index * SLOT_BYTES;
      const fields = new Int32Array(buffer, at, FIELDS);
      const wanted = new Uint8Array(buffer, (at += FIELDS * 4), ID_BYTES);
      const stored = new Uint8Array(buffer, (at += ID_BYTES), STORED_BYTES);
      const raw = new Uint8Array(buffer, at + STORED_BYTES, RUN_RAW_BYTES);
      return { fields, wanted, stored, raw };
    });
  }

  // Of whoever submits. Numbers of jobs count up from 0.

  get isReady(): boolean {
    return Atomics.load(this.#counters, READY) === 1;
  }

  get finished(): number {
    return Atomics.load(this.#counters, FINISHED);
  }

  /** Where the bytes of a job's run go. */
  stored(job: number): Uint8Array {
    return this.#slot(job).stored;
  }

  /**
   * Says what is to be done with what stands in `stored`. Chunks are compared with their ids: the one whose id stands at `ids[offset…]`, or, without it, all.
   */
  ask(job: number, runBytes: number, seed: number, ids: Uint8Array | undefined, offset: number): void {
    const { fields, wanted } = this.#slot(job);
    fields[RUN_BYTES] = runBytes;
    fields[SEED] = seed;
    fields[WANTED] = ids === undefined ? 0 : 1;
    if (ids !== undefined) for (let i = 0; i < ID_BYTES; i++) wanted[i] = ids[offset + i]!;
  }

  /** Hands over all jobs before this one. */
  submit(job: number): void {
    Atomics.store(this.#counters, SUBMITTED, job);
    Atomics.notify(this.#counters, SUBMITTED);
  }

  /** A promise for more than `finished` jobs, or undefined when there are more already. */
  more(finished: number): Promise<unknown> | undefined {
    const waiting = Atomics.waitAsync(this.#counters, FINISHED, finished);
    return waiting.async ? waiting.value : undefined;
  }

  /** What came of a job; undefined when anything is wrong with its run. Valid until the slot is used again. */
  result(job: number): DecodedRun | undefined {
    const { fields, stored, raw } = this.#slot(job);
    if (fields[STATUS] !== 1) return undefined;
    const rawBytes = fields[RAW_BYTES]!;
    const chunkBytes = fields[CHUNK_BYTES]!;
    const ids = stored.subarray(RUN_HEADER_BYTES, RUN_HEADER_BYTES + (rawBytes / chunkBytes) * ID_BYTES);
    return {
      ...{ ids, raw: rawBytes === raw.byteLength ? raw : raw.subarray(0, rawBytes), chunkBytes },
      ...{ firstSlot: fields[FIRST_SLOT]! >>> 0, verified: fields[VERIFIED]! },
    };
  }

  // Of the worker.

  /** Works for ever. */
  work(chunkBytes: number, hash: Hash): void {
    const counters = this.#counters;
    Atomics.store(counters, READY, 1);
    for (let job = 0; ;) {
      while (Atomics.load(counters, SUBMITTED) === job) Atomics.wait(counters, SUBMITTED, job);
      const slot = this.#slot(job);
      slot.fields[STATUS] = 0;
      try {
        if (decode(slot, chunkBytes, hash)) slot.fields[STATUS] = 1;
      } catch {
        // Whoever submitted it reads the run again, and says what is wrong.
      }
      job = (job + 1) | 0;
      Atomics.store(counters, FINISHED, job);
      if (job % WAKE_EVERY === 0 || Atomics.load(counters, SUBMITTED) === job)
        Atomics.notify(counters, FINISHED);
    }
  }

  #slot(job: number): Slot {
    return this.#slots[job & (RING_SLOTS - 1)]!;
  }
}

export interface DecodedRun {
  readonly ids: Uint8Array;
  readonly raw: Uint8Array;
  readonly chunkBytes: number;
  readonly firstSlot: number;
  /** A bit for each chunk whose bytes are what its id says. */
  readonly verified: number;
}

/** Checks and decompresses what is in a slot. False, or an error, when anything is wrong with it. */
function decode({ fields, wanted, stored, raw }: Slot, storeChunkBytes: number, hash: Hash): boolean {
  const runBytes = fields[RUN_BYTES]!;
  const header = decodeRunHeader(stored, 0, fields[SEED]! >>> 0, storeChunkBytes);
  if (header?.runBytes !== runBytes || header.rawBytes > raw.byteLength) return false;
  if (!isRunBodyIntact(stored, 0, header)) return false;
  const out = header.rawBytes === raw.byteLength ? raw : raw.subarray(0, header.rawBytes);
  expandRunInto(stored.subarray(runBytes - header.storedBytes, runBytes), header.codec, out);
  const chunkBytes = chunkBytesOf(header.kind, storeChunkBytes);
  let verified = 0;
  for (let chunk = 0; chunk < header.count; chunk++) {
    const idAt = RUN_HEADER_BYTES + chunk * ID_BYTES;
    if (fields[WANTED] === 1 && !idsEqual(stored, idAt, wanted, 0)) continue;
    const id = hash(raw.subarray(chunk * chunkBytes, (chunk + 1) * chunkBytes));
    if (idsEqual(stored, idAt, id, 0)) verified |= 1 << chunk;
  }
  fields[RAW_BYTES] = header.rawBytes;
  fields[FIRST_SLOT] = header.firstSlot;
  fields[CHUNK_BYTES] = chunkBytes;
  fields[VERIFIED] = verified;
  return true;
}
