/**
 * LevelDB's tables (doc/table_format.md): blocks, each with its compression and a CRC behind it; an index block that says
 * where they are; at the end a footer that says where that is.
 */
import { maskedCrc32c } from './crc32c.ts';
import { LevelReader } from './varint.ts';

const FOOTER_BYTES = 48;
const MAGIC = Buffer.from('57fb808b247547db', 'hex');
const TRAILER_BYTES = 5;
const SNAPPY = 1;

interface Handle {
  readonly offset: number;
  readonly size: number;
}

/** Calls `report` for each block that is not as it was written, or once when it cannot be told where the blocks are. */
export function checkTable(bytes: Buffer, report: (offset: number, problem: string) => void): void {
  const footer = bytes.length - FOOTER_BYTES;
  if (footer < 0 || !bytes.subarray(-MAGIC.length).equals(MAGIC)) {
    report(Math.max(0, footer), 'the footer of the table is damaged');
    return;
  }
  const reader = new LevelReader(bytes.subarray(footer, bytes.length - MAGIC.length));
  const metaIndex = readHandle(reader);
  const index = readHandle(reader);
  const padding = bytes.subarray(footer + reader.at, bytes.length - MAGIC.length);
  // Index, trailer and footer end the file: so a handle that was hit is found, whatever it says now.
  if (
    reader.failed ||
    index.offset + index.size + TRAILER_BYTES !== footer ||
    padding.some((byte) => byte !== 0)
  ) {
    report(footer, 'the footer of the table is damaged');
    return;
  }
  for (const each of [index, metaIndex]) {
    if (isWhole(bytes, each)) continue;
    report(each.offset, 'an index block of the table is damaged');
    return;
  }
  const handles = [...handlesIn(contentOf(bytes, metaIndex)), ...handlesIn(contentOf(bytes, index))];
  for (const handle of handles) {
    if (!isWhole(bytes, handle)) report(handle.offset, 'the checksum of a block does not match');
  }
}

function readHandle(reader: LevelReader): Handle {
  return { offset: reader.varint(), size: reader.varint() };
}

function isWhole(bytes: Buffer, { offset, size }: Handle): boolean {
  const end = offset + size + 1;
  return end + 4 <= bytes.length && maskedCrc32c(bytes, offset, end) === bytes.readUInt32LE(end);
}

function contentOf(bytes: Buffer, { offset, size }: Handle): Buffer {
  const stored = bytes.subarray(offset, offset + size);
  return bytes[offset + size] === SNAPPY ? unsnap(stored) : stored;
}

/** The handles that are the values of an index block, whose CRC is right. */
function handlesIn(block: Buffer): Handle[] {
  const restarts = block.readUInt32LE(block.length - 4);
  const entries = new LevelReader(block.subarray(0, block.length - 4 - 4 * restarts));
  const handles: Handle[] = [];
  while (!entries.done) {
    entries.varint(); // bytes that the key shares with the one before
    const own = entries.varint();
    const valueBytes = entries.varint();
    entries.take(own);
    handles.push(readHandle(new LevelReader(entries.take(valueBytes))));
  }
  return handles;
}

/** Snappy (format_description.txt), of bytes whose CRC is right. */
function unsnap(stored: Buffer): Buffer {
  const reader = new LevelReader(stored);
  const target = Buffer.alloc(reader.varint());
  let to = 0;
  while (!reader.done) {
    const tag = reader.take(1)[0]!;
    const kind = tag & 3;
    if (kind === 0) {
      const more = (tag >> 2) - 59;
      const length = more <= 0 ? (tag >> 2) + 1 : reader.take(more).readUIntLE(0, more) + 1;
      to += reader.take(length).copy(target, to);
      continue;
    }
    const length = kind === 1 ? ((tag >> 2) & 7) + 4 : (tag >> 2) + 1;
    const back =
      kind === 1
        ? ((tag >> 5) << 8) | reader.take(1)[0]!
        : kind === 2
          ? reader.take(2).readUInt16LE(0)
          : reader.take(4).readUInt32LE(0);
    for (const end = to + length; to < end; to++) target[to] = target[to - back]!;
  }
  return target;
}
