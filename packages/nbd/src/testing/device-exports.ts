/** Exports from a table of devices, for tests: every client of a name gets the same device. */
import { ForwardingDevice } from '@pando/block-device';
import type { BlockDevice, StatusExtents } from '@pando/block-device';
import { PandoError } from '@pando/common';
import type { ClientIdentity, ExportHandle, ExportProvider, StatusSource } from '../types.ts';

/** Answers block status for a made-up context. */
export type Describe = (
  offset: number,
  length: number,
  extentsMax: number,
) => StatusExtents | Promise<StatusExtents>;

interface DeviceContext {
  readonly describe: Describe;
  readonly comparedWith: string | undefined;
}

class DeviceHandle extends ForwardingDevice implements ExportHandle {
  readonly exportName: string;
  readonly revoked: AbortSignal;
  readonly #contexts: ReadonlyMap<string, DeviceContext>;
  readonly #onLeave: () => void;
  readonly #onClose: () => Promise<void>;
  #openContexts = 0;
  #open = true;

  constructor(
    exportName: string,
    device: BlockDevice,
    revoked: AbortSignal,
    contexts: ReadonlyMap<string, DeviceContext>,
    on: { readonly leave: () => void; readonly close: () => Promise<void> },
  ) {
    super(device);
    this.exportName = exportName;
    this.revoked = revoked;
    this.#contexts = contexts;
    this.#onLeave = on.leave;
    this.#onClose = on.close;
  }

  contextNames(prefix: string, limit: number): Promise<readonly string[]> {
    return Promise.resolve([...this.#contexts.keys()].filter((n) => n.startsWith(prefix)).slice(0, limit));
  }

  async openContext(name: string): Promise<StatusSource | undefined> {
    const context = this.#contexts.get(name);
    if (context === undefined) return undefined;
    const { describe, comparedWith } = context;
    this.#openContexts++;
    let open = true;
    return {
      name,
      ...(comparedWith === undefined ? {} : { comparedWith }),
      describe: async (offset, length, extentsMax) => describe(offset, length, extentsMax),
      close: async () => {
        if (!open) throw new PandoError('internal', 'a context was closed twice');
        if (!this.#open) throw new PandoError('internal', 'a context was closed after its handle');
        open = false;
        this.#openContexts--;
      },
    };
  }

  leave(): void {
    if (!this.#open) throw new PandoError('internal', 'a client left a handle that is closed');
    this.#onLeave();
  }

  async close(): Promise<void> {
    if (!this.#open) throw new PandoError('internal', 'an export handle was closed twice');
    if (this.#openContexts > 0)
      throw new PandoError('internal', 'an export handle was closed before its contexts');
    this.#open = false;
    await this.#onClose();
  }
}

interface DeviceExport {
  readonly device: BlockDevice;
  readonly contexts: Map<string, DeviceContext>;
  revocation: AbortController;
}

/**
 * What the server must not do with a handle (close it twice, or before its contexts) throws: `openHandles` then stays
 * above 0, which tests look at.
 */
export class DeviceExports implements ExportProvider {
  readonly #exports = new Map<string, DeviceExport>();
  /** Handles that have been opened and not closed. */
  openHandles = 0;
  /** Handles ever opened. */
  handlesOpened = 0;
  /** How often a client was said to be leaving. */
  leaves = 0;
  /** What closing a handle waits for. */
  closable: Promise<void> = Promise.resolve();
  /** Who the last handle was opened for, or the last list made for. */
  lastClient: ClientIdentity | undefined;

  set(name: string, device: BlockDevice): void {
    this.#exports.set(name, { device, contexts: new Map(), revocation: new AbortController() });
  }

  /** Gives an export a metadata context; handles opened before have it too. */
  setContext(name: string, context: string, describe: Describe, comparedWith?: string): void {
    this.#exports.get(name)!.contexts.set(context, { describe, comparedWith });
  }

  /** Throws the clients of an export out. */
  revoke(name: string): void {
    const found = this.#exports.get(name);
    if (found === undefined) return;
    found.revocation.abort();
    found.revocation = new AbortController();
  }

  list(limit: number, client: ClientIdentity): Promise<readonly string[]> {
    this.lastClient = client;
    return Promise.resolve([...this.#exports.keys()].slice(0, limit));
  }

  async open(name: string, client: ClientIdentity): Promise<ExportHandle> {
    this.lastClient = client;
    const found = this.#exports.get(name);
    if (found === undefined) throw new PandoError('disk-missing', `no export ${name}`);
    this.openHandles++;
    this.handlesOpened++;
    const { device, contexts, revocation } = found;
    return new DeviceHandle(name, device, revocation.signal, contexts, {
      leave: () => this.leaves++,
      close: async () => {
        await this.closable;
        this.openHandles--;
      },
    });
  }
}
