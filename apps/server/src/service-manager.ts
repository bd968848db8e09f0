/**
 * Tells systemd that the server is up, sd_notify(3), so that what is ordered after it finds it: through systemd's own command, because Node
 * has no datagrams over Unix sockets.
 */
import { execFile } from 'node:child_process';
import type { Logger } from 'pino';

const NOTIFY_MS_MAX = 10_000;

/** Does nothing where no service manager asked for it. Resolves when it was told, or could not be. */
export function tellServiceManager(message: 'READY=1' | 'STOPPING=1', logger: Logger): Promise<void> {
  if ((process.env['NOTIFY_SOCKET'] ?? '') === '') return Promise.resolve();
  return new Promise((resolve) => {
    execFile('systemd-notify', [message], { timeout: NOTIFY_MS_MAX }, (error) => {
      if (error !== null) logger.error({ err: error }, `systemd was not told ${message}`);
      resolve();
    });
  });
}
