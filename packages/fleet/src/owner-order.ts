/** The order in which owners are listed: VMs, then backups, each kind in the order of creation, which is that of their ids. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { ListedOwner } from './owner-list.ts';

/** What is sorted, merged or looked at between two turns of the event loop: some milliseconds. */
const AT_ONCE = 8192;

/** Positions of the owners in that order. A million of them take seconds, in which everything else goes on. */
export async function orderOf(owners: readonly ListedOwner[], vms: number): Promise<Uint32Array> {
  const order = new Uint32Array(owners.length);
  let vm = 0;
  let backup = vms;
  for (const [at, { kind }] of owners.entries()) order[kind === 'vm' ? vm++ : backup++] = at;
  // VMs were listed in this order.
  await sort(order.subarray(vms), (a, b) => (owners[a]!.id < owners[b]!.id ? -1 : 1));
  return order;
}

/** Merge sort, in place. */
async function sort(numbers: Uint32Array, compare: (a: number, b: number) => number): Promise<void> {
  for (let from = 0; from < numbers.length; from += AT_ONCE) {
    numbers.subarray(from, from + AT_ONCE).sort(compare);
    await nextTurn();
  }
  const merged = new Uint32Array(numbers.length);
  for (let run = AT_ONCE; run < numbers.length; run *= 2) {
    for (let from = 0; from < numbers.length; from += 2 * run) {
      const middle = Math.min(from + run, numbers.length);
      const end = Math.min(from + 2 * run, numbers.length);
      let left = from;
      let right = middle;
      for (let at = from; at < end; at++) {
        const isLeft = right === end || (left < middle && compare(numbers[left]!, numbers[right]!) <= 0);
        merged[at] = numbers[isLeft ? left++ : right++]!;
        if (at % AT_ONCE === 0) await nextTurn();
      }
    }
    numbers.set(merged);
  }
}
