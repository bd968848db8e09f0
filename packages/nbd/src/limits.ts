/** Every bound of the NBD server by name. `docs/nbd.md` says what happens past each. */
import { KiB, MiB } from '@pando/common';
import { PAYLOAD_BYTES_MAX } from './protocol.ts';

export interface NbdLimits {
  /** Connections with an export at once; further ones are told so, by ERR_POLICY. */
  readonly connectionsMax: number;
  /** Connections that have not chosen an export yet; for one more, the oldest of them is dropped. */
  readonly connectionsInHandshakeMax: number;
  /** Connections that are being told that there are too many; further ones are closed at once. */
  readonly connectionsRefusedMax: number;
  /** How long one of those may take to ask and to be told. */
  readonly refusalMsMax: number;
  /** A handshake that takes longer is cut off. */
  readonly handshakeMsMax: number;
  /** So much longer for each export that LIST has named: libnbd 1.14 takes 0.2 s for each over TCP. */
  readonly handshakeMsPerListedExportMax: number;
  /** Options of one handshake; one more ends the connection. */
  readonly optionsMax: number;
  /** So many more for each export that LIST has named. */
  readonly optionsPerListedExportMax: number;
  /** Data of an option; a longer one is skipped and answered with ERR_TOO_BIG. */
  readonly optionBytesMax: number;
  /** Data of an option that is skipped; a longer one ends the connection. */
  readonly optionSkipBytesMax: number;
  /** Names in the answer to LIST. */
  readonly listedExportsMax: number;
  /** Names that are looked through for it when an access file hides some. */
  readonly scannedExportsMax: number;
  /** Queries of LIST_META_CONTEXT and SET_META_CONTEXT; more are answered with ERR_TOO_BIG. */
  readonly contextQueriesMax: number;
  /** Names in the answer to LIST_META_CONTEXT. */
  readonly listedContextsMax: number;
  /** Contexts that SET_META_CONTEXT selects; more are answered with ERR_TOO_BIG. */
  readonly contextsMax: number;
  /** Device operations in flight on one connection; past it, reading pauses. */
  readonly requestsInFlightMax: number;
  /** The same for all connections together. */
  readonly allRequestsInFlightMax: number;
  /** Reply and payload buffers of one connection; past it, reading pauses. A single request always fits. */
  readonly connectionBufferBytesMax: number;
  /** The same for all connections together. */
  readonly bufferBytesMax: number;
  /** Freed buffers that are kept for reuse. */
  readonly poolBytesMax: number;
  /** Replies that the kernel has not taken yet; past it, reading pauses. */
  readonly unsentBytesMax: number;
  /** Payload of a rejected WRITE that is skipped; a longer one ends the connection. */
  readonly payloadSkipBytesMax: number;
  /** Extents in one block status reply, shared evenly by its contexts. */
  readonly extentsMax: number;
  /** A client that neither sends nor takes anything for so long is cut off while others wait for its buffers. */
  readonly stallMsMax: number;
  /** How long a handshake at shutdown waits for one more option, to answer it with ERR_SHUTDOWN. */
  readonly shutdownGraceMs: number;
  /** How long a connection that has been ended waits for the client to take its replies and close too. */
  readonly lingerMsMax: number;
}

export const DEFAULT_LIMITS: NbdLimits = {
  connectionsMax: 1024,
  connectionsInHandshakeMax: 128,
  connectionsRefusedMax: 16,
  refusalMsMax: 2_000,
  handshakeMsMax: 10_000,
  handshakeMsPerListedExportMax: 500,
  optionsMax: 64,
  optionsPerListedExportMax: 8,
  optionBytesMax: 64 * KiB,
  optionSkipBytesMax: 32 * MiB,
  listedExportsMax: 4096,
  scannedExportsMax: 65_536,
  contextQueriesMax: 256,
  listedContextsMax: 1024,
  contextsMax: 16,
  requestsInFlightMax: 128,
  allRequestsInFlightMax: 4096,
  connectionBufferBytesMax: 64 * MiB,
  bufferBytesMax: 192 * MiB,
  poolBytesMax: 32 * MiB,
  unsentBytesMax: 4 * MiB,
  payloadSkipBytesMax: 2 * PAYLOAD_BYTES_MAX,
  extentsMax: 8192,
  stallMsMax: 30_000,
  shutdownGraceMs: 200,
  lingerMsMax: 10_000,
};
