/** `pando backup …` A backup is named by its id or as `vm@name`. */
import { formatSize } from '@pando/common';
import type { Command } from 'commander';
import { interruptible } from '../interrupt.ts';
import { runJob } from '../job-work.ts';
import { fields, formatDisks, formatTime, print, table } from '../output.ts';
import { Rest } from '../rest.ts';
import type { Backup, Vm } from '../views.ts';
import { part, secondsArgument, type JsonOption } from './arguments.ts';

interface CreateOptions extends JsonOption {
  readonly name?: string;
  readonly quiesce?: string;
  readonly quiesceMax?: number;
}

interface RestoreOptions extends JsonOption {
  readonly tag?: string[];
  readonly as?: string;
  readonly force?: boolean;
  readonly verify?: boolean;
}

export function addBackupCommands(program: Command): void {
  const backup = program.command('backup').description('backups');

  backup
    .command('create')
    .description('take a backup of a VM, also while it runs')
    .argument('<vm>', 'name or id')
    .option('--name <name>', 'name of the backup (the time)')
    .option(
      '--quiesce <agent>',
      'freeze the file systems of the guest around the instant: qemu-ga:PATH, the socket of its agent on the server',
    )
    .option('--quiesce-max <seconds>', 'with --quiesce: how long it may be frozen (10)', secondsArgument)
    .option('--json', 'print JSON')
    .action(async (reference: string, { name, quiesce, quiesceMax, json }: CreateOptions) => {
      const taken = await new Rest().post<Backup>(`/vms/${part(reference)}/backups`, {
        ...(name === undefined ? {} : { name }),
        ...(quiesce === undefined ? {} : { quiesce }),
        ...(quiesceMax === undefined ? {} : { quiesceSeconds: quiesceMax }),
      });
      print(json, taken, `${taken.vmName}@${taken.name}`);
    });

  backup
    .command('ls')
    .description('list backups')
    .argument('[vm]', 'only of this VM')
    .option('--json', 'print JSON')
    .action(async (vm: string | undefined, { json }: JsonOption) => {
      const backups = await new Rest().all<Backup>(vm === undefined ? '/backups' : `/backups?vm=${part(vm)}`);
      print(json, { items: backups }, () => (backups.length === 0 ? 'No backups.' : backupTable(backups)));
    });

  backup
    .command('show')
    .description('show a backup')
    .argument('<backup>', 'id, or vm@name')
    .option('--json', 'print JSON')
    .action(async (reference: string, { json }: JsonOption) => {
      const shown = await new Rest().get<Backup>(`/backups/${part(reference)}`);
      print(json, shown, () =>
        fields([
          ['backup', `${shown.vmName}@${shown.name}`],
          ['id', shown.id],
          ['vm', `${shown.vmName}, ${shown.vmId}`],
          ['lineage', shown.lineage],
          ['taken', formatTime(shown.createdAt)],
          ['consistency', shown.consistency],
          ...shown.disks.map(({ name, sizeBytes }) => [`disk ${name}`, formatSize(sizeBytes)] as const),
        ]),
      );
    });

  backup
    .command('restore')
    .description('restore a backup: in place, or with --as to a new VM')
    .argument('<backup>', 'id, or vm@name')
    .option('--as <name>', 'name of a new VM')
    .option('--tag <tag...>', 'with --as: tags of the new VM')
    .option('--force', 'in place: disconnect clients first')
    .option('--verify', 'first read and check every chunk of the backup')
    .option('--json', 'print JSON')
    .action(async (reference: string, { json, tag, ...rest }: RestoreOptions) => {
      const how = { ...rest, ...(tag === undefined ? {} : { tags: tag }) };
      const url = `/backups/${part(reference)}/restore`;
      const restored =
        how.verify === true
          ? await interruptible((signal) =>
              runJob<Vm>(url, how, { label: 'verifying', unit: 'bytes', json, signal }),
            )
          : await new Rest().post<Vm>(url, how);
      print(json, restored, () => `${restored.name}: ${formatDisks(restored.disks)}`);
    });

  backup
    .command('rm')
    .description('delete backups; nothing depends on them')
    .argument('<backups...>', 'ids, or vm@name')
    .option('--json', 'print JSON')
    .action(async (references: string[], { json }: JsonOption) => {
      const rest = new Rest();
      for (const reference of references) await rest.delete(`/backups/${part(reference)}`);
      print(json, { deleted: references }, `Deleted ${references.join(', ')}.`);
    });
}

function backupTable(backups: readonly Backup[]): string {
  return table(backups, [
    { title: 'BACKUP', text: ({ vmName, name }) => `${vmName}@${name}` },
    {
      title: 'SIZE',
      right: true,
      text: ({ disks }) => formatSize(disks.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)),
    },
    { title: 'TAKEN', text: ({ createdAt }) => formatTime(createdAt) },
    { title: 'ID', text: ({ id }) => id },
  ]);
}
