/** The server: listeners, the set of connections and its limits, shutdown. */
import { isDeadSocket, PandoError, systemClock, withMode } from '@pando/common';
import type { Clock } from '@pando/common';
import { unlink } from 'node:fs/promises';
import * as net from 'node:net';
import { GuardedExports, OPEN_ACCESS, mayKeep } from './access.ts';
import type { AccessPolicy } from './access.ts';
import { BufferPool } from './buffer-pool.ts';
import { Connection } from './connection.ts';
import type { ConnectionServices } from './connection.ts';
import { EventLog } from './event-log.ts';
import { DEFAULT_LIMITS } from './limits.ts';
import type { NbdLimits } from './limits.ts';
import { RequestCounters } from './request-counters.ts';
import { RequestSlots } from './request-slots.ts';
import type { TlsCredentials } from './tls.ts';
import type {
  Logger,
  NbdAddress,
  NbdSecurity,
  NbdServer,
  NbdServerOptions,
  NbdServerStats,
  TlsMode,
} from './types.ts';

const DRAIN_MS_DEFAULT = 10_000;
/** After the drain: how long device operations that are still under way are waited for. */
const RELEASE_MS_MAX = 5_000;
const STALL_CHECK_MS = 1_000;
/** Refused connections are logged at most so often: port scans come in thousands. */
const REFUSAL_LOG_MS = 10_000;
const KEEP_ALIVE_MS = 60_000;
const LISTEN_BACKLOG = 511;
const SOCKET_MODE_DEFAULT = 0o600;

const silentLogger: Logger = { debug() {}, info() {}, warn() {}, error() {} };

interface Listener {
  readonly server: net.Server;
  readonly address: NbdAddress;
}

class Server implements NbdServer {
  readonly #services: ConnectionServices;
  readonly #limits: NbdLimits;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #pool: BufferPool;
  readonly #slots: RequestSlots;
  readonly #counters = new RequestCounters();
  readonly #tlsMode: TlsMode;
  readonly #socketMode: number;
  #credentials: TlsCredentials | undefined;
  #access: AccessPolicy = OPEN_ACCESS;
  /** In the order in which they came. */
  readonly #connections = new Set<Connection>();
  readonly #listeners: Listener[] = [];
  readonly #stopped = new AbortController();
  #refusedLoggedAt = -Infinity;
  #watching = false;
  #closing: Promise<void> | undefined;

  constructor(options: NbdServerOptions) {
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.#clock = options.clock ?? systemClock;
    this.#logger = options.logger ?? silentLogger;
    this.#pool = new BufferPool(this.#limits);
    this.#slots = new RequestSlots(this.#limits.allRequestsInFlightMax);
    this.#tlsMode = options.tls ?? 'off';
    this.#socketMode = options.socketMode ?? SOCKET_MODE_DEFAULT;
    this.secure(options);
    this.#services = {
      exports: new GuardedExports(
        options.exports,
        () => this.#access,
        this.#limits.scannedExportsMax,
        () => this.#isFull(),
      ),
      pool: this.#pool,
      slots: this.#slots,
      counters: this.#counters,
      tlsMode: this.#tlsMode,
      credentials: () => this.#credentials,
      eventLog: new EventLog(this.#logger, this.#clock),
      limits: this.#limits,
      clock: this.#clock,
      logger: this.#logger,
      rotational: options.rotational ?? false,
    };
  }

  secure({ credentials, access }: NbdSecurity): void {
    if (this.#tlsMode !== 'off' && credentials === undefined) {
      throw new PandoError('tls-file-invalid', 'TLS needs a server certificate or pre-shared keys');
    }
    this.#credentials = credentials;
    this.#access = access ?? OPEN_ACCESS;
    for (const connection of this.#connections) {
      const { opened, client } = connection;
      // What is being opened right now may be by rules that are gone: its client has to come again.
      if (connection.isOpening || (opened !== undefined && !mayKeep(opened, client, this.#access))) {
        connection.retire();
      }
    }
  }

  async listen(address: NbdAddress): Promise<NbdAddress> {
    if (this.#closing !== undefined) throw new PandoError('shutting-down', 'the NBD server is closing');
    let server: net.Server;
    try {
      server = await this.#bind(address);
    } catch (error) {
      if (!('path' in address) || !(await isDeadSocket(address.path, error))) throw error;
      await unlink(address.path);
      server = await this.#bind(address);
    }
    const bound = boundAddress(server, address);
    this.#listeners.push({ server, address: bound });
    server.on('error', (error) => {
      this.#logger.error({ err: error, address: bound }, 'an NBD listener failed');
    });
    return bound;
  }

  #bind(address: NbdAddress): Promise<net.Server> {
    const options = {
      allowHalfOpen: true,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: KEEP_ALIVE_MS,
    };
    const server = net.createServer(options, (socket) => {
      this.#accept(socket);
    });
    const where = 'path' in address ? { path: address.path } : { host: address.host, port: address.port };
    return new Promise((resolve, reject) => {
      server.once('error', reject);
      const listen = (): void => {
        server.listen({ ...where, backlog: LISTEN_BACKLOG }, () => {
          server.off('error', reject);
          resolve(server);
        });
      };
      if ('path' in address) withMode(this.#socketMode, listen);
      else listen();
    });
  }

  address(): readonly NbdAddress[] {
    return this.#listeners.map((listener) => listener.address);
  }

  stats(): NbdServerStats {
    let requestsInFlight = 0;
    for (const connection of this.#connections) requestsInFlight += connection.requestsInFlight;
    return {
      connections: this.#connections.size,
      connectionsInHandshake: this.#count((connection) => connection.inHandshake),
      requestsInFlight,
      bufferBytes: this.#pool.inUseBytes,
      commands: this.#counters.counts,
    };
  }

  describe(): readonly object[] {
    return Array.from(this.#connections, (connection) => connection.describe());
  }

  #count(which: (connection: Connection) => boolean): number {
    let count = 0;
    for (const connection of this.#connections) if (which(connection)) count++;
    return count;
  }

  /** Whether as many clients use exports as may. */
  #isFull(): boolean {
    return this.#count((connection) => connection.opened !== undefined) >= this.#limits.connectionsMax;
  }

  #accept(socket: net.Socket): void {
    const full = this.#isFull();
    // Clients that ask and go, again and again, must not have a slow provider open exports without end.
    const crowded = this.#count((connection) => connection.isOrphaned) >= this.#limits.connectionsMax;
    if (full || crowded) this.#logRefusal();
    const refused = this.#count((connection) => connection.refusal !== undefined);
    const unheard = crowded || (full && refused >= this.#limits.connectionsRefusedMax);
    if (this.#closing !== undefined || unheard) {
      socket.on('error', () => undefined);
      socket.destroy();
      return;
    }
    if (!full) this.#makeRoom();
    const refusal = full ? 'the server has all the connections it takes' : undefined;
    const connection = new Connection(socket, this.#services, refusal);
    this.#connections.add(connection);
    connection.closed.then(
      () => this.#connections.delete(connection),
      () => undefined,
    );
    connection.start();
    this.#watchStalls();
  }

  /**
   * Drops the oldest handshake when there are as many as may be. Not the new one: clients that mean it are through with
   * theirs in no time, so whoever takes all places and waits locks nobody out. Were new ones refused, a hundred silent
   * sockets could.
   */
  #makeRoom(): void {
    if (this.#count((connection) => connection.inHandshake) < this.#limits.connectionsInHandshakeMax) return;
    for (const connection of this.#connections) {
      if (!connection.inHandshake) continue;
      connection.violation('a handshake that took a place which others needed');
      return;
    }
  }

  #logRefusal(): void {
    const now = this.#clock.monotonic();
    if (this.#closing !== undefined || now - this.#refusedLoggedAt < REFUSAL_LOG_MS) return;
    this.#refusedLoggedAt = now;
    this.#logger.warn(
      { connections: this.#connections.size },
      'NBD connections are refused: a limit is reached',
    );
  }

  /** While there are connections: cuts off clients that hold buffers which others wait for. */
  #watchStalls(): void {
    if (this.#watching) return;
    this.#watching = true;
    const check = async (): Promise<void> => {
      while (this.#connections.size > 0) {
        await this.#clock.sleep(STALL_CHECK_MS, this.#stopped.signal);
        if (!this.#pool.contended) continue;
        const since = this.#clock.monotonic() - this.#limits.stallMsMax;
        for (const connection of this.#connections) {
          if (connection.stalledSince(since))
            connection.violation('buffers that others wait for, and no progress');
        }
      }
    };
    check().then(
      () => (this.#watching = false),
      () => (this.#watching = false),
    );
  }

  close(options?: { readonly drainMsMax?: number }): Promise<void> {
    this.#closing ??= this.#close(options?.drainMsMax ?? DRAIN_MS_DEFAULT);
    return this.#closing;
  }

  async #close(drainMsMax: number): Promise<void> {
    const listenersClosed = this.#listeners.map(
      ({ server }) => new Promise<void>((resolve) => server.close(() => resolve())),
    );
    const connections = [...this.#connections];
    const allClosed = Promise.all(connections.map((connection) => connection.closed)).then(() => true);
    for (const connection of connections) connection.retire();
    const drained = await this.#within(drainMsMax, allClosed);
    if (!drained) {
      for (const connection of connections) connection.destroy();
      if (!(await this.#within(RELEASE_MS_MAX, allClosed))) {
        this.#logger.error({}, 'NBD exports are still busy after the drain; they are left behind');
      }
    }
    this.#stopped.abort();
    await Promise.all(listenersClosed);
  }

  /** Whether `done` resolves within the time. */
  async #within(ms: number, done: Promise<boolean>): Promise<boolean> {
    const cancel = new AbortController();
    const late = this.#clock.sleep(ms, cancel.signal).then(
      () => false,
      () => false,
    );
    const result = await Promise.race([done, late]);
    cancel.abort();
    return result;
  }
}

/** Creates a server; it listens nowhere yet. */
export function createNbdServer(options: NbdServerOptions): NbdServer {
  return new Server(options);
}

function boundAddress(server: net.Server, asked: NbdAddress): NbdAddress {
  const bound = server.address();
  if (bound === null || typeof bound === 'string') return asked;
  return { host: bound.address, port: bound.port };
}
