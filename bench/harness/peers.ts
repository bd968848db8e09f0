/** NBD servers that users would run instead, each on a Unix socket, and the files that they serve. */
import { join } from 'node:path';
import type { Bench } from './bench.ts';
import { run, serve } from './processes.ts';
import type { Running } from './processes.ts';

export interface NbdPeer {
  readonly uri: string;
  readonly process: Running;
}

/** How qemu-nbd asks the kernel. */
export type QemuAio = 'io_uring' | 'threads';

export interface QemuOptions {
  readonly aio?: QemuAio | undefined;
  readonly format?: 'qcow2' | 'raw';
  /** What comes of TRIM; nothing unless told, as with qemu-nbd itself. */
  readonly discard?: 'ignore' | 'unmap';
}

let sockets = 0;
let hasIoUring = true;

/**
 * qemu-nbd on a qcow2 file, or a raw one, writes into the page cache as with Pando. With io_uring, unless told or where it is not to be
 * had: what it does by itself, threads, made half as many random reads on two cores and nothing faster.
 */
export async function qemuNbd(
  bench: Bench,
  folder: string,
  file: string,
  options: QemuOptions = {},
): Promise<NbdPeer> {
  const { aio = hasIoUring ? 'io_uring' : 'threads', format = 'qcow2', discard = 'ignore' } = options;
  const socket = join(folder, `qemu-${++sockets}.sock`);
  const args = [
    ...[`--format=${format}`, '--cache=writeback', `--aio=${aio}`, `--discard=${discard}`],
    ...['--persistent', `--socket=${socket}`, file],
  ];
  try {
    const process = await serve('qemu-nbd', args, { socket, prefix: bench.pin.prefix });
    return { uri: uriOf(socket), process };
  } catch (error) {
    // Neither every build has it nor every kernel, and containers may forbid it.
    if (aio !== 'io_uring' || !/io_uring|Operation not permitted/.test((error as Error).message)) throw error;
    hasIoUring = false;
    bench.say('  no io_uring here: qemu-nbd works with threads');
    return qemuNbd(bench, folder, file, { ...options, aio: 'threads' });
  }
}

/** nbdkit's memory plugin, holding what is in `raw`. */
export async function nbdkitMemory(
  bench: Bench,
  folder: string,
  raw: string,
  bytes: number,
): Promise<NbdPeer> {
  const socket = join(folder, `nbdkit-${++sockets}.sock`);
  const process = await serve('nbdkit', ['--foreground', `--unix=${socket}`, 'memory', String(bytes)], {
    socket,
    prefix: bench.pin.prefix,
  });
  try {
    await run('qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', raw, uriOf(socket)]);
    return { uri: uriOf(socket), process };
  } catch (error) {
    await process.stop();
    throw error;
  }
}

/** A qcow2 file with every block of `raw` allocated and as it is. */
export async function qcow2Of(raw: string, target: string): Promise<void> {
  await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', '-S', '0', raw, target]);
}

/** A qcow2 file of what is in `raw`, its holes left out. */
export async function sparseQcow2Of(raw: string, target: string): Promise<void> {
  await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, target]);
}

/** A qcow2 file with every cluster compressed, as `qemu-img convert -c` makes it. */
export async function compressedQcow2Of(raw: string, target: string): Promise<void> {
  await run('qemu-img', ['convert', '-c', '-f', 'raw', '-O', 'qcow2', raw, target]);
}

/** A qcow2 file with nothing in it. */
export async function thinQcow2(bytes: number, target: string): Promise<void> {
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', target, String(bytes)]);
}

/** A qcow2 file of zeros with every cluster allocated and written. */
export async function allocatedQcow2(bytes: number, target: string): Promise<void> {
  const options = ['-o', 'preallocation=full'];
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', ...options, target, String(bytes)]);
}

/** An empty qcow2 file in front of another one, which nobody may change from then on. */
export async function linkedQcow2(backing: string, target: string): Promise<void> {
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', backing, target]);
}

function uriOf(socket: string): string {
  return `nbd+unix:///?socket=${encodeURIComponent(socket)}`;
}
