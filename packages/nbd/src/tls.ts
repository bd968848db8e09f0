/**
 * TLS of the server: credentials (a certificate, pre-shared keys, or both), and the handshake that STARTTLS begins on
 * an accepted socket.
 *
 * What is spoken: TLS 1.2 and 1.3, always with forward secrecy, no renegotiation, no session tickets, no resumption.
 * With pre-shared keys TLS 1.3 is held to suites of SHA-256: OpenSSL passes over a key whose hash is not that of the
 * suite *after* it has asked for it, and who was asked for would then not be who has proved anything.
 */
import { PandoError } from '@pando/common';
import { X509Certificate, constants, createPrivateKey, randomBytes } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import type { Socket } from 'node:net';
import * as tls from 'node:tls';
import type { ClientIdentity } from './types.ts';

/** Files as they are: PEM, and the lines of GnuTLS's `psktool`. Either a certificate with its key, or keys, or both. */
export interface TlsFiles {
  /** The server's certificate, followed by those between it and the root. */
  readonly certificate?: string;
  readonly key?: string;
  /** With it, clients without a pre-shared key must show a certificate that one of these signed. */
  readonly clientCa?: string;
  /** `identity:hexkey`, one a line. */
  readonly pskKeys?: string;
}

/** Credentials that have been checked. */
export interface TlsCredentials {
  /** When the server's certificate ends, in milliseconds since 1970; undefined without one. */
  readonly expiresAt: number | undefined;
  /** Whether a client must prove who it is. */
  readonly authenticates: boolean;
  readonly options: tls.TlsOptions;
  readonly keys: ReadonlyMap<string, Buffer> | undefined;
}

const NO_BYTES = Buffer.alloc(0);
const IDENTITY_BYTES_MAX = 128;
const KEY_BYTES_MIN = 16;
const KEY_BYTES_MAX = 256;

const SUITES_13_SHA256 = 'TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256';
const SUITES_13 = `TLS_AES_256_GCM_SHA384:${SUITES_13_SHA256}`;
/** OpenSSL has no GCM suites for ECDHE-PSK; where ChaCha20 is missing (FIPS), CBC with encrypt-then-MAC is left. */
const SUITES_12_PSK = 'ECDHE-PSK-CHACHA20-POLY1305:ECDHE-PSK-AES256-CBC-SHA384:ECDHE-PSK-AES128-CBC-SHA256';
const SUITES_12_X509 = 'ECDHE+AESGCM:ECDHE+CHACHA20';

/**
 * Checks files against each other and makes credentials of them.
 * @throws `tls-file-invalid`, `tls-key-mismatch`, `tls-certificate-expired`
 */
export function tlsCredentials(files: TlsFiles, nowMs: number): TlsCredentials {
  const { certificate, key, clientCa, pskKeys } = files;
  if ((certificate === undefined) !== (key === undefined)) {
    throw new PandoError('tls-file-invalid', 'a server certificate and its key go together');
  }
  if (certificate === undefined && pskKeys === undefined) {
    throw new PandoError('tls-file-invalid', 'TLS needs a server certificate or pre-shared keys');
  }
  if (clientCa !== undefined && certificate === undefined) {
    throw new PandoError('tls-file-invalid', 'a CA for client certificates needs a server certificate too');
  }
  const keys = pskKeys === undefined ? undefined : parsePskKeys(pskKeys);
  const expiresAt = certificate === undefined ? undefined : checkCertificate(certificate, key!, nowMs);
  for (const pem of clientCa === undefined ? [] : pemBlocks(clientCa)) {
    parsed('the CA file', () => new X509Certificate(pem));
  }
  // Those who offer suites for keys as well as for certificates want a key.
  const suites = [
    keys === undefined ? SUITES_13 : SUITES_13_SHA256,
    ...(keys === undefined ? [] : [SUITES_12_PSK]),
    ...(certificate === undefined ? [] : [SUITES_12_X509]),
  ];
  const options: tls.TlsOptions = {
    minVersion: 'TLSv1.2',
    maxVersion: 'TLSv1.3',
    ciphers: suites.join(':'),
    honorCipherOrder: true,
    secureOptions:
      constants.SSL_OP_NO_TICKET |
      constants.SSL_OP_NO_RENEGOTIATION |
      constants.SSL_OP_NO_COMPRESSION |
      constants.SSL_OP_CIPHER_SERVER_PREFERENCE,
    // Nobody besides the given CA is trusted; without this the system's authorities would be.
    ca: clientCa === undefined ? [] : pemBlocks(clientCa),
    ...(certificate === undefined ? {} : { cert: certificate, key }),
    requestCert: clientCa !== undefined,
    // Who has proved nothing is turned away below: a client with a pre-shared key shows no certificate.
    rejectUnauthorized: false,
  };
  parsed('the certificate', () => tls.createSecureContext(options));
  return {
    expiresAt,
    authenticates: clientCa !== undefined || certificate === undefined,
    options,
    keys,
  };
}

/** A handshake that failed; the message is for the log. */
export class TlsHandshakeError extends Error {}

export interface SecuredClient {
  readonly socket: tls.TLSSocket;
  readonly client: ClientIdentity;
  /** What was agreed on, for the log: `TLSv1.3 TLS_AES_256_GCM_SHA384`. */
  readonly agreed: string;
}

/**
 * Speaks TLS on a socket that nobody else reads or writes any more. The caller bounds its time by destroying `raw`.
 * Resolves when a write has passed: session tickets leave behind the handshake, and Node (24) tells nobody when that
 * write fails, but never writes again. A client that is gone by then, its requests sent, would be served for ever.
 * The TLS socket comes with an error listener of the caller's to add; it may end half, if `raw` may.
 * @throws TlsHandshakeError when the client does not speak TLS, proves nothing, or goes; the socket is destroyed then
 */
export function secure(raw: Socket, peer: string, credentials: TlsCredentials): Promise<SecuredClient> {
  return new Promise((resolve, reject) => {
    const fail = (reason: string): void => {
      raw.destroy();
      reject(new TlsHandshakeError(reason));
    };
    const ended = (): void => fail('the connection ended before TLS was agreed on');
    let identity: string | undefined;
    const { keys } = credentials;
    // A server of its own for each client (half a millisecond, 54 kB, measured): its events and key callback say which
    // client they are about, and new credentials hold from the next client on.
    const server = tls.createServer({
      ...credentials.options,
      ...(keys === undefined
        ? {}
        : {
            pskCallback: (_socket: tls.TLSSocket, name: string) => {
              const key = keys.get(name);
              identity = key === undefined ? undefined : name;
              // An unknown identity fails as a wrong key does: nobody learns which names exist.
              return key ?? randomBytes(32);
            },
          }),
    });
    server.once('secureConnection', (socket) => {
      const found = identify(socket, identity, credentials, peer);
      if (typeof found !== 'string') {
        socket.allowHalfOpen = halfOpen;
        const broke = (error: Error): void => fail(reasonOf(error));
        socket.once('error', broke);
        const passed = (): void => {
          if (socket.destroyed) return;
          raw.off('end', ended).off('close', ended);
          socket.off('error', broke);
          const agreed = `${socket.getProtocol()} ${socket.getCipher().name}`;
          resolve({ socket, client: found, agreed });
        };
        // The tickets are on their way by the next turn.
        setImmediate(() => socket.write(NO_BYTES, passed));
        return;
      }
      socket.on('error', () => undefined);
      socket.destroy();
      fail(found);
    });
    server.once('tlsClientError', (error) => fail(reasonOf(error)));
    raw.once('close', ended);
    // An end that came in clear is the raw socket's to tell, and TLS would wait for it in vain.
    raw.once('end', ended);
    // TLS sockets begin as their raw socket: an end in the middle of the handshake has to be the end of it.
    const halfOpen = raw.allowHalfOpen;
    raw.allowHalfOpen = false;
    server.emit('connection', raw);
    raw.resume();
  });
}

/** Who the client has proved to be, or why it is turned away. */
function identify(
  socket: tls.TLSSocket,
  identity: string | undefined,
  { options, keys }: TlsCredentials,
  peer: string,
): ClientIdentity | string {
  const resumed = socket.isSessionReused();
  // OpenSSL counts an external key of TLS 1.3 as resumption, and there is no other.
  const byKey = socket.getProtocol() === 'TLSv1.3' ? resumed : socket.getCipher().name.includes('PSK');
  if (byKey) {
    if (keys === undefined || identity === undefined) return 'a session that was not begun here';
    return { peer, proof: 'psk', names: [identity] };
  }
  if (resumed) return 'a session that was not begun here';
  if (options.requestCert !== true) return { peer, proof: 'none', names: [] };
  if (!socket.authorized) {
    const certificate = socket.getPeerX509Certificate();
    if (certificate === undefined) return 'no client certificate';
    return `the client certificate is not accepted: ${String(socket.authorizationError)}`;
  }
  const certificate = socket.getPeerCertificate();
  return { peer, proof: 'x509', names: namesOf(certificate) };
}

function reasonOf(error: NodeJS.ErrnoException): string {
  // OpenSSL's messages carry addresses and file names; the code says as much.
  const reason = (error as { reason?: unknown }).reason;
  return typeof reason === 'string' ? reason : (error.code ?? error.message);
}

/** Common name, then alternative names of the kinds that name somebody: DNS, email, URI. */
export function namesOf(certificate: {
  readonly subject?: { readonly CN?: string | readonly string[] };
  readonly subjectaltname?: string | undefined;
}): string[] {
  const names = new Set<string>([certificate.subject?.CN ?? []].flat());
  for (const { kind, value } of alternativeNames(certificate.subjectaltname ?? '')) {
    if (kind === 'DNS' || kind === 'email' || kind === 'URI') names.add(value);
  }
  return [...names];
}

/** Node's rendering `DNS:a, URI:"quoted, as JSON", …`: values with commas or quotes in them come as JSON strings. */
function* alternativeNames(text: string): Generator<{ kind: string; value: string }> {
  const entry = /([^:,]+):(?:("(?:[^"\\]|\\.)*")|([^,]*))(?:, |$)/y;
  for (let match = entry.exec(text); match !== null; match = entry.exec(text)) {
    const [, kind, quoted, plain] = match;
    yield { kind: kind!, value: quoted === undefined ? plain! : (JSON.parse(quoted) as string) };
    if (entry.lastIndex === text.length) return;
  }
}

/** The certificate's end. @throws as tlsCredentials */
function checkCertificate(certificate: string, key: string, nowMs: number): number {
  const first = parsed('the server certificate', () => new X509Certificate(certificate));
  const secret: KeyObject = parsed('the key of the server certificate', () => createPrivateKey(key));
  if (!first.checkPrivateKey(secret)) {
    throw new PandoError('tls-key-mismatch', 'the key is not that of the server certificate');
  }
  if (nowMs > first.validToDate.getTime() || nowMs < first.validFromDate.getTime()) {
    const { validFrom, validTo } = first;
    const message = `the server certificate is valid from ${validFrom} to ${validTo}`;
    throw new PandoError('tls-certificate-expired', message);
  }
  return first.validToDate.getTime();
}

function pemBlocks(text: string): string[] {
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g);
  if (blocks === null) throw new PandoError('tls-file-invalid', 'the CA file has no PEM certificate');
  return blocks;
}

function parsed<T>(what: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    const message = `${what} cannot be used: ${reasonOf(error as NodeJS.ErrnoException)}`;
    throw new PandoError('tls-file-invalid', message, { cause: error });
  }
}

/**
 * Lines `identity:hexkey`, as psktool writes them; empty lines are passed over.
 * @throws `tls-file-invalid` naming the line; never a key
 */
export function parsePskKeys(text: string): Map<string, Buffer> {
  const keys = new Map<string, Buffer>();
  for (const [index, line] of text.split('\n').entries()) {
    const content = line.replace(/\r$/, '');
    if (content.trim() === '') continue;
    const refuse = (why: string): never => {
      throw new PandoError('tls-file-invalid', `line ${index + 1} of the file of pre-shared keys: ${why}`);
    };
    const at = content.lastIndexOf(':');
    if (at < 0) refuse('not identity:hexkey');
    const identity = content.slice(0, at);
    const hex = content.slice(at + 1).trim();
    if (identity.startsWith('#')) refuse('an identity in hex (#…) and comments are not understood');
    const bytes = Buffer.byteLength(identity);
    if (bytes === 0 || bytes > IDENTITY_BYTES_MAX || identity.includes('\0')) {
      refuse(`an identity has 1 to ${IDENTITY_BYTES_MAX} bytes`);
    }
    if (!/^(?:[0-9a-f]{2})+$/i.test(hex)) refuse('the key is not hex');
    const key = Buffer.from(hex, 'hex');
    if (key.length < KEY_BYTES_MIN || key.length > KEY_BYTES_MAX) {
      refuse(`a key has ${KEY_BYTES_MIN} to ${KEY_BYTES_MAX} bytes`);
    }
    if (keys.has(identity)) refuse('the identity is there twice');
    keys.set(identity, key);
  }
  if (keys.size === 0) throw new PandoError('tls-file-invalid', 'the file of pre-shared keys is empty');
  return keys;
}
