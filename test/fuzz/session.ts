/** Plays one plan on one connection, under the eyes of a witness. */
import { SeededRandom } from '@pando/block-device/testing';
import type { NbdAddress } from '@pando/nbd';
import * as net from 'node:net';
import * as tls from 'node:tls';
import { noise } from './plan.ts';
import type { Plan, Step } from './plan.ts';
import type { Witness } from './witness.ts';
import { Opt, optionMessage } from './wire.ts';

/** An answer that takes longer will not come. */
const ANSWER_MS_MAX = 30_000;
const PIECE_BYTES_MAX = 30_000;

export class Session {
  readonly #plan: Plan;
  readonly #witness: Witness;
  readonly #revoke: () => void;
  /** For how the bytes are cut; made from the plan, so that a replay cuts them the same. */
  readonly #random: SeededRandom;
  readonly #authority: string | undefined;
  readonly #socket: net.Socket;
  /** Where NBD is spoken: the socket, or the tunnel over it. */
  #channel: net.Socket;
  readonly #closed: Promise<void>;
  #ended = false;
  #byClient = false;
  #connected = false;
  #failure: unknown;
  #wake: (() => void) | undefined;
  messagesSent = 0;

  /** `authority` is the certificate that vouches for the server, where it speaks TLS. */
  constructor(
    plan: Plan,
    address: NbdAddress,
    witness: Witness,
    authority: string | undefined,
    revoke: () => void,
  ) {
    this.#plan = plan;
    this.#authority = authority;
    this.#witness = witness;
    this.#revoke = revoke;
    this.#random = new SeededRandom(plan.seed ^ 0x6375_7473);
    const where = 'path' in address ? { path: address.path } : { host: address.host, port: address.port };
    const socket = net.connect({ ...where, allowHalfOpen: true, noDelay: true });
    this.#socket = socket;
    this.#channel = socket;
    this.#closed = new Promise((resolve) => socket.once('close', () => resolve()));
    socket.on('connect', () => {
      this.#connected = true;
      this.#wake?.();
    });
    socket.on('error', () => undefined);
    socket.on('end', this.#serverEnded);
    socket.on('close', this.#serverEnded);
    socket.on('data', this.#onData);
  }

  readonly #onData = (bytes: Buffer): void => {
    if (this.#byClient) return;
    try {
      this.#witness.received(bytes);
    } catch (error) {
      this.#failure ??= error;
    }
    this.#wake?.();
  };

  /** @throws WitnessError, or Error when answers stay away */
  async play(): Promise<void> {
    const { deaf, revokeAt } = this.#plan;
    let { steps } = this.#plan;
    try {
      await this.#until(() => this.#connected, 'a connection');
      if (!this.#connected) throw new Error('the server does not accept connections');
      if (this.#plan.tls !== 'no') steps = await this.#tunnel(steps);
      if (deaf) this.#channel.pause();
      for (const [i, step] of steps.entries()) {
        if (i === revokeAt) this.#revoke();
        if (i === 1 && this.#plan.tls === 'noiseWithin') this.#disturb();
        if (!(await this.#send(step))) break;
        if (step.wait && !deaf) await this.#until(() => this.#witness.settled, 'an answer');
        if (step.wait && this.#witness.settled) this.#witness.settle();
      }
      if (steps.length === revokeAt) this.#revoke();
      await this.#leave();
      if (this.#failure !== undefined) throw this.#failure as Error;
      this.#witness.ended(this.#byClient);
    } finally {
      this.#byClient = true;
      this.#channel.destroy();
      this.#socket.destroy();
      await this.#closed;
      this.#witness.abandoned();
    }
  }

  /** Client flags and STARTTLS in clear, then TLS; returns what is left to say. */
  async #tunnel(steps: readonly Step[]): Promise<readonly Step[]> {
    const [flags, ...later] = steps[0]!.messages;
    const rest = [{ ...steps[0]!, messages: later }, ...steps.slice(1)];
    this.#write(
      Buffer.concat([flags?.bytes ?? Buffer.alloc(0), optionMessage(Opt.startTls, Buffer.alloc(0))]),
    );
    await this.#until(() => this.#witness.phase === 'tls', 'STARTTLS');
    if (this.#witness.phase !== 'tls') return [];
    if (this.#plan.tls === 'noHello') {
      this.#write(noise.subarray(this.#plan.seed % 10_000, (this.#plan.seed % 10_000) + 500));
      return [];
    }
    // The socket may end while the tunnel still has something to read.
    this.#socket.off('data', this.#onData).off('end', this.#serverEnded).off('close', this.#serverEnded);
    const tunnel = tls.connect({
      socket: this.#socket,
      ca: this.#authority,
      checkServerIdentity: () => undefined,
    });
    this.#channel = tunnel;
    let secure = false;
    tunnel.on('error', (error) => {
      if (!secure) this.#failure ??= error;
      this.#serverEnded();
    });
    tunnel.on('end', this.#serverEnded);
    tunnel.on('close', this.#serverEnded);
    tunnel.on('secureConnect', () => {
      secure = true;
      this.#wake?.();
    });
    await this.#until(() => secure, 'the TLS handshake');
    this.#witness.tunnelled();
    tunnel.on('data', this.#onData);
    return rest;
  }

  /** Bytes that are no record, past the tunnel. */
  #disturb(): void {
    this.#witness.mayBreak();
    this.#socket.write(noise.subarray(this.#plan.seed % 10_000, (this.#plan.seed % 10_000) + 200));
  }

  /** An export is about to be taken away, by whichever connection. Handshakes may have opened any export. */
  taken(name: string): void {
    const mentions = this.#plan.steps.some(({ messages }) =>
      messages.some(({ bytes }) => bytes.includes(name)),
    );
    if (mentions) this.#witness.mayShutDown();
  }

  readonly #serverEnded = (): void => {
    this.#ended = true;
    this.#wake?.();
  };

  /** Resolves when the condition holds or the connection has ended. */
  async #until(condition: () => boolean, what: string): Promise<void> {
    while (!condition() && !this.#ended && this.#failure === undefined && this.#witness.fate !== 'cut') {
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<never>((_, reject) => {
        timer = setTimeout(() => {
          reject(new Error(`waited too long for ${what}: ${this.#witness.state}`));
        }, ANSWER_MS_MAX);
      });
      try {
        await Promise.race([new Promise<void>((resolve) => (this.#wake = resolve)), late]);
      } finally {
        clearTimeout(timer);
      }
    }
    if (this.#failure !== undefined) throw this.#failure as Error;
  }

  /** Sends the messages of a step; false when there is nobody to send to any more. */
  async #send(step: Step): Promise<boolean> {
    const { delivery } = step;
    if (delivery === 'whole') {
      this.messagesSent += step.messages.length;
      this.#write(Buffer.concat(step.messages.map((message) => message.bytes)));
    } else {
      const bytes = Buffer.concat(step.messages.map((message) => message.bytes));
      this.messagesSent += step.messages.length;
      for (let at = 0; at < bytes.length && !this.#ended;) {
        const count = delivery === 'bytes' ? 1 : this.#pieceBytes();
        this.#write(bytes.subarray(at, at + count));
        at += count;
        if (this.#random.below(delivery === 'bytes' ? 30 : 2) === 0)
          await new Promise((resolve) => setImmediate(resolve));
      }
    }
    if (this.#failure !== undefined) throw this.#failure as Error;
    return !this.#ended && this.#witness.fate === 'open';
  }

  #pieceBytes(): number {
    return 1 + this.#random.below([3, 30, 300, PIECE_BYTES_MAX][this.#random.below(4)]!);
  }

  #write(bytes: Buffer): void {
    if (this.#ended || bytes.length === 0) return;
    try {
      this.#witness.sent(bytes);
    } catch (error) {
      this.#failure ??= error;
    }
    this.#channel.write(bytes);
  }

  async #leave(): Promise<void> {
    const { ending, deaf } = this.#plan;
    if (deaf) this.#channel.resume();
    if (ending === 'destroy' || ending === 'reset') {
      this.#byClient = true;
      if (this.#random.below(2) === 0) await new Promise((resolve) => setImmediate(resolve));
      if (ending === 'reset' && this.#socket.remotePort !== undefined) this.#socket.resetAndDestroy();
      else this.#socket.destroy();
      await this.#closed;
      return;
    }
    // After DISC the server closes by itself; where it does not (the DISC was damaged, or swallowed), this side ends.
    if (ending === 'halfClose' || this.#witness.fate === 'open') {
      this.#witness.clientEnded();
      this.#channel.end();
    }
    await this.#untilEnded();
    this.#channel.end();
  }

  async #untilEnded(): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        reject(new Error(`the server does not close: ${this.#witness.state}`));
      }, ANSWER_MS_MAX);
    });
    try {
      while (!this.#ended && this.#failure === undefined)
        await Promise.race([new Promise<void>((resolve) => (this.#wake = resolve)), late]);
    } finally {
      clearTimeout(timer);
    }
  }
}
