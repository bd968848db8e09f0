/**
 * Who has which disk open. An attachment is one client's handle; the fleet can throw it out: it aborts
 * `revoked`, waits for the client's server to close it, and past a deadline closes the disk itself. A client that
 * compares its disk with a backup holds that backup's disk by a reference, which counts as a client of the backup; to take
 * the reference away is to throw out the attachment that has it, because it cannot be answered any more.
 */
import { ForwardingDevice, type StatusExtents } from '@pando/block-device';
import { PandoError, type Clock } from '@pando/common';
import type { OpenVolume } from '@pando/volume';
import type { FleetLimits } from './limits.ts';
import type { Attachment, DiskContext } from './types.ts';

/** Something that has a disk of a VM or backup open. */
interface Holder {
  /** Whether it is being closed, or will be as soon as what is in flight is over. */
  readonly leaving: boolean;
  /** Resolves once it is closed, whoever closed it. */
  readonly closed: Promise<void>;
  revoke(reason: PandoError): void;
  close(): Promise<void>;
}

/** A disk that is open beside an attachment's own, for as long as one of its contexts needs it. */
export interface Reference {
  readonly volume: OpenVolume;
  close(): Promise<void>;
}

/** What an attachment says about its disk; `refer` opens a disk of a backup to compare with. */
export interface ContextsOf {
  names(prefix: string, limit: number, volume: OpenVolume): Promise<readonly string[]>;
  open(
    name: string,
    volume: OpenVolume,
    refer: (ownerId: string, open: () => Promise<OpenVolume>) => Promise<Reference>,
  ): Promise<DiskContext | undefined>;
}

export class Attachments {
  readonly #clock: Clock;
  readonly #limits: FleetLimits;
  /** By id of the VM or backup; in memory, because a client lives no longer than the process. */
  readonly #byOwner = new Map<string, Set<Holder>>();
  #count = 0;

  constructor(clock: Clock, limits: FleetLimits) {
    this.#clock = clock;
    this.#limits = limits;
  }

  /** Clients of a VM or backup; those that compare with a backup are clients of it, too. */
  count(ownerId: string): number {
    return this.#byOwner.get(ownerId)?.size ?? 0;
  }

  /**
   * Opens a disk for a client. The caller holds the owner's lock. `onGone` is called once it is closed.
   * @throws `too-busy`, then without having called it, and what `open` throws
   */
  async add(
    ownerId: string,
    exportName: string,
    contexts: ContextsOf,
    open: () => Promise<OpenVolume>,
    onGone?: () => void,
  ): Promise<Attachment> {
    if (this.#count >= this.#limits.attachmentsMax) {
      throw new PandoError('too-busy', `${this.#limits.attachmentsMax} clients are attached`);
    }
    this.#count++;
    const { attachmentContextsMax } = this.#limits;
    return this.#hold(
      ownerId,
      open,
      (volume, onClosed) =>
        new OpenAttachment(exportName, volume, onClosed, {
          contexts,
          contextsMax: attachmentContextsMax,
          refer: (attachment, backupId, openDisk) =>
            this.#hold(
              backupId,
              openDisk,
              (disk, onDiskClosed) => new OpenReference(disk, attachment, onDiskClosed),
              () => undefined,
            ),
        }),
      () => {
        this.#count--;
        onGone?.();
      },
    );
  }

  /** Opens a disk and notes who has it until that is closed. `onGone` is called once, also when it cannot be opened. */
  async #hold<H extends Holder>(
    ownerId: string,
    open: () => Promise<OpenVolume>,
    make: (volume: OpenVolume, onClosed: () => void) => H,
    onGone: () => void,
  ): Promise<H> {
    let volume: OpenVolume;
    try {
      volume = await open();
    } catch (error) {
      onGone();
      throw error;
    }
    const holder = make(volume, () => {
      const ofOwner = this.#byOwner.get(ownerId)!;
      ofOwner.delete(holder);
      if (ofOwner.size === 0) this.#byOwner.delete(ownerId);
      onGone();
    });
    const ofOwner = this.#byOwner.get(ownerId);
    if (ofOwner === undefined) this.#byOwner.set(ownerId, new Set([holder]));
    else ofOwner.add(holder);
    return holder;
  }

  /**
   * As `count`, but when nobody is left who stays, it waits until those who are leaving are gone: a client that has
   * disconnected is nobody's obstacle. The caller keeps new ones away. Waits `detachWaitMs` at most.
   */
  async countStaying(ownerId: string): Promise<number> {
    const attached = [...(this.#byOwner.get(ownerId) ?? [])];
    if (attached.length > 0 && attached.every((attachment) => attachment.leaving))
      await this.#untilClosed(attached);
    return this.count(ownerId);
  }

  /** Resolves when they are closed, or after `detachWaitMs`. */
  async #untilClosed(attached: readonly Holder[]): Promise<void> {
    const enough = new AbortController();
    await Promise.race([
      Promise.all(attached.map((attachment) => attachment.closed)),
      this.#clock.sleep(this.#limits.detachWaitMs, enough.signal).catch(() => undefined),
    ]);
    enough.abort();
  }

  /**
   * Throws all clients of the owner out; none is attached when it resolves. The caller keeps new ones away (it
   * holds the owner's lock exclusively). Waits `detachWaitMs` and for operations under way on the disks.
   */
  async disconnect(ownerId: string, reason: PandoError): Promise<void> {
    const attached = [...(this.#byOwner.get(ownerId) ?? [])];
    if (attached.length === 0) return;
    for (const attachment of attached) attachment.revoke(reason);
    await this.#untilClosed(attached);
    await Promise.all(attached.map((attachment) => attachment.close()));
  }

  /** Throws everybody out. */
  async disconnectAll(reason: PandoError): Promise<void> {
    await Promise.all([...this.#byOwner.keys()].map((ownerId) => this.disconnect(ownerId, reason)));
  }
}

/** A volume that is closed once, and somebody who is told when it is. */
class Closing {
  readonly closed: Promise<void>;
  readonly #close: () => Promise<void>;
  readonly #tellClosed: () => void;
  #closing: Promise<void> | undefined;

  constructor(close: () => Promise<void>, onClosed: () => void) {
    const { promise, resolve } = Promise.withResolvers<undefined>();
    this.closed = promise;
    this.#close = close;
    this.#tellClosed = () => {
      onClosed();
      resolve(undefined);
    };
  }

  get begun(): boolean {
    return this.#closing !== undefined;
  }

  close(): Promise<void> {
    this.#closing ??= this.#close().finally(this.#tellClosed);
    return this.#closing;
  }
}

/** A backup's disk that an attachment compares its own with. */
class OpenReference implements Holder, Reference {
  readonly volume: OpenVolume;
  readonly #attachment: Holder;
  readonly #closing: Closing;

  constructor(volume: OpenVolume, attachment: Holder, onClosed: () => void) {
    this.volume = volume;
    this.#attachment = attachment;
    this.#closing = new Closing(() => volume.close(), onClosed);
  }

  get closed(): Promise<void> {
    return this.#closing.closed;
  }

  get leaving(): boolean {
    return this.#closing.begun || this.#attachment.leaving;
  }

  revoke(reason: PandoError): void {
    this.#attachment.revoke(reason);
  }

  close(): Promise<void> {
    return this.#closing.close();
  }
}

/** What an attachment needs for its contexts. */
interface ContextsSupport {
  readonly contexts: ContextsOf;
  readonly contextsMax: number;
  refer(attachment: Holder, ownerId: string, open: () => Promise<OpenVolume>): Promise<Reference>;
}

/** Hands everything through to the disk, and owns the contexts that are open on it. */
class OpenAttachment extends ForwardingDevice<OpenVolume> implements Attachment, Holder {
  readonly exportName: string;
  readonly #support: ContextsSupport;
  readonly #revoked = new AbortController();
  readonly #closing: Closing;
  #leaving = false;
  readonly #contexts = new Set<DiskContext>();
  /** Contexts that are being opened. */
  readonly #opening = new Set<Promise<DiskContext | undefined>>();

  constructor(exportName: string, volume: OpenVolume, onClosed: () => void, support: ContextsSupport) {
    super(volume);
    this.exportName = exportName;
    this.#support = support;
    this.#closing = new Closing(() => this.#closeAll(), onClosed);
  }

  get closed(): Promise<void> {
    return this.#closing.closed;
  }

  get leaving(): boolean {
    return this.#leaving || this.#closing.begun;
  }

  get revoked(): AbortSignal {
    return this.#revoked.signal;
  }

  revoke(reason: PandoError): void {
    this.#revoked.abort(reason);
  }

  contextNames(prefix: string, limit: number): Promise<readonly string[]> {
    return this.#support.contexts.names(prefix, limit, this.inner);
  }

  async openContext(name: string): Promise<DiskContext | undefined> {
    this.#refuseWhenEnding();
    if (this.#contexts.size + this.#opening.size >= this.#support.contextsMax) {
      throw new PandoError('too-busy', `a client has ${this.#support.contextsMax} contexts open`);
    }
    const opening = this.#openContext(name);
    this.#opening.add(opening);
    try {
      const context = await opening;
      // Closed by closeAll, which has waited for it.
      this.#refuseWhenEnding();
      return context;
    } finally {
      this.#opening.delete(opening);
    }
  }

  async #openContext(name: string): Promise<DiskContext | undefined> {
    const support = this.#support;
    const context = await support.contexts.open(name, this.inner, (ownerId, open) =>
      support.refer(this, ownerId, open),
    );
    if (context === undefined) return undefined;
    const owned = new OwnedContext(context, () => this.#contexts.delete(owned));
    this.#contexts.add(owned);
    return owned;
  }

  #refuseWhenEnding(): void {
    if (this.#closing.begun) throw new PandoError('shutting-down', 'this attachment is closed');
    this.#revoked.signal.throwIfAborted();
  }

  /** What is being opened needs no lock, so waiting for it ends. */
  async #closeAll(): Promise<void> {
    await Promise.allSettled(this.#opening);
    const closed = await Promise.allSettled([...this.#contexts].map((context) => context.close()));
    await this.inner.close();
    for (const result of closed) if (result.status === 'rejected') throw result.reason;
  }

  leave(): void {
    this.#leaving = true;
  }

  close(): Promise<void> {
    return this.#closing.close();
  }
}

/** A context that its attachment closes when nobody else did. */
class OwnedContext implements DiskContext {
  readonly name: string;
  readonly comparedWith?: string;
  readonly #context: DiskContext;
  readonly #closing: Closing;

  constructor(context: DiskContext, onClosed: () => void) {
    this.name = context.name;
    if (context.comparedWith !== undefined) this.comparedWith = context.comparedWith;
    this.#context = context;
    this.#closing = new Closing(() => context.close(), onClosed);
  }

  async describe(offset: number, length: number, extentsMax: number): Promise<StatusExtents> {
    if (this.#closing.begun) throw new PandoError('shutting-down', `the context ${this.name} is closed`);
    return this.#context.describe(offset, length, extentsMax);
  }

  close(): Promise<void> {
    return this.#closing.close();
  }
}
