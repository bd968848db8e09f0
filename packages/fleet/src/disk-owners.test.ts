import { expect, it } from 'vitest';
import { DiskOwners } from './disk-owners.ts';

it('a disk is known while any client has it, and of those that nobody has the newest', () => {
  const owners = new DiskOwners(2);
  expect(owners.vmOf(1)).toBeUndefined();
  const [first, second] = [owners.opened(1, 'a'), owners.opened(1, 'a')];
  for (const disk of [2, 3, 4]) owners.opened(disk, 'b')();
  expect([1, 2, 3, 4].map((disk) => owners.vmOf(disk))).toEqual(['a', undefined, 'b', 'b']);
  first();
  owners.opened(5, 'c')();
  expect([1, 3, 4, 5].map((disk) => owners.vmOf(disk))).toEqual(['a', undefined, 'b', 'c']);
  second();
  expect([1, 4, 5].map((disk) => owners.vmOf(disk))).toEqual(['a', undefined, 'c']);
});

it('a disk that is opened again while it is remembered is not forgotten with the others', () => {
  const owners = new DiskOwners(1);
  owners.opened(1, 'a')();
  owners.opened(1, 'a');
  for (const disk of [2, 3]) owners.opened(disk, 'b')();
  expect([1, 2, 3].map((disk) => owners.vmOf(disk))).toEqual(['a', undefined, 'b']);
});
