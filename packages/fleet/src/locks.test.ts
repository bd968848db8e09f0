import { describe, expect, test } from 'vitest';
import { Locks, Reservations } from './locks.ts';

/** An action that ends when it is told to. */
function held(events: string[], name: string): { action: () => Promise<void>; end: () => void } {
  const { promise, resolve } = Promise.withResolvers<undefined>();
  return {
    action: async () => {
      events.push(`${name} in`);
      await promise;
      events.push(`${name} out`);
    },
    end: () => resolve(undefined),
  };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('locks', () => {
  test('shared holders go together, an exclusive one alone, and nobody overtakes', async () => {
    const locks = new Locks(10);
    const events: string[] = [];
    const [a, b, c, d] = ['a', 'b', 'c', 'd'].map((name) => held(events, name)) as [
      ReturnType<typeof held>,
      ...ReturnType<typeof held>[],
    ];
    const all = [
      locks.hold('x', 'shared', a.action),
      locks.hold('x', 'shared', b!.action),
      locks.hold('x', 'exclusive', c!.action),
      locks.hold('x', 'shared', d!.action),
    ];
    await turn();
    expect(events).toEqual(['a in', 'b in']);
    a.end();
    await turn();
    expect(events).toEqual(['a in', 'b in', 'a out']);
    b!.end();
    await turn();
    expect(events.slice(3)).toEqual(['b out', 'c in']);
    c!.end();
    await turn();
    expect(events.slice(5)).toEqual(['c out', 'd in']);
    d!.end();
    await Promise.all(all);
  });

  test('keys do not wait for each other, and a failing action gives its lock back', async () => {
    const locks = new Locks(10);
    const events: string[] = [];
    const x = held(events, 'x');
    const holding = locks.hold('x', 'exclusive', x.action);
    await locks.hold('y', 'exclusive', async () => void events.push('y'));
    await expect(locks.hold('y', 'exclusive', () => Promise.reject(new Error('no')))).rejects.toThrow('no');
    await locks.hold('y', 'exclusive', async () => void events.push('y'));
    x.end();
    await holding;
    expect(events).toEqual(['x in', 'y', 'y', 'x out']);
  });

  test('too many waiters are refused', async () => {
    const locks = new Locks(1);
    const x = held([], 'x');
    const holding = locks.hold('x', 'exclusive', x.action);
    const waiting = locks.hold('x', 'shared', () => Promise.resolve('w'));
    await expect(locks.hold('x', 'shared', () => Promise.resolve('w'))).rejects.toMatchObject({
      code: 'too-busy',
    });
    x.end();
    await holding;
    expect(await waiting).toBe('w');
  });
});

describe('reservations', () => {
  test('all keys or none are reserved, and can be again once they are given back', () => {
    const names = new Reservations();
    const release = names.reserve(['a', 'b']);
    expect(() => names.reserve(['c', 'b'])).toThrow(expect.objectContaining({ code: 'name-taken' }));
    names.reserve(['c'])();
    release();
    names.reserve(['a', 'b', 'c'])();
  });
});
