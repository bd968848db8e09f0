/** Where the server can be reached: listening on what the options name. */
import { lookup } from 'node:dns/promises';
import type { App } from '@pando/api';
import type { NbdServer, TlsMode } from '@pando/nbd';
import { formatAddress, listenError } from './addresses.ts';
import type { HttpSocket } from './http-socket.ts';
import { tlsModeOf } from './nbd-security.ts';
import type { ServeOptions } from './options.ts';

export interface Addresses {
  /** `http://127.0.0.1:7400`, or `https://…` */
  readonly http: string;
  /** `nbd://127.0.0.1:10809`, or `nbds://…` where TLS is required */
  readonly nbd: string;
  readonly nbdTls: TlsMode;
  /** Paths of the Unix sockets, where there are some. */
  readonly httpSocket?: string;
  readonly nbdSocket?: string;
}

/** NBD first, then REST. @throws `address-in-use`, `address-invalid` */
export async function listen(
  options: ServeOptions,
  app: App,
  nbdServer: NbdServer,
  socket: HttpSocket,
): Promise<Addresses> {
  const { http, httpSocket, nbd, nbdSocket } = options;
  const nbdTls = tlsModeOf(options);
  const trying = async <T>(where: string, action: () => Promise<T>): Promise<T> => {
    try {
      return await action();
    } catch (error) {
      throw listenError(error, where);
    }
  };
  const bound = await trying(formatAddress(nbd), () => nbdServer.listen(nbd));
  if (nbdSocket !== undefined) await trying(nbdSocket, () => nbdServer.listen({ path: nbdSocket }));
  await trying(formatAddress(http), async () =>
    app.listen({ host: await oneAddress(http.host), port: http.port }),
  );
  if (httpSocket !== undefined)
    await trying(httpSocket, () => socket.listen(app, httpSocket, options.httpSocketMode ?? 0o600));
  const address = app.server.address();
  const httpPort = typeof address === 'object' && address !== null ? address.port : http.port;
  return {
    http: `${options.tlsFiles === undefined ? 'http' : 'https'}://${formatAddress({ host: http.host, port: httpPort })}`,
    nbdTls,
    nbd: `${nbdTls === 'require' ? 'nbds' : 'nbd'}://${formatAddress({ host: nbd.host, port: 'port' in bound ? bound.port : nbd.port })}`,
    ...(httpSocket === undefined ? {} : { httpSocket }),
    ...(nbdSocket === undefined ? {} : { nbdSocket }),
  };
}

/**
 * Fastify listens at each address of `localhost`, at all but one of them with servers of its own, which neither the limits of connections nor
 * renewed certificates reach. So it is told one, the one that NBD takes too.
 */
async function oneAddress(host: string): Promise<string> {
  return host === 'localhost' ? (await lookup(host)).address : host;
}

/** As somebody on this machine would call it. */
export function reachableUrl(http: string): string {
  return http.replace('//0.0.0.0:', '//127.0.0.1:').replace('//[::]:', '//127.0.0.1:');
}
