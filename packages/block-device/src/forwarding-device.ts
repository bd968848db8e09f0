/** A block device on top of another one that passes everything on: for those who change a part of it. */
import type { BlockDevice, Extents } from './types.ts';

export class ForwardingDevice<Inner extends BlockDevice = BlockDevice> implements BlockDevice {
  protected readonly inner: Inner;

  constructor(inner: Inner) {
    this.inner = inner;
  }

  get size(): number {
    return this.inner.size;
  }

  get readOnly(): boolean {
    return this.inner.readOnly;
  }

  get blockBytes(): number {
    return this.inner.blockBytes;
  }

  read(
    offset: number,
    length: number,
    target: Uint8Array,
    targetOffset: number,
    holes?: number[],
  ): Promise<void> | undefined {
    return this.inner.read(offset, length, target, targetOffset, holes);
  }

  write(offset: number, data: Uint8Array): Promise<void> | undefined {
    return this.inner.write(offset, data);
  }

  zero(offset: number, length: number): Promise<void> | undefined {
    return this.inner.zero(offset, length);
  }

  flush(): Promise<void> {
    return this.inner.flush();
  }

  prefetch(offset: number, length: number): Promise<void> {
    return this.inner.prefetch(offset, length);
  }

  allocation(offset: number, length: number, extentsMax: number): Promise<Extents> {
    return this.inner.allocation(offset, length, extentsMax);
  }
}
