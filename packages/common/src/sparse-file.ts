/** A raw disk image in a regular file, read in order with its holes left out. */
import { constants } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { dataRanges, type DataRanges } from './data-ranges.ts';
import { PandoError } from './errors.ts';
import type { DiskPart } from './sparse-stream.ts';

const PIECE_BYTES = 1024 * 1024;

/** Zeros that were read count as a hole from this length on: shorter ones are cheaper to hand on. */
const ZERO_BYTES = 64 * 1024;
const ZEROS = Buffer.alloc(ZERO_BYTES);

export interface SparseFile {
  readonly sizeBytes: number;
  /**
   * The file in order, in pieces of at most 1 MiB, each valid until the next part is asked for.
   * @throws `import-interrupted` when the file shrinks meanwhile
   */
  parts(signal?: AbortSignal): AsyncGenerator<DiskPart, void, undefined>;
  /** Path of the open file as the system sees it now, where it can tell (Linux). */
  readonly handle: FileHandle;
  close(): Promise<void>;
}

/**
 * Opens a file for import. Never blocks on a pipe, never opens a device.
 * @throws `import-not-a-file` for anything but a regular file that can be read
 */
export async function openSparseFile(path: string): Promise<SparseFile> {
  let handle: FileHandle;
  try {
    handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    throw new PandoError('import-not-a-file', `cannot open ${path}: ${(error as Error).message}`, {
      cause: error,
    });
  }
  try {
    const stat = await handle.stat();
    if (!stat.isFile()) throw new PandoError('import-not-a-file', `${path} is not a regular file`);
    const sizeBytes = stat.size;
    // Fewer blocks than bytes is only the hint that a map may be worth asking for.
    const ranges = stat.blocks * 512 < sizeBytes ? await dataRanges(handle.fd, sizeBytes) : undefined;
    return {
      sizeBytes,
      handle,
      parts: (signal) => readParts(handle, sizeBytes, ranges ?? [[0, sizeBytes]], signal),
      close: () => handle.close(),
    };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function* readParts(
  handle: FileHandle,
  sizeBytes: number,
  ranges: DataRanges,
  signal: AbortSignal | undefined,
): AsyncGenerator<DiskPart, void, undefined> {
  // One is read while the other one is with whoever asked for it.
  const buffers = [Buffer.allocUnsafeSlow(PIECE_BYTES), Buffer.allocUnsafeSlow(PIECE_BYTES)] as const;
  let turn = 0;
  let at = 0;
  for (const [start, end] of ranges) {
    if (start > at) yield { holeBytes: start - at };
    at = start;
    let ahead = readAhead(at, end);
    try {
      while (at < end) {
        signal?.throwIfAborted();
        const piece = await ahead;
        if (piece.byteLength === 0)
          throw new PandoError('import-interrupted', `the file ended at byte ${at} of ${sizeBytes}`);
        at += piece.byteLength;
        ahead = readAhead(at, end);
        yield* splitZeros(piece);
      }
    } finally {
      await ahead.catch(() => undefined); // nothing reads from a file that may be closed now
    }
  }
  if (at < sizeBytes) yield { holeBytes: sizeBytes - at };

  function readAhead(from: number, end: number): Promise<Buffer> {
    const read = readPiece(from, end);
    read.catch(() => undefined); // reported when it is its turn
    return read;
  }

  async function readPiece(from: number, end: number): Promise<Buffer> {
    const buffer = buffers[turn++ % 2]!;
    const wanted = Math.min(PIECE_BYTES, end - from);
    if (wanted <= 0) return buffer.subarray(0, 0);
    const { bytesRead } = await handle.read(buffer, 0, wanted, from);
    return buffer.subarray(0, bytesRead);
  }
}

/** Cuts a piece at whole blocks of zeros. Also useful for streams that know no holes. */
export function* splitZeros(piece: Uint8Array): Generator<DiskPart, void, undefined> {
  let dataFrom = 0;
  let at = 0;
  while (at < piece.byteLength) {
    let zeroEnd = at;
    while (zeroEnd < piece.byteLength && isZero(piece.subarray(zeroEnd, zeroEnd + ZERO_BYTES))) {
      zeroEnd = Math.min(zeroEnd + ZERO_BYTES, piece.byteLength);
    }
    if (zeroEnd === at) {
      at += ZERO_BYTES;
      continue;
    }
    if (at > dataFrom) yield piece.subarray(dataFrom, at);
    yield { holeBytes: zeroEnd - at };
    at = zeroEnd;
    dataFrom = at;
  }
  if (dataFrom < piece.byteLength) yield piece.subarray(dataFrom);
}

function isZero(bytes: Uint8Array): boolean {
  return ZEROS.compare(bytes, 0, bytes.byteLength, 0, bytes.byteLength) === 0;
}
