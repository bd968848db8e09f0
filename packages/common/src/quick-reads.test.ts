import { expect, it } from 'vitest';
import { QuickReads } from './quick-reads.ts';

class World {
  now = 0;
  blocks = 0;
  readonly reads = new QuickReads(
    () => this.now,
    () => this.blocks,
  );

  /** Whether the read was tried. */
  read(ms: number, blocks = 0): boolean {
    if (!this.reads.begin()) return false;
    this.now += ms;
    this.blocks += blocks;
    this.reads.end();
    return true;
  }
}

it('are tried as long as they are quick', () => {
  const world = new World();
  for (let i = 0; i < 100_000; i++) expect(world.read(0.03)).toBe(true);
});

it('are not tried again until a slow one is a small share of the time since', () => {
  const world = new World();
  expect(world.read(10, 8)).toBe(true);
  world.now += 99;
  expect(world.read(0.01)).toBe(false);
  world.now += 2;
  expect(world.read(0.01)).toBe(true);
});

it('hold a thread for a twentieth of the time, whatever the disk takes', () => {
  for (const ms of [0.06, 0.1, 1, 10, 1000]) {
    const world = new World();
    let slow = 0;
    while (world.now < 100_000) {
      if (world.read(ms, 1)) slow += ms;
      else world.now += 0.05;
    }
    expect(slow, `${ms} ms`).toBeLessThan(100_000 / 20 + 5 + 2 * ms);
  }
});

it('do so when most come from memory, too', () => {
  const world = new World();
  let slow = 0;
  for (let i = 0; world.now < 100_000; i++) {
    if (i % 100 !== 0) world.read(0.01);
    else if (world.read(10, 8)) slow += 10;
    world.now += 0.04;
  }
  expect(slow).toBeLessThan(100_000 / 20 + 25);
});

it('go on where now and then the thread waits for a processor and nothing is read from a device', () => {
  const world = new World();
  for (let i = 0; i < 10_000; i++) {
    expect(world.read(i % 100 === 99 ? 4 : 0.01)).toBe(true);
    world.now += 0.1;
  }
});
