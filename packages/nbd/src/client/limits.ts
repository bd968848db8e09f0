/** Bounds of the NBD client: nothing that a server sends makes it hold or wait more than this. */

/** Requests in flight; more wait for their turn. */
export const REQUESTS_MAX = 64;
/** Bytes that the requests in flight read or write together; a single longer one still goes alone. */
export const IN_FLIGHT_BYTES_MAX = 64 * 1024 * 1024;
/** Longest read or write that is sent as one request, where the server takes so much. */
export const PIECE_BYTES_MAX = 4 * 1024 * 1024;
/** Longest zeroing, prefetch or block status request with 32-bit lengths: the largest multiple of 64 KiB. */
export const RANGE_BYTES_MAX = 0xffff_0000;
/** Block status requests in flight: each may bring EXTENTS_MAX extents. */
export const STATUS_REQUESTS_MAX = 2;
/** Extents of one context in one reply, as the protocol suggests. */
export const EXTENTS_MAX = 2 ** 20;
/** Ranges of one read, without gap each, that wait for what lies between them. */
export const READ_RANGES_MAX = 8192;
/** Chunks with an error in one reply. */
export const ERROR_CHUNKS_MAX = 16;
/** Longest chunk that is neither data nor extents. */
export const CHUNK_BYTES_MAX = 16 * 1024;
/** Longest answer to an option, and how many come before the last one. */
export const OPTION_REPLY_BYTES_MAX = 64 * 1024;
export const OPTION_REPLIES_MAX = 256;
/** Metadata contexts of one connection. */
export const CONTEXTS_MAX = 16;

export const CONNECT_MS = 10_000;
/** From the greeting to the first request, TLS included. */
export const HANDSHAKE_MS = 15_000;
/** How long a server may take to close after the goodbye. */
export const CLOSE_MS = 5_000;
