/** Where an import's bytes come from: the body of a request, or a file in the import directory. */
import { realpath, stat } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { join, sep } from 'node:path';
import { decodeSparse, decodeSparseIds, ID_BYTES, PandoError, type DiskPart } from '@pando/common';
import type { ImportSource } from '@pando/fleet';
import { openImage, type DiskSource, type ImageFormat } from '@pando/images';

interface DiskStream {
  readonly sizeBytes?: number;
  parts(signal: AbortSignal): AsyncIterable<DiskPart>;
}

export interface UploadOptions {
  readonly body: IncomingMessage;
  readonly sparse: boolean;
  /** Set when the stream is sparse and may have chunks by their ids: how long they are. */
  readonly idsOf?: number | undefined;
  /** Size of the disk where the client said it. */
  readonly sizeBytes: number | undefined;
  /** Longest wait for the next bytes. */
  readonly pauseMs: number;
}

/**
 * The body of a request as a source. Bytes are taken off the socket only as they are pulled, so an engine
 * that is busy makes the sender wait, and nothing piles up here.
 */
export function uploadSource(options: UploadOptions & { readonly idsOf?: never }): DiskStream;
export function uploadSource(options: UploadOptions): ImportSource;
export function uploadSource({ body, sparse, idsOf, sizeBytes, pauseMs }: UploadOptions): ImportSource {
  return {
    ...(sizeBytes === undefined ? {} : { sizeBytes }),
    async *parts(signal) {
      let position = 0;
      const pieces = bodyPieces(body, pauseMs, signal);
      const parts =
        idsOf !== undefined ? decodeSparseIds(pieces, idsOf) : sparse ? decodeSparse(pieces) : pieces;
      for await (const part of parts) {
        if (part instanceof Uint8Array) position += part.byteLength;
        else position += 'ids' in part ? (part.ids.byteLength / ID_BYTES) * idsOf! : part.holeBytes;
        if (sizeBytes !== undefined && position > sizeBytes) {
          throw new PandoError(
            'size-invalid',
            `the upload goes past the ${sizeBytes} bytes that were announced`,
          );
        }
        yield part;
      }
      if (sizeBytes !== undefined && position !== sizeBytes) {
        throw new PandoError('import-interrupted', `the upload ended at byte ${position} of ${sizeBytes}`);
      }
    },
  };
}

async function* bodyPieces(
  body: IncomingMessage,
  pauseMs: number,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  // The stream must outlive an early end: the answer goes out on the same socket.
  const pieces = body.iterator({ destroyOnReturn: false })[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  // Not a race against one promise of the signal: that would keep every piece until the end.
  let stop: ((reason: unknown) => void) | undefined;
  const onAbort = (): void => stop?.(signal.reason);
  signal.addEventListener('abort', onAbort);
  let waiting = false;
  const timer = setTimeout(() => {
    // Only waits for the client count, not the time that the engine takes.
    if (waiting) body.destroy(new PandoError('import-interrupted', `no bytes came for ${pauseMs} ms`));
  }, pauseMs);
  try {
    for (;;) {
      waiting = true;
      timer.refresh();
      signal.throwIfAborted();
      const next = await new Promise<IteratorResult<Buffer>>((resolve, reject) => {
        stop = reject;
        pieces.next().then(resolve, reject);
      });
      waiting = false;
      if (next.done === true) return;
      yield next.value;
    }
  } catch (error) {
    if (error instanceof PandoError) throw error;
    throw new PandoError('import-interrupted', `the upload broke off: ${(error as Error).message}`, {
      cause: error,
    });
  } finally {
    signal.removeEventListener('abort', onAbort);
    clearTimeout(timer);
  }
}

export interface ImportFileOptions {
  /** Absent: recognised. */
  readonly format: ImageFormat | undefined;
  /** Read without a sandbox. */
  readonly trustImages: boolean | undefined;
}

/**
 * Opens a file of the import directory, an image of any format. Links may lead around inside the directory, not out of it,
 * and so may the names of backing files that an image holds.
 * @throws `import-path-refused`, `import-not-a-file`, and what openImage throws
 */
export async function openImportFile(
  directory: string | undefined,
  path: string,
  { format, trustImages }: ImportFileOptions,
): Promise<DiskSource> {
  const { root, real } = await resolveImportPath(directory, path);
  // Checked again on the open file, if someone moved folders in between.
  return openImage(real, {
    within: root,
    backingWithin: root,
    ...(format === undefined ? {} : { format }),
    ...(trustImages === true ? { confinement: 'none' } : {}),
  });
}

/**
 * The path that the data directory `path` inside the import directory really has; undefined when it is no directory.
 * @throws `import-path-refused`, `import-not-a-file`
 */
export async function resolveStoreDirectory(
  directory: string | undefined,
  path: string,
): Promise<string | undefined> {
  const { root, real } = await resolveImportPath(directory, path);
  if (!(await stat(real)).isDirectory()) return undefined;
  const segments = await realpath(join(real, 'segments')).catch(() => real);
  if (!isInside(root, segments)) throw refused(path);
  return real;
}

async function resolveImportPath(
  directory: string | undefined,
  path: string,
): Promise<{ root: string; real: string }> {
  if (directory === undefined) {
    throw new PandoError('import-path-refused', 'this server was started without an import directory');
  }
  if (path.includes('\0')) throw new PandoError('import-path-refused', 'the path holds a zero byte');
  const root = await realpath(directory);
  const asked = path.startsWith(sep) ? path : join(root, path);
  let real: string;
  try {
    real = await realpath(asked);
  } catch (error) {
    // Outside the directory nobody learns what exists.
    if (!isInside(root, join(asked))) throw refused(path);
    throw new PandoError('import-not-a-file', `cannot open ${JSON.stringify(path)}`, { cause: error });
  }
  if (!isInside(root, real)) throw refused(path);
  return { root, real };
}

function isInside(root: string, path: string): boolean {
  return path.startsWith(root.endsWith(sep) ? root : root + sep);
}

function refused(path: string): PandoError {
  return new PandoError(
    'import-path-refused',
    `${JSON.stringify(path.slice(0, 200))} is not inside the import directory`,
  );
}
