/** What servers that listen on Unix sockets share: permissions from the first moment, and files that a killed server has left. */
import { lstat } from 'node:fs/promises';
import { connect } from 'node:net';

/** Runs what makes a file, so that the file never has wider permissions than it ends with. */
export function withMode(mode: number, make: () => void): void {
  const before = process.umask(0o777 & ~mode);
  try {
    make();
  } finally {
    process.umask(before);
  }
}

/** Whether listening failed on a socket file that no process listens on: what kill -9 leaves behind. */
export async function isDeadSocket(path: string, error: unknown): Promise<boolean> {
  if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') return false;
  // Connecting to a regular file is refused as well, and that file is someone's.
  if (!(await lstat(path)).isSocket()) return false;
  return new Promise((resolve) => {
    const probe = connect({ path });
    probe.once('connect', () => {
      probe.destroy();
      resolve(false);
    });
    probe.once('error', (reason: NodeJS.ErrnoException) => resolve(reason.code === 'ECONNREFUSED'));
  });
}
