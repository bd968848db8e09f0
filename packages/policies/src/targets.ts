/** The VMs of a policy, page by page: source 0 those that are assigned by name, source n the n-th of its tags. */
import { isPandoError } from '@pando/common';
import type { Vm } from '@pando/fleet';
import type { PolicyContext, StoredPolicy } from './context.ts';
import { pair } from './records.ts';

export interface TargetPage {
  /** Each VM in one of the sources only: the first that has it at the moment. */
  readonly vms: readonly Vm[];
  /** Those of this source that an earlier one has as well. One that came to it after it was gone through has been in no page yet. */
  readonly others: readonly Vm[];
  /** Assigned by name, and not there any more. */
  readonly gone: readonly string[];
  /** Where this source goes on; absent: it ends here. */
  readonly cursor?: string;
}

export function tagOf({ record }: StoredPolicy, source: number): string | undefined {
  return record.tags[source - 1];
}

/** Undefined when there is no such source. */
export async function targetPage(
  ctx: PolicyContext,
  policy: StoredPolicy,
  source: number,
  cursor: string | undefined,
  limit: number,
): Promise<TargetPage | undefined> {
  const { id, record } = policy;
  if (source === 0) {
    const prefix = pair(id, '');
    const found = await ctx.catalog.list('policy-vm', {
      prefix,
      limit: limit + 1,
      ...(cursor === undefined ? {} : { after: prefix + cursor }),
    });
    const ids = found.slice(0, limit).map(({ key }) => key.slice(prefix.length));
    const vms: Vm[] = [];
    const gone: string[] = [];
    for (const vmId of ids) {
      try {
        vms.push(await ctx.fleet.getVm(vmId));
      } catch (error) {
        if (!isPandoError(error, 'vm-missing')) throw error;
        gone.push(vmId);
      }
    }
    return { vms, others: [], gone, ...(found.length > limit ? { cursor: ids.at(-1)! } : {}) };
  }
  const tag = tagOf(policy, source);
  if (tag === undefined) return undefined;
  const page = await ctx.fleet.listVms({ tag, limit, ...(cursor === undefined ? {} : { cursor }) });
  const byName = await ctx.catalog.getMany(
    'policy-vm',
    page.items.map((vm) => pair(id, vm.id)),
  );
  const earlier = record.tags.slice(0, source - 1);
  const isOther = (vm: Vm, i: number): boolean =>
    byName[i] !== undefined || vm.tags.some((one) => earlier.includes(one));
  const vms = page.items.filter((vm, i) => !isOther(vm, i));
  const others = page.items.filter(isOther);
  return { vms, others, gone: [], ...(page.nextCursor === undefined ? {} : { cursor: page.nextCursor }) };
}
