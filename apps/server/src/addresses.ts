/** Addresses as people write them, and what goes wrong when listening on them. */
import { isIPv6 } from 'node:net';
import { PandoError } from '@pando/common';

export interface Address {
  readonly host: string;
  readonly port: number;
}

/** Reads `127.0.0.1:7400`, `localhost:0`, `[::1]:7400`. @throws `address-invalid` */
export function parseAddress(text: string): Address {
  const match = /^(?:\[([0-9a-f:.]+)\]|([^:[\]\s]+)):(\d{1,5})$/i.exec(text);
  const port = Number(match?.[3]);
  const host = match?.[1] ?? match?.[2];
  if (host === undefined || !(port <= 65_535) || (match?.[1] !== undefined && !isIPv6(host))) {
    throw new PandoError('address-invalid', `${JSON.stringify(text.slice(0, 200))} is not an address`);
  }
  return { host, port };
}

export function formatAddress({ host, port }: Address): string {
  return `${isIPv6(host) ? `[${host}]` : host}:${port}`;
}

/** Only programs of this machine reach such an address. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127\.\d+\.\d+\.\d+$/.test(host);
}

/** An error of `listen` as one that says which address, and why not. */
export function listenError(error: unknown, where: string): PandoError {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === 'EADDRINUSE') {
    return new PandoError('address-in-use', `another program listens on ${where}`, { cause: error });
  }
  return new PandoError('address-invalid', `cannot listen on ${where}: ${message}`, { cause: error });
}
