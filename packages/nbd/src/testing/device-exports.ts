/** Exports from a table of devices, for tests: every client of a name gets the same device. */
import type { BlockDevice, Extents } from '@pando/block-device';
import { PandoError } from '@pando/common';
import type { ExportHandle, ExportProvider } from '../types.ts';

class DeviceHandle implements ExportHandle {
  readonly exportName: string;
  readonly revoked: AbortSignal;
  readonly #device: BlockDevice;
  readonly #onClose: () => void;

  constructor(exportName: string, device: BlockDevice, revoked: AbortSignal, onClose: () => void) {
    this.exportName = exportName;
    this.revoked = revoked;
    this.#device = device;
    this.#onClose = onClose;
  }

  get size(): number {
    return this.#device.size;
  }

  get readOnly(): boolean {
    return this.#device.readOnly;
  }

  get blockBytes(): number {
    return this.#device.blockBytes;
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
    this.#onClose();
    return Promise.resolve();
  }
}

export class DeviceExports implements ExportProvider {
  readonly #devices = new Map<string, BlockDevice>();
  readonly #revocations = new Map<string, AbortController>();
  /** Handles that have been opened and not closed. */
  openHandles = 0;

  set(name: string, device: BlockDevice): void {
    this.#devices.set(name, device);
    this.#revocations.set(name, new AbortController());
  }

  /** Throws the clients of an export out. */
  revoke(name: string): void {
    this.#revocations.get(name)?.abort();
    this.#revocations.set(name, new AbortController());
  }

  list(limit: number): Promise<readonly string[]> {
    return Promise.resolve([...this.#devices.keys()].slice(0, limit));
  }

  async open(name: string): Promise<ExportHandle> {
    const device = this.#devices.get(name);
    const revoked = this.#revocations.get(name);
    if (device === undefined || revoked === undefined)
      throw new PandoError('disk-missing', `no export ${name}`);
    this.openHandles++;
    let open = true;
    return new DeviceHandle(name, device, revoked.signal, () => {
      if (!open) throw new PandoError('internal', 'an export handle was closed twice');
      open = false;
      this.openHandles--;
    });
  }
}
