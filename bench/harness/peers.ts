/** NBD servers that users would run instead, each on a Unix socket. */
import { join } from 'node:path';
import type { Bench } from './bench.ts';
import { run, serve } from './processes.ts';
import type { Running } from './processes.ts';

export interface NbdPeer {
  readonly uri: string;
  readonly process: Running;
}

let sockets = 0;

/** qemu-nbd on a qcow2 file, writes into the page cache as with Pando. */
export async function qemuNbd(bench: Bench, folder: string, file: string): Promise<NbdPeer> {
  const socket = join(folder, `qemu-${++sockets}.sock`);
  const args = ['--format=qcow2', '--cache=writeback', '--persistent', `--socket=${socket}`, file];
  return { uri: uriOf(socket), process: await serve('qemu-nbd', args, { socket, prefix: bench.pin.prefix }) };
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

function uriOf(socket: string): string {
  return `nbd+unix:///?socket=${encodeURIComponent(socket)}`;
}
