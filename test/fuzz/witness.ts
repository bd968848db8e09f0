/**
 * What a server must do with a connection, told from nothing but the bytes that went each way.
 *
 * The witness parses what was sent as a server has to, however it came to be (valid, damaged, noise), and holds what
 * comes back against it: the form of every reply; that each option is answered in order and each request exactly
 * once; that only errors which fit are given; and, through the disk model, that data is right. Where the protocol
 * leaves a choice, the server's answer is followed.
 */
import { Batch } from './disk-model.ts';
import type { DiskModel } from './disk-model.ts';
import {
  ByteQueue,
  Chunk,
  Cmd,
  EXTENDED_REPLY_MAGIC,
  EXTENDED_REQUEST_MAGIC,
  Errno,
  Flag,
  OPTION_MAGIC,
  OPTION_REPLY_MAGIC,
  Opt,
  PAYLOAD_BYTES_MAX,
  REQUEST_MAGIC,
  Rep,
  SIMPLE_REPLY_MAGIC,
  STRING_BYTES_MAX,
  STRUCTURED_REPLY_MAGIC,
} from './wire.ts';

export interface ExportFacts {
  readonly name: string;
  readonly size: number;
  readonly readOnly: boolean;
  /** Its device fails now and then (EIO, ENOSPC). */
  readonly faulty: boolean;
  /** Opening it fails. */
  readonly broken: boolean;
  /** Dirty bitmaps since backups of nothing but zeros: what they call clean reads as zeros. */
  readonly sinceZeros: readonly string[];
  /** Undefined: several clients write to it, so nothing is known of its data. */
  readonly model: DiskModel | undefined;
}

export interface World {
  /** Exports by every name that opens them. */
  readonly exports: ReadonlyMap<string, ExportFacts>;
  readonly tls: 'off' | 'allow' | 'require';
  readonly optionsMax: number;
  readonly optionsPerListedExportMax: number;
  readonly optionBytesMax: number;
  readonly optionSkipBytesMax: number;
  readonly contextQueriesMax: number;
  readonly payloadSkipBytesMax: number;
}

/** What is to become of the connection: it goes on, the server closes after its answers, or it is cut off at once. */
export type Fate = 'open' | 'closes' | 'cut';

interface PendingOption {
  readonly option: number;
  readonly allowed: ReadonlySet<number>;
  /** The export that INFO and GO open. */
  readonly facts: ExportFacts | undefined;
  readonly name: string;
  readonly queries: readonly string[];
  readonly infos: { size?: number; flags?: number };
  readonly contexts: Map<number, string>;
}

interface PendingRequest {
  readonly type: number;
  readonly flags: number;
  readonly offset: bigint;
  readonly length: bigint;
  readonly payload: Buffer | undefined;
  /** Errors that fit; empty when it has to succeed. */
  readonly errors: readonly number[];
  readonly mayFail: boolean;
  data: Buffer | undefined;
  covered: [number, number][];
  readonly statuses: Set<number>;
  claims: { from: number; to: number }[];
  errno: number;
  /** A chunk of the reply has come. */
  begun: boolean;
}

const SERVER_CLIENT_FLAGS = 3;
const GREETING_BYTES = 18;
const REPLY_BYTES_MAX = 1024 * 1024;
const KNOWN_SIZED_OPTIONS = new Set<number>([
  Opt.list,
  Opt.startTls,
  Opt.info,
  Opt.go,
  Opt.structured,
  Opt.listContexts,
  Opt.setContexts,
  Opt.extended,
]);

const DATA_OPTIONS = new Set<number>([Opt.info, Opt.go, Opt.listContexts, Opt.setContexts]);

const strictUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

export class WitnessError extends Error {}

function fail(message: string): never {
  throw new WitnessError(message);
}

export class Witness {
  readonly #world: World;
  readonly #out = new ByteQueue();
  readonly #in = new ByteQueue();
  #phase: 'greeting' | 'flags' | 'options' | 'exportName' | 'tls' | 'transmission' = 'greeting';
  #clientFlags = 0;
  #options = 0;
  /** It grows with what LIST names. */
  #optionsMax: number;
  #listed = 0;
  #option: PendingOption | undefined;
  #structured = false;
  #extended = false;
  #secure = false;
  #contexts: ReadonlyMap<number, string> = new Map();
  #contextsFor: string | undefined;
  #facts: ExportFacts | undefined;
  #transmissionFlags = 0;
  #sessionContexts: ReadonlyMap<number, string> = new Map();
  readonly #requests = new Map<bigint, PendingRequest[]>();
  #outstanding = 0;
  #batch = new Batch();
  #clientEnded = false;
  /** The server closes because of an option: what comes behind it is nobody's. */
  #dismissed = false;
  #mayShutDown = false;
  #mayBreak = false;
  fate: Fate = 'open';
  optionsAnswered = 0;
  requestsSeen = 0;
  requestsAnswered = 0;
  requestsSucceeded = 0;

  constructor(world: World) {
    this.#world = world;
    this.#optionsMax = world.optionsMax;
  }

  /** The export that transmission goes to, once it has begun. */
  get facts(): ExportFacts | undefined {
    return this.#facts;
  }

  get phase(): string {
    return this.#phase;
  }

  get extended(): boolean {
    return this.#extended;
  }

  /** Whether everything complete that was sent has its answer. */
  get settled(): boolean {
    return (
      this.#phase !== 'greeting' &&
      this.#option === undefined &&
      this.#outstanding === 0 &&
      this.#phase !== 'exportName'
    );
  }

  /** What is outstanding, for people. */
  get state(): string {
    const waiting = [...this.#requests.values()].flat().map((request) => describe(request));
    const option = this.#option === undefined ? '' : `, option ${this.#option.option} unanswered`;
    return `phase ${this.#phase}, fate ${this.fate}${option}, ${this.#outstanding} requests unanswered${
      waiting.length > 0 ? `: ${waiting.slice(0, 5).join('; ')}` : ''
    }, ${this.#in.length} bytes of reply and ${this.#out.length} of request not understood yet`;
  }

  /** Bytes are about to be handed to the socket. The witness keeps them. */
  sent(bytes: Buffer): void {
    this.#out.push(bytes);
    this.#advance();
  }

  /** Bytes came back. @throws WitnessError when they are not what the server has to say */
  received(bytes: Buffer): void {
    this.#in.push(bytes);
    this.#advance();
  }

  /** The client has closed its sending side. */
  clientEnded(): void {
    this.#clientEnded = true;
    if (this.fate === 'open') this.fate = 'closes';
  }

  /** The export may be taken away from now on: options get ERR_SHUTDOWN and requests ESHUTDOWN, and the connection ends. */
  mayShutDown(): void {
    this.#mayShutDown = true;
  }

  /** The tunnel was disturbed: the connection may be cut. */
  mayBreak(): void {
    this.#mayBreak = true;
  }

  /** After STARTTLS: everything negotiated is void, and bytes are those inside the tunnel. */
  tunnelled(): void {
    this.#phase = 'options';
    this.#secure = true;
    this.#structured = false;
    this.#extended = false;
    this.#contexts = new Map();
    this.#contextsFor = undefined;
    this.#option = undefined;
    this.#out.take(this.#out.length);
  }

  /** The server has closed, or the connection was lost. @throws WitnessError when it had no reason to */
  ended(byClient: boolean): void {
    if (byClient || this.#mayShutDown || this.#mayBreak || this.fate === 'cut') return;
    // What comes in clear behind STARTTLS is nobody's: the connection is cut, with or without the answer.
    if (this.#option !== undefined && this.#clearBehindTls(this.#option)) return;
    if (this.fate === 'open') fail(`the server hung up: ${this.state}`);
    if (this.#phase === 'exportName' || this.#phase === 'greeting' || this.#phase === 'tls') return;
    if (this.#option !== undefined && this.#cutBehind(this.#option)) return;
    if (!this.settled) fail(`the server closed without answering: ${this.state}`);
    if (this.#in.length > 0) fail(`half a reply: ${this.state}`);
  }

  /**
   * The client has left without waiting for answers: whatever the server can have understood of what was sent may have
   * happened, also behind options whose answers nobody saw.
   */
  abandoned(): void {
    if (this.#phase === 'greeting') this.#phase = 'flags';
    if (this.#phase === 'flags') {
      if (this.#out.take(4) === undefined) return;
      this.#phase = 'options';
    }
    while (this.#phase === 'options') {
      const pending = this.#option;
      if (pending === undefined) {
        const header = this.#out.peek(16);
        const whole = header === undefined ? undefined : this.#out.take(16 + header.readUInt32BE(12));
        if (whole === undefined) return;
        this.#expectAnswer(whole.readUInt32BE(8), whole.subarray(16));
        continue;
      }
      this.#option = undefined;
      if (pending.option === Opt.startTls && pending.allowed.has(Rep.ack)) return;
      if (!pending.allowed.has(Rep.ack)) continue;
      if (pending.option === Opt.structured) this.#structured = true;
      else if (pending.option === Opt.extended) this.#extended = true;
      else if (pending.option === Opt.go) this.#transmit(pending.facts!, pending.name, 0);
    }
    if (this.#phase === 'exportName') this.#transmit(this.#facts!, this.#facts!.name, 0);
    this.#takeRequests();
  }

  /** Settles the requests so far with the disk model. Those that have no answer may or may not have happened. */
  settle(): void {
    const batch = this.#batch;
    this.#batch = new Batch();
    for (const request of [...this.#requests.values()].flat()) this.#addMutation(batch, request, false);
    this.#facts?.model?.settle(batch);
  }

  /**
   * Whether the server has to cut the connection for what was sent behind an option that is still unanswered: its
   * answer may be lost with the connection.
   */
  #cutBehind(pending: PendingOption): boolean {
    const rest = this.#out.peek(this.#out.length)!;
    let { option } = pending;
    // An answer that nobody has seen may have begun transmission; the first one is known to be able to or not.
    let begins = option === Opt.go && pending.allowed.has(Rep.ack);
    let options = this.#options;
    for (let at = 0; at + 16 <= rest.length;) {
      if (begins && this.#cutInRequests(rest, at)) return true;
      const length = rest.readUInt32BE(at + 12);
      if (
        rest.readBigUInt64BE(at) !== OPTION_MAGIC ||
        ++options > this.#optionsMax ||
        length > this.#world.optionSkipBytesMax
      )
        return !begins;
      option = rest.readUInt32BE(at + 8);
      begins = !this.#barred && (option === Opt.go || option === Opt.exportName);
      at += 16 + length;
    }
    return false;
  }

  /** Whether STARTTLS is among the options without an answer, and something behind it: being cut takes earlier answers too. */
  #clearBehindTls(pending: PendingOption): boolean {
    if (this.#world.tls === 'off') return false;
    const rest = this.#out.peek(this.#out.length)!;
    let { option } = pending;
    let at = 0;
    while (option !== Opt.startTls && at + 16 <= rest.length) {
      option = rest.readUInt32BE(at + 8);
      at += 16 + rest.readUInt32BE(at + 12);
    }
    return option === Opt.startTls && at < rest.length;
  }

  #cutInRequests(rest: Buffer, from: number): boolean {
    const headerBytes = this.#extended ? 32 : 28;
    for (let at = from; at + headerBytes <= rest.length;) {
      if (rest.readUInt32BE(at) !== (this.#extended ? EXTENDED_REQUEST_MAGIC : REQUEST_MAGIC)) return true;
      const flags = rest.readUInt16BE(at + 4);
      const type = rest.readUInt16BE(at + 6);
      if (type === Cmd.disc) return false;
      const carries = type === Cmd.write || (this.#extended && (flags & Flag.payloadLen) !== 0);
      const length = this.#extended ? Number(rest.readBigUInt64BE(at + 24)) : rest.readUInt32BE(at + 24);
      if (carries && length > (this.#extended ? PAYLOAD_BYTES_MAX : this.#world.payloadSkipBytesMax))
        return true;
      at += headerBytes + (carries ? length : 0);
    }
    return false;
  }

  #advance(): void {
    for (;;) {
      switch (this.#phase) {
        case 'greeting': {
          const greeting = this.#in.take(GREETING_BYTES);
          if (greeting === undefined) return;
          if (greeting.toString('latin1', 0, 16) !== 'NBDMAGICIHAVEOPT' || greeting.readUInt16BE(16) !== 3)
            fail('the greeting is wrong');
          this.#phase = 'flags';
          break;
        }
        case 'flags': {
          const flags = this.#out.take(4);
          if (flags === undefined) {
            this.#expectSilence();
            return;
          }
          this.#clientFlags = flags.readUInt32BE(0);
          if ((this.#clientFlags & ~SERVER_CLIENT_FLAGS) !== 0) this.fate = 'cut';
          this.#phase = 'options';
          break;
        }
        case 'options':
          if (!this.#advanceOptions()) return;
          break;
        case 'exportName': {
          const answer = this.#in.take(10 + ((this.#clientFlags & 2) !== 0 ? 0 : 124));
          if (answer === undefined) return;
          const facts = this.#facts!;
          if (answer.subarray(10).some((byte) => byte !== 0)) fail('the zeros after EXPORT_NAME are none');
          this.#checkExport(facts, Number(answer.readBigUInt64BE(0)), answer.readUInt16BE(8));
          this.#transmit(facts, facts.name, answer.readUInt16BE(8));
          break;
        }
        case 'tls':
          if (this.#out.length > 0) this.fate = 'cut';
          this.#expectRecords();
          return;
        case 'transmission':
          this.#takeRequests();
          this.#takeReplies();
          return;
      }
    }
  }

  /** Between STARTTLS and the end of the handshake: alerts and handshake records, and nothing of NBD. */
  #expectRecords(): void {
    const first = this.#in.peek(1)?.[0];
    if (first !== undefined && first !== 0x15 && first !== 0x16)
      fail('an answer in clear after STARTTLS was acknowledged');
  }

  #expectSilence(): void {
    if (this.#in.length > 0) fail(`the server speaks unasked: ${this.state}`);
  }

  /** Whether there may be more to do. */
  #advanceOptions(): boolean {
    if (this.#option !== undefined) return this.#takeOptionReply(this.#option);
    if (this.#dismissed || (this.fate !== 'open' && !this.#clientEnded)) {
      this.#expectSilence();
      return false;
    }
    const header = this.#out.peek(16);
    if (header === undefined) {
      this.#expectSilence();
      return false;
    }
    const option = header.readUInt32BE(8);
    const length = header.readUInt32BE(12);
    if (
      header.readBigUInt64BE(0) !== OPTION_MAGIC ||
      this.#options >= this.#optionsMax ||
      length > this.#world.optionSkipBytesMax
    ) {
      this.fate = 'cut';
      return false;
    }
    const whole = this.#out.take(16 + length);
    if (whole === undefined) {
      this.#expectSilence();
      return false;
    }
    this.#options++;
    this.#expectAnswer(option, whole.subarray(16));
    return true;
  }

  /** Whether nothing is served without TLS, and there is none yet. */
  get #barred(): boolean {
    return this.#world.tls === 'require' && !this.#secure;
  }

  #expectAnswer(option: number, data: Buffer): void {
    const allowed = new Set<number>();
    let name = '';
    let queries: readonly string[] = [];
    let facts: ExportFacts | undefined;
    const barred = this.#barred;
    if (option === Opt.exportName) {
      this.#expectExportName(data, barred);
      return;
    }
    if (option === Opt.abort) {
      allowed.add(Rep.ack);
    } else if (barred && option !== Opt.startTls) {
      allowed.add(Rep.tlsRequired);
      // Whether an option that nobody knows needs TLS, nobody knows.
      if (!KNOWN_SIZED_OPTIONS.has(option)) allowed.add(Rep.unsupported);
      if (data.length > this.#world.optionBytesMax) allowed.add(Rep.tooBig);
    } else if (!KNOWN_SIZED_OPTIONS.has(option)) {
      allowed.add(Rep.unsupported);
    } else if (data.length > this.#world.optionBytesMax) {
      allowed.add(Rep.tooBig);
      if (option === Opt.startTls && this.#world.tls === 'off') allowed.add(Rep.unsupported);
      // Options that have no data at all.
      if (!DATA_OPTIONS.has(option)) allowed.add(Rep.invalid);
    } else if (option === Opt.info || option === Opt.go) {
      const parsed = parseInfo(data);
      if (typeof parsed === 'number') {
        allowed.add(Rep.invalid);
        if (parsed === Rep.tooBig) allowed.add(Rep.tooBig);
      } else {
        name = parsed;
        facts = this.#world.exports.get(name);
        if (facts === undefined) allowed.add(Rep.unknown);
        else if (facts.broken) allowed.add(Rep.platform).add(Rep.policy);
        else allowed.add(Rep.ack);
      }
    } else if (option === Opt.listContexts || option === Opt.setContexts) {
      const parsed = parseContexts(data);
      if (option === Opt.setContexts) {
        this.#contexts = new Map();
        this.#contextsFor = undefined;
      }
      if (typeof parsed === 'number' || !(this.#structured || this.#extended)) {
        allowed.add(Rep.invalid);
        if (parsed === Rep.tooBig) allowed.add(Rep.tooBig);
      } else {
        ({ name, queries } = parsed);
        const known = this.#world.exports.get(name);
        allowed.add(Rep.ack);
        // Contexts of what cannot be opened: an error says so sooner, no contexts say it later.
        if (known === undefined) allowed.add(Rep.unknown);
        else if (known.broken) allowed.add(Rep.platform).add(Rep.policy);
        if (queries.length > this.#world.contextQueriesMax) allowed.add(Rep.tooBig);
      }
    } else if (data.length > 0) {
      allowed.add(Rep.invalid);
      if (option === Opt.startTls && this.#world.tls === 'off') allowed.add(Rep.unsupported).add(Rep.policy);
    } else if (option === Opt.startTls) {
      if (this.#world.tls === 'off') allowed.add(Rep.unsupported).add(Rep.policy);
      else allowed.add(this.#secure ? Rep.invalid : Rep.ack);
    } else if (option === Opt.structured) {
      allowed.add(this.#extended ? Rep.extendedRequired : Rep.ack);
    } else if (option === Opt.extended) {
      allowed.add(Rep.ack);
      if (this.#extended) allowed.add(Rep.invalid);
    } else {
      allowed.add(Rep.ack);
    }
    this.#option = { option, allowed, facts, name, queries, infos: {}, contexts: new Map() };
  }

  #expectExportName(data: Buffer, barred: boolean): void {
    const name = decode(data);
    const facts = name === undefined ? undefined : this.#world.exports.get(name);
    if (barred || facts === undefined || facts.broken || this.#extended || data.length > STRING_BYTES_MAX) {
      this.#dismiss();
      return;
    }
    this.#facts = facts;
    this.#phase = 'exportName';
    this.#contextsFor = this.#contextsFor === name ? facts.name : undefined;
  }

  #dismiss(): void {
    this.fate = 'closes';
    this.#dismissed = true;
  }

  #takeOptionReply(pending: PendingOption): boolean {
    const header = this.#in.peek(20);
    if (header === undefined) return false;
    const type = header.readUInt32BE(12);
    const length = header.readUInt32BE(16);
    if (header.readBigUInt64BE(0) !== OPTION_REPLY_MAGIC) fail('an option reply without its magic number');
    if (header.readUInt32BE(8) !== pending.option)
      fail(`an answer to option ${header.readUInt32BE(8)} instead of ${pending.option}`);
    if (length > REPLY_BYTES_MAX) fail(`an option reply of ${length} bytes`);
    const whole = this.#in.take(20 + length);
    if (whole === undefined) return false;
    const data = Buffer.from(whole.subarray(20));
    if (type >= 0x8000_0000) {
      const shutsDown = this.#mayShutDown && type === Rep.shutdown;
      if (!pending.allowed.has(type) && !shutsDown) fail(this.#wrongAnswer(pending, type, data));
      if (data.length > STRING_BYTES_MAX || decode(data) === undefined)
        fail('an error text that is no string');
      this.#optionDone();
      return true;
    }
    if (!pending.allowed.has(Rep.ack)) fail(this.#wrongAnswer(pending, type, data));
    if (type === Rep.ack) {
      if (length > 0) fail('ACK with data');
      const { optionsMax, optionsPerListedExportMax } = this.#world;
      this.#optionsMax = Math.max(this.#optionsMax, optionsMax + this.#listed * optionsPerListedExportMax);
      this.#listed = 0;
      this.#acknowledged(pending);
      return true;
    }
    this.#takeOptionPart(pending, type, data);
    return true;
  }

  #wrongAnswer(pending: PendingOption, type: number, data: Buffer): string {
    const allowed = [...pending.allowed].map((code) => code.toString(16)).join(', ');
    return `option ${pending.option} is answered with ${type.toString(16)} "${data.toString('latin1')}", not with ${allowed}`;
  }

  #takeOptionPart(pending: PendingOption, type: number, data: Buffer): void {
    const { option } = pending;
    if (type === Rep.server && option === Opt.list) {
      if (data.length < 4 || data.readUInt32BE(0) > data.length - 4)
        fail('a SERVER reply with a wrong length');
      this.#listed++;
      return;
    }
    if (type === Rep.info && (option === Opt.info || option === Opt.go)) {
      if (data.length < 2) fail('an INFO without its type');
      const info = data.readUInt16BE(0);
      if (info === 0) {
        if (data.length !== 12) fail('an INFO_EXPORT of a wrong length');
        pending.infos.size = Number(data.readBigUInt64BE(2));
        pending.infos.flags = data.readUInt16BE(10);
      } else if (info === 3 && data.length !== 14) {
        fail('an INFO_BLOCK_SIZE of a wrong length');
      }
      return;
    }
    if (type === Rep.context && (option === Opt.listContexts || option === Opt.setContexts)) {
      if (data.length < 4) fail('a context without its number');
      const context = decode(data.subarray(4));
      if (context === undefined) fail('a context whose name is no string');
      if (option === Opt.listContexts) return;
      const id = data.readUInt32BE(0);
      if (pending.contexts.has(id)) fail(`context number ${id} twice`);
      if (!pending.queries.includes(context)) fail(`context ${context}, which nobody asked for`);
      pending.contexts.set(id, context);
      return;
    }
    fail(`a reply of type ${type} to option ${option}`);
  }

  #optionDone(): void {
    this.#option = undefined;
    this.optionsAnswered++;
  }

  #acknowledged(pending: PendingOption): void {
    this.#optionDone();
    const { option, facts } = pending;
    switch (option) {
      case Opt.abort:
        this.#dismiss();
        return;
      case Opt.structured:
        this.#structured = true;
        return;
      case Opt.extended:
        this.#extended = true;
        return;
      case Opt.startTls:
        this.#phase = 'tls';
        return;
      case Opt.setContexts:
        this.#contexts = pending.contexts;
        this.#contextsFor = pending.name;
        return;
      case Opt.info:
      case Opt.go:
        if (pending.infos.size === undefined || pending.infos.flags === undefined)
          fail('ACK without INFO_EXPORT before it');
        this.#checkExport(facts!, pending.infos.size, pending.infos.flags);
        if (option === Opt.go) this.#transmit(facts!, pending.name, pending.infos.flags);
        return;
      default:
    }
  }

  #checkExport(facts: ExportFacts, size: number, flags: number): void {
    if (size !== facts.size) fail(`${facts.name} has ${facts.size} bytes, not ${size}`);
    if ((flags & 1) === 0) fail('transmission flags without HAS_FLAGS');
    if (((flags & 2) !== 0) !== facts.readOnly) fail(`${facts.name} is read-only or not: the server errs`);
    if ((flags & 0x80) !== 0 && !this.#structured && !this.#extended) fail('DF without structured replies');
  }

  #transmit(facts: ExportFacts, name: string, flags: number): void {
    this.#facts = facts;
    this.#transmissionFlags = flags;
    this.#phase = 'transmission';
    this.#sessionContexts =
      this.#contextsFor === name && (this.#structured || this.#extended) ? this.#contexts : new Map();
  }

  // Transmission.

  #takeRequests(): void {
    const headerBytes = this.#extended ? 32 : 28;
    while (this.fate === 'open' || (this.fate === 'closes' && this.#clientEnded)) {
      const header = this.#out.peek(headerBytes);
      if (header === undefined) return;
      if (header.readUInt32BE(0) !== (this.#extended ? EXTENDED_REQUEST_MAGIC : REQUEST_MAGIC)) {
        this.fate = 'cut';
        return;
      }
      const flags = header.readUInt16BE(4);
      const type = header.readUInt16BE(6);
      const cookie = header.readBigUInt64BE(8);
      const offset = header.readBigUInt64BE(16);
      const length = this.#extended ? header.readBigUInt64BE(24) : BigInt(header.readUInt32BE(24));
      if (type === Cmd.disc) {
        this.fate = 'closes';
        return;
      }
      // A WRITE carries its data also without the flag that it must have: QEMU's client leaves it out.
      const carries = type === Cmd.write || (this.#extended && (flags & Flag.payloadLen) !== 0);
      let payload: Buffer | undefined;
      if (carries) {
        if (length > BigInt(this.#extended ? PAYLOAD_BYTES_MAX : this.#world.payloadSkipBytesMax)) {
          this.fate = 'cut';
          return;
        }
        const whole = this.#out.take(headerBytes + Number(length));
        if (whole === undefined) return;
        payload = whole.subarray(headerBytes);
      } else {
        this.#out.take(headerBytes);
      }
      this.#admit({ flags, type, cookie, offset, length, payload });
    }
  }

  #admit(fields: {
    flags: number;
    type: number;
    cookie: bigint;
    offset: bigint;
    length: bigint;
    payload: Buffer | undefined;
  }): void {
    let { length } = fields;
    const { type, payload } = fields;
    const withPayload = this.#extended && type === Cmd.status && payload !== undefined;
    if (withPayload) length = payload.length >= 8 ? payload.readBigUInt64BE(0) : 0n;
    const errors = this.#errorsOf({ ...fields, length });
    const facts = this.#facts!;
    const request: PendingRequest = {
      type,
      flags: fields.flags,
      offset: fields.offset,
      length,
      payload,
      errors,
      mayFail: facts.faulty,
      data: undefined,
      covered: [],
      statuses: withPayload && errors.length === 0 ? idsOf(payload) : new Set(this.#sessionContexts.keys()),
      claims: [],
      errno: 0,
      begun: false,
    };
    const same = this.#requests.get(fields.cookie);
    if (same === undefined) this.#requests.set(fields.cookie, [request]);
    else same.push(request);
    this.#outstanding++;
    this.requestsSeen++;
  }

  /** Every error that fits the request; none when it has to succeed. */
  #errorsOf(request: {
    flags: number;
    type: number;
    offset: bigint;
    length: bigint;
    payload: Buffer | undefined;
  }): readonly number[] {
    const { type, flags, offset, length, payload } = request;
    const facts = this.#facts!;
    const errors: number[] = [];
    const rich = this.#structured || this.#extended;
    let allowed: number = Flag.fua;
    if (type === Cmd.read) allowed |= rich ? Flag.df : 0;
    else if (type === Cmd.zeroes) allowed |= Flag.noHole | Flag.fastZero;
    else if (type === Cmd.status) allowed |= Flag.reqOne;
    if (this.#extended) {
      const statusPayload = type === Cmd.status && (this.#transmissionFlags & 0x1000) !== 0;
      if (type === Cmd.write || statusPayload) allowed |= Flag.payloadLen;
    }
    if (type > Cmd.status || type === Cmd.disc || (flags & ~allowed) !== 0) errors.push(Errno.invalid);
    const outside = offset + length > BigInt(facts.size);
    switch (type) {
      case Cmd.read:
        if (length > BigInt(PAYLOAD_BYTES_MAX)) errors.push(Errno.invalid, Errno.overflow);
        if (outside) errors.push(Errno.invalid);
        break;
      case Cmd.write:
      case Cmd.zeroes:
        if (facts.readOnly) errors.push(Errno.perm);
        if (type === Cmd.write && length > BigInt(PAYLOAD_BYTES_MAX))
          errors.push(Errno.invalid, Errno.overflow);
        if (outside) errors.push(Errno.noSpace);
        break;
      case Cmd.trim:
        if (facts.readOnly) errors.push(Errno.perm);
        if (outside) errors.push(Errno.invalid);
        break;
      case Cmd.cache:
        if (outside) errors.push(Errno.invalid);
        break;
      case Cmd.status:
        if (length === 0n || outside || this.#sessionContexts.size === 0) errors.push(Errno.invalid);
        if (this.#extended && payload !== undefined && errors.length === 0) {
          const ids = idsOf(payload);
          const count = (payload.length - 8) / 4;
          const known = [...ids].every((id) => this.#sessionContexts.has(id));
          if (!Number.isInteger(count) || count < 1 || ids.size !== count || !known)
            errors.push(Errno.invalid);
        }
        break;
      default:
    }
    return errors;
  }

  #takeReplies(): void {
    for (;;) {
      const head = this.#in.peek(16);
      if (head === undefined) return;
      const magic = head.readUInt32BE(0);
      if (magic === SIMPLE_REPLY_MAGIC) {
        if (this.#extended) fail('a simple reply after extended headers were agreed on');
        if (!this.#takeSimple(head.readUInt32BE(4), head.readBigUInt64BE(8))) return;
      } else if (magic === STRUCTURED_REPLY_MAGIC && this.#structured && !this.#extended) {
        const header = this.#in.peek(20);
        if (header === undefined) return;
        if (!this.#takeChunk(20, header.readUInt32BE(16), undefined)) return;
      } else if (magic === EXTENDED_REPLY_MAGIC && this.#extended) {
        const header = this.#in.peek(32);
        if (header === undefined) return;
        if (!this.#takeChunk(32, Number(header.readBigUInt64BE(24)), header.readBigUInt64BE(16))) return;
      } else {
        fail(`a reply that begins with ${magic.toString(16)}`);
      }
    }
  }

  #waiting(cookie: bigint): PendingRequest[] {
    const waiting = this.#requests.get(cookie);
    if (waiting === undefined)
      fail(`an answer to cookie ${cookie.toString(16)}, which has no request waiting`);
    return waiting;
  }

  #takeSimple(errno: number, cookie: bigint): boolean {
    const waiting = this.#waiting(cookie);
    // The same cookie twice: whichever fits.
    const request =
      waiting.find((candidate) => !candidate.begun && this.#fits(candidate, errno)) ??
      fail(`errno ${errno} does not answer ${waiting.map(describe).join(' or ')}`);
    const rich = this.#structured;
    if (rich && request.type === Cmd.read)
      fail('a simple reply to a READ after structured ones were agreed on');
    if (rich && request.type === Cmd.status && errno === 0) fail('a simple reply to a good BLOCK_STATUS');
    const dataBytes = request.type === Cmd.read && errno === 0 ? Number(request.length) : 0;
    const whole = this.#in.take(16 + dataBytes);
    if (whole === undefined) return false;
    if (dataBytes > 0) {
      request.data = Buffer.from(whole.subarray(16));
      request.covered = [[0, dataBytes]];
    }
    request.errno = errno;
    this.#complete(cookie, request);
    return true;
  }

  #fits(request: PendingRequest, errno: number): boolean {
    if (this.#mayShutDown && errno === Errno.shutdown) return true;
    if (request.errors.length > 0) {
      // Requests of no bytes may be good wherever they are.
      const nothing = request.length === 0n && request.type !== Cmd.status;
      return request.errors.includes(errno) || (nothing && errno === 0 && request.type <= Cmd.zeroes);
    }
    return errno === 0 || (request.mayFail && (errno === Errno.io || errno === Errno.noSpace));
  }

  #takeChunk(headerBytes: number, length: number, echoed: bigint | undefined): boolean {
    if (length > PAYLOAD_BYTES_MAX + 1024) fail(`a chunk of ${length} bytes`);
    const whole = this.#in.take(headerBytes + length);
    if (whole === undefined) return false;
    const flags = whole.readUInt16BE(4);
    const type = whole.readUInt16BE(6);
    const cookie = whole.readBigUInt64BE(8);
    const payload = whole.subarray(headerBytes);
    const waiting = this.#waiting(cookie);
    const request =
      waiting.find((candidate) => candidate.begun) ??
      waiting.find((candidate) =>
        chunkFits(candidate, type, payload, (errno) => this.#fits(candidate, errno)),
      ) ??
      waiting[0]!;
    request.begun = true;
    if (echoed !== undefined && echoed !== request.offset)
      fail(`the echoed offset ${echoed} of ${describe(request)}`);
    if ((flags & ~1) !== 0) fail(`chunk flags ${flags}`);
    this.#takePart(request, type, payload);
    if ((flags & 1) !== 0) this.#complete(cookie, request);
    else if (type === Chunk.none) fail('a chunk NONE that is not the last');
    return true;
  }

  #takePart(request: PendingRequest, type: number, payload: Buffer): void {
    switch (type) {
      case Chunk.none:
        if (payload.length > 0) fail('a chunk NONE with a payload');
        return;
      case Chunk.data:
        if (payload.length < 9) fail('a data chunk without data');
        this.#content(request, payload.readBigUInt64BE(0), payload.length - 8, payload.subarray(8));
        return;
      case Chunk.hole:
        if (payload.length !== 12) fail('a hole chunk of a wrong length');
        this.#content(request, payload.readBigUInt64BE(0), payload.readUInt32BE(8), undefined);
        return;
      case Chunk.status:
      case Chunk.statusExt:
        if ((type === Chunk.statusExt) !== this.#extended) fail('a block status chunk of the wrong width');
        this.#status(request, payload, this.#extended);
        return;
      default:
    }
    if (type < 0x8000) fail(`a chunk of type ${type}`);
    if (payload.length < 6) fail('an error chunk without an error');
    const errno = payload.readUInt32BE(0);
    const textBytes = payload.readUInt16BE(4);
    const rest = type === Chunk.errorOffset ? 8 : 0;
    if (payload.length !== 6 + textBytes + rest) fail('an error chunk of a wrong length');
    if (textBytes > STRING_BYTES_MAX || decode(payload.subarray(6, 6 + textBytes)) === undefined)
      fail('an error text that is no string');
    if (errno === 0) fail('an error chunk with no error');
    request.errno = errno;
  }

  #content(request: PendingRequest, offset: bigint, length: number, data: Buffer | undefined): void {
    if (request.type !== Cmd.read) fail(`data in the answer to ${describe(request)}`);
    if (request.errors.length > 0) fail(`data in the answer to the bad ${describe(request)}`);
    const from = Number(offset - request.offset);
    if (length === 0 || from < 0 || BigInt(from + length) > request.length)
      fail(`a piece at ${offset} of ${length} bytes of ${describe(request)}`);
    if (request.covered.some(([a, b]) => from < b && a < from + length)) fail('pieces of a read overlap');
    request.covered.push([from, from + length]);
    request.data ??= Buffer.alloc(Number(request.length));
    if (data !== undefined) data.copy(request.data, from);
  }

  #status(request: PendingRequest, payload: Buffer, wide: boolean): void {
    if (request.type !== Cmd.status) fail(`block status in the answer to ${describe(request)}`);
    const head = wide ? 8 : 4;
    const width = wide ? 16 : 8;
    const count = (payload.length - head) / width;
    if (!Number.isInteger(count) || count < 1) fail(`a block status chunk of ${payload.length} bytes`);
    if (wide && payload.readUInt32BE(4) !== count) fail('a descriptor count that is wrong');
    if (count > 1 && (request.flags & Flag.reqOne) !== 0) fail(`${count} extents where one was asked for`);
    const id = payload.readUInt32BE(0);
    const context = this.#sessionContexts.get(id);
    if (context === undefined || !request.statuses.delete(id))
      fail(`block status of context ${id} twice, or unasked`);
    let at = Number(request.offset);
    const end = at + Number(request.length);
    const { size } = this.#facts!;
    for (let i = head; i < payload.length; i += width) {
      if (at >= end) fail('extents past the range that was asked for');
      const length = wide ? Number(payload.readBigUInt64BE(i)) : payload.readUInt32BE(i);
      const flags = wide ? payload.readBigUInt64BE(i + 8) : BigInt(payload.readUInt32BE(i + 4));
      if (length === 0) fail('an extent of no bytes');
      if (context === 'base:allocation') {
        if (flags > 3n) fail(`base:allocation flags ${flags}`);
        if ((flags & 2n) !== 0n) request.claims.push({ from: at, to: at + length });
      } else if ((flags & 1n) === 0n && this.#facts!.sinceZeros.includes(context)) {
        request.claims.push({ from: at, to: at + length });
      }
      at += length;
      if (at > size) fail('an extent that leaves the export');
    }
    if ((request.flags & Flag.reqOne) !== 0 && at > end) fail('a single extent longer than asked for');
  }

  #complete(cookie: bigint, request: PendingRequest): void {
    const waiting = this.#waiting(cookie);
    waiting.splice(waiting.indexOf(request), 1);
    if (waiting.length === 0) this.#requests.delete(cookie);
    this.#outstanding--;
    this.requestsAnswered++;
    if (!this.#fits(request, request.errno)) {
      const wanted = request.errors.length > 0 ? request.errors.join(', ') : 'success';
      fail(`${describe(request)} is answered with errno ${request.errno}, not with ${wanted}`);
    }
    if (request.errno !== 0) {
      // A device that fails may have done part of it; a request that is refused has done nothing.
      if (request.errors.length === 0 && request.errno !== Errno.shutdown)
        this.#addMutation(this.#batch, request, false);
      return;
    }
    this.requestsSucceeded++;
    if (request.type === Cmd.read && request.length > 0n) {
      const bytes = request.covered.reduce((sum, [a, b]) => sum + b - a, 0);
      if (BigInt(bytes) !== request.length) fail(`${bytes} bytes of ${describe(request)}`);
      if ((request.flags & Flag.df) !== 0 && request.covered.length > 1)
        fail('a fragmented answer to a READ with DF');
      if (this.#facts!.model !== undefined)
        this.#batch.reads.push({ from: Number(request.offset), data: request.data! });
    } else if (request.type === Cmd.status) {
      if (request.statuses.size > 0) fail(`contexts without an answer: ${[...request.statuses].join(', ')}`);
      if (this.#facts!.model !== undefined) this.#batch.zeroClaims.push(...request.claims);
    } else {
      this.#addMutation(this.#batch, request, true);
    }
  }

  #addMutation(batch: Batch, request: PendingRequest, sure: boolean): void {
    if (request.errors.length > 0 || request.length === 0n) return;
    const data = request.type === Cmd.write ? request.payload : undefined;
    // TRIM makes zeros here, as WRITE_ZEROES does.
    if (data === undefined && request.type !== Cmd.trim && request.type !== Cmd.zeroes) return;
    const from = Number(request.offset);
    batch.mutations.push({ from, to: from + Number(request.length), data, sure });
  }
}

/** Whether a chunk can be the first of the answer to a request: tells requests of the same cookie apart. */
function chunkFits(
  request: PendingRequest,
  type: number,
  payload: Buffer,
  errorFits: (errno: number) => boolean,
): boolean {
  if (type >= 0x8000) return payload.length >= 6 && errorFits(payload.readUInt32BE(0));
  if (request.errors.length > 0) return request.length === 0n;
  if (type === Chunk.status || type === Chunk.statusExt) return request.type === Cmd.status;
  if (type === Chunk.data || type === Chunk.hole) {
    return request.type === Cmd.read && payload.length >= 8 && payload.readBigUInt64BE(0) === request.offset;
  }
  return true;
}

function describe(request: PendingRequest): string {
  return `command ${request.type} (flags ${request.flags}, offset ${request.offset}, length ${request.length})`;
}

function idsOf(payload: Buffer): Set<number> {
  const ids = new Set<number>();
  for (let at = 8; at + 4 <= payload.length; at += 4) ids.add(payload.readUInt32BE(at));
  return ids;
}

function decode(bytes: Uint8Array): string | undefined {
  if (bytes.includes(0)) return undefined;
  try {
    return strictUtf8.decode(bytes);
  } catch {
    return undefined;
  }
}

/** A counted string at `at`, or the option error that it deserves. */
function countedString(data: Buffer, at: number): { text: string; next: number } | number {
  if (at + 4 > data.length) return Rep.invalid;
  const length = data.readUInt32BE(at);
  if (at + 4 + length > data.length) return Rep.invalid;
  if (length > STRING_BYTES_MAX) return Rep.tooBig;
  const text = decode(data.subarray(at + 4, at + 4 + length));
  return text === undefined ? Rep.invalid : { text, next: at + 4 + length };
}

function parseInfo(data: Buffer): string | number {
  const name = countedString(data, 0);
  if (typeof name === 'number') return name;
  if (name.next + 2 > data.length) return Rep.invalid;
  return data.length === name.next + 2 + 2 * data.readUInt16BE(name.next) ? name.text : Rep.invalid;
}

function parseContexts(data: Buffer): { name: string; queries: string[] } | number {
  const name = countedString(data, 0);
  if (typeof name === 'number') return name;
  if (name.next + 4 > data.length) return Rep.invalid;
  const count = data.readUInt32BE(name.next);
  let at = name.next + 4;
  const queries: string[] = [];
  for (let i = 0; i < count; i++) {
    const query = countedString(data, at);
    if (typeof query === 'number') return query;
    queries.push(query.text);
    at = query.next;
  }
  return at === data.length ? { name: name.text, queries } : Rep.invalid;
}
