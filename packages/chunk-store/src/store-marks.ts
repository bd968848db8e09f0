/**
 * The named values that the store keeps beside the index, and their bytes.
 *
 * `checkpoint`: every segment below the first number is in the index; the second number is the next
 * segment's, so that a number is never used twice even when the newest segment is gone.
 * `suspects`: segments that may hold copies which the index does not name.
 * `removing`: segments whose removal has begun; opening the store finishes it.
 */
import type { ChunkIndex } from './types.ts';

const NUMBER_BYTES = 6;

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
  const bytes = Buffer.alloc(numbers.length * NUMBER_BYTES);
  numbers.forEach((number, i) => bytes.writeUIntLE(number, i * NUMBER_BYTES, NUMBER_BYTES));
  await index.setMark(name, bytes);
}

export async function readNumbers(index: ChunkIndex, name: string): Promise<number[]> {
  const mark = await index.getMark(name);
  if (mark === undefined) return [];
  const bytes = Buffer.from(mark);
  const numbers: number[] = [];
  for (let at = 0; at + NUMBER_BYTES <= bytes.byteLength; at += NUMBER_BYTES) {
    numbers.push(bytes.readUIntLE(at, NUMBER_BYTES));
  }
  return numbers;
}
