/** A VMDK whose descriptor lists extents in files beside it: each piece is opened by itself, when it is its turn. */
import { DISK_BYTES_MAX, PandoError, type DiskPart } from '@pando/common';
import { dirname, join } from 'node:path';
import { deviceParts, joinHoles } from './device-parts.ts';
import type { StatedFormat } from './graph.ts';
import { openImageFile, type ImageFile } from './image-file.ts';
import { openWithQemu } from './open-image.ts';
import type { DiskSource, OpenImageOptions } from './types.ts';
import type { VmdkExtent } from './vmdk.ts';

/** @throws `image-refused` where other files are not allowed, `image-damaged`, `size-invalid` */
export async function openPieces(
  descriptor: ImageFile,
  { stated }: StatedFormat,
  extents: readonly VmdkExtent[],
  { backingWithin }: OpenImageOptions,
): Promise<DiskSource> {
  const refuse = (why: string): never => {
    throw new PandoError('image-refused', `${descriptor.path} is a list of other files${why}`);
  };
  const named = extents.filter(({ kind }) => kind !== 'zero');
  if (named.length > 0 && backingWithin === undefined) refuse(', and none are allowed here');
  if (named.length > 0 && !stated) {
    refuse('; they are followed only when its format is stated (--format vmdk) or its name ends in .vmdk');
  }
  const sizeBytes = extents.reduce((sum, extent) => sum + extent.sizeBytes, 0);
  if (sizeBytes > DISK_BYTES_MAX) {
    throw new PandoError(
      'size-invalid',
      `${descriptor.path} is a disk of ${sizeBytes} bytes; the most is 64 TiB`,
    );
  }
  const folder = dirname(descriptor.path);
  const open = async (extent: VmdkExtent): Promise<ImageFile> => {
    const file = await openImageFile(join(folder, extent.name), backingWithin);
    // A link inside the allowed directory could still lead to the disk of somebody else there.
    if (dirname(file.path) === folder) return file;
    await file.handle.close();
    return refuse(`, and ${JSON.stringify(extent.name)} leads to another directory`);
  };
  for (const extent of named) await (await open(extent)).handle.close();
  return {
    format: 'vmdk',
    sizeBytes,
    parts: (signal) => joinHoles(pieces(extents, open, signal)),
    close: () => Promise.resolve(),
  };
}

async function* pieces(
  extents: readonly VmdkExtent[],
  open: (extent: VmdkExtent) => Promise<ImageFile>,
  signal: AbortSignal,
): AsyncGenerator<DiskPart, void, undefined> {
  for (const extent of extents) {
    if (extent.kind === 'zero') yield { holeBytes: extent.sizeBytes };
    else if (extent.kind === 'flat') yield* flatParts(await open(extent), extent, signal);
    else yield* sparseParts(await open(extent), extent, signal);
  }
}

async function* flatParts(
  file: ImageFile,
  extent: VmdkExtent,
  signal: AbortSignal,
): AsyncGenerator<DiskPart, void, undefined> {
  try {
    if (file.bytes < extent.offset + extent.sizeBytes) {
      throw new PandoError('image-damaged', `${file.path} is shorter than its descriptor says`);
    }
    const device = {
      size: extent.sizeBytes,
      async read(offset: number, length: number, target: Uint8Array, targetOffset: number): Promise<void> {
        for (let done = 0; done < length;) {
          const position = extent.offset + offset + done;
          const { bytesRead } = await file.handle.read(target, targetOffset + done, length - done, position);
          if (bytesRead === 0)
            throw new PandoError('import-interrupted', `${file.path} ended at byte ${position}`);
          done += bytesRead;
        }
      },
      allocation: (_offset: number, length: number) => Promise.resolve({ lengths: [length], holes: [false] }),
    };
    yield* deviceParts(device, signal);
  } finally {
    await file.handle.close();
  }
}

async function* sparseParts(
  file: ImageFile,
  extent: VmdkExtent,
  signal: AbortSignal,
): AsyncGenerator<DiskPart, void, undefined> {
  const source = await openWithQemu(file, { format: 'vmdk', stated: true }, { signal });
  try {
    if (source.sizeBytes !== extent.sizeBytes) {
      throw new PandoError('image-damaged', `${file.path} is not as long as its descriptor says`);
    }
    yield* source.parts(signal);
  } finally {
    await source.close();
  }
}
