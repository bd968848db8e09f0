/**
 * An export of any NBD server as a source: read in order over one connection, with several MiB on their way at any
 * time. Holes are passed by where block status says so; where it says little for what it costs (many small extents,
 * few in an answer) or does not exist, the bytes are read and zeros found in them.
 *
 * The export is read while it may be written: what arrives is of one instant only when nobody writes.
 */
import { readFile } from 'node:fs/promises';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { fromIoError, isPandoError, PandoError, splitZeros, type DiskPart } from '@pando/common';
import { BASE_ALLOCATION, NbdClient, type ClientTls } from '@pando/nbd/client';
import { joinHoles } from './join-holes.ts';
import { parseNbdUri, type NbdUri } from './nbd-uri.ts';
import type { DiskSource } from './types.ts';

/** One read. */
const PIECE_BYTES = 1024 * 1024;
/** Reads on their way. */
const PIECES_MAX = 8;
/** A shorter hole is read over. */
const HOLE_BYTES_MIN = 64 * 1024;
/** One question for block status. */
const ASK_BYTES = 1024 * 1024 * 1024;
/** An answer has to describe so much to be worth its round trip; else so much is read without asking again. */
const WORTH_BYTES = 1024 * 1024;
const UNASKED_BYTES = 16 * 1024 * 1024;

/** A server that says nothing for so long, while it is asked, is given up. */
const SILENCE_MS = 120_000;

export interface NbdSourceOptions {
  readonly signal?: AbortSignal;
  /** Default 120,000. */
  readonly silenceMsMax?: number;
}

/**
 * Connects to the export that the URI names.
 * @throws `uri-invalid`, `tls-failed`, `file-failed` (a key or certificate), `export-missing`, `not-allowed`,
 * `protocol-error`, `connection-lost`; reading also `source-failed`
 */
export async function openNbdSource(text: string, options: NbdSourceOptions = {}): Promise<DiskSource> {
  const uri = parseNbdUri(text);
  const tls = uri.tls ? await tlsOf(uri) : undefined;
  const client = await NbdClient.connect(uri.address, {
    exportName: uri.exportName,
    silenceMsMax: options.silenceMsMax ?? SILENCE_MS,
    ...(tls === undefined ? {} : { tls }),
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
  return {
    format: 'nbd',
    sizeBytes: client.size,
    parts: (signal) => joinHoles(readParts(client, signal)),
    close: () => client.close(),
  };
}

async function tlsOf(uri: NbdUri): Promise<ClientTls> {
  if (uri.tlsPskFile !== undefined) {
    const identity = uri.user ?? userInfo().username;
    return { kind: 'psk', identity, key: await pskOf(uri.tlsPskFile, identity) };
  }
  const host = uri.tlsHostName === undefined ? {} : { hostName: uri.tlsHostName };
  const directory = uri.tlsCertificates;
  if (directory === undefined) return { kind: 'x509', ...host };
  const ca = await pem(join(directory, 'ca-cert.pem'));
  if (ca === undefined) throw new PandoError('tls-failed', `there is no ca-cert.pem in ${directory}`);
  const certificate = await pem(join(directory, 'client-cert.pem'));
  const key = await pem(join(directory, 'client-key.pem'));
  if ((certificate === undefined) !== (key === undefined)) {
    throw new PandoError(
      'tls-failed',
      `of client-cert.pem and client-key.pem one is missing in ${directory}`,
    );
  }
  return { kind: 'x509', ca, ...(certificate === undefined ? {} : { certificate, key: key! }), ...host };
}

async function pem(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw fromIoError(error, `cannot read ${path}`, 'file-failed');
  }
}

/** Lines of `identity:key in hex`; blank lines and those that begin with # do not count. */
async function pskOf(path: string, identity: string): Promise<Uint8Array> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    throw fromIoError(error, `cannot read ${path}`, 'file-failed');
  }
  for (const line of text.split(/\r?\n/)) {
    const colon = line.lastIndexOf(':');
    if (line.startsWith('#') || colon < 0 || line.slice(0, colon) !== identity) continue;
    const hex = line.slice(colon + 1).trim();
    if (!/^([0-9a-f]{2})+$/i.test(hex))
      throw new PandoError('tls-failed', `the key of ${identity} in ${path} is no hex`);
    return new Uint8Array(Buffer.from(hex, 'hex'));
  }
  throw new PandoError('tls-failed', `${path} has no key for ${JSON.stringify(identity)}`);
}

/** The disk cut into what is read and what is passed by. */
async function* plan(client: NbdClient): AsyncGenerator<{ bytes: number; hole: boolean }> {
  const asks = client.contexts.includes(BASE_ALLOCATION);
  let at = 0;
  while (at < client.size) {
    let unasked = client.size - at;
    if (asks) {
      const found = await extentsAt(client, at);
      let covered = 0;
      for (const { bytes, hole } of found) {
        yield { bytes, hole };
        covered += bytes;
      }
      at += covered;
      if (covered >= Math.min(WORTH_BYTES, client.size - at)) continue;
      unasked = Math.min(UNASKED_BYTES, client.size - at);
    }
    yield { bytes: unasked, hole: false };
    at += unasked;
  }
}

/** What block status says from `at` on, holes of less than HOLE_BYTES_MIN taken for data. */
async function extentsAt(client: NbdClient, at: number): Promise<{ bytes: number; hole: boolean }[]> {
  const { lengths, holes } = await client.allocationAnswer(at, Math.min(ASK_BYTES, client.size - at));
  const found: { bytes: number; hole: boolean }[] = [];
  for (const [i, bytes] of lengths.entries()) {
    const hole = holes[i]! && bytes >= HOLE_BYTES_MIN;
    const last = found.at(-1);
    if (last?.hole === hole) last.bytes += bytes;
    else found.push({ bytes, hole });
  }
  return found;
}

type Step = { readonly holeBytes: number } | { readonly read: Promise<Buffer>; readonly buffer: Buffer };

/** All that an export has, in order, each part valid until the next pull; holes are not joined. Errors as of a source. */
export async function* readParts(client: NbdClient, signal: AbortSignal): AsyncGenerator<DiskPart> {
  /** What comes next, in order; reads are under way already. */
  const queue: Step[] = [];
  /** Buffers of parts that whoever asked for them is done with. */
  const free: Buffer[] = [];
  let reading = 0;
  let at = 0;
  const drain = async function* (down: number): AsyncGenerator<DiskPart> {
    while (queue.length > 0 && (reading > down || down === 0)) {
      const step = queue.shift()!;
      if ('holeBytes' in step) {
        yield step;
        continue;
      }
      const bytes = await orAborted(step.read, signal);
      reading--;
      yield* splitZeros(bytes);
      free.push(step.buffer);
    }
  };
  try {
    for await (const { bytes, hole } of plan(client)) {
      signal.throwIfAborted();
      if (hole) {
        queue.push({ holeBytes: bytes });
        at += bytes;
        continue;
      }
      for (let left = bytes; left > 0;) {
        yield* drain(PIECES_MAX - 1);
        signal.throwIfAborted();
        const buffer = free.pop() ?? Buffer.allocUnsafeSlow(PIECE_BYTES);
        const piece = buffer.subarray(0, Math.min(PIECE_BYTES, left));
        const read = client.read(at, piece.length, piece, 0).then(() => piece);
        read.catch(() => undefined); // reported in its turn
        queue.push({ read, buffer });
        reading++;
        at += piece.length;
        left -= piece.length;
      }
    }
    yield* drain(0);
  } catch (error) {
    signal.throwIfAborted();
    throw sourceError(error);
  }
}

async function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  let onAbort: (() => void) | undefined;
  try {
    return await Promise.race([
      promise,
      new Promise<never>((_resolve, reject) => {
        onAbort = () => reject(signal.reason as Error);
        signal.addEventListener('abort', onAbort, { once: true });
      }),
    ]);
  } finally {
    if (onAbort !== undefined) signal.removeEventListener('abort', onAbort);
  }
}

/** An error of the server is one of the source, whatever the client makes of its number. */
function sourceError(error: unknown): unknown {
  if (isPandoError(error, 'connection-lost') || isPandoError(error, 'protocol-error')) return error;
  if (!isPandoError(error) || error.kind === 'internal') return error;
  return new PandoError('source-failed', error.message, { cause: error });
}
