import { expect, it } from 'vitest';
import { SharedLock } from './shared-lock.ts';

function gate(): { opened: Promise<void>; open: () => void } {
  let open = (): void => undefined;
  const opened = new Promise<void>((resolve) => (open = resolve));
  return { opened, open };
}

it('lets many share, one alone, and nobody overtake', async () => {
  const lock = new SharedLock();
  const order: string[] = [];
  const [first, alone] = [gate(), gate()];
  const a = lock.hold('shared', async () => {
    order.push('a');
    await first.opened;
  });
  const b = lock.hold('shared', async () => {
    order.push('b');
    await first.opened;
  });
  const c = lock.hold('exclusive', async () => {
    order.push('c');
    await alone.opened;
  });
  const d = lock.hold('shared', () => Promise.resolve(void order.push('d')));
  await Promise.resolve();
  expect(order).toEqual(['a', 'b']);
  expect(lock.waiting).toBe(2);
  first.open();
  await Promise.all([a, b]);
  await Promise.resolve();
  expect(order).toEqual(['a', 'b', 'c']);
  alone.open();
  await Promise.all([c, d]);
  expect(order).toEqual(['a', 'b', 'c', 'd']);
  expect(lock.idle).toBe(true);
});

it('is free again after an action that failed', async () => {
  const lock = new SharedLock();
  await expect(lock.hold('exclusive', () => Promise.reject(new Error('no')))).rejects.toThrow('no');
  expect(lock.idle).toBe(true);
  await expect(lock.hold('shared', () => Promise.resolve(7))).resolves.toBe(7);
});
