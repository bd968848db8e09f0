/**
 * Who has which disk open. An attachment is one client's handle; the fleet can throw it out: it aborts
 * `revoked`, waits for the client's server to close it, and past a deadline closes the disk itself.
 */
import type { BlockDevice, Extents } from '@pando/block-device';
import { PandoError, type Clock } from '@pando/common';
import type { OpenVolume } from '@pando/volume';
import type { FleetLimits } from './limits.ts';
import type { Attachment } from './types.ts';

export class Attachments {
  readonly #clock: Clock;
  readonly #limits: FleetLimits;
  /** By id of the VM or backup; in memory, because a client lives no longer than the process. */
  readonly #byOwner = new Map<string, Set<OpenAttachment>>();
  #count = 0;

  constructor(clock: Clock, limits: FleetLimits) {
    this.#clock = clock;
    this.#limits = limits;
  }

  /** Clients of a VM or backup. */
  count(ownerId: string): number {
    return this.#byOwner.get(ownerId)?.size ?? 0;
  }

  /**
   * Opens a disk for a client. The caller holds the owner's lock.
   * @throws `too-busy`, and what `open` throws
   */
  async add(ownerId: string, exportName: string, open: () => Promise<OpenVolume>): Promise<Attachment> {
    if (this.#count >= this.#limits.attachmentsMax) {
      throw new PandoError('too-busy', `${this.#limits.attachmentsMax} clients are attached`);
    }
    this.#count++;
    try {
      const volume = await open();
      const attachment = new OpenAttachment(exportName, volume, () => this.#remove(ownerId, attachment));
      const ofOwner = this.#byOwner.get(ownerId);
      if (ofOwner === undefined) this.#byOwner.set(ownerId, new Set([attachment]));
      else ofOwner.add(attachment);
      return attachment;
    } catch (error) {
      this.#count--;
      throw error;
    }
  }

  /**
   * Throws all clients of the owner out; none is attached when it resolves. The caller keeps new ones away (it
   * holds the owner's lock exclusively). Waits `detachWaitMs` and for operations under way on the disks.
   */
  async disconnect(ownerId: string, reason: PandoError): Promise<void> {
    const attached = [...(this.#byOwner.get(ownerId) ?? [])];
    if (attached.length === 0) return;
    for (const attachment of attached) attachment.revoke(reason);
    const enough = new AbortController();
    await Promise.race([
      Promise.all(attached.map((attachment) => attachment.closed)),
      this.#clock.sleep(this.#limits.detachWaitMs, enough.signal).catch(() => undefined),
    ]);
    enough.abort();
    await Promise.all(attached.map((attachment) => attachment.close()));
  }

  /** Throws everybody out. */
  async disconnectAll(reason: PandoError): Promise<void> {
    await Promise.all([...this.#byOwner.keys()].map((ownerId) => this.disconnect(ownerId, reason)));
  }

  #remove(ownerId: string, attachment: OpenAttachment): void {
    const ofOwner = this.#byOwner.get(ownerId);
    if (ofOwner?.delete(attachment) !== true) return;
    if (ofOwner.size === 0) this.#byOwner.delete(ownerId);
    this.#count--;
  }
}

/** Hands everything through to the disk. */
class OpenAttachment implements Attachment {
  readonly exportName: string;
  readonly size: number;
  readonly readOnly: boolean;
  readonly blockBytes: number;
  /** Resolves once it is closed, whoever closed it. */
  readonly closed: Promise<void>;
  readonly #device: BlockDevice;
  readonly #closeVolume: () => Promise<void>;
  readonly #revoked = new AbortController();
  readonly #tellClosed: () => void;
  #closing: Promise<void> | undefined;

  constructor(exportName: string, volume: OpenVolume, onClosed: () => void) {
    const { promise, resolve } = Promise.withResolvers<undefined>();
    this.exportName = exportName;
    this.size = volume.size;
    this.readOnly = volume.readOnly;
    this.blockBytes = volume.blockBytes;
    this.closed = promise;
    this.#device = volume;
    this.#closeVolume = () => volume.close();
    this.#tellClosed = () => {
      onClosed();
      resolve(undefined);
    };
  }

  get revoked(): AbortSignal {
    return this.#revoked.signal;
  }

  revoke(reason: PandoError): void {
    this.#revoked.abort(reason);
  }

  read(
    offset: number,
    length: number,
    target: Uint8Array,
    targetOffset: number,
    holes?: number[],
  ): Promise<void> | undefined {
    return this.#device.read(offset, length, target, targetOffset, holes);
  }

  write(offset: number, data: Uint8Array): Promise<void> | undefined {
    return this.#device.write(offset, data);
  }

  zero(offset: number, length: number): Promise<void> | undefined {
    return this.#device.zero(offset, length);
  }

  flush(): Promise<void> {
    return this.#device.flush();
  }

  prefetch(offset: number, length: number): Promise<void> {
    return this.#device.prefetch(offset, length);
  }

  allocation(offset: number, length: number, extentsMax: number): Promise<Extents> {
    return this.#device.allocation(offset, length, extentsMax);
  }

  close(): Promise<void> {
    this.#closing ??= this.#closeVolume().finally(this.#tellClosed);
    return this.#closing;
  }
}
