/** Bytes between this process and its disks, as the kernel counts them. */
import { readFile } from 'node:fs/promises';

export interface ProcessIo {
  readonly readBytes: number;
  /** Counted when a page becomes dirty: a page that is written twice before it goes out counts once. */
  readonly writtenBytes: number;
  /** Of those, what never went out because its file was removed or cut before. */
  readonly cancelledBytes: number;
}

/** Undefined where there is no Linux to tell, or it does not. */
export async function readProcessIo(path = '/proc/self/io'): Promise<ProcessIo | undefined> {
  const text = await readFile(path, 'utf8').catch(() => '');
  const fields = new Map(
    text.split('\n').map((line) => {
      const [name = '', value] = line.split(': ');
      return [name, Number(value)];
    }),
  );
  const readBytes = fields.get('read_bytes');
  const writtenBytes = fields.get('write_bytes');
  const cancelledBytes = fields.get('cancelled_write_bytes');
  if (readBytes === undefined || writtenBytes === undefined || cancelledBytes === undefined) return undefined;
  return { readBytes, writtenBytes, cancelledBytes };
}
