/**
 * The named values that the store keeps beside the index, and their bytes.
 *
 * `checkpoint`: every segment below the first number is in the index; the second number is the next
 * segment's, so that a number is never used twice even when the newest segment is gone.
 * `suspects`: segments that may hold copies which the index does not name.
 * `removing`: segments whose removal has begun; opening the store finishes it.
 *
 * Each is a list of numbers with a CRC behind it, because LevelDB does not verify what it reads. One that is damaged is a
 * reason to make the index anew, which needs none of them.
 */
import { crc32 } from 'node:zlib';
import { PandoError } from '@pando/common';
import type { ChunkIndex } from './types.ts';

const NUMBER_BYTES = 6;
const CRC_BYTES = 4;

export interface Checkpoint {
  readonly completeBelow: number;
  readonly next: number;
}

export async function readCheckpoint(index: ChunkIndex): Promise<Checkpoint> {
  const [completeBelow = 1, next = 1] = await readNumbers(index, 'checkpoint');
  return { completeBelow, next };
}

export function writeCheckpoint(index: ChunkIndex, checkpoint: Checkpoint): Promise<void> {
  return writeNumbers(index, 'checkpoint', [checkpoint.completeBelow, checkpoint.next]);
}

/** A set of segment numbers under a name. Durable when it resolves, as is every index write before it. */
export async function writeNumbers(
  index: ChunkIndex,
  name: string,
  numbers: readonly number[],
): Promise<void> {
  const end = numbers.length * NUMBER_BYTES;
  const bytes = Buffer.alloc(end + CRC_BYTES);
  numbers.forEach((number, i) => bytes.writeUIntLE(number, i * NUMBER_BYTES, NUMBER_BYTES));
  bytes.writeUInt32LE(crc32(bytes.subarray(0, end)), end);
  await index.setMark(name, bytes);
}

/** @throws `index-corrupt` */
export async function readNumbers(index: ChunkIndex, name: string): Promise<number[]> {
  const mark = await index.getMark(name);
  if (mark === undefined) return [];
  const bytes = Buffer.from(mark);
  const rest = bytes.byteLength % NUMBER_BYTES;
  const end = bytes.byteLength - rest;
  // Without a rest it is from before there was a CRC.
  const isWhole =
    rest === 0 || (rest === CRC_BYTES && crc32(bytes.subarray(0, end)) === bytes.readUInt32LE(end));
  if (!isWhole) throw new PandoError('index-corrupt', `the index is damaged: its list of ${name} is wrong`);
  const numbers: number[] = [];
  for (let at = 0; at < end; at += NUMBER_BYTES) {
    numbers.push(bytes.readUIntLE(at, NUMBER_BYTES));
  }
  return numbers;
}
