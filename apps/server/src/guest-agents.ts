/**
 * Guest agents by the paths of their sockets. Whoever may ask for a backup says the path, so only sockets inside one directory are
 * connected to, with all links resolved.
 */
import { realpath, stat } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { resolve, sep } from 'node:path';
import type { Catalog } from '@pando/catalog';
import { PandoError, type Clock } from '@pando/common';
import type { OnEvent } from '@pando/events';
import { GuestAgent, Quiescer, type Quiesce } from '@pando/guest-agent';
import type { Logger } from 'pino';

const SCHEME = 'qemu-ga:';

export interface GuestAgents {
  /** Absent without a directory. */
  readonly quiesce?: Quiesce;
  close(): Promise<void>;
}

/** Thaws, in the background, what an earlier process left frozen, also without a directory. */
export async function openGuestAgents(options: {
  readonly directory: string | undefined;
  readonly catalog: Catalog;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly onEvent: OnEvent;
}): Promise<GuestAgents> {
  const { directory, catalog, clock, logger, onEvent } = options;
  /** Guests that could not be thawed, by their sockets, and how often. */
  const failures = new Map<string, number>();
  const quiescer = new Quiescer({
    catalog,
    clock,
    connect: async (path) => new GuestAgent(await connectTo(path), clock),
    onFrozen: (path, error) => {
      const before = failures.get(path) ?? 0;
      if (error === undefined) {
        logger.warn({ path }, 'a guest that was left frozen is thawed');
        failures.delete(path);
        if (before > 1)
          onEvent({ kind: 'guest-thawed', text: `The guest of ${path} is thawed, or gone.`, data: { path } });
        return;
      }
      logger.error({ path, err: error }, 'a guest could not be thawed; it is tried again');
      failures.set(path, before + 1);
      // The first time may have been an accident of the connection.
      if (before !== 1) return;
      const text = `The guest of ${path} was frozen for a backup and cannot be thawed, nothing in it can write: ${error.message}`;
      onEvent({ kind: 'guest-frozen', text, data: { path } });
    },
  });
  await quiescer.recover();
  const close = (): Promise<void> => quiescer.close();
  if (directory === undefined) return { close };
  return {
    close,
    quiesce: async ({ guest, vm, holdMs }, action, undo) =>
      quiescer.quiesced(await socketPath(directory, guest, vm), {
        ...(holdMs === undefined ? {} : { holdMs }),
        action,
        undo,
      }),
  };
}

/** @throws `guest-agent-refused`, `guest-agent-gone` when there is nothing of that name */
async function socketPath(directory: string, guest: string, vm: string): Promise<string> {
  if (!guest.startsWith(`${SCHEME}/`) || guest.includes('\0')) {
    throw new PandoError(
      'guest-agent-refused',
      `${JSON.stringify(guest.slice(0, 200))} is not ${SCHEME} and an absolute path`,
    );
  }
  // A name of a VM holds no slash and is not `..`, so it stays one part of the path.
  const asked = guest.slice(SCHEME.length).replaceAll('{vm}', () => vm);
  const real = await realpath(directory);
  const refuseOutside = (path: string, ...directories: readonly string[]): void => {
    if (directories.some((one) => path.startsWith(`${one}${sep}`))) return;
    throw new PandoError('guest-agent-refused', `${asked} is not inside the --guest-agent-dir`);
  };
  const path = await realpath(asked).catch((error: unknown) => {
    // Of what is elsewhere nobody gets to know whether it is there.
    refuseOutside(resolve(asked), resolve(directory), real);
    throw gone(asked, error);
  });
  refuseOutside(path, real);
  if (!(await stat(path)).isSocket()) throw new PandoError('guest-agent-refused', `${asked} is no socket`);
  return path;
}

function connectTo(path: string): Promise<Socket> {
  return new Promise((connected, reject) => {
    const socket = connect({ path });
    const fail = (error: NodeJS.ErrnoException): void => {
      reject(
        error.code === 'ENOENT' || error.code === 'ECONNREFUSED'
          ? gone(path, error)
          : new PandoError('guest-agent-failed', `cannot connect to ${path}: ${error.message}`, {
              cause: error,
            }),
      );
    };
    socket.once('error', fail);
    socket.once('connect', () => {
      socket.off('error', fail);
      connected(socket);
    });
  });
}

function gone(path: string, cause: unknown): PandoError {
  return new PandoError('guest-agent-gone', `nobody listens on ${path}`, { cause });
}
