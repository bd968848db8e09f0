/** `pando vm …` */
import type { Vm } from '@pando/client';
import { formatSize } from '@pando/common';
import { IMAGE_FORMATS } from '@pando/images';
import { Option, type Command } from 'commander';
import { connect } from '../connect.ts';
import { fields, formatDisks, formatTime, plural, print, table } from '../output.ts';
import type { ExportOptions } from '../vm-export.ts';
import type { ImportOptions } from '../vm-import.ts';
import { addActivityCommands } from './activity.ts';
import { countArgument, diskArgument, sizeArgument, type JsonOption, type NewDisk } from './arguments.ts';

interface CloneOptions extends JsonOption {
  readonly count?: number;
  readonly tag?: string[];
}

export function addVmCommands(program: Command): void {
  const vm = program.command('vm').description('virtual machines');

  vm.command('import')
    .description('import a disk as a VM, or with --since as the next backup of one')
    .argument('<source>', 'an image file, an NBD URI (nbd://HOST/EXPORT), or - for standard input')
    .option('--name <name>', 'name of the VM; with --since of the backup (the time)')
    .option('--disk <name>', 'name of its disk (disk0); with --since the disk that is imported')
    .addOption(
      new Option('--format <format>', 'of the file (recognised by its content)').choices(IMAGE_FORMATS),
    )
    .option('--backing-dir <dir>', 'where files that the image names may lie (the directory of the file)')
    .option('--trust-image', 'read the image without a sandbox: only where nobody hostile made it')
    .option('--since <backup>', 'a backup, by id or vm@name, that the disk has changed since')
    .option('--tag <tag...>', 'what the new VM is grouped by')
    .option('--verify', 'read the source again afterwards and compare')
    .option('--path', 'the file is one of the server, inside its --import-dir')
    .option('--json', 'print JSON')
    .action(async function (this: Command, source: string, options: ImportOptions) {
      if (options.name === undefined && options.since === undefined) {
        this.error("error: required option '--name <name>' not specified");
      }
      // Only here: the other commands start faster without what reads and hashes images.
      const { importVm } = await import('../vm-import.ts');
      await importVm(source, options);
    });

  vm.command('export')
    .description('write a disk of a VM, or of a backup (vm@name), to an image file')
    .argument('<vm>', 'name or id of a VM, or vm@backup')
    .argument('<file>')
    .option('--disk <name>', 'which disk, where there are several')
    .addOption(
      new Option(
        '--format <format>',
        'of the file (what its extension says: .qcow2, .vmdk, .vdi, .vhdx, .vhd; else raw)',
      ).choices(IMAGE_FORMATS),
    )
    .option('--compress', 'compress it; only qcow2')
    .option('--verify', 'read the finished file again and compare')
    .option('--force', 'overwrite the file')
    .option('--json', 'print JSON')
    .action(async (reference: string, file: string, options: ExportOptions) => {
      // Only here: the other commands start faster without what hashes and writes images.
      const { exportDisk } = await import('../vm-export.ts');
      await exportDisk(reference, file, options);
    });

  vm.command('create')
    .description('create a VM with empty disks')
    .argument('<name>')
    .requiredOption('--disk <[name=]size>', 'a disk such as 20G or data=512M; repeat for more', diskArgument)
    .option('--tag <tag...>', 'what it is grouped by')
    .option('--json', 'print JSON')
    .action(async (name: string, { disk, tag, json }: { disk: NewDisk[]; tag?: string[] } & JsonOption) => {
      const created = await connect().call('createVm', { body: { name, disks: disk, tags: tag } });
      print(json, created, () => `${created.name}: ${formatDisks(created.disks)}`);
    });

  vm.command('ls')
    .description('list VMs')
    .option('--prefix <text>', 'only names that begin so')
    .addOption(new Option('--tag <tag>', 'only VMs that carry this tag').conflicts('prefix'))
    .option('--json', 'print JSON')
    .action(async ({ prefix, tag, json }: { prefix?: string; tag?: string } & JsonOption) => {
      const vms = await connect().all('listVms', { prefix, tag });
      print(json, { items: vms }, () => (vms.length === 0 ? 'No VMs.' : vmTable(vms)));
    });

  vm.command('show')
    .description('show a VM')
    .argument('<vm>', 'name or id')
    .option('--json', 'print JSON')
    .action(async (reference: string, { json }: JsonOption) => {
      const shown = await connect().call('getVm', { vm: reference });
      print(json, shown, () =>
        fields([
          ['name', shown.name],
          ['id', shown.id],
          ['lineage', shown.lineage],
          ['created', formatTime(shown.createdAt)],
          ['tags', shown.tags.length === 0 ? 'none' : shown.tags.join(', ')],
          ['clients', String(shown.attachedClients)],
          ...shown.disks.map(
            ({ name, sizeBytes }) =>
              [`disk ${name}`, `${formatSize(sizeBytes)}, ${sizeBytes} bytes`] as const,
          ),
        ]),
      );
    });

  vm.command('clone')
    .description('clone a VM; no data is copied')
    .argument('<vm>', 'name or id')
    .argument('<name>', 'name of the clone; with --count, names are <name>-1 to <name>-<count>')
    .option('--count <n>', 'how many', countArgument)
    .option('--tag <tag...>', 'tags of the clones; those of the VM are not copied')
    .option('--json', 'print JSON')
    .action(async (reference: string, name: string, { count, tag, json }: CloneOptions) => {
      const clones = await connect().call('cloneVm', { vm: reference, body: { name, count, tags: tag } });
      print(json, clones, () => {
        const [first, last] = [clones.items[0]!, clones.items.at(-1)!];
        return clones.items.length === 1
          ? first.name
          : `${plural(clones.items.length, 'clone')}: ${first.name} … ${last.name}`;
      });
    });

  vm.command('resize')
    .description('resize a disk of a VM')
    .argument('<vm>', 'name or id')
    .argument('<size>', 'new size, such as 40G', sizeArgument)
    .option('--disk <name>', 'which disk', 'disk0')
    .option('--shrink', 'allow a smaller size; what lies past it is gone')
    .option('--force', 'to shrink: disconnect clients first')
    .option('--json', 'print JSON')
    .action(
      async (
        reference: string,
        sizeBytes: number,
        { disk, json, ...how }: { disk: string; shrink?: boolean; force?: boolean } & JsonOption,
      ) => {
        const body = { disk: { name: disk, sizeBytes, ...how } };
        const resized = await connect().call('changeVm', { vm: reference, body });
        print(json, resized, () => `${resized.name}: ${formatDisks(resized.disks)}`);
      },
    );

  vm.command('rename')
    .description('rename a VM')
    .argument('<vm>', 'name or id')
    .argument('<name>')
    .option('--json', 'print JSON')
    .action(async (reference: string, name: string, { json }: JsonOption) => {
      const renamed = await connect().call('changeVm', { vm: reference, body: { name } });
      print(json, renamed, renamed.name);
    });

  vm.command('tag')
    .description('give a VM these tags instead of those it has; none: takes them all away')
    .argument('<vm>', 'name or id')
    .argument('[tags...]')
    .option('--json', 'print JSON')
    .action(async (reference: string, tags: string[], { json }: JsonOption) => {
      const tagged = await connect().call('changeVm', { vm: reference, body: { tags } });
      print(json, tagged, () => `${tagged.name}: ${tagged.tags.join(', ') || 'no tags'}`);
    });

  addActivityCommands(vm);

  vm.command('rm')
    .description('delete VMs; their clones and backups stay')
    .argument('<vms...>', 'names or ids')
    .option('--force', 'disconnect clients first')
    .option('--json', 'print JSON')
    .action(async (references: string[], { force, json }: { force?: boolean } & JsonOption) => {
      const pando = connect();
      for (const reference of references) await pando.call('deleteVm', { vm: reference, force });
      print(json, { deleted: references }, `Deleted ${references.join(', ')}.`);
    });
}

function vmTable(vms: readonly Vm[]): string {
  return table(vms, [
    { title: 'NAME', text: ({ name }) => name },
    {
      title: 'SIZE',
      right: true,
      text: ({ disks }) => formatSize(disks.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)),
    },
    { title: 'DISKS', right: true, text: ({ disks }) => String(disks.length) },
    { title: 'CLIENTS', right: true, text: ({ attachedClients }) => String(attachedClients) },
    { title: 'CREATED', text: ({ createdAt }) => formatTime(createdAt) },
    { title: 'ID', text: ({ id }) => id },
  ]);
}
