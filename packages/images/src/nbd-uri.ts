/**
 * NBD URIs, as doc/uri.md of the NetworkBlockDevice project describes them, with the TLS parameters that libnbd
 * added: which server, which export, and how to secure the way there.
 */
import { PandoError } from '@pando/common';
import type { NbdAddress } from '@pando/nbd';

const PORT_DEFAULT = 10_809;
/** Longest string of the protocol. */
const NAME_BYTES_MAX = 4096;

export interface NbdUri {
  readonly address: NbdAddress;
  readonly exportName: string;
  readonly tls: boolean;
  /** Who the client says it is, for PSK. */
  readonly user: string | undefined;
  readonly tlsHostName: string | undefined;
  /** Directory with ca-cert.pem and, for servers that ask for them, client-cert.pem and client-key.pem. */
  readonly tlsCertificates: string | undefined;
  /** File with lines of `identity:key in hex`. */
  readonly tlsPskFile: string | undefined;
}

/** Whether the text is meant as an NBD URI, right or wrong. */
export function looksLikeNbdUri(text: string): boolean {
  return /^nbds?(\+[a-z]+)?:/i.test(text);
}

/** @throws `uri-invalid` saying what is wrong */
export function parseNbdUri(text: string): NbdUri {
  // The generic form of RFC 3986; not URL, which folds `/../` in names away.
  const match = /^([a-z+]+):\/\/([^/?#]*)([^?#]*)(?:\?([^#]*))?(#.*)?$/i.exec(text);
  if (match === null) {
    const qemu = /^nbd:/i.test(text) ? ' (the forms nbd:HOST:PORT and nbd:unix:PATH are not understood)' : '';
    throw invalid(text, `it has no //${qemu}`);
  }
  const [, scheme = '', authority = '', path = '', query = '', fragment] = match;
  if (fragment !== undefined) throw invalid(text, 'it has a fragment (#); write # in a name as %23');
  const [transport, tls] = transportOf(text, scheme.toLowerCase());
  const parameters = parametersOf(text, query);
  const { user, host, port } = authorityOf(text, authority);
  const exportName = decode(text, path.replace(/^\//, ''));
  if (Buffer.byteLength(exportName) > NAME_BYTES_MAX) throw invalid(text, 'the export name is too long');

  const socket = parameters.get('socket');
  let address: NbdAddress;
  if (transport === 'unix') {
    if (socket === undefined || socket === '') throw invalid(text, 'socket=PATH is missing');
    if (host !== '' || port !== undefined)
      throw invalid(text, 'a Unix socket has no host: nbd+unix:///EXPORT');
    address = { path: socket };
  } else {
    if (socket !== undefined) throw invalid(text, 'socket= goes with nbd+unix and nbds+unix only');
    if (host === '') throw invalid(text, 'it names no host');
    address = { host, port: port ?? PORT_DEFAULT };
  }
  const tlsParameters = ['tls-hostname', 'tls-certificates', 'tls-psk-file'] as const;
  const [tlsHostName, tlsCertificates, tlsPskFile] = tlsParameters.map((name) => parameters.get(name));
  if (!tls && tlsParameters.some((name) => parameters.has(name))) {
    throw invalid(text, 'parameters of TLS go with nbds and nbds+unix only');
  }
  if (tlsCertificates !== undefined && tlsPskFile !== undefined) {
    throw invalid(text, 'tls-certificates and tls-psk-file exclude each other');
  }
  return { address, exportName, tls, user, tlsHostName, tlsCertificates, tlsPskFile };
}

function transportOf(text: string, scheme: string): ['tcp' | 'unix', boolean] {
  switch (scheme) {
    case 'nbd':
      return ['tcp', false];
    case 'nbds':
      return ['tcp', true];
    case 'nbd+unix':
      return ['unix', false];
    case 'nbds+unix':
      return ['unix', true];
    case 'nbd+vsock':
    case 'nbds+vsock':
      throw invalid(text, 'vsock is not supported: forward it to a Unix socket or a TCP port');
    default:
      throw invalid(text, `the scheme ${scheme} is none of nbd, nbds, nbd+unix, nbds+unix`);
  }
}

const PARAMETERS = new Set(['socket', 'tls-hostname', 'tls-certificates', 'tls-psk-file', 'tls-verify-peer']);

function parametersOf(text: string, query: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const pair of query.split('&')) {
    if (pair === '') continue;
    const equals = pair.indexOf('=');
    const name = decode(text, equals < 0 ? pair : pair.slice(0, equals));
    const value = equals < 0 ? '' : decode(text, pair.slice(equals + 1));
    if (!PARAMETERS.has(name)) throw invalid(text, `the parameter ${JSON.stringify(name)} is not understood`);
    if (found.has(name)) throw invalid(text, `the parameter ${name} is there twice`);
    found.set(name, value);
  }
  const verify = found.get('tls-verify-peer');
  if (verify !== undefined && verify !== '1')
    throw invalid(text, 'servers are always verified (tls-verify-peer)');
  return found;
}

function authorityOf(
  text: string,
  authority: string,
): { user: string | undefined; host: string; port: number | undefined } {
  const match = /^(?:([^@]*)@)?(\[[^\]]*\]|[^:]*)(?::(\d*))?$/.exec(authority);
  if (match === null) throw invalid(text, `${JSON.stringify(authority)} is no host`);
  const [, user, host = '', digits = ''] = match;
  const port = digits === '' ? undefined : Number(digits);
  if (port !== undefined && (port < 1 || port > 65_535)) throw invalid(text, `there is no port ${digits}`);
  if (user?.includes(':') === true) throw invalid(text, 'it holds a password, which NBD has none of');
  return {
    user: user === undefined || user === '' ? undefined : decode(text, user),
    host: host.startsWith('[') ? host.slice(1, -1) : decode(text, host),
    port,
  };
}

function decode(text: string, part: string): string {
  let decoded: string;
  try {
    decoded = decodeURIComponent(part);
  } catch (error) {
    throw new PandoError('uri-invalid', `${show(text)}: ${JSON.stringify(part)} is wrongly encoded`, {
      cause: error,
    });
  }
  if (decoded.includes('\0')) throw invalid(text, 'it holds a zero byte');
  return decoded;
}

function invalid(text: string, problem: string): PandoError {
  return new PandoError('uri-invalid', `${show(text)}: ${problem}`);
}

function show(text: string): string {
  return JSON.stringify(text.slice(0, 200));
}
