import { describe, expect, it } from 'vitest';
import { checkOneInstant, SECTOR, sectorBytes, SectorModel, tagsOf } from './sectors.ts';
import type { SectorWrite } from './sectors.ts';

const write = (first: number, issued: number, ...tags: number[]): SectorWrite => ({
  first,
  tags: Uint32Array.from(tags),
  issued,
  acknowledged: Infinity,
});
const read = (...tags: number[]): Uint32Array => Uint32Array.from(tags);

describe('the model of sectors', () => {
  it('reads the tags that it wrote, odd, even and zero', () => {
    const tags = read(0, 1, 2, 0xffff_ffff);
    expect(tagsOf(sectorBytes(tags), 'x')).toEqual(tags);
  });

  it('finds a sector of which a part is of another', () => {
    for (const tags of [read(7), read(8)]) {
      const bytes = sectorBytes(tags);
      bytes.set(sectorBytes(read(10)).subarray(SECTOR - 4), SECTOR - 4);
      expect(() => tagsOf(bytes, 'x')).toThrow('sector 0 is torn');
    }
  });

  it('misses a write that was acknowledged, and not one without an answer', () => {
    const model = new SectorModel('x', read(0, 0, 0));
    const answered = write(0, 1, 5, 6);
    model.begin(answered);
    model.acknowledge(answered, 2);
    const lost = write(1, 3, 7, 8);
    model.begin(lost);
    model.lose(lost);
    expect(() => model.settle(read(5, 0, 0))).toThrow('sector 1 holds 0 instead of 6 or one of 7');
    expect(() => model.settle(read(0, 7, 8))).toThrow('sector 0 holds 0 instead of 5');
    expect(() => model.settle(read(5, 6))).toThrow('2 sectors instead of 3');
    model.settle(read(5, 7, 0));
    expect(() => model.settle(read(5, 6, 0))).toThrow('sector 1 holds 6 instead of 7');
  });

  it('lets a fork hold what came while it was made, and nothing later', () => {
    const model = new SectorModel('x', read(0, 0));
    const before = write(0, 1, 1);
    model.begin(before);
    const fork = model.fork('y');
    model.acknowledge(before, 2);
    const during = write(1, 3, 2);
    model.begin(during);
    fork.end();
    model.acknowledge(during, 4);
    const after = write(0, 5, 3);
    model.begin(after);
    model.acknowledge(after, 6);
    for (const tags of [read(0, 0), read(1, 0), read(1, 2)]) fork.model.copy('z').settle(tags);
    expect(() => fork.model.copy('z').settle(read(3, 2))).toThrow('sector 0 holds 3');
    // The second write began after the first was acknowledged: no instant has only the second.
    expect(() => checkOneInstant([{ model: fork.model, read: read(0, 2) }])).toThrow('of no instant');
    checkOneInstant([{ model: fork.model, read: read(1, 0) }]);
  });

  it('compares instants across disks', () => {
    const disks = [new SectorModel('a', read(0)), new SectorModel('b', read(0))];
    const forks = disks.map((disk) => disk.fork('fork').model);
    for (const [i, disk] of disks.entries()) {
      const next = write(0, 1 + 2 * i, 9);
      disk.begin(next);
      disk.acknowledge(next, 2 + 2 * i);
    }
    const pair = (a: number, b: number) => forks.map((model, i) => ({ model, read: read(i === 0 ? a : b) }));
    for (const [a, b] of [
      [0, 0],
      [9, 0],
      [9, 9],
    ] as const)
      checkOneInstant(pair(a, b));
    expect(() => checkOneInstant(pair(0, 9))).toThrow('of no instant');
  });
});
