/** Who keeps the log: it goes as far as its gate lets it, and what replaces a disk waits for the gate. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { LogGate } from './index.ts';
import { CHUNK, TestMachine, none, until } from './testing/test-machine.ts';

/** Lets nothing through but what it was told to. */
class TestGate implements LogGate {
  open = 0;
  asked = 0;
  wasUrgent = false;
  settles: (() => void)[] = [];
  /** Whether `settle` waits to be let go. */
  waits = false;
  tell: () => void = () => undefined;

  release(position: number, urgent: boolean): number {
    this.asked = Math.max(this.asked, position);
    this.wasUrgent ||= urgent;
    return Math.min(position, this.open);
  }

  onRelease(listener: () => void): void {
    this.tell = listener;
  }

  settle(): Promise<void> {
    if (!this.waits) {
      this.open = this.asked;
      return Promise.resolve();
    }
    return new Promise((resolve) => this.settles.push(resolve));
  }
}

let m: TestMachine;
let gate: TestGate;

beforeEach(() => {
  m = new TestMachine();
  gate = new TestGate();
});

afterEach(() => {
  gate.waits = false;
  for (const settle of gate.settles) settle();
  return m.close();
});

describe('the log', () => {
  it('keeps what is destaged until the gate lets it go, and goes when it is told so', async () => {
    await m.open({ logGate: gate });
    const disk = await m.volumes.create({ size: 8 * CHUNK }, none);
    await m.write(disk, 0, Buffer.alloc(CHUNK, 1));
    await m.volumes.settle(disk);
    await until(() => gate.asked > 0);
    expect(m.volumes.stats).toMatchObject({ overlays: 0 });
    expect(m.volumes.stats.logBytes).toBeGreaterThan(CHUNK);
    gate.open = gate.asked;
    gate.tell();
    await until(() => m.volumes.stats.logBytes === 0);
    expect(gate.wasUrgent).toBe(false);
  });

  it('waits for the gate when it is half full, and writers go on', async () => {
    await m.open({ logGate: gate, logBytesMax: 20 * CHUNK, logFileBytes: 2 * CHUNK });
    const disk = await m.volumes.create({ size: 8 * CHUNK }, none);
    for (let round = 0; round < 40; round++) await m.write(disk, 0, Buffer.alloc(4 * CHUNK, round));
    expect(gate.wasUrgent).toBe(true);
    expect(await m.read(disk, 0, CHUNK)).toEqual(Buffer.alloc(CHUNK, 39));
  });

  it('is what it was before on a catalog from before, until the gate was opened', async () => {
    await m.open({ logGate: gate });
    const disk = await m.volumes.create({ size: 8 * CHUNK }, none);
    const before = await m.records.list('disk');
    const numbers = await m.records.list('volume');
    await m.write(disk, 0, Buffer.alloc(CHUNK, 1));
    await m.volumes.settle(disk);
    await m.write(disk, CHUNK, Buffer.alloc(CHUNK, 2));
    await m.volumes.settle(disk);
    m.crash();
    await m.records.commit([
      ...before.map(({ key, value }) => ({ type: 'put', table: 'disk', key, value }) as const),
      ...numbers.map(({ key, value }) => ({ type: 'put', table: 'volume', key, value }) as const),
    ]);
    await m.open();
    expect(await m.read(disk, 0, 2 * CHUNK)).toEqual(
      Buffer.concat([Buffer.alloc(CHUNK, 1), Buffer.alloc(CHUNK, 2)]),
    );
  });

  it('is empty after a clean close', async () => {
    await m.open({ logGate: gate });
    const disk = await m.volumes.create({ size: 8 * CHUNK }, none);
    await m.write(disk, 0, Buffer.alloc(CHUNK, 1));
    await m.volumes.close();
    expect(await m.fs.list('log')).toEqual([]);
  });
});

describe('what a disk was is replaced', () => {
  const shrinks = (disk: number): Promise<void> => m.volumes.resize(disk, CHUNK, none);
  const restores = async (disk: number): Promise<void> => {
    const source = await m.volumes.create({ size: CHUNK }, none);
    return m.volumes.replace([{ target: disk, source }], none);
  };
  it.each([
    ['by a shrink', shrinks],
    ['by a restore in place', restores],
  ])('%s in the copy too, before anybody can write to it', async (_, replace) => {
    await m.open({ logGate: gate });
    const disk = await m.volumes.create({ size: 8 * CHUNK }, none);
    gate.waits = true;
    let done = false;
    const replaced = replace(disk).then(() => (done = true));
    await until(() => gate.settles.length > 0);
    await expect(m.volumes.open(disk)).rejects.toMatchObject({ code: 'disk-in-use' });
    expect(done).toBe(false);
    for (const settle of gate.settles) settle();
    await replaced;
    const handle = await m.volumes.open(disk);
    expect(handle.size).toBe(CHUNK);
    await handle.close();
  });
});
