/** `pando backup ls-files`, `cat`, `extract`: files out of a backup, without restoring it (docs/files.md). */
import type { GuestFile } from '@pando/client';
import { formatSize } from '@pando/common';
import type { Command } from 'commander';
import { connect } from '../connect.ts';
import type { ExtractOptions } from '../extract.ts';
import { escaped, pathBytes, placeOf, type PlaceOptions } from '../guest-paths.ts';
import { formatTime, print, printable, table } from '../output.ts';
import type { JsonOption } from './arguments.ts';

const PAGE_ITEMS = 1000;

type FileOptions = PlaceOptions & JsonOption;

interface ListOptions extends PlaceOptions, JsonOption {
  readonly recursive?: boolean;
  readonly fileSystems?: boolean;
}

export function addFileCommands(backup: Command): void {
  const withPlace = (command: Command): Command =>
    command
      .option('--file-system <name>', 'look into this one alone, such as /dev/sda1')
      .option('--escaped', 'paths are written as ls-files prints them: \\n, \\\\, \\xHH');

  withPlace(
    backup
      .command('ls-files')
      .description('list files in a backup')
      .argument('<backup>', 'id, or vm@name')
      .argument('[path]', 'a directory or file in the guest', '/'),
  )
    .option('--recursive', 'all that is below')
    .option('--file-systems', 'list the file systems on its disks instead, and the operating systems')
    .option('--json', 'print JSON, a file a line')
    .action(async (reference: string, path: string, options: ListOptions) => {
      if (options.fileSystems === true) return listFileSystems(reference, options);
      const asked = { backup: reference, ...placeOf(path, options), recursive: options.recursive };
      // Page by page, so that a guest of millions of files needs no memory.
      for await (const { items } of connect().pages('listBackupFiles', { ...asked, limit: PAGE_ITEMS })) {
        const text = items.map((file) => (options.json === true ? JSON.stringify(file) : lineOf(file)));
        if (text.length > 0) await write(`${text.join('\n')}\n`);
      }
    });

  withPlace(
    backup
      .command('cat')
      .description('print a file in a backup')
      .argument('<backup>', 'id, or vm@name')
      .argument('<path>', 'a regular file in the guest; links are followed, inside it'),
  )
    .option('--json', 'print JSON when it fails')
    .action(async (reference: string, path: string, options: FileOptions) => {
      const { printBytes } = await import('../extract.ts');
      await printBytes('readBackupFile', { backup: reference, ...placeOf(path, options) });
    });

  withPlace(
    backup
      .command('extract')
      .description('copy files and directories out of a backup')
      .argument('<backup>', 'id, or vm@name')
      .argument(
        '<paths...>',
        'what in the guest, and last the folder to put it into; - : a directory as tar to standard output',
      ),
  )
    .option('--same-owner', 'keep owners, and the bits set-user-id and set-group-id; as root')
    .option('--json', 'print JSON')
    .action(async (reference: string, paths: string[], options: ExtractOptions, command: Command) => {
      const folder = paths.pop()!;
      if (paths.length === 0) command.error('error: name what to extract, and the folder to put it into');
      if (folder === '-' && paths.length > 1)
        command.error('error: one directory at a time goes to standard output');
      if (options.sameOwner === true && process.getuid?.() !== 0)
        command.error('error: only root can keep owners (--same-owner)');
      // Only here: the other commands start faster without what unpacks.
      const { extract } = await import('../extract.ts');
      await extract(
        reference,
        paths.map((path) => pathBytes(path, options)),
        folder,
        options,
      );
    });
}

async function listFileSystems(reference: string, { json }: ListOptions): Promise<void> {
  const found = await connect().call('listBackupFileSystems', { backup: reference });
  print(json, found, () => {
    if (found.items.length === 0) return 'No file systems.';
    const fileSystems = table(found.items, [
      { title: 'FILE SYSTEM', text: ({ name }) => name },
      { title: 'TYPE', text: ({ type }) => type },
      {
        title: 'SIZE',
        right: true,
        text: ({ sizeBytes }) => (sizeBytes === undefined ? '-' : formatSize(sizeBytes)),
      },
      { title: 'LABEL', text: ({ label = '-' }) => label },
    ]);
    const systems = found.operatingSystems.map(({ fileSystem, product = 'an operating system', mounts }) =>
      printable(
        `${product} on ${fileSystem}: ${mounts.map((mount) => `${mount.path} is ${mount.fileSystem}`).join(', ')}`,
      ),
    );
    return [fileSystems, ...systems].join('\n\n');
  });
}

const LETTERS: Readonly<Record<GuestFile['type'], string>> = {
  'file': '-',
  'directory': 'd',
  'symlink': 'l',
  'character-device': 'c',
  'block-device': 'b',
  'fifo': 'p',
  'socket': 's',
  'unknown': '?',
};

/** As `ls -l` has it. */
function lineOf(file: GuestFile): string {
  const { type, mode, uid, gid, sizeBytes, modifiedAt, path, pathBase64, target, targetBase64 } = file;
  const to = target === undefined ? '' : ` -> ${escaped(target, targetBase64)}`;
  return [
    LETTERS[type] + permissions(mode),
    `${uid}:${gid}`.padStart(11),
    String(sizeBytes).padStart(12),
    formatTime(modifiedAt),
    escaped(path, pathBase64) + to,
  ].join('  ');
}

function permissions(mode: number): string {
  const signs = Array.from('rwxrwxrwx').map((sign, i) => ((mode & (0o400 >> i)) === 0 ? '-' : sign));
  for (const [bit, at, sign] of [
    [0o4000, 2, 's'],
    [0o2000, 5, 's'],
    [0o1000, 8, 't'],
  ] as const) {
    if ((mode & bit) !== 0) signs[at] = signs[at] === '-' ? sign.toUpperCase() : sign;
  }
  return signs.join('');
}

function write(text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write(text, (error) => (error ? reject(error) : resolve()));
  });
}
