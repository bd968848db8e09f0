/** `pando report history`: how the store has grown. */
import type { ArgumentsOf, SpaceSample } from '@pando/client';
import { formatSize } from '@pando/common';
import { Option, type Command } from 'commander';
import { connect } from '../connect.ts';
import { formatRatio, formatTime, print, table } from '../output.ts';
import { sparkline } from '../sparkline.ts';
import { countArgument, type JsonOption } from './arguments.ts';

type Grain = ArgumentsOf<'spaceHistory'>['grain'];

interface HistoryFlags extends JsonOption {
  readonly days: number;
  readonly grain?: Grain;
}

const DAY_MS = 24 * 60 * 60_000;
const PAGE_ITEMS = 1000;
const WIDTH = 60;
/** Lines of the table. */
const ROWS_MAX = 12;

export function addHistoryCommand(report: Command): void {
  report
    .command('history')
    .description('how what the store takes has grown')
    .option('--days <n>', 'so far back (31)', countArgument, 31)
    .addOption(
      new Option('--grain <grain>', 'a sample of each (the finest that goes back so far)').choices([
        '5m',
        '1h',
        '1d',
      ]),
    )
    .option('--json', 'print JSON')
    .action(async ({ days, grain, json }: HistoryFlags) => {
      const items = await samples(new Date(Date.now() - days * DAY_MS).toISOString(), grain);
      print(json, { items }, () => (items.length === 0 ? 'No samples yet.' : historyText(items)));
    });
}

async function samples(since: string, grain: Grain): Promise<SpaceSample[]> {
  const pando = connect();
  const items: SpaceSample[] = [];
  for (let from: { cursor?: string; grain: Grain } = { grain }; ;) {
    const page = await pando.call('spaceHistory', { since, limit: PAGE_ITEMS, ...from });
    items.push(...page.items);
    if (page.nextCursor === undefined) return items;
    from = { cursor: page.nextCursor, grain: page.grain };
  }
}

function historyText(items: readonly SpaceSample[]): string {
  const bytes = items.map(({ storedBytes }) => storedBytes);
  const rows = thinned(items, ROWS_MAX);
  const summary = `${formatSize(Math.min(...bytes))} to ${formatSize(Math.max(...bytes))} on disk, ${items.length} samples`;
  const rowsText = table(rows, [
    { title: 'TIME', text: ({ at }) => formatTime(at) },
    { title: 'ON DISK', right: true, text: ({ storedBytes }) => formatSize(storedBytes) },
    {
      title: 'LOGICAL',
      right: true,
      text: ({ exact }) => (exact === undefined ? '' : formatSize(exact.logicalBytes)),
    },
    {
      title: 'RATIO',
      right: true,
      text: ({ exact, storedBytes }) =>
        exact === undefined || storedBytes === 0 ? '' : `${formatRatio(exact.logicalBytes / storedBytes)}×`,
    },
    { title: 'VMS', right: true, text: ({ exact }) => (exact === undefined ? '' : String(exact.vms)) },
    {
      title: 'BACKUPS',
      right: true,
      text: ({ exact }) => (exact === undefined ? '' : String(exact.backups)),
    },
  ]);
  return `${sparkline(bytes, WIDTH)}\n${summary}\n\n${rowsText}`;
}

/** The first and the last, and some in between: those with accounts where there are any near. */
function thinned(items: readonly SpaceSample[], max: number): readonly SpaceSample[] {
  if (items.length <= max) return items;
  return Array.from({ length: max }, (_, i) => {
    const first = Math.floor((i * items.length) / max);
    const group = items.slice(first, Math.floor(((i + 1) * items.length) / max));
    const fallback = i === max - 1 ? group.at(-1)! : group[0]!;
    return group.find(({ exact }) => exact !== undefined) ?? fallback;
  });
}
