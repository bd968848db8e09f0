/**
 * What one disk may hold, sector by sector: every version that was written, in order, from the oldest that a power cut may
 * bring back. A sector that was never written holds zeros.
 */

export const SECTOR_BYTES = 512;
const ZEROS = Buffer.alloc(SECTOR_BYTES);

interface Sector {
  /** Versions, oldest first. Never changed in place. */
  readonly versions: readonly Buffer[];
  /** Number of the oldest of them: versions of a sector are counted from 0. */
  readonly base: number;
  /** Number of the oldest that a power cut may bring back: it is durable. */
  readonly first: number;
  /** Number of the newest that was acknowledged: older ones cannot be read any more, newer ones can. */
  readonly acknowledged: number;
}

const UNWRITTEN: Sector = { versions: [ZEROS], base: 0, first: 0, acknowledged: 0 };

/** Versions of all sectors that a reader or a fork may meet, as of an instant. */
export interface Moment {
  /** Versions are counted anew when the disk becomes another one: those of before say nothing then. */
  readonly era: number;
  readonly versions: ReadonlyMap<number, number>;
}

export class DiskModel {
  size: number;
  /** Sizes to which it may grow although nobody was told that it did. */
  readonly mayGrowTo: Set<number>;
  #sectors: Map<number, Sector>;
  /** Sectors that could not be read at a time when it was to be found out what they hold. */
  #unknown: Set<number>;
  #pins = 0;
  #era = 0;

  constructor(
    size: number,
    sectors = new Map<number, Sector>(),
    mayGrowTo = new Set<number>(),
    unknown = new Set<number>(),
  ) {
    this.size = size;
    this.mayGrowTo = mayGrowTo;
    this.#sectors = sectors;
    this.#unknown = unknown;
  }

  /** A disk that holds just this, durably. */
  static of(bytes: Buffer): DiskModel {
    const disk = new DiskModel(bytes.byteLength);
    for (let sector = 0; sector * SECTOR_BYTES < bytes.byteLength; sector++) {
      const data = Buffer.from(bytes.subarray(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES));
      if (!data.equals(ZEROS))
        disk.#sectors.set(sector, { versions: [data], base: 0, first: 0, acknowledged: 0 });
    }
    return disk;
  }

  copy(): DiskModel {
    const next = new DiskModel(
      this.size,
      new Map(this.#sectors),
      new Set(this.mayGrowTo),
      new Set(this.#unknown),
    );
    next.#pins = this.#pins;
    next.#era = this.#era;
    return next;
  }

  /** A write begins: from here on either may be there. Returns what to acknowledge. */
  write(offset: number, data: Buffer): Moment {
    const numbers = new Map<number, number>();
    for (let done = 0; done < data.byteLength;) {
      const number = Math.floor((offset + done) / SECTOR_BYTES);
      const within = (offset + done) % SECTOR_BYTES;
      const count = Math.min(SECTOR_BYTES - within, data.byteLength - done);
      const { versions, base, first, acknowledged } = this.#at(number);
      const bases = count === SECTOR_BYTES ? versions.slice(-1) : versions.slice(acknowledged - base);
      const patched = bases.map((version) => {
        const next = Buffer.from(version);
        data.copy(next, within, done, done + count);
        return next;
      });
      numbers.set(number, base + versions.length);
      this.#sectors.set(number, { versions: [...versions, ...patched], base, first, acknowledged });
      done += count;
    }
    return { era: this.#era, versions: numbers };
  }

  /** The write has been acknowledged: it is what is read from now on, and a killed process leaves it. */
  acknowledge({ era, versions }: Moment): void {
    if (era !== this.#era) return;
    for (const [number, version] of versions) {
      const sector = this.#sectors.get(number);
      if (sector !== undefined && version > sector.acknowledged)
        this.#sectors.set(number, { ...sector, acknowledged: version });
    }
  }

  /** The newest acknowledged version of each sector. */
  moment(): Moment {
    const versions = new Map<number, number>();
    for (const [number, { acknowledged }] of this.#sectors) versions.set(number, acknowledged);
    return { era: this.#era, versions };
  }

  /** What was acknowledged at that moment is durable. */
  harden(moment: Moment): void {
    if (moment.era !== this.#era) return;
    for (const [number, version] of moment.versions) {
      const sector = this.#sectors.get(number);
      if (sector === undefined || version < sector.first) continue;
      const { versions, base } = sector;
      const kept = this.#pins > 0 ? base : version;
      this.#sectors.set(number, {
        versions: kept === base ? versions : versions.slice(kept - base),
        base: kept,
        first: version,
        acknowledged: Math.max(version, sector.acknowledged),
      });
    }
  }

  /** Something has begun that may meet any version from now on, durable or not; to be ended by `unpin`. */
  pin(): void {
    this.#pins++;
  }

  unpin(): void {
    this.#pins--;
  }

  /** What a fork that began at that moment, pinned, and ends now holds, durably: of each sector one of the versions since then. */
  forkedSince(moment: Moment): DiskModel {
    const sectors = new Map<number, Sector>();
    for (const [number, { versions, base }] of this.#sectors) {
      const from = Math.max(0, this.#versionAt(moment, number) - base);
      sectors.set(number, { versions: versions.slice(from), base: 0, first: 0, acknowledged: 0 });
    }
    return new DiskModel(this.size, sectors, new Set(this.mayGrowTo), new Set(this.#unknown));
  }

  resize(size: number): void {
    this.#era++;
    this.size = size;
    this.mayGrowTo.clear();
    for (const number of this.#sectors.keys())
      if ((number + 1) * SECTOR_BYTES > size) this.#sectors.delete(number);
  }

  /** Becomes exactly what is given, durably. */
  become(other: DiskModel): void {
    this.#era++;
    this.size = other.size;
    this.mayGrowTo.clear();
    for (const size of other.mayGrowTo) this.mayGrowTo.add(size);
    this.#sectors = new Map(other.#sectors);
    this.#unknown = new Set(other.#unknown);
  }

  /** A power cut may have taken what was acknowledged and not made durable. */
  powerCut(): void {
    for (const [number, sector] of this.#sectors) {
      if (sector.versions.length > 1) this.#sectors.set(number, { ...sector, acknowledged: sector.first });
    }
  }

  /**
   * The first sector that holds what it may not, if any; `bytes` begin at the disk's start. `since`: the moment at which
   * the reader began, for one that others write beside.
   */
  wrongSector(
    bytes: Buffer,
    since = this.moment(),
    isUnreadable?: (sector: number) => boolean,
  ): number | undefined {
    const end = bytes.byteLength / SECTOR_BYTES;
    for (let number = 0; number < end; number++) {
      if (isUnreadable?.(number) === true) continue;
      const found = bytes.subarray(number * SECTOR_BYTES, (number + 1) * SECTOR_BYTES);
      if (!this.allows(number, found, this.#versionAt(since, number))) return number;
    }
    return undefined;
  }

  /** Whether a reader may find these bytes in a sector now, or, with a version, in one that began when that was the newest. */
  allows(number: number, found: Buffer, version?: number): boolean {
    if (this.#unknown.has(number)) return true;
    const { versions, base, acknowledged } = this.#at(number);
    const from = Math.max(0, (version ?? acknowledged) - base);
    for (let i = from; i < versions.length; i++) if (versions[i]!.equals(found)) return true;
    return false;
  }

  /** What was found after a restart is what it holds from now on; what could not be read may be anything. */
  settle(bytes: Buffer, isUnreadable: (sector: number) => boolean): void {
    const found = DiskModel.of(bytes);
    const end = bytes.byteLength / SECTOR_BYTES;
    for (let number = 0; number < end; number++)
      if (isUnreadable(number) || this.#unknown.has(number)) found.#unknown.add(number);
    this.become(found);
  }

  /** For messages: the versions of a sector. */
  describe(number: number): string {
    const { versions, base, first, acknowledged } = this.#at(number);
    return `${versions.length} versions from ${base}, durable ${first}, acknowledged ${acknowledged}: ${versions
      .map((version) => version.subarray(0, 8).toString('hex'))
      .join(' ')}`;
  }

  /** The version of a sector at a moment; the oldest there is for one of another era. */
  #versionAt({ era, versions }: Moment, number: number): number {
    return era === this.#era ? (versions.get(number) ?? 0) : 0;
  }

  #at(number: number): Sector {
    return this.#sectors.get(number) ?? UNWRITTEN;
  }
}
