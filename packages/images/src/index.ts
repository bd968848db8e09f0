export { openImage } from './open-image.ts';
export { recognise } from './recognise.ts';
export type { Recognised } from './recognise.ts';
export { IMAGE_FORMATS } from './types.ts';
export type { CreateImageOptions, DiskSource, DiskTarget, ImageFormat, OpenImageOptions } from './types.ts';
