/** Whether a log can be opened at all, told without touching it. */
import { join } from 'node:path';
import type { FileSystem } from '@pando/common';
import { decodeFileHeader, FILE_HEADER_BYTES } from './format.ts';

/** Reads the headers of a log that is not open; what cannot be read says nothing. @throws `store-newer` */
export async function refuseNewerLog(fs: FileSystem, directory: string): Promise<void> {
  const names = await fs.list(directory).catch(() => []);
  for (const name of names.filter((each) => each.endsWith('.log'))) {
    const header = Buffer.alloc(FILE_HEADER_BYTES);
    const file = await fs.open(join(directory, name), 'read').catch(() => undefined);
    if (file === undefined) continue;
    try {
      const length = await file.read(header, 0).catch(() => 0);
      decodeFileHeader(header.subarray(0, length));
    } finally {
      await file.close();
    }
  }
}
