/** Options on their own, without a connection. */
import { MemoryBlockDevice } from '@pando/block-device';
import { describe, expect, it } from 'vitest';
import { DEFAULT_LIMITS } from './limits.ts';
import { ExportOptions } from './options.ts';
import type { OptionOutcome } from './options.ts';
import { Option, OptionReply } from './protocol.ts';
import { DeviceExports } from './testing/device-exports.ts';
import { contextRequest, infoRequest } from './testing/raw-client.ts';
import type { ClientIdentity } from './types.ts';

const ALICE: ClientIdentity = { peer: '192.0.2.1:5', proof: 'x509', names: ['alice'] };

class Host {
  readonly exports = new DeviceExports();
  readonly limits = DEFAULT_LIMITS;
  readonly logger = { debug() {}, info() {}, warn() {}, error() {} };
  client = ALICE;
  rotational = false;
  retired = 0;

  constructor() {
    this.exports.set('disk', new MemoryBlockDevice({ size: 2 ** 20 }));
    this.exports.set('backup', new MemoryBlockDevice({ size: 2 ** 20, readOnly: true }));
    this.exports.setContext('disk', 'x-test:a', (_, length) => ({ lengths: [length], flags: [1] }));
  }

  retire(): void {
    this.retired++;
  }
}

const NOTHING = Buffer.alloc(0);

/** Types of the replies. */
function typesOf(outcome: OptionOutcome): number[] {
  if (outcome.next !== 'option' && outcome.next !== 'transmission') throw new Error(outcome.next);
  const types: number[] = [];
  for (let at = 0; at < outcome.replies.length; at += 20 + outcome.replies.readUInt32BE(at + 16)) {
    types.push(outcome.replies.readUInt32BE(at + 12));
  }
  return types;
}

/** Transmission flags out of the answer to INFO. */
async function flagsOf(options: ExportOptions, name: string): Promise<number> {
  const outcome = await options.answer(Option.info, infoRequest(name), false);
  if (outcome.next !== 'option') throw new Error(outcome.next);
  return outcome.replies.readUInt16BE(20 + 10);
}

describe('options', () => {
  it('announce ROTATIONAL when the server says so, of every export', async () => {
    const host = new Host();
    const options = new ExportOptions(host);
    for (const rotational of [true, false]) {
      host.rotational = rotational;
      for (const name of ['disk', 'backup']) {
        expect(((await flagsOf(options, name)) >> 4) & 1).toBe(rotational ? 1 : 0);
      }
    }
  });

  it('tell the provider who the client is now', async () => {
    const host = new Host();
    const options = new ExportOptions(host);
    for (const [option, data] of [
      [Option.list, NOTHING],
      [Option.info, infoRequest('disk')],
    ] as const) {
      for (const client of [ALICE, { peer: 'unix', proof: 'none', names: [] } as const]) {
        host.client = client;
        await options.answer(option, data, false);
        expect(host.exports.lastClient).toBe(client);
      }
    }
  });

  it('forget everything at a restart, as STARTTLS asks, and close what was kept', async () => {
    const host = new Host();
    const options = new ExportOptions(host);
    await options.answer(Option.extendedHeaders, NOTHING, false);
    await options.answer(Option.setMetaContext, contextRequest('disk', ['x-test:a']), false);
    expect(host.exports.openHandles).toBe(1);
    await options.restart();
    expect(host.exports.openHandles).toBe(0);
    await expect(
      options.answer(Option.setMetaContext, contextRequest('disk', ['x-test:a']), false),
    ).rejects.toThrow('STRUCTURED_REPLY');
    expect((await flagsOf(options, 'disk')) & ((1 << 7) | (1 << 12))).toBe(0);
    // STRUCTURED_REPLY is open again.
    expect(typesOf(await options.answer(Option.structuredReply, NOTHING, false))).toEqual([OptionReply.ack]);
    const outcome = await options.answer(Option.go, infoRequest('disk'), false);
    expect(outcome).toMatchObject({ next: 'transmission', session: { replies: 'structured' } });
    if (outcome.next === 'transmission') {
      expect(outcome.session.opened.contexts).toEqual([]);
      await outcome.session.opened.close();
    }
    await options.dropContexts();
    expect(host.exports.openHandles).toBe(0);
  });

  it('retire the connection when the kept export is revoked, and not once it has been let go', async () => {
    const host = new Host();
    const options = new ExportOptions(host);
    await options.answer(Option.structuredReply, NOTHING, false);
    const set = (queries: string[]): Promise<OptionOutcome> =>
      options.answer(Option.setMetaContext, contextRequest('disk', queries), false);
    await set(['x-test:a']);
    await set([]);
    host.exports.revoke('disk');
    expect(host.retired).toBe(0);
    await set(['x-test:a']);
    host.exports.revoke('disk');
    expect(host.retired).toBe(1);
    await options.dropContexts();
    // From GO on the transmission listens itself.
    await set(['x-test:a']);
    const outcome = await options.answer(Option.go, infoRequest('disk'), false);
    host.exports.revoke('disk');
    expect(host.retired).toBe(1);
    if (outcome.next === 'transmission') await outcome.session.opened.close();
    expect(host.exports.openHandles).toBe(0);
  });
});
