/** TLS and access rules of NBD as files on this machine: read at start, and again when the server is told to. */
import { readFile, stat } from 'node:fs/promises';
import { PandoError, type Clock } from '@pando/common';
import {
  parseAccessPolicy,
  tlsCredentials,
  type NbdSecurity,
  type NbdServer,
  type TlsFiles,
  type TlsMode,
} from '@pando/nbd';
import type { Logger } from 'pino';
import { isLoopback } from './addresses.ts';
import type { ServeOptions } from './options.ts';

const FILE_BYTES_MAX = 8 * 1024 * 1024;
/** A certificate that ends sooner is worth a warning. */
const EXPIRES_SOON_MS = 14 * 24 * 60 * 60 * 1000;

type SecurityOptions = Pick<ServeOptions, 'nbd' | 'nbdTls' | 'nbdTlsFiles' | 'nbdAccessFile' | 'insecureNbd'>;

/** What was asked for, or `require` where there is something to speak TLS with. */
export function tlsModeOf({ nbdTls, nbdTlsFiles = {} }: SecurityOptions): TlsMode {
  const { certificate, pskKeys } = nbdTlsFiles;
  return nbdTls ?? (certificate !== undefined || pskKeys !== undefined ? 'require' : 'off');
}

/** @throws `nbd-exposed` when others than this machine would be served in clear and nobody said that they may */
export function checkExposure(options: SecurityOptions): void {
  const { nbd, insecureNbd } = options;
  if (isLoopback(nbd.host) || tlsModeOf(options) === 'require' || insecureNbd === true) return;
  const why = `NBD would listen on ${nbd.host} and serve whoever reaches it without TLS`;
  throw new PandoError('nbd-exposed', why);
}

/**
 * Reads and checks all files.
 * @throws `server-file-unreadable`, `tls-file-invalid`, `tls-key-mismatch`, `tls-certificate-expired`, `access-file-invalid`
 */
export async function readNbdSecurity(
  options: SecurityOptions,
  clock: Clock,
  logger: Logger,
): Promise<NbdSecurity> {
  const { nbdTlsFiles = {}, nbdAccessFile } = options;
  const read = async (path: string | undefined, secret = false): Promise<string | undefined> =>
    path === undefined ? undefined : readBounded(path, secret, logger);
  const files: { -readonly [name in keyof TlsFiles]: string | undefined } = {
    certificate: await read(nbdTlsFiles.certificate),
    key: await read(nbdTlsFiles.key, true),
    clientCa: await read(nbdTlsFiles.clientCa),
    pskKeys: await read(nbdTlsFiles.pskKeys, true),
  };
  const given = Object.fromEntries(
    Object.entries(files).filter(([, text]) => text !== undefined),
  ) as TlsFiles;
  const access = await read(nbdAccessFile);
  const wanted = tlsModeOf(options) !== 'off' || Object.keys(given).length > 0;
  const credentials = wanted ? tlsCredentials(given, clock.now()) : undefined;
  const expiresAt = credentials?.expiresAt;
  if (expiresAt !== undefined && expiresAt - clock.now() < EXPIRES_SOON_MS) {
    logger.warn({ expiresAt: new Date(expiresAt) }, "the server's NBD certificate ends soon");
  }
  return {
    ...(credentials === undefined ? {} : { credentials }),
    ...(access === undefined ? {} : { access: parseAccessPolicy(access) }),
  };
}

/** Says at start what the server lets happen on purpose. */
export function warnOfExposure(options: SecurityOptions, security: NbdSecurity, logger: Logger): void {
  const { host } = options.nbd;
  if (isLoopback(host)) return;
  if (tlsModeOf(options) !== 'require') {
    logger.warn(
      { host },
      'NBD listens beyond this machine without TLS, and who reaches it may do everything',
    );
  } else if (security.credentials?.authenticates === false) {
    logger.warn(
      { host },
      'NBD asks clients for TLS but not who they are: there is no CA for client certificates',
    );
  }
}

/** Reads the files again and hands them to the server; when something is wrong with them, the old ones stay. */
export async function reloadNbdSecurity(
  options: SecurityOptions,
  server: NbdServer,
  clock: Clock,
  logger: Logger,
): Promise<void> {
  try {
    server.secure(await readNbdSecurity(options, clock, logger));
    logger.info('read certificates, keys and access rules of NBD again');
  } catch (error) {
    const { code, message } = error as PandoError;
    logger.error({ code, reason: message }, 'NBD keeps its old certificates, keys and access rules');
  }
}

/** @throws `server-file-unreadable` */
export async function readBounded(path: string, secret: boolean, logger: Logger): Promise<string> {
  try {
    const found = await stat(path);
    if (!found.isFile()) throw new Error('it is no regular file');
    if (found.size > FILE_BYTES_MAX) throw new Error(`it has more than ${FILE_BYTES_MAX} bytes`);
    if (secret && (found.mode & 0o077) !== 0) {
      logger.warn({ path }, 'a file with secret keys can be read by others than its owner');
    }
    return await readFile(path, 'utf8');
  } catch (error) {
    const message = `cannot read ${path}: ${(error as Error).message}`;
    throw new PandoError('server-file-unreadable', message, { cause: error });
  }
}
