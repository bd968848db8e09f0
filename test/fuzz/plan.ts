/**
 * What one connection will send, made up from a seed alone: the same seed and exports give the same plan, whatever
 * happened before. A plan is a list of messages, so that a failing one can be made smaller by leaving some out.
 */
import { SeededRandom } from '@pando/block-device/testing';
import type { ExportFacts } from './witness.ts';
import {
  Cmd,
  Flag,
  Opt,
  PAYLOAD_BYTES_MAX,
  contextData,
  infoData,
  optionMessage,
  requestHeader,
} from './wire.ts';

export interface Message {
  readonly bytes: Buffer;
  /** For people who read a replay. */
  readonly what: string;
}

/** How the bytes of a step are cut into writes to the socket. */
export type Delivery = 'whole' | 'pieces' | 'bytes';

export interface Step {
  readonly messages: readonly Message[];
  readonly delivery: Delivery;
  /** Wait for every answer before the next step. */
  readonly wait: boolean;
}

export type Ending = 'disc' | 'halfClose' | 'destroy' | 'reset';

export interface Plan {
  readonly seed: number;
  readonly kind: PlanKind;
  readonly steps: readonly Step[];
  readonly ending: Ending;
  /** Reads nothing until everything has been sent. */
  readonly deaf: boolean;
  /** Takes the export away at this step. */
  readonly revokeAt: number | undefined;
  /** Behind STARTTLS; with noise in the place of the client's hello, or in clear amid the records. */
  readonly tls: 'no' | 'yes' | 'noHello' | 'noiseWithin';
}

const PLAN_KINDS = ['noise', 'handshake', 'requests', 'damaged', 'deaf', 'silent'] as const;
export type PlanKind = (typeof PLAN_KINDS)[number];

/** Of a hundred connections. */
const KIND_WEIGHTS: Readonly<Record<PlanKind, number>> = {
  noise: 4,
  handshake: 16,
  requests: 52,
  damaged: 22,
  deaf: 5,
  silent: 1,
};

export interface PlanWorld {
  /** The export that the connection is for. */
  readonly target: ExportFacts;
  /** Names that handshakes may choose from besides. */
  readonly names: readonly string[];
  readonly tls: 'off' | 'allow' | 'require';
  readonly canRevoke: boolean;
}

const NOISE_BYTES = 1024 * 1024;
const HANDSHAKE_OPTIONS_MAX = 70;
const STEPS_MAX = 6;
const STEP_REQUESTS_MAX = 90;
const BYTEWISE_REQUESTS_MAX = 6;
const BYTEWISE_BYTES_MAX = 20_000;
const DEAF_REQUESTS_MAX = 300;
const DEAF_BYTES_MAX = 6 * 1024 * 1024;

/** Payloads are slices of this. */
export const noise = Buffer.from(new SeededRandom(0x6e6f_6973).bytes(NOISE_BYTES));

const EDGE_OFFSETS: readonly bigint[] = [
  ...[0n, 1n, 511n, 4095n, 4096n, 2n ** 31n - 1n, 2n ** 31n, 2n ** 32n - 1n, 2n ** 32n, 2n ** 32n + 1n],
  ...[
    2n ** 53n - 1n,
    2n ** 53n,
    2n ** 53n + 1n,
    2n ** 63n - 1n,
    2n ** 63n,
    2n ** 64n - 4096n,
    2n ** 64n - 1n,
  ],
];
const EDGE_LENGTHS: readonly bigint[] = [
  ...[0n, 1n, 2n, 511n, 4096n, 2n ** 25n - 1n, 2n ** 25n, 2n ** 25n + 1n, 2n ** 26n, 2n ** 26n + 1n],
  ...[2n ** 31n - 1n, 2n ** 31n, 2n ** 32n - 65536n, 2n ** 32n - 1n],
];
/** Lengths that need extended headers. */
const WIDE_LENGTHS: readonly bigint[] = [
  ...[2n ** 32n, 2n ** 32n + 1n, 2n ** 53n - 1n, 2n ** 53n + 1n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n],
];

const ODD_QUERIES: readonly string[] = [
  ...['base:allocation', 'base:', 'base', ':', '', 'qemu:', 'qemu:dirty-bitmap:', 'qemu:dirty-bitmap:monday'],
  ...[
    'qemu:allocation-depth',
    'x-pando:root',
    'x-pando:',
    'qemu:dirty-bitmap:day/1:2',
    'qemu:dirty-bitmap:Gürtel',
  ],
  ...[
    'qemu:dirty-bitmap:nobody',
    'qemu:dirty-bitmap:empty',
    'qemu:dirty-bitmap:fuzz-0@empty',
    'BASE:ALLOCATION',
    'base:allocation ',
    'base:allocation:x',
    'x-none:a',
    '..',
    '%00',
  ],
];

export function makePlan(seed: number, world: PlanWorld): Plan {
  const maker = new Maker(new SeededRandom(seed), world);
  return maker.plan(seed);
}

/** Mixes the seed of a run and the number of a connection. */
export function planSeed(runSeed: number, index: number): number {
  return new SeededRandom((runSeed ^ Math.imul(index + 1, 0x9e37_79b1)) >>> 0).next();
}

/** Byte by byte is for what is short enough. */
function short(delivery: Delivery, messages: readonly Message[]): Delivery {
  const bytes = messages.reduce((sum, message) => sum + message.bytes.length, 0);
  return delivery === 'bytes' && bytes > BYTEWISE_BYTES_MAX ? 'pieces' : delivery;
}

class Maker {
  readonly #random: SeededRandom;
  readonly #world: PlanWorld;
  #cookie = 0n;
  #extended = false;

  constructor(random: SeededRandom, world: PlanWorld) {
    this.#random = random;
    this.#world = world;
  }

  plan(seed: number): Plan {
    const kind = this.#kind();
    const deaf = kind === 'deaf';
    const steps = this.#steps(kind);
    let ending = this.#pick<Ending>(['disc', 'disc', 'halfClose', 'destroy', 'reset']);
    if (kind === 'silent') ending = 'halfClose';
    if (ending === 'disc' && steps.length > 0 && kind !== 'noise' && kind !== 'handshake')
      steps.push({ messages: [this.#disconnect()], delivery: 'whole', wait: false });
    const revokes = this.#world.canRevoke && (kind === 'requests' || deaf) && this.#one(40);
    return {
      seed,
      kind,
      steps,
      ending,
      deaf,
      revokeAt: revokes ? this.#below(steps.length + 1) : undefined,
      tls: this.#tls(kind),
    };
  }

  #tls(kind: PlanKind): Plan['tls'] {
    const { tls } = this.#world;
    const begins = tls !== 'off' && kind !== 'noise' && (tls === 'require' ? !this.#one(8) : this.#one(2));
    if (!begins) return 'no';
    return this.#one(12) ? this.#pick(['noHello', 'noiseWithin'] as const) : 'yes';
  }

  #below(bound: number): number {
    return this.#random.below(bound);
  }

  #one(inHowMany: number): boolean {
    return this.#below(inHowMany) === 0;
  }

  #pick<T>(list: readonly T[]): T {
    return list[this.#below(list.length)]!;
  }

  #kind(): PlanKind {
    let at = this.#below(100);
    for (const kind of PLAN_KINDS) {
      at -= KIND_WEIGHTS[kind];
      if (at < 0) return kind;
    }
    return 'requests';
  }

  #delivery(): Delivery {
    return this.#one(20) ? 'bytes' : this.#one(3) ? 'pieces' : 'whole';
  }

  #steps(kind: PlanKind): Step[] {
    switch (kind) {
      case 'noise':
        return [{ messages: [this.#noise()], delivery: this.#delivery(), wait: false }];
      case 'handshake':
        return this.#handshakeSteps();
      case 'silent':
        return this.#silentSteps();
      default:
        return [...this.#opening(), ...this.#requestSteps(kind)];
    }
  }

  #noise(): Message {
    const from = this.#below(NOISE_BYTES - 5000);
    const random = noise.subarray(from, from + this.#below(5000));
    const bytes = this.#pick([
      random,
      Buffer.concat([Buffer.from([0, 0, 0, 3]), random]),
      Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n'),
      // The first bytes of a TLS client hello.
      Buffer.concat([Buffer.from('1603010200010001fc0303', 'hex'), random]),
      Buffer.from('NBDMAGICIHAVEOPT\0\x03', 'latin1'),
      Buffer.concat([this.#flags().bytes, optionMessage(Opt.go, random)]),
      Buffer.alloc(0),
    ]);
    return { bytes, what: 'noise' };
  }

  #flags(): Message {
    const flags = this.#one(40) ? this.#random.next() : this.#pick([3, 3, 3, 1, 2, 0]);
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(flags);
    return { bytes, what: `client flags ${flags}` };
  }

  #name(): Buffer {
    const { target, names } = this.#world;
    switch (this.#below(8)) {
      case 0:
        return Buffer.from(this.#pick(names));
      case 1: {
        const from = this.#below(NOISE_BYTES - 40);
        return noise.subarray(from, from + this.#below(40));
      }
      case 2:
        return Buffer.from(
          this.#pick([
            '',
            `${target.name}/`,
            `/${target.name}`,
            '../x',
            target.name.toUpperCase(),
            'é\u{1f333}',
            'a'.repeat(4096),
            'a'.repeat(4097),
            `${target.name}\0`,
          ]),
        );
      default:
        return Buffer.from(target.name);
    }
  }

  #queries(): Buffer[] {
    const queries: Buffer[] = [];
    const count = this.#one(30) ? this.#below(1500) : this.#below(5);
    for (let i = 0; i < count; i++) {
      const from = this.#below(NOISE_BYTES - 30);
      queries.push(
        this.#one(10) ? noise.subarray(from, from + this.#below(30)) : Buffer.from(this.#pick(ODD_QUERIES)),
      );
    }
    return queries;
  }

  #option(): Message {
    const option = this.#one(12)
      ? this.#pick([0, 4, 12, 255, 65_536, 0x8000_0000, 0xffff_ffff])
      : this.#pick([2, 3, 3, 5, 6, 6, 6, 7, 8, 8, 8, 9, 9, 9, 10, 10, 10, 10, 11, 11, 1]);
    let data: Uint8Array;
    if (option === Opt.info || option === Opt.go) {
      const infos = Array.from({ length: this.#one(30) ? this.#below(3000) : this.#below(5) }, () =>
        this.#one(6) ? this.#below(65_536) : this.#below(5),
      );
      data = infoData(this.#name(), infos);
    } else if (option === Opt.listContexts || option === Opt.setContexts) {
      data = contextData(this.#name(), this.#queries());
    } else if (option === Opt.exportName) {
      data = this.#name();
    } else if (this.#one(5)) {
      const bytes = this.#one(20) ? this.#below(200_000) : this.#below(300);
      data = noise.subarray(0, bytes);
    } else {
      data = Buffer.alloc(0);
    }
    if (this.#one(4)) data = this.#damage(Buffer.from(data));
    // A length that lies: what follows is taken for data, or data for what follows.
    const length = this.#one(60)
      ? this.#pick([0, data.byteLength + 1, data.byteLength + 16, 65_537, 0x0200_0001, 0xffff_ffff])
      : data.byteLength;
    const message = optionMessage(option, data, length);
    const bytes = this.#one(25) ? this.#damage(message) : message;
    return { bytes, what: `option ${option}, ${data.byteLength} bytes` };
  }

  #handshakeSteps(): Step[] {
    const messages: Message[] = [this.#flags()];
    const count = this.#one(8) ? HANDSHAKE_OPTIONS_MAX : this.#below(25);
    for (let i = 0; i < count; i++) messages.push(this.#option());
    // Requests behind it, for handshakes that got through.
    for (let i = this.#below(6); i > 0; i--) messages.push(this.#request('damaged'));
    if (this.#one(2)) return [{ messages, delivery: short(this.#delivery(), messages), wait: true }];
    return messages.map((message) => ({
      messages: [message],
      delivery: short(this.#delivery(), [message]),
      wait: !this.#one(3),
    }));
  }

  /** Stops in the middle of something and says nothing more. */
  #silentSteps(): Step[] {
    const steps = this.#one(2)
      ? this.#opening()
      : [{ messages: [this.#flags()], delivery: 'whole', wait: false } as const];
    const request = this.#one(2) ? this.#option() : this.#request('requests');
    const part = request.bytes.subarray(0, this.#below(request.bytes.length));
    return [
      ...steps,
      { messages: [{ bytes: part, what: `part of ${request.what}` }], delivery: 'whole', wait: false },
    ];
  }

  /** A handshake that a server takes, in one of the ways there are. */
  #opening(): Step[] {
    const { target } = this.#world;
    const name = Buffer.from(target.name);
    const flags = Buffer.from([0, 0, 0, this.#pick([3, 3, 3, 1])]);
    const messages: Message[] = [{ bytes: flags, what: 'client flags' }];
    const add = (option: number, data: Uint8Array, what: string): void => {
      messages.push({ bytes: optionMessage(option, data), what });
    };
    const nothing = Buffer.alloc(0);
    const style = this.#below(10);
    this.#extended = style < 4;
    if (this.#extended && this.#one(3)) add(Opt.structured, nothing, 'STRUCTURED_REPLY');
    if (this.#extended) add(Opt.extended, nothing, 'EXTENDED_HEADERS');
    else if (style < 8) add(Opt.structured, nothing, 'STRUCTURED_REPLY');
    if (this.#one(8)) add(Opt.list, nothing, 'LIST');
    if (this.#one(8)) add(Opt.info, infoData(name, [0, 1, 2, 3]), 'INFO');
    if (style < 7) {
      const queries = this.#one(3) ? this.#queries() : [Buffer.from('base:allocation')];
      add(Opt.setContexts, contextData(name, queries), `SET_META_CONTEXT of ${queries.length}`);
    }
    if (style >= 8 && this.#one(2)) add(Opt.exportName, name, 'EXPORT_NAME');
    else add(Opt.go, infoData(name, this.#one(2) ? [3] : []), 'GO');
    return [{ messages, delivery: this.#delivery(), wait: this.#one(2) }];
  }

  #requestSteps(kind: PlanKind): Step[] {
    const steps: Step[] = [];
    if (kind === 'deaf') {
      const messages: Message[] = [];
      let bytes = 0;
      for (let i = this.#below(DEAF_REQUESTS_MAX); i > 0 && bytes < DEAF_BYTES_MAX; i--) {
        const message = this.#request('deaf');
        bytes += message.bytes.length;
        messages.push(message);
      }
      return [{ messages, delivery: 'whole', wait: false }];
    }
    for (let n = 1 + this.#below(STEPS_MAX); n > 0; n--) {
      const delivery = this.#delivery();
      const messages: Message[] = [];
      const most = delivery === 'bytes' ? BYTEWISE_REQUESTS_MAX : STEP_REQUESTS_MAX;
      for (let i = 1 + this.#below(most); i > 0; i--) {
        const message = this.#request(kind);
        const damaged = kind === 'damaged' && this.#one(120);
        messages.push(
          damaged ? { bytes: this.#damage(message.bytes), what: `damaged ${message.what}` } : message,
        );
      }
      steps.push({ messages, delivery: short(delivery, messages), wait: !this.#one(6) });
    }
    return steps;
  }

  #disconnect(): Message {
    const request = { type: Cmd.disc, flags: 0, cookie: this.#nextCookie(), offset: 0n, length: 0n };
    return { bytes: requestHeader(request, this.#extended), what: 'DISC' };
  }

  #nextCookie(): bigint {
    this.#cookie++;
    // The high half is noise, so that a damaged cookie is nobody else's.
    return (BigInt(this.#random.next()) << 32n) | this.#cookie;
  }

  #request(kind: PlanKind): Message {
    const { target } = this.#world;
    const type = this.#type(kind);
    const flags = this.#requestFlags(type);
    const cookie = this.#nextCookie();
    const { offset, length: wanted } = this.#range(kind, type, target.size);
    let length = wanted;
    let payload: Buffer | undefined;
    if (type === Cmd.write) {
      const lies = kind === 'damaged' && this.#one(150);
      const bytes = Number(length > 300_000n ? BigInt(this.#below(5000)) : length);
      payload = noise.subarray(this.#below(NOISE_BYTES - bytes));
      payload = payload.subarray(0, bytes);
      if (lies) length = this.#pick([...EDGE_LENGTHS, length + 1n, length + 28n]);
      else length = BigInt(bytes);
    } else if (this.#extended && (flags & Flag.payloadLen) !== 0) {
      payload = this.#statusPayload(offset, target.size);
      length = BigInt(payload.length);
    }
    const withLength =
      payload !== undefined && this.#extended && !this.#one(200) ? flags | Flag.payloadLen : flags;
    const header = requestHeader({ type, flags: withLength, cookie, offset, length }, this.#extended);
    if (kind === 'damaged' && this.#one(300)) header.writeUInt32BE(this.#random.next(), 0);
    return {
      bytes: payload === undefined ? header : Buffer.concat([header, payload]),
      what: `${this.#extended ? 'extended ' : ''}command ${type}, flags ${withLength}, offset ${offset}, length ${length}`,
    };
  }

  #statusPayload(offset: bigint, size: number): Buffer {
    const ids = Array.from({ length: this.#below(4) }, () =>
      this.#one(4) ? this.#below(100) : 1 + this.#below(3),
    );
    const bytes = Buffer.alloc(8 + 4 * ids.length);
    const room = BigInt(size) - offset;
    bytes.writeBigUInt64BE(
      this.#one(6)
        ? this.#pick(WIDE_LENGTHS)
        : BigInt(this.#below(Number(room > 0n && room < 2n ** 40n ? room : 5000n) + 1)),
    );
    ids.forEach((id, i) => bytes.writeUInt32BE(id, 8 + 4 * i));
    return this.#one(10) ? bytes.subarray(0, this.#below(bytes.length + 1)) : bytes;
  }

  #type(kind: PlanKind): number {
    if (kind !== 'deaf' && this.#one(30)) return this.#one(2) ? 8 : this.#below(65_536);
    if (kind === 'damaged' && this.#one(600)) return Cmd.disc;
    if (kind === 'deaf') return this.#pick([Cmd.read, Cmd.read, Cmd.read, Cmd.write, Cmd.status, Cmd.zeroes]);
    return this.#pick([0, 0, 0, 0, 0, 1, 1, 1, 1, 3, 4, 5, 6, 6, 7, 7]);
  }

  #requestFlags(type: number): number {
    if (this.#one(12)) return this.#below(65_536) & (this.#extended ? 0xffff : ~Flag.payloadLen);
    if (!this.#one(4)) return 0;
    switch (type) {
      case Cmd.read:
        return this.#pick([Flag.fua, Flag.df, Flag.df | Flag.fua]);
      case Cmd.zeroes:
        return this.#below(4) * 8 + this.#pick([Flag.fua, Flag.noHole, Flag.fastZero, 19]);
      case Cmd.status:
        return this.#pick([Flag.reqOne, Flag.fua, Flag.payloadLen]);
      default:
        return Flag.fua;
    }
  }

  #range(kind: PlanKind, type: number, size: number): { offset: bigint; length: bigint } {
    const style = this.#below(20);
    const lengths = this.#extended ? [...EDGE_LENGTHS, ...WIDE_LENGTHS] : EDGE_LENGTHS;
    if (style < 2 && kind !== 'deaf') {
      const edges = [...EDGE_OFFSETS, BigInt(size), BigInt(size) - 1n, BigInt(size) + 1n];
      const length = type === Cmd.write ? BigInt(this.#below(3000)) : this.#pick(lengths);
      return { offset: this.#pick(edges), length };
    }
    if (style === 2) {
      // At the end of the export, or a byte past it.
      const length = Math.min(size, 1 + this.#below(5000));
      return { offset: BigInt(size - length), length: BigInt(length + (this.#one(3) ? 1 : 0)) };
    }
    let length: number;
    if (this.#one(40)) length = 0;
    else if (this.#one(kind === 'deaf' ? 4 : 60)) length = this.#below(Math.min(size, 250_000));
    else length = this.#one(3) ? this.#below(600) : this.#below(9000);
    if (type !== Cmd.read && type !== Cmd.write && this.#one(4))
      length = this.#below(Math.min(size, 2 ** 32));
    const grain = this.#pick([1, 512, 4096]);
    if (grain > 1 && !this.#one(3)) length = Math.ceil(length / grain) * grain;
    length = Math.min(length, size, PAYLOAD_BYTES_MAX);
    const offset = Math.floor(this.#place(size - length) / grain) * grain;
    return { offset: BigInt(offset), length: BigInt(length) };
  }

  /** An offset from 0 to `room`. On a huge disk only in some windows, or nothing would ever be read back. */
  #place(room: number): number {
    if (room <= 64 * 1024 * 1024) return this.#below(room + 1);
    const windows = 16;
    const window = this.#below(windows);
    const base = window === 0 ? 2 ** 32 - 100_000 : Math.floor((room / windows) * window);
    return Math.min(room, base + this.#below(200_000));
  }

  /** Flips, cuts, doubles, or inserts bytes. */
  #damage(bytes: Buffer): Buffer {
    const copy = Buffer.from(bytes);
    const at = this.#below(copy.length + 1);
    const count = 1 + this.#below(this.#one(2) ? 4 : 40);
    switch (this.#below(5)) {
      case 0:
        if (copy.length > 0) copy[Math.min(at, copy.length - 1)] = this.#below(256);
        return copy;
      case 1:
        return Buffer.concat([copy.subarray(0, at), copy.subarray(at + count)]);
      case 2:
        return Buffer.concat([
          copy.subarray(0, at),
          copy.subarray(Math.max(0, at - count), at),
          copy.subarray(at),
        ]);
      case 3:
        return Buffer.concat([copy.subarray(0, at), noise.subarray(at, at + count), copy.subarray(at)]);
      default: {
        // A number in the middle of it becomes an edge.
        if (copy.length >= 4) {
          const where = this.#below(copy.length - 3);
          copy.writeUInt32BE(this.#pick([0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]), where);
        }
        return copy;
      }
    }
  }
}
