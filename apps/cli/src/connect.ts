/** The server that commands talk to: PANDO_URL, or the one of this machine, and what it takes to be let in there. */
import { accessSync, constants, readFileSync } from 'node:fs';
import { getCACertificates } from 'node:tls';
import { Client } from '@pando/client';
import { PandoError } from '@pando/common';
import { findToken } from './token.ts';

const DEFAULT_URL = 'http://127.0.0.1:7400';
/** Where the server of an installed package listens for whoever may open it: only root can put something else there. */
const PACKAGED_SOCKET = '/run/pando/http.sock';

interface ConnectOptions {
  /** Instead of PANDO_URL. */
  readonly url?: string | undefined;
  /** Instead of the one that is found for the server. */
  readonly token?: string;
  /** Ends every request. */
  readonly signal?: AbortSignal;
}

/** @throws `address-invalid`, `server-file-unreadable` */
export function connect({ url, token, signal }: ConnectOptions = {}): Client {
  const address = url ?? process.env['PANDO_URL'] ?? defaultAddress(process.env, PACKAGED_SOCKET);
  const given = URL.parse(address);
  return new Client({
    url: address,
    token: token ?? (given !== null && /^https?:$/.test(given.protocol) ? findToken(given) : undefined),
    ca: given?.protocol === 'https:' ? trusted() : undefined,
    signal,
  });
}

/** Whoever gives a token means to be known by it, not by the right to open a socket. */
export function defaultAddress(environment: NodeJS.ProcessEnv, socket: string): string {
  const { PANDO_TOKEN: token = '', PANDO_TOKEN_FILE: tokenFile = '' } = environment;
  if (token !== '' || tokenFile !== '') return DEFAULT_URL;
  try {
    accessSync(socket, constants.R_OK | constants.W_OK);
    return `unix:${socket}`;
  } catch {
    return DEFAULT_URL;
  }
}

/** Whose certificates are good: those that Node trusts, and those in the file PANDO_CA. @throws `server-file-unreadable` */
function trusted(): string[] | undefined {
  const path = process.env['PANDO_CA'];
  if (path === undefined || path === '') return undefined;
  try {
    return [...getCACertificates('default'), readFileSync(path, 'utf8')];
  } catch (error) {
    const message = `cannot read PANDO_CA: ${(error as Error).message}`;
    throw new PandoError('server-file-unreadable', message, { cause: error });
  }
}
