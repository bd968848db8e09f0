/**
 * `application/vnd.pando.sparse`: a disk as a stream in which holes cost nothing.
 *
 *     stream := frame* end
 *     frame  := offset length data      u64, u32 (1 … FRAME_BYTES_MAX), then `length` bytes
 *     end    := size 0                  u64, u32
 *
 * Numbers are big-endian. Frames ascend and do not overlap; what lies between them is zeros. The end frame
 * carries the size of the disk, so a stream that was cut is recognised, and nothing may follow it.
 *
 * `application/vnd.pando.sparse-ids` has frames of one more kind, for chunks that the reader is known to have:
 *
 *     frame  := offset count ids        u64, u32 (2^31 + 1 … 2^31 + IDS_FRAME_MAX), then a 32-byte id for each
 *
 * They stand for whole chunks, the first of which begins at `offset`; zeros are a chunk of zeros.
 */
import { PandoError } from './errors.ts';
import { ID_BYTES } from './ids.ts';

export const SPARSE_MEDIA_TYPE = 'application/vnd.pando.sparse';
export const SPARSE_IDS_MEDIA_TYPE = 'application/vnd.pando.sparse-ids';

/** Name of the stream where it takes a connection over from HTTP. */
export const SPARSE_PROTOCOL = 'pando-sparse';

export const FRAME_HEADER_BYTES = 12;

/** Most data in one frame: a reader may want to hold a frame in memory. */
export const FRAME_BYTES_MAX = 1024 * 1024;

/** Most ids in one frame. */
export const IDS_FRAME_MAX = 4096;

/** Added to how many ids a frame has. */
const IDS_FLAG = 2 ** 31;

/** A piece of a disk, in order: bytes, or so many zeros. */
export type DiskPart = Uint8Array | { readonly holeBytes: number };

/** The header of a frame of so many bytes of data; of none, that of the end. */
export function frameHeader(offset: number, length: number): Uint8Array {
  const bytes = Buffer.allocUnsafe(FRAME_HEADER_BYTES);
  writeFrameHeader(bytes, 0, offset, length);
  return bytes;
}

/** The same into a buffer. */
export function writeFrameHeader(target: Buffer, at: number, offset: number, length: number): void {
  target.writeBigUInt64BE(BigInt(offset), at);
  target.writeUInt32BE(length, at + 8);
}

/** The header of a frame of so many ids. */
export function idsFrameHeader(offset: number, count: number): Uint8Array {
  return frameHeader(offset, IDS_FLAG + count);
}

/** Turns parts into the stream. The parts' buffers are handed on, not copied. */
export async function* encodeSparse(
  parts: AsyncIterable<DiskPart>,
): AsyncGenerator<Uint8Array, void, undefined> {
  let offset = 0;
  for await (const part of parts) {
    if (!(part instanceof Uint8Array)) {
      offset += part.holeBytes;
      continue;
    }
    for (let at = 0; at < part.byteLength; at += FRAME_BYTES_MAX) {
      const data = part.subarray(at, at + FRAME_BYTES_MAX);
      yield frameHeader(offset, data.byteLength);
      yield data;
      offset += data.byteLength;
    }
  }
  yield frameHeader(offset, 0);
}

/**
 * Turns the stream back into parts as they arrive: data as views of the incoming buffers, so nothing is gathered.
 * @throws PandoError `stream-invalid` for a stream against the rules, `import-interrupted` for one without an end
 */
export function decodeSparse(stream: AsyncIterable<Uint8Array>): AsyncGenerator<DiskPart, void, undefined> {
  // Without a size of chunks there are no ids in it.
  return decode(stream, undefined) as AsyncGenerator<DiskPart, void, undefined>;
}

/**
 * As decodeSparse, for a stream that may have frames of ids, of chunks of that size. Ids come gathered, a whole frame at a time, in a
 * buffer that is used again for the next one.
 */
export function decodeSparseIds(
  stream: AsyncIterable<Uint8Array>,
  chunkBytes: number,
): AsyncGenerator<DiskPart | { readonly ids: Uint8Array }, void, undefined> {
  return decode(stream, chunkBytes);
}

async function* decode(
  stream: AsyncIterable<Uint8Array>,
  chunkBytes: number | undefined,
): AsyncGenerator<DiskPart | { readonly ids: Uint8Array }, void, undefined> {
  let ids = new Uint8Array();
  let idsBytes = 0;
  let idsLeft = 0;
  const head = Buffer.alloc(FRAME_HEADER_BYTES);
  let headBytes = 0;
  let dataLeft = 0;
  let position = 0;
  let ended = false;
  for await (const input of stream) {
    let at = 0;
    while (at < input.byteLength) {
      if (ended) throw new PandoError('stream-invalid', 'the stream goes on after its end frame');
      if (dataLeft > 0) {
        const data = input.subarray(at, at + dataLeft);
        at += data.byteLength;
        dataLeft -= data.byteLength;
        position += data.byteLength;
        yield data;
        continue;
      }
      if (idsLeft > 0) {
        const part = input.subarray(at, at + idsLeft);
        ids.set(part, idsBytes - idsLeft);
        at += part.byteLength;
        idsLeft -= part.byteLength;
        if (idsLeft > 0) continue;
        position += (idsBytes / ID_BYTES) * chunkBytes!;
        yield { ids: ids.subarray(0, idsBytes) };
        continue;
      }
      const taken = Math.min(FRAME_HEADER_BYTES - headBytes, input.byteLength - at);
      head.set(input.subarray(at, at + taken), headBytes);
      at += taken;
      headBytes += taken;
      if (headBytes < FRAME_HEADER_BYTES) continue;
      headBytes = 0;
      const offset = Number(head.readBigUInt64BE(0));
      const length = head.readUInt32BE(8);
      const count = chunkBytes === undefined ? 0 : length - IDS_FLAG;
      const isIds = count >= 1 && count <= IDS_FRAME_MAX;
      if (!Number.isSafeInteger(offset) || offset < position || (!isIds && length > FRAME_BYTES_MAX)) {
        throw new PandoError(
          'stream-invalid',
          `a frame of ${length} bytes at ${offset} cannot follow byte ${position}`,
        );
      }
      if (offset > position) yield { holeBytes: offset - position };
      position = offset;
      if (isIds) {
        idsBytes = idsLeft = count * ID_BYTES;
        if (ids.byteLength < idsBytes) ids = new Uint8Array(idsBytes);
        continue;
      }
      dataLeft = length;
      ended = length === 0;
    }
  }
  if (!ended)
    throw new PandoError('import-interrupted', `the stream ended at byte ${position} without an end frame`);
}
