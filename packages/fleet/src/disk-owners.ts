/**
 * Which VM a disk belongs to, for whoever hears of disks by their numbers. A number is given once and never goes from one VM to another, and
 * guests write through attachments only: so what attachments tell is never wrong, and lasts while somebody is attached, and for a
 * bounded number of disks after that, until what was written to them is destaged.
 */
import type { DiskNumber } from '@pando/volume';

export class DiskOwners {
  readonly #rememberedMax: number;
  readonly #open = new Map<DiskNumber, { readonly vmId: string; clients: number }>();
  /** Oldest first. */
  readonly #remembered = new Map<DiskNumber, string>();

  constructor(rememberedMax: number) {
    this.#rememberedMax = rememberedMax;
  }

  /** A client has the disk from now on, until it calls what is returned. */
  opened(disk: DiskNumber, vmId: string): () => void {
    const found = this.#open.get(disk);
    if (found === undefined) this.#open.set(disk, { vmId, clients: 1 });
    else found.clients++;
    this.#remembered.delete(disk);
    return () => {
      const open = this.#open.get(disk)!;
      if (--open.clients > 0) return;
      this.#open.delete(disk);
      this.#remembered.set(disk, vmId);
      if (this.#remembered.size > this.#rememberedMax) {
        this.#remembered.delete(this.#remembered.keys().next().value!);
      }
    };
  }

  /** Id of the VM. */
  vmOf(disk: DiskNumber): string | undefined {
    return this.#open.get(disk)?.vmId ?? this.#remembered.get(disk);
  }
}
