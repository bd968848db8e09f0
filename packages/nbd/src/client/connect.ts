/** From an address to an open export, with a deadline for each step. */
import { PandoError, isPandoError } from '@pando/common';
import * as net from 'node:net';
import type { NbdAddress } from '../types.ts';
import { ByteReader } from './byte-reader.ts';
import { askForTls, greet, openExport } from './client-handshake.ts';
import type { Channel, ClientSession } from './client-handshake.ts';
import { startTls, tlsFailed } from './client-tls.ts';
import type { ClientTls } from './client-tls.ts';
import { CONNECT_MS, HANDSHAKE_MS } from './limits.ts';

export const BASE_ALLOCATION = 'base:allocation';

export interface NbdClientOptions {
  readonly exportName: string;
  /** Absent: clear text. Given: TLS or nothing. */
  readonly tls?: ClientTls;
  /** Default true: ask for structured replies, and with them for contexts. */
  readonly structuredReplies?: boolean;
  /** Default true: ask for extended headers (with structured replies only). */
  readonly extendedHeaders?: boolean;
  /** Full names of metadata contexts to ask for. Default: base:allocation. */
  readonly contexts?: readonly string[];
  readonly connectMsMax?: number;
  /** From the connection to the open export, TLS included. */
  readonly handshakeMsMax?: number;
  /** How long nothing may come while an answer is waited for. Absent: for ever. */
  readonly silenceMsMax?: number;
  /** Gives the connecting up. */
  readonly signal?: AbortSignal;
}

export async function connect(
  address: NbdAddress,
  options: NbdClientOptions,
): Promise<{ readonly channel: Channel; readonly session: ClientSession }> {
  options.signal?.throwIfAborted();
  const socket = net.connect('path' in address ? { path: address.path } : address);
  socket.setNoDelay(true);
  let failure: Error | undefined;
  const giveUp = (error: Error): void => {
    failure ??= error;
    socket.destroy(error);
  };
  const onAbort = (): void => giveUp(options.signal!.reason as Error);
  options.signal?.addEventListener('abort', onAbort, { once: true });
  const label = 'path' in address ? address.path : `${address.host}:${address.port}`;
  let timer: NodeJS.Timeout | undefined;
  const within = (ms: number, what: string): void => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      giveUp(new PandoError('connection-lost', `${what} at ${label} within ${ms} ms`));
    }, ms);
  };
  try {
    within(options.connectMsMax ?? CONNECT_MS, 'nobody answers');
    await connected(socket, label);
    within(options.handshakeMsMax ?? HANDSHAKE_MS, 'no NBD handshake');
    return await shakeHands(socket, address, options);
  } catch (error) {
    socket.destroy();
    throw failure ?? error;
  } finally {
    clearTimeout(timer);
    options.signal?.removeEventListener('abort', onAbort);
  }
}

function connected(socket: net.Socket, label: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (cause: Error): void => {
      reject(new PandoError('connection-lost', `cannot connect to ${label}: ${reasonOf(cause)}`, { cause }));
    };
    socket.once('error', failed);
    socket.once('connect', () => {
      socket.off('error', failed);
      resolve();
    });
  });
}

/** Several addresses of one host fail as one error without a text. */
function reasonOf(error: Error): string {
  if (error instanceof AggregateError) {
    return error.errors.map((one: unknown) => (one instanceof Error ? one.message : String(one))).join(', ');
  }
  return error.message;
}

async function shakeHands(
  socket: net.Socket,
  address: NbdAddress,
  options: NbdClientOptions,
): Promise<{ readonly channel: Channel; readonly session: ClientSession }> {
  const clear: Channel = { socket, reader: new ByteReader(socket) };
  const { noZeroes } = await greet(clear);
  let channel = clear;
  let answered = false;
  if (options.tls !== undefined) {
    await askForTls(clear);
    clear.reader.detach();
    // The layer above reports what happens to the socket; without a listener an error would end the process.
    socket.on('error', () => undefined);
    const secure = await startTls(socket, options.tls, 'host' in address ? address.host : undefined);
    channel = { socket: secure, reader: new ByteReader(secure) };
    channel.reader.onData = () => (answered = true);
  }
  const opening = openExport(
    channel,
    {
      exportName: options.exportName,
      structuredReplies: options.structuredReplies ?? true,
      extendedHeaders: options.extendedHeaders ?? true,
      contexts: options.contexts ?? [BASE_ALLOCATION],
    },
    noZeroes,
  );
  const session = await opening.catch((error: unknown) => {
    // In TLS 1.3 a server says no to a certificate when the client has gone on already; some only hang up.
    if (options.tls === undefined || answered || !isPandoError(error, 'connection-lost')) throw error;
    throw tlsFailed(`${error.message} (does it want a certificate of the client?)`, error);
  });
  return { channel, session };
}
