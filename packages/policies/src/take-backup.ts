/**
 * Takes one backup, of a guest at rest where the policy wants that. A guest that cannot be brought to rest is backed up all the same, as
 * after a crash: a backup that is not as good as wanted is better than none. Somebody is told, unless no guest runs.
 */
import { isPandoError, PandoError } from '@pando/common';
import type { Backup, Vm } from '@pando/fleet';
import type { PolicyContext, StoredPolicy } from './context.ts';
import type { Rule } from './types.ts';

type By =
  NonNullable<Backup['policy']> extends infer Policy
    ? Omit<Policy, 'dueAt'> & { readonly dueAt: number }
    : never;

export async function takeBackup(
  ctx: PolicyContext,
  { record }: StoredPolicy,
  rule: Rule,
  vm: Vm,
  by: By,
): Promise<void> {
  const take = (consistency?: 'application'): Promise<Backup> =>
    ctx.fleet.createBackup(vm.id, { policy: by, ...(consistency === undefined ? {} : { consistency }) });
  if (record.quiesce === undefined) {
    await take();
    return;
  }
  const backups = new Set<string>();
  try {
    if (ctx.quiesce === undefined)
      throw new PandoError('guest-agent-refused', 'the server has no --guest-agent-dir');
    await ctx.quiesce(
      { guest: record.quiesce, vm: vm.name },
      async () => {
        const backup = await take('application');
        backups.add(backup.id);
        return backup;
      },
      async (backup) => {
        await ctx.fleet.deleteBackup(backup.id);
        backups.delete(backup.id);
      },
    );
    return;
  } catch (error) {
    // What could not be taken back stays: a second one of the same time is not taken.
    if (backups.size > 0 || !isPandoError(error) || !isAboutGuest(error)) throw error;
    await take();
    // Nobody listens, nobody is attached: the guest is off, and its disks are at rest.
    if (error.code === 'guest-agent-gone' && vm.attachedClients === 0) return;
    ctx.onEvent({
      kind: 'policy-not-quiesced',
      text: `Policy ${record.name}, rule ${rule.name}: ${vm.name} was backed up as after a crash: ${error.message}`,
      subject: vm.name,
      data: { policy: record.name, rule: rule.name, vm: vm.name, code: error.code },
    });
  }
}

function isAboutGuest({ code }: PandoError): boolean {
  return code.startsWith('guest-') || code === 'quiesce-timeout' || code === 'too-busy';
}
