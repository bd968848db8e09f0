export { createImage, formatOfName } from './create-image.ts';
export { openNbdSource, type NbdSourceOptions } from './nbd-source.ts';
export { looksLikeNbdUri, parseNbdUri, type NbdUri } from './nbd-uri.ts';
export { openImage } from './open-image.ts';
export { openSource, type OpenSourceOptions } from './open-source.ts';
export { recognise } from './recognise.ts';
export type { Recognised } from './recognise.ts';
export { IMAGE_FORMATS } from './types.ts';
export type {
  Confinement,
  CreateImageOptions,
  DiskSource,
  DiskTarget,
  ImageFormat,
  OpenImageOptions,
} from './types.ts';
