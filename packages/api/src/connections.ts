/**
 * What one client may take of the connections of a server: some of them from one address, and none for good by not reading what it is sent. Of that
 * a part waits in memory, and a download holds a disk, which then counts as having a client.
 *
 * Node has deadlines for requests that do not come, and none for answers that are not taken. What is taken is seen by what the socket has
 * written less what it still holds; a write counts once the system has all of it.
 */
import { normalizeIP } from '@fastify/rate-limit';
import type { Clock } from '@pando/common';
import type { FastifyBaseLogger } from 'fastify';
import type { Server, Socket } from 'node:net';
import { Server as TlsServer } from 'node:tls';

export interface ConnectionLimits {
  /** From one address at the same time, of IPv6 from one network of 64 bits; 0: as many as there may be. */
  readonly connectionsOfAddress: number;
  /** How long a client may take nothing of what waits for it. */
  readonly readerPauseMs: number;
}

/** So often within a pause it is looked whether something was taken. */
const LOOKS = 8;

/** Holds the connections of a server to the limits, until it is closed. To be called before it listens. */
export function boundConnections(
  server: Server,
  { connectionsOfAddress, readerPauseMs }: ConnectionLimits,
  { clock, log }: { readonly clock: Clock; readonly log: Pick<FastifyBaseLogger, 'warn'> },
): void {
  const counts = new Map<string, number>();
  server.on('connection', (socket: Socket) => {
    // A Unix socket has none: who may open it, the file system says.
    if (socket.remoteAddress === undefined || connectionsOfAddress === 0) return;
    const address = normalizeIP(socket.remoteAddress);
    const count = counts.get(address) ?? 0;
    if (count >= connectionsOfAddress) {
      socket.destroy();
      return;
    }
    counts.set(address, count + 1);
    socket.once('close', () => {
      const left = counts.get(address)! - 1;
      if (left === 0) counts.delete(address);
      else counts.set(address, left);
    });
  });

  /** What each has taken, and when that was seen first. */
  const readers = new Map<Socket, { taken: number; at: number }>();
  server.on(server instanceof TlsServer ? 'secureConnection' : 'connection', (socket: Socket) => {
    readers.set(socket, { taken: 0, at: clock.monotonic() });
    socket.once('close', () => readers.delete(socket));
  });
  const timer = setInterval(() => {
    const now = clock.monotonic();
    for (const [socket, reader] of readers) {
      const taken = socket.bytesWritten - socket.writableLength;
      if (taken !== reader.taken || socket.writableLength === 0) Object.assign(reader, { taken, at: now });
      else if (now - reader.at >= readerPauseMs) {
        log.warn({ from: socket.remoteAddress }, 'a client that took nothing of what it is sent was cut off');
        socket.destroy();
      }
    }
  }, readerPauseMs / LOOKS);
  timer.unref();
  server.once('close', () => clearInterval(timer));
}
