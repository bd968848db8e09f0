/** TLS for a connection that has asked for it by STARTTLS: certificates (x509) or a shared key (PSK). */
import { PandoError } from '@pando/common';
import * as net from 'node:net';
import * as tls from 'node:tls';

export type ClientTls =
  | {
      readonly kind: 'x509';
      /** PEM of the authorities that the server's certificate has to come from. Absent: those of the system. */
      readonly ca?: string;
      /** PEM of the client's own certificate and its key, for servers that ask for one. */
      readonly certificate?: string;
      readonly key?: string;
      /** Name that the server's certificate has to hold. Absent: the host of the address, `localhost` for a Unix socket. */
      readonly hostName?: string;
    }
  | { readonly kind: 'psk'; readonly identity: string; readonly key: Uint8Array };

/** Suites that agree on keys first, then plain PSK with GCM, which some servers have alone. */
const PSK_CIPHERS = [
  'ECDHE-PSK-CHACHA20-POLY1305',
  'DHE-PSK-AES256-GCM-SHA384',
  'DHE-PSK-CHACHA20-POLY1305',
  'DHE-PSK-AES128-GCM-SHA256',
  'ECDHE-PSK-AES256-CBC-SHA384',
  'ECDHE-PSK-AES128-CBC-SHA256',
  'PSK-AES256-GCM-SHA384',
  'PSK-CHACHA20-POLY1305',
  'PSK-AES128-GCM-SHA256',
].join(':');

/**
 * The socket over `socket` once both sides have agreed; destroying it destroys both.
 * @throws `tls-failed` with the reason
 */
export async function startTls(
  socket: net.Socket,
  how: ClientTls,
  host: string | undefined,
): Promise<tls.TLSSocket> {
  const secure = tls.connect({ socket, minVersion: 'TLSv1.2', ...settings(how, host ?? 'localhost') });
  try {
    await new Promise<void>((resolve, reject) => {
      secure.once('secureConnect', resolve);
      secure.once('error', reject);
      secure.once('close', () => reject(new Error('the server closed the connection')));
    });
  } catch (error) {
    secure.destroy();
    throw tlsFailed((error as Error).message, error);
  }
  return secure;
}

function settings(how: ClientTls, host: string): tls.ConnectionOptions {
  if (how.kind === 'psk') {
    const { identity, key } = how;
    return {
      ciphers: PSK_CIPHERS,
      // Keys of this kind are bound to a cipher suite in TLS 1.3, and servers offer them for 1.2 only.
      maxVersion: 'TLSv1.2',
      pskCallback: () => ({ identity, psk: key }),
      checkServerIdentity: () => undefined,
    };
  }
  const { ca, certificate, key } = how;
  const name = how.hostName ?? host;
  return {
    ...(net.isIP(name) === 0 ? { servername: name } : {}),
    checkServerIdentity: (_asked, found) => tls.checkServerIdentity(name, found),
    ...(ca === undefined ? {} : { ca }),
    ...(certificate === undefined ? {} : { cert: certificate }),
    ...(key === undefined ? {} : { key }),
  };
}

export function tlsFailed(reason: string, cause?: unknown): PandoError {
  return new PandoError('tls-failed', `no TLS with the NBD server: ${reason}`, { cause });
}
