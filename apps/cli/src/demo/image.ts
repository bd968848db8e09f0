/** A disk to play with: an ext4 file system with files in it, or, where mke2fs is missing, just the files. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const DISK_BYTES = 256 * 1024 * 1024;
const FOLDERS = 12;
const FILES_A_FOLDER = 16;

/** Where Debian keeps it is not on everyone's PATH. */
const PATH = `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`;

/** Writes the image and tells what is in it. */
export async function makeImage(folder: string, image: string): Promise<string> {
  const tree = join(folder, 'tree');
  const bytes = await makeFiles(tree);
  const file = await open(image, 'w');
  await file.truncate(DISK_BYTES);
  await file.close();
  const files = `${FOLDERS * FILES_A_FOLDER} files, ${Math.round(bytes / 1024 / 1024)} MiB`;
  try {
    await promisify(execFile)('mke2fs', ['-q', '-F', '-t', 'ext4', '-L', 'demo', '-d', tree, image], {
      env: { ...process.env, PATH },
    });
    return `ext4 with ${files}`;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    await concatenate(image);
    return `no file system, as mke2fs is not installed: ${files} one after another`;
  }
}

/** A disk of bytes that nobody else has and that do not compress. */
export async function makeNoise(path: string, bytes: number): Promise<void> {
  await writeFile(path, noise('a disk of its own', bytes));
}

/** Files as an installation has them: most compress, some do not, some are equal. The same every time. */
async function makeFiles(tree: string): Promise<number> {
  let bytes = 0;
  for (let folder = 0; folder < FOLDERS; folder++) {
    await mkdir(join(tree, `folder-${folder}`), { recursive: true });
    for (let index = 0; index < FILES_A_FOLDER; index++) {
      const content = contentOf(folder, index);
      bytes += content.byteLength;
      await writeFile(join(tree, `folder-${folder}`, `file-${index}`), content);
    }
  }
  return bytes;
}

function contentOf(folder: number, index: number): Buffer {
  const size = 1000 + ((folder * 37 + index * 101) % 64) * 4096;
  // The last quarter of each folder is the same everywhere: documentation, licenses, and their like.
  const seed = index >= (FILES_A_FOLDER * 3) / 4 ? `shared ${index}` : `${folder}/${index}`;
  if (index % 4 === 3) return noise(seed, size);
  const lines: string[] = [];
  for (let length = 0, line = 0; length < size; line++) {
    const text = `${line}: ${createHash('sha256')
      .update(`${seed} ${line % 50}`)
      .digest('hex')} is what ${seed} says here\n`;
    lines.push(text);
    length += text.length;
  }
  return Buffer.from(lines.join('')).subarray(0, size);
}

function noise(seed: string, size: number): Buffer {
  return createHash('shake256', { outputLength: size }).update(seed).digest();
}

async function concatenate(image: string): Promise<void> {
  const file = await open(image, 'r+');
  try {
    let position = 1024 * 1024;
    for (let folder = 0; folder < FOLDERS; folder++) {
      for (let index = 0; index < FILES_A_FOLDER; index++) {
        const content = contentOf(folder, index);
        await file.write(content, 0, content.byteLength, position);
        position += Math.ceil(content.byteLength / 4096) * 4096;
      }
    }
  } finally {
    await file.close();
  }
}
