/** A disk in memory: where its chain starts, and who has it open. Loaded when needed, let go when idle. */
import { checkRecord as checkVersion, type Catalog } from '@pando/catalog';
import { PandoError } from '@pando/common';
import { heightFor, type Root } from '@pando/tree';
import { Layer, bottomOf, unresolvedOf } from './layer.ts';
import type { DiskNumber, DiskRecord, ForkRecord } from './types.ts';

export const DISK_TABLE = 'disk';
/** Disks whose records list overlays: what recovery has to load. Same keys, empty records. */
export const PENDING_TABLE = 'disk-pending';
/** One record: the numbers handed out so far. */
export const NUMBERS_TABLE = 'volume';
export const NUMBERS_KEY = 'numbers';

export interface NumbersRecord {
  readonly version: 1;
  readonly lastDisk: number;
  readonly lastOverlay: number;
}

/** The record of numbers; undefined in a store that has handed out none. @throws `store-newer`, `catalog-corrupt` */
export async function readNumbers(catalog: Catalog): Promise<NumbersRecord | undefined> {
  const value = await catalog.get(NUMBERS_TABLE, NUMBERS_KEY);
  if (value !== undefined) checkVersion(NUMBERS_TABLE, NUMBERS_KEY, value, 1);
  return value as NumbersRecord | undefined;
}

export class Disk {
  readonly number: DiskNumber;
  readonly readOnly: boolean;
  /** The newest layer: active, frozen or a root. */
  top: Layer;
  /** Overlays that the log opens for this disk count only when their number is greater than this. */
  overlayFloor: number;
  /** What it was at its newest fork, or at its birth as a clone; undefined for one that never was part of a fork. */
  forked: Layer | undefined;
  /** Instants (`Engine.instant`) of the newest fork that `forked` is of, and of the newest whose record is being written. */
  forkedAt = 0;
  forkingAt = 0;
  /** Open handles. */
  handles = 0;
  /** Operations under way that must find this object again. */
  uses = 0;
  /** While set, nobody may open it. */
  changing = false;
  removed = false;

  constructor(
    number: DiskNumber,
    readOnly: boolean,
    top: Layer,
    overlayFloor: number,
    forked: Layer | undefined,
  ) {
    this.number = number;
    this.readOnly = readOnly;
    this.top = top;
    this.overlayFloor = overlayFloor;
    this.forked = readOnly ? top : forked;
  }

  get size(): number {
    return this.top.size;
  }

  /** Closes the active overlay to writes; the next write opens another. */
  freeze(): void {
    if (this.top.frozen) return;
    this.top.frozen = true;
    this.overlayFloor = Math.max(this.overlayFloor, this.top.number);
  }
}

export function diskKey(number: DiskNumber): string {
  return String(number).padStart(12, '0');
}

/** What of a disk goes into its record. */
export interface DiskState {
  readonly top: Layer;
  readonly overlayFloor: number;
  readonly readOnly: boolean;
  readonly forked: Layer | undefined;
}

/**
 * The record of a disk. It names the layers that are listed; those above them, active or frozen, the log opens,
 * and the floor stays below them for that.
 */
export function recordOf({ top, overlayFloor, readOnly, forked }: DiskState): DiskRecord {
  const unresolved = unresolvedOf(top);
  const listed = unresolved.filter((layer) => layer.listed);
  const firstOpened = unresolved[listed.length];
  const root = bottomOf(top).root!;
  return {
    version: 1,
    rootId: root.id,
    rootHeight: root.height,
    rootSize: root.size,
    size: listed.at(-1)?.size ?? root.size,
    overlays: listed.map((layer) => layer.number),
    overlayFloor: firstOpened === undefined ? overlayFloor : Math.min(overlayFloor, firstOpened.number - 1),
    readOnly,
    // A disk of a backup is what it was forked as.
    ...(readOnly || forked === undefined ? {} : { forked: forkRecordOf(forked) }),
  };
}

function forkRecordOf({ number, root }: Layer): ForkRecord {
  if (root === undefined) return { overlay: number };
  return { rootId: root.id, rootHeight: root.height, rootSize: root.size };
}

/** The layer that a record means with `forked`, `top` being the newest that the record names. */
export function forkedOf(record: DiskRecord, top: Layer, chunkBytes: number): Layer | undefined {
  const { forked } = record;
  if (forked === undefined) return undefined;
  if ('overlay' in forked) return unresolvedOf(top).find((layer) => layer.number === forked.overlay);
  return Layer.ofRoot(rootOf(forked), chunkBytes);
}

export function rootOf(record: Pick<DiskRecord, 'rootId' | 'rootHeight' | 'rootSize'>): Root {
  return { id: new Uint8Array(record.rootId), height: record.rootHeight, size: record.rootSize };
}

/** Checks what the catalog holds before anything relies on it. @throws `catalog-corrupt` */
export function checkRecord(number: DiskNumber, value: unknown, chunkBytes: number): DiskRecord {
  checkVersion(DISK_TABLE, diskKey(number), value, 1);
  const record = value as Partial<DiskRecord>;
  const whole =
    isRoot(record, chunkBytes) &&
    typeof record.size === 'number' &&
    Array.isArray(record.overlays) &&
    typeof record.overlayFloor === 'number' &&
    typeof record.readOnly === 'boolean' &&
    (record.forked === undefined || isFork(record.forked, record.overlays, chunkBytes));
  if (!whole) throw new PandoError('catalog-corrupt', `the record of disk ${number} cannot be read`);
  return record as DiskRecord;
}

function isRoot(record: Partial<DiskRecord>, chunkBytes: number): boolean {
  return (
    record.rootId instanceof Uint8Array &&
    record.rootId.byteLength === 32 &&
    typeof record.rootSize === 'number' &&
    record.rootHeight === heightFor(record.rootSize, chunkBytes)
  );
}

function isFork(fork: unknown, overlays: readonly number[], chunkBytes: number): boolean {
  if (typeof fork !== 'object' || fork === null) return false;
  return 'overlay' in fork ? overlays.includes(fork.overlay as number) : isRoot(fork, chunkBytes);
}
