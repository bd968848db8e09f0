import { describe, expect, it } from 'vitest';
import { RequestSlots } from './request-slots.ts';

const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('request slots', () => {
  it('are given in turns: who always wants more does not starve the others', async () => {
    const slots = new RequestSlots(2);
    const order: string[] = [];
    /** Takes all it can get, and waits for more. */
    const greedy = (name: string): (() => void) => {
      const run = (): void => {
        while (slots.admits()) {
          slots.take();
          order.push(name);
        }
        slots.wait(run);
      };
      return run;
    };
    const runs = ['a', 'b', 'c'].map(greedy);
    for (const run of runs) run();
    expect(order).toEqual(['a', 'a']);
    for (let i = 0; i < 4; i++) {
      slots.give();
      slots.give();
      await nextTurn();
      expect(slots.taken).toBe(2);
    }
    expect(order.join('')).toBe('aaaabbccaa');
  });

  it('keep the place of who got nothing, and let nobody pass who comes later', async () => {
    const slots = new RequestSlots(1);
    slots.take();
    const order: string[] = [];
    let ready = false;
    const first = (): void => {
      if (ready && slots.admits()) {
        slots.take();
        order.push('first');
      } else {
        slots.wait(first);
      }
    };
    const second = (): void => {
      if (slots.admits()) order.push('second');
      else slots.wait(second);
    };
    first();
    second();
    slots.give();
    await nextTurn();
    expect(order).toEqual([]);
    expect(slots.admits()).toBe(false);
    ready = true;
    slots.take();
    slots.give();
    await nextTurn();
    expect(order).toEqual(['first']);
    slots.give();
    await nextTurn();
    expect(order).toEqual(['first', 'second']);
  });

  it('forget who leaves the line', async () => {
    const slots = new RequestSlots(1);
    slots.take();
    let called = 0;
    const resume = (): void => {
      called++;
    };
    slots.wait(resume);
    slots.stopWaiting(resume);
    slots.give();
    await nextTurn();
    expect(called).toBe(0);
    expect(slots.admits()).toBe(true);
  });
});
