/**
 * One client: its socket, the input that has not been taken yet, the phase it is in, and its end.
 *
 * Invariants: at most one read's worth of input waits here, because reading pauses as soon as the phase
 * takes no more. Whatever the client does (half-close, reset, silence), the export handle is closed
 * once, after its last operation, and before this side of the connection ends: a client that has seen the end
 * may rely on the export being free.
 */
import type { Clock } from '@pando/common';
import type { Socket } from 'node:net';
import type { BufferPool } from './buffer-pool.ts';
import type { OpenExport } from './contexts.ts';
import { Handshake } from './handshake.ts';
import type { HandshakeHost } from './handshake.ts';
import type { NbdLimits } from './limits.ts';
import type { Session } from './negotiation.ts';
import type { RequestCounters } from './request-counters.ts';
import type { RequestSlots } from './request-slots.ts';
import { Transmission } from './transmission.ts';
import type { TransmissionHost } from './transmission.ts';
import { shareReceiveBuffer } from './receive-buffer.ts';
import { secure } from './tls.ts';
import type { TlsCredentials } from './tls.ts';
import type { ClientIdentity, ExportProvider, Logger, TlsMode } from './types.ts';

/** What all connections of a server share. */
export interface ConnectionServices {
  readonly exports: ExportProvider;
  readonly pool: BufferPool;
  readonly slots: RequestSlots;
  readonly counters: RequestCounters;
  readonly limits: NbdLimits;
  readonly clock: Clock;
  readonly logger: Logger;
  /** For what strangers can cause as often as they like. */
  readonly eventLog: Logger;
  readonly tlsMode: TlsMode;
  /** Those of the moment; undefined where TLS is off. */
  readonly credentials: () => TlsCredentials | undefined;
  /** Whether exports are announced as ROTATIONAL. */
  readonly rotational: boolean;
}

const NO_INPUT = Buffer.alloc(0);

export class Connection implements HandshakeHost, TransmissionHost {
  /** The accepted socket, and the TLS socket over it once TLS is spoken. */
  socket: Socket;
  client: ClientIdentity;
  readonly exports: ExportProvider;
  readonly pool: BufferPool;
  readonly slots: RequestSlots;
  readonly counters: RequestCounters;
  readonly limits: NbdLimits;
  readonly logger: Logger;
  readonly rotational: boolean;
  readonly tlsMode: TlsMode;
  readonly refusal: string | undefined;
  /** Resolves when the socket is closed and the export handle released. */
  readonly closed: Promise<void>;
  readonly #services: ConnectionServices;
  readonly #clock: Clock;
  readonly #handshake: Handshake;
  readonly #deadline = new AbortController();
  readonly #gone = new AbortController();
  #transmission: Transmission | undefined;
  #input: Buffer[] = [];
  #position = 0;
  #inputEnded = false;
  #pumping = false;
  #paused = false;
  #retiring = false;
  #finishing = false;
  #releasing: Promise<void> | undefined;
  #securing = false;
  /** What TLS was agreed on; undefined in clear. */
  #secured: string | undefined;
  #activeAt: number;
  /** How long the handshake may take, from its start. */
  #handshakeMs = 0;

  /** `refusal`: the client is not served, and is told why when it asks for something. */
  constructor(socket: Socket, services: ConnectionServices, refusal?: string) {
    this.socket = socket;
    this.refusal = refusal;
    this.#services = services;
    this.exports = services.exports;
    this.pool = services.pool;
    this.slots = services.slots;
    this.counters = services.counters;
    this.limits = services.limits;
    this.logger = services.eventLog;
    this.tlsMode = services.tlsMode;
    this.rotational = services.rotational;
    const { remoteAddress, remotePort } = socket;
    const peer = remoteAddress === undefined ? 'unix' : `${remoteAddress}:${remotePort}`;
    this.client = { peer, proof: 'none', names: [] };
    this.#clock = services.clock;
    this.#activeAt = services.clock.monotonic();
    this.#handshake = new Handshake(this);
    this.closed = new Promise((resolve) => {
      socket.once('close', () => {
        this.#socketClosed().then(resolve, (error: unknown) => {
          this.logger.error({ err: error }, 'ending an NBD connection failed');
          resolve();
        });
      });
    });
    this.#listenTo(socket);
  }

  #listenTo(socket: Socket): void {
    socket.on('data', this.#onData);
    socket.on('end', this.#onEnd);
    socket.on('drain', this.#onDrain);
    socket.on('error', this.#onError);
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#activeAt = this.#clock.monotonic();
    if (this.#finishing) return;
    this.#input.push(chunk);
    this.pump();
  };

  /** As `#onData`, of a buffer that is used again: what is not taken at once is copied. Returns whether to read on. */
  readonly #onShared = (chunk: Buffer): boolean => {
    this.#onData(chunk);
    const last = this.#input.length - 1;
    if (last >= 0 && this.#input[last] === chunk) {
      const taken = last === 0 ? this.#position : 0;
      this.#input[last] = Buffer.from(chunk.subarray(taken));
      if (last === 0) this.#position = 0;
    }
    return !this.#paused;
  };

  readonly #onEnd = (): void => {
    this.#inputEnded = true;
    this.pump();
  };

  readonly #onDrain = (): void => {
    this.#activeAt = this.#clock.monotonic();
  };

  readonly #onError = (error: NodeJS.ErrnoException): void => {
    this.logger.debug({ code: error.code, exportName: this.exportName }, 'an NBD client broke off');
    // A TLS socket reports a broken record and stays open: its client would keep the export for as long as it likes.
    this.destroy();
  };

  get secured(): boolean {
    return this.#secured !== undefined;
  }

  get hasUnreadInput(): boolean {
    return this.#input.length > 0 || this.socket.readableLength > 0 || this.#inputEnded;
  }

  async startTls(): Promise<void> {
    const raw = this.socket;
    raw.off('data', this.#onData).off('end', this.#onEnd).off('drain', this.#onDrain);
    const credentials = this.#services.credentials();
    if (credentials === undefined) throw new Error('TLS without credentials');
    this.#securing = true;
    try {
      const { socket, client, agreed } = await secure(raw, this.client.peer, credentials);
      this.socket = socket;
      this.client = client;
      this.#secured = agreed;
      // Read again when the answer to STARTTLS is over, which resumes it.
      socket.pause();
      this.#listenTo(socket);
    } finally {
      this.#securing = false;
    }
  }

  /** Whether the client takes a place among those that have not chosen an export yet. */
  get inHandshake(): boolean {
    return this.#transmission === undefined && this.refusal === undefined && !this.socket.destroyed;
  }

  /** Whether the client is gone, and an export is still being opened, used or closed for it. */
  get isOrphaned(): boolean {
    return this.socket.destroyed;
  }

  get retiring(): boolean {
    return this.#retiring;
  }

  get exportName(): string | undefined {
    return this.#transmission?.handle.exportName;
  }

  /** The export that it uses, or has opened to choose contexts. */
  get opened(): OpenExport | undefined {
    return this.#transmission?.opened ?? this.#handshake.kept;
  }

  /** Whether an option is being answered, which may open an export. */
  get isOpening(): boolean {
    return this.#transmission === undefined && this.#handshake.waiting;
  }

  get requestsInFlight(): number {
    return this.#transmission?.requestsInFlight ?? 0;
  }

  /** Whether it holds buffers that only its client can free, and the client has done nothing since `since`. */
  stalledSince(since: number): boolean {
    const holds = (this.#transmission?.bufferBytes ?? 0) > 0;
    // Without replies stuck in the socket, it may be the device that takes its time, or this server that does not read.
    const idle = this.requestsInFlight === 0 && !this.#paused;
    const waitsForClient = this.socket.writableLength > 0 || idle;
    return holds && waitsForClient && this.#activeAt < since;
  }

  /** What it is doing and what it waits for, for people who look for one that hangs. */
  describe(): object {
    const { destroyed, readableEnded, readableLength, writable, writableLength, writableNeedDrain } =
      this.socket;
    return {
      peer: this.client.peer,
      tls: this.#secured,
      idleMs: Math.round(this.#clock.monotonic() - this.#activeAt),
      socket: {
        ...{ destroyed, paused: this.socket.isPaused(), readableEnded, readableLength },
        ...{ writable, writableLength, writableNeedDrain },
      },
      inputChunks: this.#input.length,
      ...{ inputEnded: this.#inputEnded, pumping: this.#pumping, paused: this.#paused },
      ...{ retiring: this.#retiring, finishing: this.#finishing, securing: this.#securing },
      ...(this.#transmission === undefined
        ? { handshake: this.#handshake.describe() }
        : { exportName: this.exportName, transmission: this.#transmission.describe() }),
    };
  }

  start(): void {
    this.#handshake.greet();
    const { handshakeMsMax, refusalMsMax } = this.limits;
    this.#handshakeMs = this.refusal === undefined ? handshakeMsMax : refusalMsMax;
    this.#watchHandshake().catch(() => undefined);
  }

  async #watchHandshake(): Promise<void> {
    for (let waited = 0; waited < this.#handshakeMs;) {
      const ms = this.#handshakeMs - waited;
      await this.#clock.sleep(ms, this.#deadline.signal);
      waited += ms;
    }
    if (this.#transmission === undefined) this.violation('a handshake that took too long');
  }

  allowHandshake(ms: number): void {
    this.#handshakeMs = Math.max(this.#handshakeMs, ms);
  }

  /** Takes as much of the input as the phase admits; pauses reading while it does not. */
  pump(): void {
    if (this.#pumping || this.socket.destroyed) return;
    this.#pumping = true;
    let phase = this.#transmission ?? this.#handshake;
    for (;;) {
      const chunk = this.#input[0] ?? NO_INPUT;
      this.#position = phase.consume(chunk, this.#position);
      if (this.#position === chunk.length) {
        this.#position = 0;
        // The end of a handshake may have brought input where there was none.
        if (this.#input[0] === chunk) this.#input.shift();
      }
      phase = this.#transmission ?? this.#handshake;
      if (phase.waiting || this.#finishing || this.#input.length === 0) break;
    }
    phase.endTurn();
    this.#pumping = false;
    this.#throttle(phase.waiting && !this.#finishing);
    if (this.#inputEnded && !phase.waiting && this.#input.length === 0) this.#endOfInput();
  }

  #throttle(pause: boolean): void {
    if (pause === this.#paused) return;
    this.#paused = pause;
    if (pause) this.socket.pause();
    else this.socket.resume();
  }

  #endOfInput(): void {
    if (this.#transmission === undefined) this.finish();
    else this.#transmission.inputEnded();
  }

  startTransmission(session: Session): void {
    this.#deadline.abort();
    const { handle } = session.opened;
    this.#transmission = new Transmission(this, session);
    shareReceiveBuffer(this.socket, this.#onShared);
    // A socket that is gone already is released as soon as the handshake is.
    if (this.socket.destroyed) return;
    const { exportName, readOnly } = handle;
    const { peer, proof, names } = this.client;
    this.#services.logger.info(
      { exportName, readOnly, replies: session.replies, peer, proof, names, tls: this.#secured },
      'an NBD client attached',
    );
    handle.revoked.addEventListener('abort', this.#onRevoked, { once: true });
    // The export may have been revoked, or the server be closing, while it was being opened.
    if (handle.revoked.aborted) this.#retiring = true;
    if (this.#retiring) this.#transmission.retire();
  }

  readonly #onRevoked = (): void => {
    this.retire();
  };

  /** Lets what is in flight finish, then closes. */
  retire(): void {
    if (this.#retiring) return;
    this.#retiring = true;
    if (this.#transmission !== undefined) this.#transmission.retire();
    else if (this.#securing) this.destroy();
    else if (!this.#handshake.waiting) this.#endHandshake();
  }

  /** An option that is on its way gets ERR_SHUTDOWN, as whoever sent it should hear; then the connection ends. */
  #endHandshake(): void {
    this.#clock.sleep(this.limits.shutdownGraceMs, this.#gone.signal).then(
      () => {
        if (!this.#handshake.waiting) this.finish();
      },
      () => undefined,
    );
  }

  finish(): void {
    if (this.#finishing) return;
    this.#finishing = true;
    this.#input = [];
    this.#position = 0;
    void this.#release().then(() => this.socket.end());
    // Input is read on and dropped: unread bytes at close would reset the connection and take replies with them.
    this.#throttle(false);
    this.#clock.sleep(this.limits.lingerMsMax, this.#gone.signal).then(
      () => this.socket.destroy(),
      () => undefined,
    );
  }

  violation(reason: string): void {
    this.#logEnd(reason, 'an NBD client was cut off');
    this.destroy();
  }

  dismiss(reason: string): void {
    this.#logEnd(reason, 'an NBD client was sent away');
    this.finish();
  }

  #logEnd(reason: string, message: string): void {
    this.logger.info({ reason, exportName: this.exportName, peer: this.client.peer }, message);
  }

  destroy(): void {
    this.socket.destroy();
  }

  async drained(): Promise<void> {
    if (this.socket.destroyed || this.socket.writableLength === 0) return;
    // An empty write is called back behind everything before it, also when the socket is destroyed.
    await new Promise<void>((resolve) => this.socket.write(NO_INPUT, () => resolve()));
  }

  async #socketClosed(): Promise<void> {
    this.#deadline.abort();
    this.#gone.abort();
    this.#input = [];
    // An option that is being answered may still begin the transmission.
    await this.#handshake.close();
    await this.#transmission?.abort();
    await this.#release();
  }

  /** Closes the export that is open; no request is in flight and none will come. Never rejects. */
  #release(): Promise<void> {
    this.#releasing ??= this.#closeExport().catch((error: unknown) => {
      this.logger.error({ err: error }, 'closing an NBD export failed');
    });
    return this.#releasing;
  }

  async #closeExport(): Promise<void> {
    await this.#handshake.close();
    const transmission = this.#transmission;
    if (transmission === undefined) return;
    transmission.handle.revoked.removeEventListener('abort', this.#onRevoked);
    await transmission.opened.close();
    const { exportName } = transmission.handle;
    this.#services.logger.info({ exportName, peer: this.client.peer }, 'an NBD client detached');
  }
}
