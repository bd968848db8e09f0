/**
 * Gathers ascending writes into whole slots of 64 KiB, the grain of most formats, and writes them with some in
 * flight. Each slot is written once and whole: compressed clusters cannot be written otherwise, and the others need
 * no reading back of what a slot held before.
 */
import type { BlockDevice } from '@pando/block-device';

const SLOT_BYTES = 64 * 1024;
const WINDOW_SLOTS = 16;
const WINDOW_BYTES = SLOT_BYTES * WINDOW_SLOTS;
/** Windows on their way; the device copies each. */
const IN_FLIGHT_MAX = 8;

export class SlotWriter {
  readonly #device: Pick<BlockDevice, 'write'>;
  readonly #sizeBytes: number;
  readonly #window = Buffer.alloc(WINDOW_BYTES);
  /** Place of the window on the device. */
  #start = 0;
  #touched: boolean[] = new Array<boolean>(WINDOW_SLOTS).fill(false);
  readonly #underWay = new Set<Promise<void>>();
  #failure: { readonly error: unknown } | undefined;

  constructor(device: Pick<BlockDevice, 'write'>, sizeBytes: number) {
    this.#device = device;
    this.#sizeBytes = sizeBytes;
  }

  /** Takes the data; errors may be those of earlier writes. */
  async write(position: number, data: Uint8Array): Promise<void> {
    for (let done = 0; done < data.byteLength;) {
      const at = position + done;
      const start = at - (at % WINDOW_BYTES);
      if (start !== this.#start) {
        await this.#flushWindow();
        this.#start = start;
      }
      const length = Math.min(data.byteLength - done, start + WINDOW_BYTES - at);
      this.#window.set(data.subarray(done, done + length), at - start);
      const last = Math.floor((at - start + length - 1) / SLOT_BYTES);
      for (let slot = Math.floor((at - start) / SLOT_BYTES); slot <= last; slot++) this.#touched[slot] = true;
      done += length;
    }
  }

  /** Resolves when everything is written. */
  async finish(): Promise<void> {
    await this.#flushWindow();
    await Promise.all(this.#underWay);
    this.#check();
  }

  async #flushWindow(): Promise<void> {
    for (let slot = 0; slot < WINDOW_SLOTS;) {
      if (!this.#touched[slot]) {
        slot++;
        continue;
      }
      let end = slot;
      while (end < WINDOW_SLOTS && this.#touched[end]) end++;
      const from = slot * SLOT_BYTES;
      const to = Math.min(end * SLOT_BYTES, this.#sizeBytes - this.#start);
      await this.#send(this.#start + from, this.#window.subarray(from, to));
      slot = end;
    }
    this.#window.fill(0);
    this.#touched.fill(false);
  }

  /** Waits for room, not for the write. */
  async #send(offset: number, data: Uint8Array): Promise<void> {
    while (this.#underWay.size >= IN_FLIGHT_MAX) await Promise.race(this.#underWay);
    this.#check();
    const writing = Promise.resolve(this.#device.write(offset, data))
      .catch((error: unknown) => {
        this.#failure ??= { error };
      })
      .finally(() => this.#underWay.delete(writing));
    this.#underWay.add(writing);
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}
