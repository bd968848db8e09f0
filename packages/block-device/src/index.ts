export { ForwardingDevice } from './forwarding-device.ts';
export { MemoryBlockDevice } from './memory-block-device.ts';
export type { MemoryBlockDeviceOptions } from './memory-block-device.ts';
export { checkRange } from './range.ts';
export type { BlockDevice, Extents, StatusExtents } from './types.ts';
