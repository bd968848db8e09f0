export { IMAGE_FORMATS } from './types.ts';
export type { CreateImageOptions, DiskSource, DiskTarget, ImageFormat, OpenImageOptions } from './types.ts';
