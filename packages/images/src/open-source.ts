/** What people name as the source of an import: an NBD URI, or else a file. */
import { PandoError } from '@pando/common';
import { openImage } from './open-image.ts';
import { openNbdSource, type NbdSourceOptions } from './nbd-source.ts';
import { looksLikeNbdUri } from './nbd-uri.ts';
import type { DiskSource, OpenImageOptions } from './types.ts';

export type OpenSourceOptions = OpenImageOptions & NbdSourceOptions;

/**
 * Opens an NBD export (`nbd://…`, see parseNbdUri) or an image file. A file whose name looks like a URI is named
 * with a `./` before it.
 * @throws what openNbdSource and openImage throw; `request-invalid` for an export that is said to have an image format
 */
export async function openSource(what: string, options: OpenSourceOptions = {}): Promise<DiskSource> {
  if (!looksLikeNbdUri(what)) return openImage(what, options);
  if (options.format !== undefined && options.format !== 'raw') {
    throw new PandoError('request-invalid', `an NBD export is read as it is, not as ${options.format}`);
  }
  return openNbdSource(what, options);
}
