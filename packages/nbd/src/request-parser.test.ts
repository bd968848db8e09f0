import { SeededRandom, testSeed } from '@pando/block-device/testing';
import { describe, expect, it } from 'vitest';
import { Command } from './protocol.ts';
import { Payload, RequestParser } from './request-parser.ts';
import type { PayloadAction, Request, RequestHandler } from './request-parser.ts';
import { rawRequest } from './testing/raw-client.ts';

/** Notes what the parser hands over; refuses to admit, or to give buffers, as often as it is told to. */
class Recorder implements RequestHandler {
  readonly seen: string[] = [];
  readonly violations: string[] = [];
  refusals = 0;
  bufferRefusals = 0;
  buffersOut = 0;

  admit(): boolean {
    return this.refusals-- <= 0;
  }

  payload(request: Request): PayloadAction {
    if (request.payloadBytes > 1_000) return Payload.refuse;
    return request.offset === 666 ? Payload.skip : Payload.store;
  }

  payloadBuffer(bytes: number): Buffer | undefined {
    if (this.bufferRefusals-- > 0) return undefined;
    this.buffersOut++;
    return Buffer.alloc(bytes + 7, 0xee);
  }

  recycle(): void {
    this.buffersOut--;
  }

  execute(request: Request, data: Uint8Array | undefined): void {
    const { type, flags, cookieHigh, cookieLow, offset, length } = request;
    const payload = data === undefined ? '-' : Buffer.from(data).toString('hex');
    this.seen.push(`${type} ${flags} ${cookieHigh} ${cookieLow} ${offset} ${length} ${payload}`);
  }

  violation(reason: string): void {
    this.violations.push(reason);
  }
}

const hex = (text: string): string => Buffer.from(text).toString('hex');

/** A stream of each kind of header, and what the parser has to make of it. */
const streams = {
  compact: {
    extended: false,
    headerBytes: 28,
    stream: Buffer.concat([
      rawRequest({
        type: Command.read,
        cookie: 0x1_0000_0007,
        offset: 0x1234_5678_9abcn,
        length: 0xffff_ffff,
      }),
      rawRequest({
        type: Command.write,
        flags: 1,
        cookie: 2,
        offset: 99,
        payload: Buffer.from('hello, forest'),
      }),
      rawRequest({ type: Command.write, cookie: 3, offset: 666, payload: Buffer.from('not to be kept') }),
      rawRequest({ type: Command.write, cookie: 4, offset: 5, payload: Buffer.alloc(0) }),
      // PAYLOAD_LEN means nothing to the framing of compact requests.
      rawRequest({ type: Command.flush, flags: 32, cookie: 5, length: 100 }),
      rawRequest({ type: 77, flags: 0xffff, cookie: 6, offset: 2n ** 64n - 1n, length: 1 }),
    ]),
    expected: [
      `0 0 1 7 20015998343868 4294967295 -`,
      `1 1 0 2 99 13 ${hex('hello, forest')}`,
      '1 0 0 3 666 14 -',
      '1 0 0 4 5 0 -',
      '3 32 0 5 0 100 -',
      `77 65535 0 6 ${2 ** 64} 1 -`,
    ],
  },
  extended: {
    extended: true,
    headerBytes: 32,
    stream: Buffer.concat(
      [
        { type: Command.read, cookie: 0x1_0000_0007, offset: 0x1234_5678_9abcn, length: 2n ** 40n + 5n },
        { type: Command.write, flags: 33, cookie: 2, offset: 99, payload: Buffer.from('hello, forest') },
        { type: Command.write, flags: 32, cookie: 3, offset: 666, payload: Buffer.from('not to be kept') },
        { type: Command.write, flags: 32, cookie: 4, offset: 5, payload: Buffer.alloc(0) },
        // QEMU leaves the flag of a WRITE out.
        { type: Command.write, cookie: 5, offset: 5, payload: Buffer.from('payload') },
        // Without the flag no payload follows.
        { type: Command.blockStatus, cookie: 9, offset: 5, length: 700 },
        { type: Command.trim, cookie: 6, length: 2n ** 63n },
        { type: Command.blockStatus, flags: 32, cookie: 7, payload: Buffer.from('which contexts') },
        { type: 77, flags: 0xffff, cookie: 8, offset: 2n ** 64n - 1n, payload: Buffer.from('?') },
      ].map((request) => rawRequest(request, true)),
    ),
    expected: [
      `0 0 1 7 20015998343868 ${2 ** 40 + 5} -`,
      `1 33 0 2 99 13 ${hex('hello, forest')}`,
      '1 32 0 3 666 14 -',
      '1 32 0 4 5 0 -',
      `1 0 0 5 5 7 ${hex('payload')}`,
      '7 0 0 9 5 700 -',
      `4 0 0 6 0 ${2 ** 63} -`,
      `7 32 0 7 0 14 ${hex('which contexts')}`,
      `77 65535 0 8 ${2 ** 64} 1 ${hex('?')}`,
    ],
  },
};

/** Feeds chunks as a connection does: what was not taken is offered again. */
function feed(parser: RequestParser, chunks: readonly Buffer[]): void {
  for (const chunk of chunks) {
    let at = parser.consume(chunk, 0);
    for (let tries = 0; parser.waiting || at < chunk.length; tries++) {
      if (tries > 100) throw new Error('the parser does not go on');
      at = parser.consume(chunk, at);
    }
  }
}

describe.each(Object.entries(streams))(
  'request parser, %s',
  (_, { extended, headerBytes, stream, expected }) => {
    it('understands a stream that comes in one piece', () => {
      const recorder = new Recorder();
      feed(new RequestParser(recorder, extended), [stream]);
      expect(recorder.seen).toEqual(expected);
    });

    it('understands a stream that is cut in two at any byte', () => {
      for (let cut = 0; cut <= stream.length; cut++) {
        const recorder = new Recorder();
        feed(new RequestParser(recorder, extended), [stream.subarray(0, cut), stream.subarray(cut)]);
        expect(recorder.seen, `cut at ${cut}`).toEqual(expected);
        expect(recorder.buffersOut).toBe(0);
      }
    });

    it('understands a stream that comes byte by byte', () => {
      const recorder = new Recorder();
      feed(
        new RequestParser(recorder, extended),
        Array.from(stream, (byte) => Buffer.of(byte)),
      );
      expect(recorder.seen).toEqual(expected);
    });

    it('waits when a request is not admitted or a buffer not given, and loses nothing', () => {
      for (let cut = 0; cut <= stream.length; cut++) {
        for (const refusals of [1, 3]) {
          const recorder = new Recorder();
          recorder.refusals = refusals;
          recorder.bufferRefusals = refusals;
          feed(new RequestParser(recorder, extended), [stream.subarray(0, cut), stream.subarray(cut)]);
          expect(recorder.seen, `cut at ${cut}`).toEqual(expected);
        }
      }
    });

    it('understands random cuts with random refusals', () => {
      const seed = testSeed();
      const random = new SeededRandom(seed);
      for (let run = 0; run < 300; run++) {
        const recorder = new Recorder();
        recorder.refusals = random.below(5);
        recorder.bufferRefusals = random.below(3);
        const chunks: Buffer[] = [];
        for (let at = 0; at < stream.length;) {
          const end = Math.min(stream.length, at + random.below(40));
          chunks.push(stream.subarray(at, end));
          at = end;
        }
        feed(new RequestParser(recorder, extended), chunks);
        expect(recorder.seen, `PANDO_TEST_SEED=${seed}, run ${run}`).toEqual(expected);
      }
    });

    it('stops for good at a wrong magic number, wherever the header is cut', () => {
      const bad = Buffer.concat([
        rawRequest({ type: Command.flush }, extended),
        rawRequest({ type: 0, magic: extended ? 0x25609513 : 0x21e41c71 }, extended),
        stream,
      ]);
      for (let cut = 0; cut <= 2 * headerBytes; cut++) {
        const recorder = new Recorder();
        feed(new RequestParser(recorder, extended), [bad.subarray(0, cut), bad.subarray(cut)]);
        expect(recorder.seen).toEqual(['3 0 0 1 0 0 -']);
        expect(recorder.violations).toHaveLength(1);
      }
    });

    it('stops for good at a payload that is refused', () => {
      const recorder = new Recorder();
      const long = rawRequest({ type: Command.write, flags: 32, length: 1_001 }, extended);
      feed(new RequestParser(recorder, extended), [long, stream]);
      expect(recorder.seen).toEqual([]);
      expect(recorder.violations).toHaveLength(1);
    });

    it('gives a buffer back when it is stopped in the middle of a payload', () => {
      const recorder = new Recorder();
      const parser = new RequestParser(recorder, extended);
      parser.consume(rawRequest({ type: Command.write, flags: 32, length: 100 }, extended), 0);
      parser.consume(Buffer.alloc(60), 0);
      expect(recorder.buffersOut).toBe(1);
      parser.stop();
      expect(recorder.buffersOut).toBe(0);
      expect(recorder.seen).toEqual([]);
    });
  },
);
