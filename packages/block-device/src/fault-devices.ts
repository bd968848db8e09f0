/**
 * Wrappers of a block device for tests, each named for what it does to the device underneath. They
 * compose: `new DelayDevice(new ErrorDevice(device, …), …)`.
 */
import { ForwardingDevice } from './forwarding-device.ts';
import type { BlockDevice, Extents } from './types.ts';

export type DeviceOperation = 'read' | 'write' | 'zero' | 'flush' | 'prefetch' | 'allocation';

/**
 * Makes every operation wait for the promise that `wait` returns (undefined: no wait) before it takes
 * effect. Data of a write is copied before the wait, as the contract asks.
 */
export class DelayDevice extends ForwardingDevice {
  readonly #wait: (operation: DeviceOperation) => Promise<void> | undefined;

  constructor(inner: BlockDevice, wait: (operation: DeviceOperation) => Promise<void> | undefined) {
    super(inner);
    this.#wait = wait;
  }

  override read(
    offset: number,
    length: number,
    target: Uint8Array,
    targetOffset: number,
    holes?: number[],
  ): Promise<void> | undefined {
    const wait = this.#wait('read');
    if (wait === undefined) return super.read(offset, length, target, targetOffset, holes);
    return wait.then(() => super.read(offset, length, target, targetOffset, holes));
  }

  override write(offset: number, data: Uint8Array): Promise<void> | undefined {
    const wait = this.#wait('write');
    if (wait === undefined) return super.write(offset, data);
    // Not data.slice(): of a Buffer that is a view.
    const copy = new Uint8Array(data);
    return wait.then(() => super.write(offset, copy));
  }

  override zero(offset: number, length: number): Promise<void> | undefined {
    const wait = this.#wait('zero');
    return wait === undefined ? super.zero(offset, length) : wait.then(() => super.zero(offset, length));
  }

  override async flush(): Promise<void> {
    await this.#wait('flush');
    await super.flush();
  }

  override async prefetch(offset: number, length: number): Promise<void> {
    await this.#wait('prefetch');
    await super.prefetch(offset, length);
  }

  override async allocation(offset: number, length: number, extentsMax: number): Promise<Extents> {
    await this.#wait('allocation');
    return super.allocation(offset, length, extentsMax);
  }
}

/** Fails the operations for which `fault` returns an error, with that error and no effect. */
export class ErrorDevice extends ForwardingDevice {
  readonly #fault: (operation: DeviceOperation, offset: number, length: number) => Error | undefined;

  constructor(
    inner: BlockDevice,
    fault: (operation: DeviceOperation, offset: number, length: number) => Error | undefined,
  ) {
    super(inner);
    this.#fault = fault;
  }

  override read(
    offset: number,
    length: number,
    target: Uint8Array,
    targetOffset: number,
    holes?: number[],
  ): Promise<void> | undefined {
    this.#check('read', offset, length);
    return super.read(offset, length, target, targetOffset, holes);
  }

  override write(offset: number, data: Uint8Array): Promise<void> | undefined {
    this.#check('write', offset, data.byteLength);
    return super.write(offset, data);
  }

  override zero(offset: number, length: number): Promise<void> | undefined {
    this.#check('zero', offset, length);
    return super.zero(offset, length);
  }

  override async flush(): Promise<void> {
    this.#check('flush', 0, 0);
    await super.flush();
  }

  override async prefetch(offset: number, length: number): Promise<void> {
    this.#check('prefetch', offset, length);
    await super.prefetch(offset, length);
  }

  override async allocation(offset: number, length: number, extentsMax: number): Promise<Extents> {
    this.#check('allocation', offset, length);
    return super.allocation(offset, length, extentsMax);
  }

  #check(operation: DeviceOperation, offset: number, length: number): void {
    const error = this.#fault(operation, offset, length);
    if (error !== undefined) throw error;
  }
}
