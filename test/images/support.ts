/** Images that tests make, and what they read of them. */
import type { DiskPart } from '@pando/common';
import { fillRandom, seededRandom } from '@pando/common/testing';
import { openImage, type DiskSource, type OpenImageOptions } from '@pando/images';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, readFile } from 'node:fs/promises';

export const MiB = 2 ** 20;

const NEVER = new AbortController().signal;

/** A sparse raw file: pieces of random data, of one byte repeated, of zeros that are written, and holes. */
export async function writeSample(path: string, bytes: number, seed: number): Promise<void> {
  const random = seededRandom(seed);
  const file = await open(path, 'wx');
  try {
    await file.truncate(bytes);
    for (let at = 0; at < bytes;) {
      const length = Math.min(bytes - at, 512 * (1 + Math.floor(random() * 2000)));
      const kind = random();
      if (kind < 0.5) {
        const data = Buffer.alloc(length, Math.floor(random() * 256));
        if (kind < 0.2) fillRandom(random, data);
        if (kind > 0.4) data.fill(0);
        await file.write(data, 0, length, at);
      }
      at += length * (kind > 0.9 ? 4 : 1);
    }
  } finally {
    await file.close();
  }
}

export interface ReadBack {
  readonly format: DiskSource['format'];
  readonly sizeBytes: number;
  readonly holeBytes: number;
  readonly sha256: string;
}

const ZEROS = Buffer.alloc(MiB);

/** All of a source, with its rules checked on the way: neighbouring holes joined, nothing empty, the right length. */
export async function readParts(
  parts: AsyncIterable<DiskPart>,
): Promise<{ bytes: number; holeBytes: number; sha256: string }> {
  const hash = createHash('sha256');
  let holeBytes = 0;
  let bytes = 0;
  let afterHole = false;
  for await (const part of parts) {
    const hole = !(part instanceof Uint8Array);
    const length = hole ? part.holeBytes : part.byteLength;
    if (length <= 0) throw new Error('a part of no bytes');
    if (hole && afterHole) throw new Error('two holes in a row');
    afterHole = hole;
    bytes += length;
    if (!hole) hash.update(part);
    else {
      holeBytes += length;
      for (let left = length; left > 0; left -= MiB) hash.update(ZEROS.subarray(0, Math.min(left, MiB)));
    }
  }
  return { bytes, holeBytes, sha256: hash.digest('hex') };
}

export async function readImage(path: string, options: OpenImageOptions = {}): Promise<ReadBack> {
  const source = await openImage(path, options);
  try {
    const { bytes, ...read } = await readParts(source.parts(NEVER));
    if (bytes !== source.sizeBytes) throw new Error(`${bytes} of ${source.sizeBytes} bytes came`);
    return { format: source.format, sizeBytes: source.sizeBytes, ...read };
  } finally {
    await source.close();
  }
}

export async function sha256OfFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const piece of createReadStream(path)) hash.update(piece as Buffer);
  return hash.digest('hex');
}

/** The process of that name at the end of a line of only children. */
export async function descendant(pid: string, name: string): Promise<string> {
  const found: string[] = [];
  for (let at = pid; at !== ''; at = (await readFile(`/proc/${at}/task/${at}/children`, 'utf8')).trim()) {
    const command = (await readFile(`/proc/${at}/comm`, 'utf8')).trim();
    if (command === name) return at;
    found.push(command);
  }
  throw new Error(`no ${name} among ${found.join(', ')}`);
}
