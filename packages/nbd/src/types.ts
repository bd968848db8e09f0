/**
 * What the NBD server needs (exports, a logger, a clock, limits) and what it is. It knows block devices by
 * name, not volumes.
 */
import type { BlockDevice, StatusExtents } from '@pando/block-device';
import type { Clock } from '@pando/common';
import type { AccessPolicy } from './access.ts';
import type { NbdLimits } from './limits.ts';
import type { CommandCounts } from './request-counters.ts';
import type { TlsCredentials } from './tls.ts';

/** One metadata context of an open export: what block status answers for it. */
export interface StatusSource {
  /** Its full name, e.g. `qemu:dirty-bitmap:monday`; the same as was asked for. */
  readonly name: string;
  /**
   * Canonical name of another export that it compares with: who may not read that must not be told what differs from
   * it, so the server then passes the context over.
   */
  readonly comparedWith?: string;
  /** Errors as BlockDevice.read. */
  describe(offset: number, length: number, extentsMax: number): Promise<StatusExtents>;
  /** Called once, when no call is under way any more, before the export handle is closed. */
  close(): Promise<void>;
}

/** Who a client has proved to be. */
export interface ClientIdentity {
  /** Where it comes from, for logs: `127.0.0.1:40312`, or `unix`. */
  readonly peer: string;
  readonly proof: 'none' | 'x509' | 'psk';
  /** x509: common name and subject alternative names of the client's certificate; psk: the identity; else none. */
  readonly names: readonly string[];
}

/** A device opened for one client. */
export interface ExportHandle extends BlockDevice {
  /** The canonical name of the export. */
  readonly exportName: string;
  /** Aborted when the client has to go: requests in flight finish, then the connection is closed. */
  readonly revoked: AbortSignal;
  /**
   * Full names of the metadata contexts that the export has besides base:allocation and that begin with `prefix`
   * (a namespace: `qemu:`, `qemu:dirty-bitmap:`, `x-pando:`; or empty for all): at most `limit`.
   */
  contextNames(prefix: string, limit: number): Promise<readonly string[]>;
  /** Opens a context by its full name; undefined when the export has none of that name (never throws for a name). */
  openContext(name: string): Promise<StatusSource | undefined>;
  /**
   * The client asks for nothing more, and `close` follows as soon as what is in flight is over: whoever needs the export to
   * itself may wait for that. Not called where `close` comes at once; may be called again.
   */
  leave(): void;
  /** Called once, when no request on the handle is in flight any more, and before the client sees that its connection ends. */
  close(): Promise<void>;
}

export interface ExportProvider {
  /** Names of exports that the client may see, at most `limit`. */
  list(limit: number, client: ClientIdentity): Promise<readonly string[]>;
  /**
   * Opens an export for one client. All handles of one export see each other's acknowledged writes, and
   * a flush of one covers them all (the server announces multi-conn).
   * @throws PandoError of kind `missing` for a name that is not an export, `not-allowed` (option error POLICY)
   */
  open(name: string, client: ClientIdentity): Promise<ExportHandle>;
}

/** Takes what pino and most loggers take. */
export interface Logger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/**
 * `off`: STARTTLS is not supported; `allow`: clients may begin TLS; `require`: without TLS nothing is answered but
 * STARTTLS and ABORT.
 */
export type TlsMode = 'off' | 'allow' | 'require';

/** What can be replaced while the server runs. */
export interface NbdSecurity {
  /** Needed unless TLS is off. */
  readonly credentials?: TlsCredentials;
  /** Default: everybody who may connect may do everything. */
  readonly access?: AccessPolicy;
}

export interface NbdServerOptions extends NbdSecurity {
  readonly exports: ExportProvider;
  /** Default `off`. */
  readonly tls?: TlsMode;
  /** Permissions of Unix sockets; default 0o600, the user that the server runs as. */
  readonly socketMode?: number;
  readonly logger?: Logger;
  readonly clock?: Clock;
  /** Announces that the exports lie on a rotating disk (default false). */
  readonly rotational?: boolean;
  /** Overrides of DEFAULT_LIMITS. */
  readonly limits?: Partial<NbdLimits>;
}

export type NbdAddress = { readonly host: string; readonly port: number } | { readonly path: string };

export interface NbdServerStats {
  readonly connections: number;
  readonly connectionsInHandshake: number;
  /** Requests whose device operation has not finished. */
  readonly requestsInFlight: number;
  /** Bytes of reply and payload buffers in use, of all connections. */
  readonly bufferBytes: number;
  /** Since the server was created. */
  readonly commands: readonly CommandCounts[];
}

export interface NbdServer {
  /**
   * Listens on one more address and resolves to what was bound (port 0 becomes a real port). A Unix
   * socket that a dead process left behind is replaced; one that answers is not.
   */
  listen(address: NbdAddress): Promise<NbdAddress>;
  /** Where it listens, in the order of the `listen` calls. */
  address(): readonly NbdAddress[];
  stats(): NbdServerStats;
  /** What each connection is doing and what it waits for: for people who look for one that hangs, in no fixed form. */
  describe(): readonly object[];
  /**
   * Replaces credentials and access rules. New handshakes see the new ones; clients that are attached to what the new
   * rules no longer give them are sent away as at shutdown.
   */
  secure(security: NbdSecurity): void;
  /**
   * Stops listening; requests in flight finish and are answered, later ones get ESHUTDOWN, then the
   * connections are closed; those that are left after `drainMsMax` (default 10,000) are cut. Idempotent.
   */
  close(options?: { readonly drainMsMax?: number }): Promise<void>;
}
