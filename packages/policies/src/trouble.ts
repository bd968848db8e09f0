/** What is wrong with policies, all of them together: out of the states of their rules, a bounded number, and none of their VMs. */
import type { PolicyContext } from './context.ts';
import { partsOf, readAs } from './records.ts';
import type { PolicyTrouble } from './types.ts';

const PAGE = 1000;
/** Rules that are named. */
const NAMED_MAX = 3;

/** For how long what is due first has waited, in milliseconds; 0: nothing is due. */
export async function dueLagMs({ catalog, clock }: PolicyContext): Promise<number> {
  const [first] = await catalog.list('policy-agenda', { limit: 1 });
  return first === undefined ? 0 : Math.max(0, clock.now() - partsOf(first.key).at);
}

export async function findTrouble(ctx: PolicyContext): Promise<PolicyTrouble> {
  const failing: { policyId: string; rule: string; vms: number }[] = [];
  let failingRules = 0;
  let after: string | undefined;
  for (;;) {
    const found = await ctx.catalog.list('policy-state', {
      limit: PAGE,
      ...(after === undefined ? {} : { after }),
    });
    for (const { key, value } of found) {
      const { run, last } = readAs('policy-state', key, value);
      // One in its second pass waits for VMs that the first could not back up.
      const vms = Math.max(last?.failed ?? 0, run !== undefined && run.pass > 1 ? 1 : 0);
      if (vms === 0) continue;
      failingRules++;
      const [policyId, rule] = key.split('/') as [string, string];
      if (failing.length < NAMED_MAX) failing.push({ policyId, rule: decodeURIComponent(rule), vms });
    }
    if (found.length < PAGE) break;
    after = found.at(-1)!.key;
  }
  const policies = await ctx.catalog.getMany(
    'policy',
    failing.map(({ policyId }) => policyId),
  );
  return {
    lagMs: await dueLagMs(ctx),
    failingRules,
    failing: failing.flatMap(({ policyId, rule, vms }, i) =>
      policies[i] === undefined ? [] : [{ policy: readAs('policy', policyId, policies[i]).name, rule, vms }],
    ),
  };
}
