/** `pando backup …` A backup is named by its id or as `vm@name`. */
import type { Backup, BodyOf } from '@pando/client';
import { formatSize } from '@pando/common';
import { Option, type Command } from 'commander';
import { connect } from '../connect.ts';
import { interruptible } from '../interrupt.ts';
import { runJob } from '../job-work.ts';
import { fields, formatDisks, formatTime, print, table } from '../output.ts';
import {
  expiryArgument,
  labelArgument,
  secondsArgument,
  timeArgument,
  type JsonOption,
} from './arguments.ts';
import { addFileCommands } from './files.ts';

interface RestoreOptions extends JsonOption {
  readonly tag?: string[];
  readonly as?: string;
  readonly disk?: string;
  readonly force?: boolean;
  readonly verify?: boolean;
}

interface AttributeOptions extends JsonOption {
  readonly name?: string;
  readonly note?: string;
  readonly label?: Record<string, string>;
  readonly lock?: string;
  readonly expires?: string;
}

interface CreateOptions extends AttributeOptions {
  readonly quiesce?: string;
  readonly quiesceMax?: number;
}

interface SetOptions extends JsonOption {
  readonly note?: string;
  readonly label?: Record<string, string>;
  /** False for --no-labels, and otherwise true. */
  readonly labels?: boolean;
  readonly expires?: string | boolean;
}

interface ListOptions extends JsonOption {
  readonly policy?: string;
  readonly label?: string;
}

function bodyOf({ name, note, label, lock, expires }: AttributeOptions): BodyOf<'createBackup'> {
  return { name, note, labels: label, lockedUntil: lock, expiresAt: expires };
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
    .option('--note <text>', 'what it is for')
    .option('--label <name=value>', 'a label; repeat for more', labelArgument)
    .option('--lock <until>', 'nobody can delete it before: 2026-12-24, or 30d from now', timeArgument)
    .option('--expires <when>', 'when it goes by itself: 2026-12-24, or 30d from now', expiryArgument)
    .option('--json', 'print JSON')
    .action(async (reference: string, { json, quiesce, quiesceMax, ...about }: CreateOptions) => {
      const taken = await connect().call('createBackup', {
        vm: reference,
        body: { ...bodyOf(about), quiesce, quiesceSeconds: quiesceMax },
      });
      print(json, taken, `${taken.vmName}@${taken.name}`);
    });

  backup
    .command('ls')
    .description('list backups')
    .argument('[vm]', 'only of this VM')
    .option('--label <name=value>', 'only those with this label')
    .option('--policy <policy>', 'only those that this policy took, VM by VM')
    .option('--json', 'print JSON')
    .action(async (vm: string | undefined, { json, ...only }: ListOptions) => {
      const backups = await connect().all('listBackups', { vm, ...only });
      print(json, { items: backups }, () => (backups.length === 0 ? 'No backups.' : backupTable(backups)));
    });

  backup
    .command('show')
    .description('show a backup')
    .argument('<backup>', 'id, or vm@name')
    .option('--json', 'print JSON')
    .action(async (reference: string, { json }: JsonOption) => {
      const shown = await connect().call('getBackup', { backup: reference });
      print(json, shown, () =>
        fields([
          ['backup', `${shown.vmName}@${shown.name}`],
          ['id', shown.id],
          ['vm', `${shown.vmName}, ${shown.vmId}`],
          ['lineage', shown.lineage],
          ['taken', formatTime(shown.createdAt) + (shown.unchanged === true ? ', unchanged' : '')],
          ['consistency', shown.consistency],
          ...(shown.policy === undefined
            ? []
            : [['policy', `${shown.policy.name}, rule ${shown.policy.rule}`] as const]),
          ...(shown.lockedUntil === undefined
            ? []
            : [['locked', `until ${formatTime(shown.lockedUntil)}`] as const]),
          ['expires', expiry(shown)],
          ...Object.entries(shown.labels).map(([name, value]) => [`label ${name}`, value] as const),
          ...(shown.note === undefined ? [] : [['note', shown.note] as const]),
          ...shown.disks.map(({ name, sizeBytes }) => [`disk ${name}`, formatSize(sizeBytes)] as const),
        ]),
      );
    });

  backup
    .command('set')
    .description('change what is said about a backup')
    .argument('<backup>', 'id, or vm@name')
    .option('--note <text>', 'what it is for; empty: no note')
    .option('--label <name=value>', 'labels instead of those it has; repeat for more', labelArgument)
    .addOption(new Option('--no-labels', 'take all labels away').conflicts('label'))
    .option('--expires <when>', 'when it goes by itself: 2026-12-24, 30d from now, never', expiryArgument)
    .option('--no-expires', 'no date of its own: its policy decides, and without one it stays')
    .option('--json', 'print JSON')
    .action(async (reference: string, options: SetOptions, command: Command) => {
      const { note, label, labels, expires, json } = options;
      const body = {
        note,
        labels: labels === false ? {} : label,
        expiresAt: expires === true ? undefined : expires === false ? null : expires,
      };
      if (Object.values(body).every((value) => value === undefined)) command.error('error: nothing to set');
      const changed = await connect().call('changeBackup', { backup: reference, body });
      print(json, changed, () => `${changed.vmName}@${changed.name}: expires ${expiry(changed)}`);
    });

  backup
    .command('rename')
    .description('rename a backup')
    .argument('<backup>', 'id, or vm@name')
    .argument('<name>')
    .option('--json', 'print JSON')
    .action(async (reference: string, name: string, { json }: JsonOption) => {
      const renamed = await connect().call('changeBackup', { backup: reference, body: { name } });
      print(json, renamed, `${renamed.vmName}@${renamed.name}`);
    });

  backup
    .command('lock')
    .description('lock a backup, or extend its lock: until then nobody can delete it, and it does not expire')
    .argument('<backup>', 'id, or vm@name')
    .argument('<until>', '2026-12-24, or 30d from now', timeArgument)
    .option('--json', 'print JSON')
    .action(async (reference: string, lockedUntil: string, { json }: JsonOption) => {
      const locked = await connect().call('changeBackup', { backup: reference, body: { lockedUntil } });
      print(
        json,
        locked,
        () => `${locked.vmName}@${locked.name}: locked until ${formatTime(locked.lockedUntil!)}`,
      );
    });

  backup
    .command('restore')
    .description('restore a backup: in place, or with --as to a new VM')
    .argument('<backup>', 'id, or vm@name')
    .option('--as <name>', 'name of a new VM')
    .option('--tag <tag...>', 'with --as: tags of the new VM')
    .option('--disk <name>', 'only this disk: the new VM has no other; in place the others stay as they are')
    .option('--force', 'in place: disconnect clients first')
    .option('--verify', 'first read and check every chunk of the backup')
    .option('--json', 'print JSON')
    .action(async (reference: string, { json, tag, ...how }: RestoreOptions) => {
      const given = { backup: reference, body: { ...how, tags: tag } };
      const restored = await interruptible((signal) =>
        runJob('restoreBackup', given, { label: 'verifying', unit: 'bytes', json, signal }),
      );
      print(json, restored, () => `${restored.name}: ${formatDisks(restored.disks)}`);
    });

  addFileCommands(backup);

  backup
    .command('rm')
    .description('delete backups; nothing depends on them')
    .argument('<backups...>', 'ids, or vm@name')
    .option('--json', 'print JSON')
    .action(async (references: string[], { json }: JsonOption) => {
      const pando = connect();
      for (const reference of references) await pando.call('deleteBackup', { backup: reference });
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
    { title: 'BY', text: ({ policy }) => policy?.name ?? 'hand' },
    { title: 'EXPIRES', text: expiry },
    { title: 'LOCKED', text: ({ lockedUntil }) => (isPast(lockedUntil) ? '-' : formatTime(lockedUntil!)) },
    { title: 'CHANGED', text: ({ unchanged }) => (unchanged === undefined ? '?' : unchanged ? 'no' : 'yes') },
    { title: 'ID', text: ({ id }) => id },
  ]);
}

function expiry({ expiresAt, policy }: Backup): string {
  if (expiresAt === undefined) return policy === undefined ? 'never' : 'by policy';
  return expiresAt === 'never' ? expiresAt : formatTime(expiresAt);
}

function isPast(time: string | undefined): boolean {
  return time === undefined || Date.parse(time) <= Date.now();
}
