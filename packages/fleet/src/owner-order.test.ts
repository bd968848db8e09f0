import { runSeed, seededRandom } from '@pando/common/testing';
import { expect, it } from 'vitest';
import type { ListedOwner } from './owner-list.ts';
import { orderOf } from './owner-order.ts';

const owner = (kind: 'vm' | 'backup', id: string): ListedOwner => ({
  ...{ kind, id, name: id, vmId: id, vmName: id, tags: [], createdAt: 0 },
});

it.each([0, 1, 8192, 8193, 50_000])(
  '%i backups among VMs are put in the order of their ids',
  async (backups) => {
    const random = seededRandom(runSeed());
    const owners: ListedOwner[] = [];
    let vms = 0;
    for (let i = 0; i < backups; i++) {
      if (random() < 0.1) owners.push(owner('vm', String(vms++).padStart(9, '0')));
      owners.push(owner('backup', `${random()}/${i}`));
    }
    const listed = [...(await orderOf(owners, vms))].map((at) => owners[at]!);
    expect(listed.slice(0, vms)).toEqual(owners.filter(({ kind }) => kind === 'vm'));
    const ids = owners.filter(({ kind }) => kind === 'backup').map(({ id }) => id);
    expect(listed.slice(vms).map(({ id }) => id)).toEqual(ids.sort());
  },
);
