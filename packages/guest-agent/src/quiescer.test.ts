import { MemoryCatalog, type Catalog } from '@pando/catalog';
import { PandoError, systemClock } from '@pando/common';
import { beforeEach, describe, expect, test } from 'vitest';
import { GuestAgent } from './agent.ts';
import { FakeGuest, line } from './fake-agent.ts';
import { Quiescer, type QuiesceLimits } from './quiescer.ts';

let guest: FakeGuest;
let catalog: Catalog;
let isGone: boolean;
let troubles: (string | undefined)[];
/** Short enough for those tests in which an agent does not answer. */
const LIMITS: QuiesceLimits = { answerMs: 60, freezeMs: 60, holdMs: 60, againMs: 5, guests: 2 };

beforeEach(() => {
  guest = new FakeGuest();
  catalog = new MemoryCatalog();
  isGone = false;
  troubles = [];
});

/** Every address is that of a guest of its own; most tests have only one. */
function guests(address: string): FakeGuest {
  return address === '/a' ? guest : new FakeGuest();
}

function open(limits: Partial<QuiesceLimits> = {}): Quiescer {
  return new Quiescer({
    catalog,
    clock: systemClock,
    connect: (address) =>
      isGone
        ? Promise.reject(new PandoError('guest-agent-gone', 'nobody listens'))
        : Promise.resolve(new GuestAgent(guests(address).connect(), systemClock)),
    onFrozen: (_address, error) => troubles.push(error?.code),
    limits: { ...LIMITS, ...limits },
  });
}
const recorded = async (): Promise<number> => (await catalog.list('guest-freeze')).length;
const fine = { undo: () => Promise.reject(new Error('nothing is to be undone')) };

async function until(check: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await check())) await new Promise((resolve) => setTimeout(resolve, 2));
}

describe('a guest that behaves', () => {
  test('is frozen while the action runs, and thawed afterwards; the freeze is recorded meanwhile', async () => {
    const quiescer = open({ holdMs: 10_000 });
    const action = async (): Promise<string> => {
      expect(guest.frozen).toBe(true);
      expect(await recorded()).toBe(1);
      return 'done';
    };
    expect(await quiescer.quiesced('/a', { action, ...fine })).toBe('done');
    expect(guest.frozen).toBe(false);
    expect(await recorded()).toBe(0);
    expect(guest.commands).toEqual(['guest-sync-delimited', 'guest-fsfreeze-freeze', 'guest-fsfreeze-thaw']);
    expect(troubles).toEqual([]);
  });

  test('is thawed when the action fails', async () => {
    const action = (): Promise<never> => Promise.reject(new PandoError('name-taken', 'taken'));
    await expect(open().quiesced('/a', { action, ...fine })).rejects.toMatchObject({ code: 'name-taken' });
    expect(guest.frozen).toBe(false);
    expect(await recorded()).toBe(0);
  });

  test('is thawed when the limit is reached, and what the action has done is undone', async () => {
    const undone: string[] = [];
    const quiesced = open().quiesced('/a', {
      action: async () => {
        await until(() => !guest.frozen);
        return 'late';
      },
      undo: (result) => Promise.resolve(void undone.push(result)),
    });
    await expect(quiesced).rejects.toMatchObject({ code: 'quiesce-timeout' });
    expect(undone).toEqual(['late']);
    expect(await recorded()).toBe(0);
  });

  test('is frozen for one at a time, and not too many are', async () => {
    const quiescer = open({ holdMs: 10_000 });
    const gate = Promise.withResolvers<string>();
    const work = { action: () => gate.promise, ...fine };
    const first = quiescer.quiesced('/a', work);
    await expect(quiescer.quiesced('/a', work)).rejects.toMatchObject({ code: 'guest-frozen' });
    const second = quiescer.quiesced('/b', work);
    await expect(quiescer.quiesced('/c', work)).rejects.toMatchObject({ code: 'too-busy' });
    gate.resolve('x');
    expect(await Promise.all([first, second])).toEqual(['x', 'x']);
    expect(await quiescer.quiesced('/c', work)).toBe('x');
  });

  test('is found although somebody left half a conversation behind', async () => {
    guest.stale = Buffer.concat([line({ return: 7 }), Buffer.from('{"return": {"half'), Buffer.from([0xff])]);
    guest.stale = Buffer.concat([guest.stale, line({ error: { desc: 'old' } })]);
    // An answer to somebody else's synchronisation is none to ours.
    guest.stale = Buffer.concat([guest.stale, Buffer.from([0xff]), line({ return: -1 })]);
    expect(await open().quiesced('/a', { action: () => Promise.resolve(1), ...fine })).toBe(1);
  });

  test('that thawed itself meanwhile was not at rest', async () => {
    const undone: number[] = [];
    const quiesced = open().quiesced('/a', {
      action: () => {
        guest.frozen = false;
        return Promise.resolve(5);
      },
      undo: (result) => Promise.resolve(void undone.push(result)),
    });
    await expect(quiesced).rejects.toMatchObject({ code: 'quiesce-timeout' });
    expect(undone).toEqual([5]);
  });
});

describe('a guest that does not', () => {
  const attempt = (): Promise<unknown> =>
    open().quiesced('/a', { action: () => Promise.reject(new Error('never')), ...fine });

  test.each([
    ['says nothing', undefined],
    ['sends something that is no JSON', Buffer.from('\u0000\u0001garbage\n')],
    ['sends a list', line([1])],
    ['sends a line without end', Buffer.alloc(100_000, 'x')],
    ['sends without end', Buffer.alloc(2 * 1024 * 1024, 0x20)],
    ['answers with a text where a number belongs', line({ return: 'two' })],
    ['answers with a negative number', line({ return: -1 })],
    ['refuses', line({ error: { class: 'GenericError', desc: 'disabled\u0007' } })],
    ['refuses without a reason', line({ error: null })],
    ['froze nothing', line({ return: 0 })],
  ])('and %s is no guest at rest, and is thawed', async (_what, bytes) => {
    guest.answer = (command) => (command === 'guest-fsfreeze-freeze' ? bytes : 'honest');
    await expect(attempt()).rejects.toMatchObject({ code: 'guest-agent-failed' });
    await until(async () => (await recorded()) === 0);
    expect(guest.commands).toContain('guest-fsfreeze-thaw');
  });

  test('synchronise is left alone, and nothing is recorded', async () => {
    guest.answer = () => undefined;
    await expect(attempt()).rejects.toMatchObject({ code: 'guest-agent-failed' });
    expect(await recorded()).toBe(0);
    expect(guest.commands).toEqual(['guest-sync-delimited']);
  });

  test('answer the thaw is asked again until it is thawed', async () => {
    let thaws = 0;
    guest.answer = (command) => (command === 'guest-fsfreeze-thaw' && ++thaws < 3 ? undefined : 'honest');
    const quiescer = open();
    expect(await quiescer.quiesced('/a', { action: () => Promise.resolve(1), ...fine })).toBe(1);
    expect(await recorded()).toBe(1);
    await expect(
      quiescer.quiesced('/a', { action: () => Promise.resolve(1), ...fine }),
    ).rejects.toMatchObject({ code: 'guest-frozen' });
    await until(async () => (await recorded()) === 0);
    expect(guest.frozen).toBe(false);
    expect(troubles[0]).toBe('guest-agent-failed');
    expect(troubles.at(-1)).toBeUndefined();
  });

  test('live on after the end of the process is thawed by the next one', async () => {
    guest.answer = (command) => (command === 'guest-fsfreeze-thaw' ? undefined : 'honest');
    const first = open();
    await first.quiesced('/a', { action: () => Promise.resolve(1), ...fine });
    await first.close();
    expect(await recorded()).toBe(1);
    expect(guest.frozen).toBe(true);
    guest.answer = undefined;
    const second = open();
    await second.recover();
    await until(async () => (await recorded()) === 0);
    expect(guest.frozen).toBe(false);
    await second.close();
  });

  test('run any more is forgotten', async () => {
    await catalog.commit([{ type: 'put', table: 'guest-freeze', key: '/a', value: { version: 1 } }]);
    isGone = true;
    const quiescer = open();
    await quiescer.recover();
    await until(async () => (await recorded()) === 0);
    await quiescer.close();
  });
});

test('one that stops starts nothing new, and ends what is under way', async () => {
  const quiescer = open({ holdMs: 10_000 });
  const gate = Promise.withResolvers<number>();
  const work = { action: () => gate.promise, ...fine };
  const running = quiescer.quiesced('/a', work);
  await until(() => guest.frozen);
  const closed = quiescer.close();
  await expect(quiescer.quiesced('/b', work)).rejects.toMatchObject({ code: 'shutting-down' });
  gate.resolve(3);
  expect(await running).toBe(3);
  await closed;
  expect(guest.frozen).toBe(false);
});
