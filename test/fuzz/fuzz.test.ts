/**
 * Short runs of the fuzzer: enough to see every kind of connection. `npm run fuzz` is the long one. And the fuzzer
 * itself: a server that does wrong has to be found out.
 */
import { testSeed } from '@pando/block-device/testing';
import { describe, expect, it } from 'vitest';
import { Batch, DiskModel } from './disk-model.ts';
import { FuzzFailure, describePlan, fuzz } from './fuzzer.ts';
import type { FuzzSummary } from './fuzzer.ts';
import { memoryTarget, processTarget } from './targets.ts';
import type { Target } from './targets.ts';
import { Witness } from './witness.ts';
import type { World } from './witness.ts';
import { Cmd, Opt, infoData, optionMessage, requestHeader } from './wire.ts';

const MESSAGES = 20_000;
const PROCESS_MESSAGES = 4_000;
/** Vitest gives no way to collect garbage, so what is measured holds much that is dead. */
const SLACK_BYTES = 400 * 2 ** 20;

async function run(start: (seed: number) => Promise<Target>, messages: number): Promise<FuzzSummary> {
  const seed = testSeed();
  try {
    return await fuzz({ seed, messages, start, heapSlackBytes: SLACK_BYTES, rssSlackBytes: SLACK_BYTES });
  } catch (error) {
    const plan = error instanceof FuzzFailure ? `\n${describePlan(error.plan)}` : '';
    const reason = error instanceof Error ? error.message : String(error);
    // The reason before the plan: a log that keeps only the beginning of a failure has it.
    throw new Error(`failed with PANDO_TEST_SEED=${seed}: ${reason}${plan}`, { cause: error });
  }
}

describe('fuzz', () => {
  it('a server in this process answers what it must and loses nothing', async () => {
    const summary = await run(memoryTarget, MESSAGES);
    expect(summary.messages).toBeGreaterThanOrEqual(MESSAGES);
    expect(summary.requestsSucceeded).toBeGreaterThan(MESSAGES / 5);
    expect(summary.comparedBytes).toBeGreaterThan(2 ** 20);
    expect(summary.cutOff).toBeGreaterThan(0);
    expect(Object.keys(summary.kinds)).toEqual(expect.arrayContaining(['handshake', 'requests', 'damaged']));
  });

  it('so does a real server with VMs', async () => {
    const summary = await run(processTarget, PROCESS_MESSAGES);
    expect(summary.requestsSucceeded).toBeGreaterThan(PROCESS_MESSAGES / 5);
    expect(summary.comparedBytes).toBeGreaterThan(2 ** 20);
  });
});

// Whether the witness would notice.

const world: World = {
  exports: new Map([
    [
      'disk',
      {
        name: 'disk',
        size: 4096,
        readOnly: false,
        faulty: false,
        broken: false,
        sinceZeros: [],
        model: new DiskModel(),
      },
    ],
  ]),
  tls: 'off',
  optionsMax: 64,
  optionsPerListedExportMax: 8,
  optionBytesMax: 65_536,
  optionSkipBytesMax: 2 ** 25,
  contextQueriesMax: 256,
  payloadSkipBytesMax: 2 ** 26,
};

const GREETING = Buffer.from('NBDMAGICIHAVEOPT\0\x03', 'latin1');

function optionReply(option: number, type: number, data = Buffer.alloc(0)): Buffer {
  const bytes = Buffer.alloc(20 + data.length);
  bytes.writeBigUInt64BE(0x0003e889045565a9n, 0);
  bytes.writeUInt32BE(option, 8);
  bytes.writeUInt32BE(type, 12);
  bytes.writeUInt32BE(data.length, 16);
  data.copy(bytes, 20);
  return bytes;
}

/** A witness of a connection that is in transmission, with simple replies. */
function attached(): Witness {
  const witness = new Witness(world);
  witness.received(GREETING);
  witness.sent(Buffer.from([0, 0, 0, 3]));
  witness.sent(optionMessage(Opt.go, infoData(Buffer.from('disk'), [])));
  const info = Buffer.alloc(12);
  info.writeBigUInt64BE(4096n, 2);
  info.writeUInt16BE(1, 10);
  witness.received(optionReply(Opt.go, 3, info));
  witness.received(optionReply(Opt.go, 1));
  expect(witness.phase).toBe('transmission');
  return witness;
}

function send(
  witness: Witness,
  type: number,
  cookie: bigint,
  length: number,
  payload = Buffer.alloc(0),
): void {
  const request = { type, flags: 0, cookie, offset: 0n, length: BigInt(length) };
  witness.sent(Buffer.concat([requestHeader(request, false), payload]));
}

function simple(cookie: number, errno: number, data = Buffer.alloc(0)): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeUInt32BE(0x67446698, 0);
  bytes.writeUInt32BE(errno, 4);
  bytes.writeUInt32BE(cookie, 12);
  return Buffer.concat([bytes, data]);
}

describe('the witness', () => {
  it('takes right answers, in any order', () => {
    const witness = attached();
    send(witness, Cmd.write, 1n, 3, Buffer.from('abc'));
    send(witness, Cmd.flush, 2n, 0);
    witness.received(simple(2, 0));
    expect(witness.settled).toBe(false);
    witness.received(simple(1, 0));
    expect(witness.settled).toBe(true);
    witness.settle();
    send(witness, Cmd.read, 3n, 3);
    witness.received(simple(3, 0, Buffer.from('abc')));
    witness.settle();
    witness.clientEnded();
    witness.ended(false);
  });

  it('lets answers get lost when bytes in clear behind STARTTLS have the connection cut', () => {
    const ends = (tls: World['tls'], behind: Buffer): void => {
      const witness = new Witness({ ...world, tls });
      witness.received(GREETING);
      witness.sent(Buffer.from([0, 0, 0, 3]));
      for (const option of [Opt.structured, Opt.startTls])
        witness.sent(optionMessage(option, Buffer.alloc(0)));
      witness.sent(behind);
      witness.clientEnded();
      witness.ended(false);
    };
    const list = optionMessage(Opt.list, Buffer.alloc(0));
    ends('allow', list);
    expect(() => ends('allow', Buffer.alloc(0))).toThrow(/without answering/);
    expect(() => ends('off', list)).toThrow(/without answering/);
  });

  it.each([
    [
      'answers twice',
      (witness: Witness) => witness.received(Buffer.concat([simple(1, 0), simple(1, 0)])),
      /no request/,
    ],
    ['answers what nobody asked', (witness: Witness) => witness.received(simple(9, 0)), /no request waiting/],
    ['refuses what is right', (witness: Witness) => witness.received(simple(1, 22)), /errno 22/],
    ['sends what is no reply', (witness: Witness) => witness.received(Buffer.alloc(16, 1)), /begins with/],
    ['hangs up', (witness: Witness) => witness.ended(false), /hung up/],
    [
      'closes before it has answered',
      (witness: Witness) => {
        witness.clientEnded();
        witness.ended(false);
      },
      /without answering/,
    ],
  ])('finds out a server that %s', (_, misbehave, reason) => {
    const witness = attached();
    send(witness, Cmd.flush, 1n, 0);
    expect(() => {
      misbehave(witness);
    }).toThrow(reason);
  });

  it('expects nothing of what comes behind ABORT', () => {
    const witness = new Witness(world);
    witness.received(GREETING);
    witness.sent(Buffer.from([0, 0, 0, 3]));
    for (const option of [Opt.abort, Opt.list]) witness.sent(optionMessage(option, Buffer.alloc(0)));
    witness.clientEnded();
    witness.received(optionReply(Opt.abort, 1));
    witness.ended(false);
  });

  it('takes ERR_SHUTDOWN when an export was taken away, and only then', () => {
    const witness = new Witness(world);
    witness.received(GREETING);
    witness.sent(Buffer.from([0, 0, 0, 3]));
    const go = optionMessage(Opt.go, infoData(Buffer.from('disk'), []));
    witness.sent(Buffer.concat([go, go]));
    expect(() => {
      witness.received(optionReply(Opt.go, 0x8000_0007));
    }).toThrow(/answered with 80000007/);
    witness.mayShutDown();
    witness.received(optionReply(Opt.go, 0x8000_0007));
    witness.ended(false);
  });

  it('finds out a server that accepts a read past the end', () => {
    const witness = attached();
    send(witness, Cmd.read, 1n, 4097);
    expect(() => {
      witness.received(simple(1, 0, Buffer.alloc(4097)));
    }).toThrow(/does not answer/);
  });

  it('finds out a server that knows an export which is none', () => {
    const witness = new Witness(world);
    witness.received(GREETING);
    witness.sent(Buffer.from([0, 0, 0, 3]));
    witness.sent(optionMessage(Opt.info, infoData(Buffer.from('other'), [])));
    expect(() => {
      witness.received(optionReply(Opt.info, 1));
    }).toThrow(/answered with 1 /);
  });
});

describe('the disk model', () => {
  const write = (from: number, data: string, sure = true) => ({
    from,
    to: from + data.length,
    data: Buffer.from(data),
    sure,
  });
  const settle = (model: DiskModel, parts: Partial<Batch>): void => {
    model.settle(Object.assign(new Batch(), parts));
  };
  const read = (model: DiskModel, from: number, data: string | Buffer): void => {
    settle(model, { reads: [{ from, data: Buffer.from(data) }] });
  };

  it('knows what was written, and zeros elsewhere', () => {
    const model = new DiskModel();
    settle(model, { mutations: [write(4094, 'abcd')] });
    read(model, 4093, '\0abcd\0');
    expect(() => read(model, 4094, 'abcx')).toThrow(/wrong data at 4097/);
    expect(() => read(model, 90_000, 'x')).toThrow(/zeros were expected at 90000/);
    settle(model, { mutations: [{ from: 4096, to: 2 ** 40, data: undefined, sure: true }] });
    read(model, 4094, 'ab\0\0');
  });

  it('does not know what two requests of a batch wrote, until it is read', () => {
    const model = new DiskModel();
    settle(model, { mutations: [write(0, 'aaaa'), write(2, 'bbbb')] });
    expect(() => read(model, 0, 'abbbbb')).toThrow(/wrong data at 1/);
    read(model, 0, 'aaabbb');
    expect(() => read(model, 0, 'aabbbb')).toThrow(/wrong data at 2/);
  });

  it('does not know what became of a write that nobody answered', () => {
    const model = new DiskModel();
    settle(model, { mutations: [write(10, 'abc', false)] });
    read(model, 9, '\0a\0\0\0');
    expect(() => read(model, 9, '\0abc\0')).toThrow(/wrong data at 11/);
  });

  it('compares only what no write of the same batch touches', () => {
    const model = new DiskModel();
    settle(model, { mutations: [write(2, 'x')], reads: [{ from: 0, data: Buffer.from('\0\0?\0') }] });
    expect(() => {
      settle(model, { mutations: [write(2, 'y')], reads: [{ from: 0, data: Buffer.from('\0!?\0') }] });
    }).toThrow(/wrong data at 1/);
  });

  it('holds block status to what it calls zero', () => {
    const model = new DiskModel();
    settle(model, { mutations: [write(5000, 'x')] });
    settle(model, { zeroClaims: [{ from: 5001, to: 2 ** 40 }] });
    expect(() => settle(model, { zeroClaims: [{ from: 0, to: 2 ** 40 }] })).toThrow(/byte 5000 zero/);
  });
});
