/**
 * What goes wrong in a life besides crashes, one kind a life: which operations fail, and which errors clients may see for
 * it. After a restart nothing fails any more, and the oracle holds as ever.
 */
import { isPandoError, type ErrorCode } from '@pando/common';
import { between, type CrashFileSystem, type DiskFault } from '@pando/common/testing';
import type { Operation } from './scheduler.ts';

export const WEATHERS = {
  /** Nothing. */
  calm: [],
  /** Operations on one kind of files take much longer than others. */
  slow: [],
  /** Reads of segments fail now and then. */
  readErrors: ['store-failed', 'chunk-corrupt', 'verify-failed'],
  /** Reads of one segment fail from some moment on. */
  badFile: ['store-failed', 'chunk-corrupt', 'verify-failed'],
  /** One write, of any file or database, fails after a part of it. */
  writeError: ['store-failed'],
  /** One sync fails, and what it should have covered is at risk for good. */
  lostSync: ['store-failed'],
  /** Everything that needs room fails for a while. */
  fullDisk: ['store-full'],
  /** Bits of segments flip. */
  bitFlips: ['chunk-corrupt', 'segment-corrupt', 'chunk-missing'],
} as const satisfies Record<string, readonly ErrorCode[]>;

export type WeatherKind = keyof typeof WEATHERS;

const NEEDS_ROOM = /^(create|write|index write|index mark|catalog commit)$/;
const WRITES = /^(create|write|truncate|remove|index write|index mark|catalog commit)$/;
const SYNCS = /^(sync|syncDirectory|index sync|catalog sync)$/;
/** Storage operations of a life, roughly: faults strike before so many have passed. */
const LIFE_OPERATIONS = 50;

export class Weather {
  readonly kind: WeatherKind;
  readonly #random: () => number;
  readonly #disk: CrashFileSystem;
  /** Count of the first operation that is struck, and of the first that is not any more. */
  readonly #from: number;
  readonly #to: number;
  #file: string | undefined;
  /** Operations that failed, bits that flipped. */
  struck = 0;

  readonly #isDamaged: boolean;

  /** @param isDamaged bits have flipped in what is stored, in a life before this one */
  constructor(kind: WeatherKind, disk: CrashFileSystem, random: () => number, isDamaged = false) {
    this.kind = kind;
    this.#isDamaged = isDamaged;
    this.#disk = disk;
    this.#random = random;
    this.#from = between(random, 1, LIFE_OPERATIONS);
    this.#to = this.#from + between(random, 1, LIFE_OPERATIONS / 2);
  }

  /** Whether a client may be told this. */
  allows(error: unknown): boolean {
    if (this.#isDamaged && WEATHERS.bitFlips.some((code) => isPandoError(error, code))) return true;
    return WEATHERS[this.kind].some((code) => isPandoError(error, code));
  }

  /** The fault that an operation meets, `count` being that of operations that change something. */
  strike({ kind, path, parts = [] }: Operation, count: number): DiskFault | undefined {
    const fault = this.#fault(kind, path, count);
    if (fault === undefined) return undefined;
    this.struck++;
    const bytes = parts.reduce((sum, part) => sum + part.byteLength, 0);
    return { code: fault, bytes: between(this.#random, 0, Math.max(0, bytes - 1)) };
  }

  #fault(kind: string, path: string, count: number): DiskFault['code'] | undefined {
    const isSegment = path.startsWith('segments/');
    switch (this.kind) {
      case 'calm':
      case 'slow':
        return undefined;
      case 'readErrors':
        return kind === 'read' && isSegment && this.#random() < 0.1 ? 'EIO' : undefined;
      case 'badFile':
        if (count < this.#from || !isSegment) return undefined;
        if (kind === 'read') this.#file ??= path;
        return kind === 'read' && path === this.#file ? 'EIO' : undefined;
      case 'writeError':
        return this.struck === 0 && count >= this.#from && WRITES.test(kind) ? 'EIO' : undefined;
      case 'lostSync':
        return this.struck === 0 && count >= this.#from && SYNCS.test(kind) ? 'EIO' : undefined;
      case 'fullDisk':
        return count >= this.#from && count < this.#to && NEEDS_ROOM.test(kind) ? 'ENOSPC' : undefined;
      case 'bitFlips':
        if (this.#random() < 0.1) this.#flip();
        return undefined;
    }
  }

  #flip(): void {
    const files = this.#disk.paths().filter((path) => path.startsWith('segments/'));
    const path = files[Math.floor(this.#random() * files.length)];
    const size = path === undefined ? 0 : this.#disk.bytesOf(path).byteLength;
    if (size === 0) return;
    this.#disk.flip(path!, Math.floor(this.#random() * size), 1 << Math.floor(this.#random() * 8));
    this.struck++;
  }
}

/** Half of all lives are calm. */
export function weatherOf(dice: number): WeatherKind {
  const kinds = Object.keys(WEATHERS) as WeatherKind[];
  return dice < 0.5 ? 'calm' : kinds[1 + Math.floor((dice - 0.5) * 2 * (kinds.length - 1))]!;
}
