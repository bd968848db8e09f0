/**
 * What each sector of a disk may hold: the model behind tests that kill servers.
 *
 * A sector's content is a number, its tag, spread over 512 bytes; tag 0 is zeros. So a sector that is read tells
 * which write it is from. Odd tags do not compress, even ones do.
 */
export const SECTOR = 512;
const WORDS = SECTOR / 4;

/** A write (or, with only zeros as tags, a zeroing) of sectors, and when it began and was acknowledged. */
export interface SectorWrite {
  readonly first: number;
  readonly tags: Uint32Array;
  readonly issued: number;
  /** Infinity until the server says so. */
  acknowledged: number;
}

/** Something that was read is not what anyone wrote, or not all of it: what these tests look for. */
export class WrongData extends Error {}

/** Sectors of a disk that were acknowledged since it was last checked, and how many of them were flushed too. */
export interface AtRisk {
  readonly acknowledged: number;
  readonly flushed: number;
}

function word(tag: number, i: number): number {
  if (i === 0 || (tag & 1) === 0) return tag;
  const mixed = Math.imul(tag ^ Math.imul(i, 0x9e37_79b1), 0x85eb_ca6b);
  return (mixed ^ (mixed >>> 13)) >>> 0;
}

export function sectorBytes(tags: Uint32Array): Buffer {
  const words = new Uint32Array(tags.length * WORDS);
  for (let s = 0; s < tags.length; s++) {
    const tag = tags[s]!;
    if (tag !== 0) for (let i = 0; i < WORDS; i++) words[s * WORDS + i] = word(tag, i);
  }
  return Buffer.from(words.buffer);
}

/** The tags of what was read. @throws WrongData where a sector is no whole sector that anyone wrote */
export function tagsOf(bytes: Uint8Array, what: string): Uint32Array {
  const aligned = new Uint32Array(Uint8Array.from(bytes).buffer);
  const tags = new Uint32Array(bytes.length / SECTOR);
  for (let s = 0; s < tags.length; s++) {
    const tag = aligned[s * WORDS]!;
    for (let i = 0; i < WORDS; i++) {
      if (aligned[s * WORDS + i] !== word(tag, i)) {
        throw new WrongData(`${what}: sector ${s} is torn or foreign: word ${i} does not belong to ${tag}`);
      }
    }
    tags[s] = tag;
  }
  return tags;
}

export class SectorModel {
  readonly name: string;
  /** What was acknowledged, or for a fork what was before it. */
  tags: Uint32Array;
  /** Writes that may be there or not, sector by sector, in the order in which they began. */
  doubts: SectorWrite[];
  readonly inFlight = new Set<SectorWrite>();
  readonly #recorders = new Set<SectorWrite[]>();
  /** When each sector was last acknowledged since the disk was last checked; 0: not since then. */
  readonly #acknowledged: Uint32Array;
  /** What was acknowledged up to here is flushed. */
  #flushed = 0;

  constructor(name: string, tags: Uint32Array, doubts: SectorWrite[] = []) {
    this.name = name;
    this.tags = tags;
    this.doubts = doubts;
    this.#acknowledged = new Uint32Array(tags.length);
  }

  begin(write: SectorWrite): void {
    this.inFlight.add(write);
    for (const recorder of this.#recorders) recorder.push(write);
  }

  acknowledge(write: SectorWrite, now: number): void {
    write.acknowledged = now;
    this.inFlight.delete(write);
    this.tags.set(write.tags, write.first);
    this.#acknowledged.fill(now, write.first, write.first + write.tags.length);
  }

  /** A FLUSH that was asked for at that instant is answered. */
  flush(asked: number): void {
    this.#flushed = Math.max(this.#flushed, asked);
  }

  /** No answer came: it may be there or not. */
  lose(write: SectorWrite): void {
    this.inFlight.delete(write);
    this.doubts.push(write);
  }

  /**
   * Begins a fork: what a copy that is made between now and `end` may hold: all that is acknowledged now, and of
   * what is or comes under way until then anything.
   */
  fork(name: string): { readonly model: SectorModel; readonly end: () => void } {
    const doubts = [...this.doubts, ...this.inFlight];
    this.#recorders.add(doubts);
    return {
      model: new SectorModel(name, this.tags.slice(), doubts),
      end: () => void this.#recorders.delete(doubts),
    };
  }

  /** A model of what this one is now, for a copy of something that nobody writes to. */
  copy(name: string): SectorModel {
    return new SectorModel(name, this.tags.slice(), [...this.doubts]);
  }

  /** Counts what was acknowledged since the last call. */
  takeAtRisk(): AtRisk {
    let acknowledged = 0;
    let flushed = 0;
    for (const instant of this.#acknowledged) {
      if (instant === 0) continue;
      acknowledged++;
      if (instant <= this.#flushed) flushed++;
    }
    this.#acknowledged.fill(0);
    return { acknowledged, flushed };
  }

  /** Checks what was read, and takes it as what is there. @throws WrongData naming the first wrong sector */
  settle(read: Uint32Array): void {
    if (read.length !== this.tags.length) {
      throw new WrongData(`${this.name} has ${read.length} sectors instead of ${this.tags.length}`);
    }
    const allowed = Array.from({ length: read.length }, (): number[] | undefined => undefined);
    for (const { first, tags } of this.doubts) {
      for (let i = 0; i < tags.length; i++) (allowed[first + i] ??= []).push(tags[i]!);
    }
    for (let s = 0; s < read.length; s++) {
      if (read[s] === this.tags[s] || allowed[s]?.includes(read[s]!) === true) continue;
      const doubts = allowed[s] === undefined ? '' : ` or one of ${allowed[s]!.join(', ')}`;
      throw new WrongData(`${this.name}: sector ${s} holds ${read[s]!} instead of ${this.tags[s]!}${doubts}`);
    }
    this.tags = read;
    this.doubts = [];
  }
}

/**
 * Checks that disks which were forked together are of one instant: no write is missing that had been acknowledged
 * before another began that is there. Call it before `settle`.
 * @throws WrongData with the two writes
 */
export function checkOneInstant(disks: readonly { model: SectorModel; read: Uint32Array }[]): void {
  let newest: SectorWrite | undefined;
  let missing: SectorWrite | undefined;
  for (const { model, read } of disks) {
    const histories = new Map<number, { tag: number; write: SectorWrite | undefined }[]>();
    for (const write of [...model.doubts].sort((a, b) => a.issued - b.issued)) {
      for (let i = 0; i < write.tags.length; i++) {
        const sector = write.first + i;
        const history = histories.get(sector) ?? [{ tag: model.tags[sector]!, write: undefined }];
        history.push({ tag: write.tags[i]!, write });
        histories.set(sector, history);
      }
    }
    for (const [sector, history] of histories) {
      const found = history.flatMap(({ tag }, i) => (tag === read[sector] ? [i] : []));
      // The same content twice tells nothing.
      if (found.length !== 1) continue;
      const { write } = history[found[0]!]!;
      if (write !== undefined && (newest === undefined || write.issued > newest.issued)) newest = write;
      for (const { write: later } of history.slice(found[0]! + 1)) {
        if (missing === undefined || later!.acknowledged < missing.acknowledged) missing = later;
      }
    }
  }
  if (newest === undefined || missing === undefined || missing.acknowledged > newest.issued) return;
  throw new WrongData(
    `${disks[0]!.model.name} is of no instant: a write at sector ${missing.first}, acknowledged at ${missing.acknowledged}, ` +
      `is missing, and one at sector ${newest.first}, begun at ${newest.issued}, is there`,
  );
}
