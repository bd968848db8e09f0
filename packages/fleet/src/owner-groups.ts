/** Owners of space put together to groups: a VM with its backups, all that carry a tag, all backups that a policy took. */
import type { ListedOwner } from './owner-list.ts';
import type { AccountGrouping, AccountLine } from './answer-types.ts';

type About = Pick<AccountLine, 'name' | 'id' | 'isGone'>;

export interface OwnerGroup {
  /** What groups are in order of. */
  readonly key: string;
  about: About;
  vms: number;
  backups: number;
}

export interface OwnerGroups {
  readonly groups: readonly OwnerGroup[];
  /** The groups of an owner, by position; the same array for neighbours that have the same ones. */
  readonly of: (owner: number) => readonly number[];
}

/** Keys of VMs, and of backups that nobody's policy took, where policies are the groups. */
const VMS = '';
const BY_HAND = ' ';

export function groupOwners(owners: readonly ListedOwner[], by: AccountGrouping): OwnerGroups {
  const named = new Map<string, OwnerGroup>();
  const keysOf = owners.map((owner) => {
    const keys = groupKeys(owner, by);
    for (const key of keys) {
      let group = named.get(key);
      if (group === undefined) named.set(key, (group = { key, about: {}, vms: 0, backups: 0 }));
      if (owner.kind === 'vm') group.vms++;
      else group.backups++;
      group.about = describe(owner, by, key, group);
    }
    return keys;
  });
  const groups = [...named.values()].sort((a, b) => (a.key < b.key ? -1 : 1));
  const numbers = new Map(groups.map(({ key }, number) => [key, number]));
  /** One array for each combination. */
  const combinations = new Map<string, readonly number[]>();
  const of = keysOf.map((keys) => {
    const combination = keys.map((key) => numbers.get(key)!);
    const name = combination.join();
    const known = combinations.get(name);
    if (known === undefined) combinations.set(name, combination);
    return known ?? combination;
  });
  return { groups, of: (owner) => of[owner]! };
}

function groupKeys({ kind, vmId, tags, policy }: ListedOwner, by: AccountGrouping): readonly string[] {
  if (by === 'vm') return [vmId];
  if (by === 'tag') return tags.length === 0 ? [''] : tags;
  return [kind === 'vm' ? VMS : (policy?.id ?? BY_HAND)];
}

/** A group by one more of its owners, the newest that says something. */
function describe(owner: ListedOwner, by: AccountGrouping, key: string, group: OwnerGroup): About {
  if (by === 'tag') return key === '' ? {} : { name: key };
  if (by === 'policy')
    return owner.policy === undefined ? {} : { name: owner.policy.name, id: owner.policy.id };
  if (owner.kind === 'vm') return { name: owner.vmName, id: owner.vmId };
  // Of a VM that is gone, the name that it had when its last backup was taken.
  return group.vms > 0 ? group.about : { name: owner.vmName, id: owner.vmId, isGone: true };
}
