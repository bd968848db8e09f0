/**
 * Writes new image files. A file is made under a hidden name beside its place and gets its own name when it is
 * complete, checked and synced; whatever goes wrong before, nothing of it stays.
 */
import { nodeFileSystem, PandoError } from '@pando/common';
import { randomBytes } from 'node:crypto';
import { lstat, open, rename, rm, type FileHandle } from 'node:fs/promises';
import { basename, dirname, extname, join, resolve } from 'node:path';
import { reason, startConfined } from './confine.ts';
import { runImageTool } from './image-tool.ts';
import { openImage } from './open-image.ts';
import { FIRST_IMAGE_FD } from './sandbox.ts';
import { SlotWriter } from './slot-writer.ts';
import type { CreateImageOptions, DiskTarget, ImageFormat } from './types.ts';

const EXTENSIONS: Readonly<Record<string, ImageFormat>> = {
  '.qcow2': 'qcow2',
  '.vmdk': 'vmdk',
  '.vdi': 'vdi',
  '.vhdx': 'vhdx',
  '.vhd': 'vpc',
  '.vpc': 'vpc',
};

/** No stranger made these images: where there is no sandbox, they are written all the same. */
const OURS = 'preferred';

/** Of the qcow2 images that we make; QEMU's default. */
const CLUSTER_BYTES = 64 * 1024;

/** Bytes of a raw image after which the system is asked to write. */
const SYNC_BYTES = 64 * 1024 * 1024;

/** Formats that `qemu-img check` knows how to check. */
const CHECKED: readonly ImageFormat[] = ['qcow2', 'vmdk', 'vdi', 'vhdx'];

/** Options of `qemu-img create`. Without `force_size` a VHD would be rounded to the geometry of a disk of 1981. */
const CREATE_OPTIONS: Partial<Record<ImageFormat, string>> = {
  qcow2: `cluster_size=${CLUSTER_BYTES}`,
  vpc: 'force_size=on',
};

/** The format that the extension of a file name means; `raw` for any other. */
export function formatOfName(path: string): ImageFormat {
  return EXTENSIONS[extname(path).toLowerCase()] ?? 'raw';
}

/** What writes the bytes of one format into the partial file. */
interface Body {
  write(position: number, data: Uint8Array): Promise<void>;
  /** All of it is in the file. */
  finish(): Promise<void>;
  abort(): Promise<void>;
}

/**
 * Begins an image file.
 * @throws `file-exists`, `file-failed`, `tool-missing`, `request-invalid` for compression of anything but qcow2,
 *   `image-unsupported` for a size that the format cannot have
 */
export async function createImage(path: string, options: CreateImageOptions): Promise<DiskTarget> {
  const { format, signal } = options;
  if (options.compress === true && format !== 'qcow2') {
    throw new PandoError('request-invalid', `only qcow2 images are compressed, not ${format}`);
  }
  const target = resolve(path);
  await checkFree(target, options.replace === true);
  signal?.throwIfAborted();
  const name = `.${basename(target).slice(0, 200)}.${randomBytes(6).toString('hex')}.partial`;
  const partial = join(dirname(target), name);
  // Made here, so that it is ours whoever writes into it later.
  const file = await local(() => open(partial, 'wx+', 0o644), partial);
  let body: Body;
  try {
    body = format === 'raw' ? rawBody(file, partial, options) : await qemuBody(file, partial, options);
  } catch (error) {
    await file.close();
    await rm(partial, { force: true });
    throw error;
  }
  let ended = false;
  const abort = async (): Promise<void> => {
    if (ended) return;
    ended = true;
    await body.abort();
    await file.close();
    await rm(partial, { force: true });
  };
  return {
    write: (position, data) => body.write(position, data),
    abort,
    finish: async (verify) => {
      try {
        await body.finish();
        await local(() => file.sync(), partial);
        if (verify !== undefined) await readBack(partial, format, verify, signal);
        signal?.throwIfAborted();
        await checkFree(target, options.replace === true);
        await local(() => rename(partial, target), target);
        ended = true;
        await file.close();
        await local(() => nodeFileSystem.syncDirectory(dirname(target)), target);
      } catch (error) {
        await abort();
        throw error;
      }
    },
  };
}

async function readBack(
  partial: string,
  format: ImageFormat,
  verify: NonNullable<Parameters<DiskTarget['finish']>[0]>,
  signal: AbortSignal | undefined,
): Promise<void> {
  const source = await openImage(partial, {
    format,
    confinement: OURS,
    ...(signal === undefined ? {} : { signal }),
  });
  try {
    await verify(source);
  } finally {
    await source.close();
  }
}

function rawBody(file: FileHandle, partial: string, { sizeBytes, signal }: CreateImageOptions): Body {
  let unsyncedBytes = 0;
  let syncing: Promise<void> | undefined;
  let failure: { readonly error: unknown } | undefined;
  /** Has the system write while more comes: else all of it is written at the end, while everybody waits. */
  const syncBehind = (bytes: number): void => {
    unsyncedBytes += bytes;
    if (unsyncedBytes < SYNC_BYTES || syncing !== undefined) return;
    unsyncedBytes = 0;
    syncing = file
      .datasync()
      // A later sync may say that all is well: what this one said counts.
      .catch((error: unknown) => {
        failure ??= { error };
      })
      .finally(() => {
        syncing = undefined;
      });
  };
  return {
    write: async (position, data) => {
      signal?.throwIfAborted();
      syncBehind(data.byteLength);
      return local(async () => {
        for (let done = 0; done < data.byteLength;) {
          const { bytesWritten } = await file.write(data, done, data.byteLength - done, position + done);
          done += bytesWritten;
        }
      }, partial);
    },
    finish: () =>
      local(async () => {
        await syncing;
        if (failure !== undefined) throw failure.error;
        await file.truncate(sizeBytes);
      }, partial),
    abort: async () => {
      await syncing;
    },
  };
}

async function qemuBody(file: FileHandle, partial: string, options: CreateImageOptions): Promise<Body> {
  const { format, sizeBytes, compress, signal } = options;
  const more = CREATE_OPTIONS[format];
  // QEMU compresses whole clusters only: the image begins with a whole last one and is cut when it is written.
  const wholeBytes = compress === true ? Math.ceil(sizeBytes / CLUSTER_BYTES) * CLUSTER_BYTES : sizeBytes;
  const created = await runImageTool(
    ['create', '-q', '-f', format, ...(more === undefined ? [] : ['-o', more]), partial, String(wholeBytes)],
    signal,
  );
  if (created.code !== 0) {
    throw new PandoError(
      'image-unsupported',
      `no ${format} image of ${sizeBytes} bytes can be made: ${created.complaint}`,
    );
  }
  const image = { driver: format, file: { driver: 'file', filename: `/dev/fd/${FIRST_IMAGE_FD}` } };
  const nbd = await startConfined({
    graph: compress === true ? { driver: 'compress', file: image } : image,
    images: [{ fd: file.fd, path: partial }],
    writable: true,
    confinement: OURS,
    ...(signal === undefined ? {} : { signal }),
  });
  const kill = (): void => void nbd.kill();
  signal?.addEventListener('abort', kill);
  const writer = new SlotWriter(nbd.client, wholeBytes);
  /** What a helper that fails has said is worth more than that its connection was lost. */
  const told = async <T>(action: () => Promise<T>): Promise<T> => {
    try {
      return await action();
    } catch (error) {
      signal?.throwIfAborted();
      const why = reason(nbd.complaint()) || (error as Error).message;
      throw new PandoError('file-failed', `cannot write ${partial}: ${why}`, { cause: error });
    }
  };
  return {
    write: (position, data) => told(() => writer.write(position, data)),
    finish: async () => {
      await told(async () => {
        await writer.finish();
        await nbd.client.flush();
        await nbd.close();
      });
      signal?.removeEventListener('abort', kill);
      if (wholeBytes !== sizeBytes) await cut(partial, options);
      await check(partial, options);
    },
    abort: async () => {
      signal?.removeEventListener('abort', kill);
      await nbd.kill();
    },
  };
}

async function cut(partial: string, { format, sizeBytes, signal }: CreateImageOptions): Promise<void> {
  const args = ['resize', '-q', '-f', format, '--shrink', partial, String(sizeBytes)];
  const { code, complaint } = await runImageTool(args, signal);
  if (code !== 0) throw new PandoError('file-failed', `cannot write ${partial}: ${complaint}`);
}

/** What QEMU says of the finished file. */
async function check(partial: string, { format, sizeBytes, signal }: CreateImageOptions): Promise<void> {
  const failed = (what: string): PandoError =>
    new PandoError('verify-failed', `the ${format} image that was written is not right: ${what}`);
  if (CHECKED.includes(format)) {
    const { code, output, complaint } = await runImageTool(['check', '-f', format, partial], signal);
    if (code !== 0) throw failed(complaint || output.trim().slice(0, 1000));
  }
  const info = await runImageTool(['info', '-f', format, '--output=json', partial], signal);
  if (info.code !== 0) throw failed(info.complaint);
  const { 'virtual-size': size } = JSON.parse(info.output) as { 'virtual-size': number };
  if (size !== sizeBytes) throw failed(`it has ${size} bytes, the disk has ${sizeBytes}`);
}

async function checkFree(path: string, replace: boolean): Promise<void> {
  const found = await lstat(path).catch(() => undefined);
  if (found === undefined) return;
  if (!replace) throw new PandoError('file-exists', `${path} exists already`);
  if (!found.isFile()) throw new PandoError('file-exists', `${path} exists and is no regular file`);
}

/** Errors of the local disk. */
async function local<T>(action: () => Promise<T>, path: string): Promise<T> {
  try {
    return await action();
  } catch (error) {
    if (error instanceof PandoError) throw error;
    throw new PandoError('file-failed', `cannot write ${path}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}
