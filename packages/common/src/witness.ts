/**
 * A number in a small file beside other files, which says how far those had come for certain.
 *
 * What was lost from the end of a log by damage looks like an end that a crash tore. The witness tells the two apart: it
 * is written after what it speaks of is durable, and never synced itself, so it may say too little, but never too much.
 *
 *     witness = "PANDOWIT" value:u64 zero:u32 CRC-32 of the 20 bytes before:u32
 */
import { crc32 } from 'node:zlib';
import { fromIoError } from './errors.ts';
import type { File, FileSystem } from './file-system.ts';

const MAGIC = Buffer.from('PANDOWIT', 'latin1');
const BYTES = 24;

export class Witness {
  readonly #fs: FileSystem;
  readonly #path: string;
  #file: File | undefined;
  #value: number;
  /** What stands in the file; and what does so durably, -1 when that is not known. */
  #written: number;
  #durable: number;
  /** Whether a `note` waits for its turn. */
  #queued = false;
  #tail: Promise<void> = Promise.resolve();

  private constructor(fs: FileSystem, path: string, value: number, file: File | undefined) {
    this.#fs = fs;
    this.#path = path;
    this.#value = value;
    this.#written = value;
    this.#durable = file === undefined ? 0 : -1;
    this.#file = file;
  }

  /** Opens the witness in the file `path`; where there is none, or none that is whole, its value is 0. */
  static async open(fs: FileSystem, path: string): Promise<Witness> {
    let file: File;
    try {
      file = await fs.open(path, 'write');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      return new Witness(fs, path, 0, undefined);
    }
    const bytes = Buffer.alloc(BYTES);
    const count = await file.read(bytes, 0).catch(() => 0); // a file that cannot be read says nothing
    return new Witness(fs, path, count === BYTES ? decode(bytes) : 0, file);
  }

  get value(): number {
    return this.#value;
  }

  /**
   * Says that it has come to `value`. Returns at once; of values that come while one is being written the last one is
   * written next. What cannot be written is left out: the witness says less then.
   */
  note(value: number): void {
    this.#value = value;
    if (this.#queued) return;
    this.#queued = true;
    void this.#inTurn(async () => {
      this.#queued = false;
      if (this.#value !== this.#written) await this.#write(this.#value);
    }).catch(() => undefined); // what stands in the file is an older value, or nothing that is whole
  }

  /**
   * Says `value`, durably: to be awaited before what it said until now is made untrue. 0: nothing is there any more. Where
   * the disk is full it says 0 as well, which is always true and needs no room.
   */
  set(value: number): Promise<void> {
    return this.#inTurn(async () => {
      this.#value = value;
      if (this.#durable === value && this.#written === value) return;
      try {
        await this.#write(value);
      } catch (error) {
        if (fromIoError(error, 'write a witness', 'store-failed').code !== 'store-full') throw error;
        await this.#file?.truncate(0);
        this.#value = this.#written = 0;
      }
      await this.#file?.sync();
      this.#durable = this.#written;
    });
  }

  async close(): Promise<void> {
    await this.#tail;
    await this.#file?.close();
  }

  #inTurn(task: () => Promise<void>): Promise<void> {
    const done = this.#tail.then(task);
    this.#tail = done.catch(() => undefined);
    return done;
  }

  async #write(value: number): Promise<void> {
    this.#durable = -1;
    this.#file ??= await this.#fs.open(this.#path, 'create');
    await this.#file.write([encode(value)], 0);
    this.#written = value;
  }
}

function encode(value: number): Buffer {
  const bytes = Buffer.alloc(BYTES);
  MAGIC.copy(bytes);
  bytes.writeBigUInt64LE(BigInt(value), 8);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, BYTES - 4)), BYTES - 4);
  return bytes;
}

function decode(bytes: Buffer): number {
  const whole =
    bytes.subarray(0, 8).equals(MAGIC) &&
    crc32(bytes.subarray(0, BYTES - 4)) === bytes.readUInt32LE(BYTES - 4);
  return whole ? Number(bytes.readBigUInt64LE(8)) : 0;
}
