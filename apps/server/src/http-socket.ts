/**
 * REST on a Unix socket: whoever may open the file may do everything, without a token. Who that is, the file's permissions say, and
 * those of the folders above it.
 */
import { unlink } from 'node:fs/promises';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { Socket } from 'node:net';
import { boundConnections, DEFAULT_LIMITS, type App } from '@pando/api';
import { isDeadSocket, withMode, type Clock } from '@pando/common';

export class HttpSocket {
  readonly #connections = new WeakSet<Socket>();
  readonly #clock: Clock;
  #server: Server | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Whether a request came through it. */
  readonly isTrusted = (socket: Socket): boolean => this.#connections.has(socket);

  /** Serves the application there, as its own server does. It must be ready. @throws the system's errors */
  async listen(app: App, path: string, mode: number): Promise<void> {
    const { headersTimeout, maxConnections, keepAliveTimeout, requestTimeout, timeout } = app.server;
    const answer: RequestListener = (request, response) => app.routing(request, response);
    const server = createServer({ headersTimeout, keepAliveTimeout, requestTimeout }, answer);
    server.maxConnections = maxConnections;
    server.timeout = timeout;
    boundConnections(server, DEFAULT_LIMITS, { clock: this.#clock, log: app.log });
    server.on('connection', (socket) => this.#connections.add(socket));
    server.on('checkContinue', answer);
    for (const listener of app.server.listeners('clientError')) {
      server.on('clientError', listener as (error: Error, socket: unknown) => void);
    }
    this.#server = server;
    const bind = (): Promise<void> =>
      new Promise((resolve, reject) => {
        server.once('error', reject);
        withMode(mode, () => {
          server.listen({ path }, () => {
            server.off('error', reject);
            resolve();
          });
        });
      });
    await bind().catch(async (error: unknown) => {
      if (!(await isDeadSocket(path, error))) throw error;
      await unlink(path);
      await bind();
    });
  }

  /** Requests under way get `drainMs`. Removes the file. */
  async close(drainMs: number): Promise<void> {
    const server = this.#server;
    if (server?.listening !== true) return;
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    server.closeIdleConnections();
    const timer = setTimeout(() => server.closeAllConnections(), drainMs);
    await closed;
    clearTimeout(timer);
  }
}
