/** TLS of REST as files on this machine: read at start, when the server is told to, and when they change. */
import { stat } from 'node:fs/promises';
import type { TlsOptions } from 'node:tls';
import type { ApiLimits } from '@pando/api';
import { PandoError, type Clock } from '@pando/common';
import { tlsCredentials } from '@pando/nbd';
import type { Logger } from 'pino';
import { isLoopback } from './addresses.ts';
import { readBounded } from './nbd-security.ts';
import type { ServeOptions } from './options.ts';

/** How often it is looked whether the files have changed. They count as changed when they have stood still for as long. */
const LOOK_MS = 10_000;
/** A certificate that ends sooner is worth a warning. */
const EXPIRES_SOON_MS = 14 * 24 * 60 * 60 * 1000;

type Options = Pick<ServeOptions, 'http' | 'tlsFiles' | 'insecureHttp'>;

/** @throws `http-exposed` when tokens would go over a network in clear and nobody said that they may */
export function checkHttpExposure({ http, tlsFiles, insecureHttp }: Options): void {
  if (isLoopback(http.host) || tlsFiles !== undefined || insecureHttp === true) return;
  throw new PandoError(
    'http-exposed',
    `REST would listen on ${http.host} without TLS, and tokens go over it`,
  );
}

/**
 * What to speak TLS with; undefined without files.
 * @throws `server-file-unreadable`, `tls-file-invalid`, `tls-key-mismatch`, `tls-certificate-expired`
 */
export async function readHttpTls(
  { tlsFiles }: Options,
  clock: Clock,
  logger: Logger,
): Promise<TlsOptions | undefined> {
  if (tlsFiles === undefined) return undefined;
  const certificate = await readBounded(tlsFiles.certificate, false, logger);
  const key = await readBounded(tlsFiles.key, true, logger);
  const { options, expiresAt } = tlsCredentials({ certificate, key }, clock.now());
  if (expiresAt !== undefined && expiresAt - clock.now() < EXPIRES_SOON_MS)
    logger.warn({ expiresAt: new Date(expiresAt) }, "the server's certificate of REST ends soon");
  return options;
}

/** What new connections are secured with. */
export interface Securable {
  setSecureContext(options: TlsOptions): void;
}

/** Reads the files again; when something is wrong with them, the old ones stay. */
export async function reloadHttpTls(
  options: Options,
  server: Securable,
  clock: Clock,
  logger: Logger,
): Promise<void> {
  try {
    const read = await readHttpTls(options, clock, logger);
    if (read === undefined) return;
    server.setSecureContext(read);
    logger.info('read certificate and key of REST again');
  } catch (error) {
    const { code, message } = error as PandoError;
    logger.error({ code, reason: message }, 'REST keeps its old certificate and key');
  }
}

/**
 * Calls `reload` after one of the files has changed and all have stood still for one look: whoever renews writes two files. By looking
 * and not by watching, which misses renamed links and file systems of other machines.
 */
export async function watchFiles(
  paths: readonly string[],
  clock: Clock,
  signal: AbortSignal,
  reload: () => Promise<void>,
): Promise<void> {
  const look = async (): Promise<string> => (await Promise.all(paths.map(stampOf))).join();
  let inForce = await look();
  let before = inForce;
  for (;;) {
    try {
      await clock.sleep(LOOK_MS, signal);
    } catch {
      return;
    }
    const now = await look();
    if (now === before && now !== inForce) {
      inForce = now;
      await reload();
    }
    before = now;
  }
}

async function stampOf(path: string): Promise<string> {
  try {
    const { dev, ino, size, mtimeNs } = await stat(path, { bigint: true });
    return `${dev}/${ino}/${size}/${mtimeNs}`;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? 'gone';
  }
}

/** How much is answered to one who asks, where it is said. */
export function httpLimits({
  rateLimit,
  rateLimitAddress,
  wrongTokens,
  connectionsOfAddress,
}: ServeOptions): Partial<ApiLimits> {
  return {
    ...(rateLimit === undefined ? {} : { tokenRequests: rateLimit }),
    ...(rateLimitAddress === undefined ? {} : { addressRequests: rateLimitAddress }),
    ...(wrongTokens === undefined ? {} : { wrongTokens }),
    ...(connectionsOfAddress === undefined ? {} : { connectionsOfAddress }),
  };
}
