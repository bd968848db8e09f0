/** Where a server is. */
import { PandoError } from '@pando/common';

export interface Address {
  /** What paths are resolved against. */
  readonly base: URL;
  readonly socketPath: string | undefined;
}

/** `http://HOST:PORT`, `https://HOST:PORT`, `unix:/PATH` or `http+unix:///PATH`. @throws `address-invalid` */
export function parseAddress(text: string): Address {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new PandoError('address-invalid', `the server's address ${JSON.stringify(text)} is not a URL`);
  }
  const isSocket = url.protocol === 'unix:' || url.protocol === 'http+unix:';
  if (isSocket ? url.host !== '' || url.pathname.length < 2 : !/^https?:$/.test(url.protocol)) {
    const forms = 'http://HOST:PORT, https://HOST:PORT or unix:/PATH';
    throw new PandoError('address-invalid', `the server's address ${JSON.stringify(text)} is not ${forms}`);
  }
  return isSocket
    ? { base: new URL('http://localhost'), socketPath: decodeURIComponent(url.pathname) }
    : { base: url, socketPath: undefined };
}
