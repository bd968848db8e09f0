/** Opens an image file of any format as a source. */
import { DISK_BYTES_MAX, isPandoError, openSparseFile, PandoError, type DiskPart } from '@pando/common';
import { checkConfined, reason, startConfined, type ConfinedNbd } from './confine.ts';
import { buildGraph, closeAll, formatOf, type StatedFormat } from './graph.ts';
import { openImageFile, type ImageFile } from './image-file.ts';
import { joinHoles } from './join-holes.ts';
import { readParts } from './nbd-source.ts';
import type { HandedImage } from './sandbox.ts';
import type { Confinement, DiskSource, OpenImageOptions } from './types.ts';

/**
 * Opens an image for reading. The file may be a link; what it leads to is a regular file.
 * @throws `import-not-a-file`, `image-format-mismatch`, `image-unsupported`, `image-refused`, `image-damaged`, `size-invalid`,
 *   `disk-in-use` when another program has it open for writing, `tool-missing`, `confinement-unavailable`, `too-busy`
 */
export async function openImage(path: string, options: OpenImageOptions = {}): Promise<DiskSource> {
  options.signal?.throwIfAborted();
  const image = await openImageFile(path, options.within);
  let how: StatedFormat;
  try {
    how = await formatOf(image, options.format);
    if (how.format === 'raw') {
      const source = await openRaw(image, how.remark);
      await image.handle.close();
      return source;
    }
  } catch (error) {
    await image.handle.close();
    throw error;
  }
  return openWithQemu(image, how, options);
}

/** By the descriptor that is open, so that it is the file that was looked at. */
async function openRaw(image: ImageFile, remark: string | undefined): Promise<DiskSource> {
  const onLinux = process.platform === 'linux';
  const file = await openSparseFile(onLinux ? `/proc/self/fd/${image.handle.fd}` : image.path);
  return {
    format: 'raw',
    sizeBytes: file.sizeBytes,
    ...(remark === undefined ? {} : { remark: `${image.path}: ${remark}` }),
    parts: (signal) => joinHoles(file.parts(signal)),
    close: () => file.close(),
  };
}

/** Any format but raw, by way of a confined `qemu-nbd`. Takes over `image`. */
async function openWithQemu(
  image: ImageFile,
  how: StatedFormat,
  { backingWithin, signal, confinement = 'required' }: OpenImageOptions,
): Promise<DiskSource> {
  const { node, files, qcow2 } = await buildGraph(image, how, backingWithin);
  let nbd: ConfinedNbd;
  try {
    const handed = {
      images: files.map(({ handle, path, isUnnamed }) => ({
        fd: handle.fd,
        ...(isUnnamed === true ? {} : { path }),
      })),
      confinement,
      ...(signal === undefined ? {} : { signal }),
    };
    for (const part of qcow2) await checkWhole(part, handed);
    nbd = await startConfined({ graph: node, writable: false, ...handed });
  } finally {
    await closeAll(files);
  }
  const sizeBytes = nbd.client.size;
  if (sizeBytes > DISK_BYTES_MAX) {
    await nbd.kill();
    throw new PandoError('size-invalid', `${image.path} is a disk of ${sizeBytes} bytes; the most is 64 TiB`);
  }
  return {
    format: how.format,
    sizeBytes,
    parts: (stop) => joinHoles(imageParts(nbd, image.path, stop)),
    close: () => nbd.kill(),
  };
}

/** QEMU reads what lies past the end of a file as zeros: a qcow2 image that was cut would come in with holes in its data. */
async function checkWhole(
  { path, node }: { readonly path: string; readonly node: object },
  handed: {
    readonly images: readonly HandedImage[];
    readonly confinement: Confinement;
    readonly signal?: AbortSignal;
  },
): Promise<void> {
  const said = await checkConfined({ graph: node, writable: false, ...handed });
  if (said.includes('exceeding the end of the file')) {
    throw new PandoError('image-damaged', `${path} is cut off: its tables lead past its end`);
  }
}

/** The parts of the disk; what goes wrong is the image's fault, or the end that the signal asked for. */
async function* imageParts(
  nbd: ConfinedNbd,
  path: string,
  signal: AbortSignal,
): AsyncGenerator<DiskPart, void, undefined> {
  const kill = (): void => void nbd.kill();
  signal.addEventListener('abort', kill);
  try {
    yield* readParts(nbd.client, signal);
  } catch (error) {
    signal.throwIfAborted();
    if (!isPandoError(error)) throw error;
    const why = reason(nbd.complaint()) || error.message;
    throw new PandoError('image-damaged', `${path}: ${why}`, { cause: error });
  } finally {
    signal.removeEventListener('abort', kill);
  }
}
