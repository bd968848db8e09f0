/** `pando diff`, `root`, `prove`, `check-proof`: what the trees say about disks. */
import { ServerRefusal, type DiffPage, type DiskRoots } from '@pando/client';
import { formatSize } from '@pando/common';
import { InvalidArgumentError, Option, type Command } from 'commander';
import { connect } from '../connect.ts';
import { plural, print, printable, table } from '../output.ts';
import type { CheckProofOptions, ProveOptions } from '../proofs.ts';
import { sizeArgument, type JsonOption } from './arguments.ts';

/** Cells of the picture of a disk; what a cell is made of is asked for in sixteenths. */
const CELLS = 64;
const GRAINS_A_CELL = 16;
const PAGE_ITEMS = 1000;

export function addTreeCommands(program: Command): void {
  program
    .command('diff')
    .description('what differs between two disks, of any VMs and backups')
    .argument('<a>', 'vm, vm@backup, or an id; with /disk where there are several')
    .argument('<b>', 'the same')
    .option('--ranges', 'list what differs')
    .addOption(
      new Option('--grain <size>', 'with --ranges: what is closer together is one range (a chunk)').argParser(
        sizeArgument,
      ),
    )
    .option('--json', 'print JSON')
    .action(async (a: string, b: string, options: { ranges?: boolean; grain?: number } & JsonOption) => {
      const found = await compare(a, b, options);
      print(options.json, jsonOf(found, options), () => diffText(found, options.ranges === true));
    });

  program
    .command('root')
    .description('the roots of a VM’s or backup’s disks: what names all that they hold')
    .argument('<vm or backup>', 'name or id, or vm@name')
    .option('--json', 'print JSON')
    .action(async (reference: string, { json }: JsonOption) => {
      const roots = await rootsOf(reference);
      print(json, roots, () => {
        const lines = table(roots.items, [
          { title: 'DISK', text: ({ disk }) => disk },
          { title: 'ROOT', text: ({ root, sizeBytes }) => `${root}:${sizeBytes}` },
          { title: 'CHUNKS OF', right: true, text: ({ chunkBytes }) => String(chunkBytes) },
        ]);
        const isKeyed = roots.items.some(({ keyed }) => keyed);
        return isKeyed
          ? `${lines}\nA secret of the store is in them: compare them with roots of this store only.`
          : lines;
      });
    });

  program
    .command('prove')
    .description('write a proof of what a range of a backup’s disk holds, for who has its root')
    .argument('<backup>', 'id, or vm@name')
    .argument('<file>', 'where the proof goes')
    .requiredOption('--range <offset+length>', 'such as 1M+64K, or 0+512', rangeArgument)
    .option('--disk <name>', 'which disk', 'disk0')
    .option('--force', 'overwrite the file')
    .option('--json', 'print JSON')
    .action(async (reference: string, file: string, options: ProveOptions) => {
      // Only here: the other commands start faster without what hashes.
      const { prove } = await import('../proofs.ts');
      await prove(reference, file, options);
    });

  program
    .command('check-proof')
    .description('check a proof with nothing but itself and the root; no server is asked')
    .argument('<file>', 'the proof')
    .option('--root <root>', 'the root that it must be of, as pando root prints it: ID:SIZE')
    .option('--out <file>', 'write the bytes that are proven')
    .option('--force', 'overwrite that file')
    .option('--json', 'print JSON')
    .action(async (file: string, options: CheckProofOptions) => {
      const { checkProofFile } = await import('../proofs.ts');
      await checkProofFile(file, options);
    });
}

function rangeArgument(text: string): ProveOptions['range'] {
  const [offset, length, ...more] = text.split('+');
  if (offset === undefined || length === undefined || more.length > 0) {
    throw new InvalidArgumentError('it is an offset and a length, such as 1M+64K');
  }
  return { offset: sizeArgument(offset), length: sizeArgument(length) };
}

/** An id may be that of a backup. */
async function rootsOf(reference: string): Promise<DiskRoots> {
  const pando = connect();
  if (reference.includes('@')) return pando.call('rootsOfBackup', { backup: reference });
  try {
    return await pando.call('rootsOfVm', { vm: reference });
  } catch (error) {
    if (!(error instanceof ServerRefusal && error.problem.code === 'vm-missing')) throw error;
    return pando.call('rootsOfBackup', { backup: reference }).catch(() => Promise.reject(error));
  }
}

interface Found extends DiffPage {
  /** Changed bytes in each cell of the picture. */
  readonly cells: readonly number[];
  readonly cellBytes: number;
}

/** Asks for all pages, of ranges as fine as they are wanted: for the picture alone, a few hundred are enough. */
async function compare(a: string, b: string, options: { ranges?: boolean; grain?: number }): Promise<Found> {
  const pando = connect();
  const first = await pando.call('diffDisks', { a, b, limit: 1 });
  const sizeBytes = Math.max(first.a.sizeBytes, first.b.sizeBytes);
  const chunkBytes = first.grainBytes;
  const coarse = Math.max(1, Math.floor(sizeBytes / (CELLS * GRAINS_A_CELL) / chunkBytes)) * chunkBytes;
  const grainBytes = options.ranges === true ? (options.grain ?? chunkBytes) : coarse;
  const items: DiffPage['items'][number][] = [];
  for await (const page of pando.pages('diffDisks', { a, b, grainBytes, limit: PAGE_ITEMS })) {
    for (const item of page.items) {
      const last = items.at(-1);
      // A range that a page broke off goes on in the next one.
      if (last === undefined || item.offset - (last.offset + last.bytes) >= grainBytes) items.push(item);
      else {
        const bytes = item.offset + item.bytes - last.offset;
        const changedBytes = last.changedBytes + item.changedBytes;
        items[items.length - 1] = { offset: last.offset, bytes, changedBytes };
      }
    }
  }
  const cellBytes = Math.ceil(sizeBytes / CELLS / chunkBytes) * chunkBytes;
  const changedBytes = items.reduce((sum, item) => sum + item.changedBytes, 0);
  const { a: one, b: other } = first;
  return {
    ...{ a: one, b: other, grainBytes, items, changedBytes },
    comparedBytes: sizeBytes,
    cellBytes,
    cells: cellsOf(items, sizeBytes, cellBytes),
  };
}

function cellsOf(items: DiffPage['items'], sizeBytes: number, cellBytes: number): number[] {
  const cells = new Array<number>(Math.ceil(sizeBytes / cellBytes)).fill(0);
  for (const { offset, bytes, changedBytes } of items) {
    for (let cell = Math.floor(offset / cellBytes); cell * cellBytes < offset + bytes; cell++) {
      const from = Math.max(offset, cell * cellBytes);
      const to = Math.min(offset + bytes, (cell + 1) * cellBytes);
      cells[cell]! += (changedBytes * (to - from)) / bytes;
    }
  }
  return cells;
}

function jsonOf(
  { a, b, grainBytes, comparedBytes, changedBytes, items }: Found,
  { ranges }: { ranges?: boolean },
) {
  const sums = { a, b, comparedBytes, changedBytes };
  return ranges === true ? { ...sums, grainBytes, items } : sums;
}

function diffText(found: Found, withRanges: boolean): string {
  const { a, b, changedBytes, comparedBytes, items, cells, cellBytes } = found;
  const names = printable(`${a.name}/${a.disk} and ${b.name}/${b.disk}`);
  const sizes =
    a.sizeBytes === b.sizeBytes
      ? ''
      : ` Their sizes: ${formatSize(a.sizeBytes)}, ${formatSize(b.sizeBytes)}.`;
  if (changedBytes === 0) return `${names} hold the same.${sizes}`;
  const picture = cells.map((bytes) => shade(bytes / cellBytes)).join('');
  const head = `${names} differ in ${formatSize(changedBytes)} of ${formatSize(comparedBytes)}.${sizes}`;
  const legend = `|${picture}|  ${formatSize(cellBytes)} a cell: . up to 1 %, - 10 %, + 50 %, # more`;
  if (!withRanges) return `${head}\n\n${legend}`;
  const ranges = table(items, [
    { title: 'OFFSET', right: true, text: ({ offset }) => String(offset) },
    { title: 'BYTES', right: true, text: ({ bytes }) => String(bytes) },
    { title: 'CHANGED', right: true, text: ({ changedBytes: changed }) => String(changed) },
  ]);
  return `${head}\n\n${legend}\n\n${ranges}\n${plural(items.length, 'range')}`;
}

function shade(part: number): string {
  if (part === 0) return ' ';
  return part <= 0.01 ? '.' : part <= 0.1 ? '-' : part <= 0.5 ? '+' : '#';
}
