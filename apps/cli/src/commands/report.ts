/** `pando report …`: what is stored and why it is that small, whose it is, and what deleting frees. */
import type {
  AccountsPage,
  BodyOf,
  HoldersPage,
  OwnerSpace,
  ReclaimPlan,
  ReclaimReport,
  SpaceReport,
} from '@pando/client';
import { formatSize } from '@pando/common';
import { Option, type Command } from 'commander';
import { connect } from '../connect.ts';
import { formatRatio, formatTime, plural, print, table } from '../output.ts';
import { sizeArgument, type JsonOption } from './arguments.ts';
import { addHistoryCommand } from './history.ts';

/** Lines of a list that people are shown; `--json` has all of them. */
const SHOWN_MAX = 20;
const PAGE_ITEMS = 1000;

interface ReclaimOptions extends JsonOption {
  readonly tag?: string;
  readonly prefix?: string;
  readonly kind?: 'vm' | 'backup';
  readonly withBackups?: boolean;
  readonly free?: number;
  readonly oldest?: boolean;
  readonly smallest?: boolean;
  readonly includeVms?: boolean;
}

export function addReportCommands(program: Command): void {
  const report = program.command('report').description('reports');
  addHistoryCommand(report);

  report
    .command('space')
    .description('what is stored, and why it is that small')
    .option('--owners', 'list each VM and backup, what deleting it alone would free, and its fair share')
    .option('--json', 'print JSON')
    .action(async ({ owners, json }: { owners?: boolean } & JsonOption) => {
      const pando = connect();
      const space = await pando.call('reportSpace');
      if (owners !== true) {
        print(json, space, () => spaceText(space));
        return;
      }
      const items = await pando.all('reportOwners');
      print(json, { ...space, owners: items }, () => `${spaceText(space)}\n\n${ownerTable(items)}`);
    });

  report
    .command('accounts')
    .description(
      'what each VM with its backups, each tag, or each policy costs: lines that add up to what is stored',
    )
    .addOption(
      new Option('--by <grouping>', 'what to put together').choices(['vm', 'tag', 'policy']).default('vm'),
    )
    .option('--json', 'print JSON')
    .action(async ({ by, json }: { by: AccountsPage['by'] } & JsonOption) => {
      const accounts = await connect().whole('reportAccounts', { by });
      const { items, totals } = accounts;
      print(json, { by, items, totals }, () => accountsText(accounts));
    });

  report
    .command('holders')
    .description('who shares the space of a VM or backup, and how much')
    .argument('<vm or backup>', 'name or id, or vm@name')
    .option('--json', 'print JSON')
    .action(async (reference: string, { json }: JsonOption) => {
      const holders = await connect().whole('reportHolders', { of: reference });
      print(json, holders, () => holdersText(holders));
    });

  report
    .command('reclaim')
    .description('what deleting VMs and backups frees, and what stays because of whom; deletes nothing')
    .argument('[owners...]', 'VMs and backups: names or ids, or vm@name')
    .option('--tag <tag>', 'all that carry it')
    .option('--prefix <text>', 'all whose names begin so')
    .addOption(new Option('--kind <kind>', 'with --tag and --prefix').choices(['vm', 'backup']))
    .option('--with-backups', 'the backups of the VMs, too')
    .addOption(
      new Option('--free <size>', 'propose what to delete to free so much, such as 500G').argParser(
        sizeArgument,
      ),
    )
    .option('--oldest', 'with --free: the oldest backups that are enough (this is the default)')
    .addOption(
      new Option('--smallest', 'with --free: the fewest, or as few as can be found').conflicts('oldest'),
    )
    .option('--include-vms', 'with --free: VMs that nobody has attached may go, too')
    .option('--json', 'print JSON')
    .action(async function (this: Command, owners: string[], options: ReclaimOptions) {
      const { tag, prefix, free, json } = options;
      if (free !== undefined) {
        if (owners.length > 0 || options.kind !== undefined || options.withBackups === true) {
          this.error('error: --free chooses by itself, among all or those of --tag and --prefix');
        }
        await planReclaim({ tag, prefix, bytes: free }, options);
        return;
      }
      if (owners.length === 0 && tag === undefined && prefix === undefined) {
        this.error('error: name VMs or backups, or give --tag, --prefix or --free');
      }
      const { kind, withBackups } = options;
      const named = owners.length === 0 ? undefined : owners;
      const reclaimed = await connect().whole('reportReclaim', {
        body: { tag, prefix, owners: named, kind, withBackups, limit: PAGE_ITEMS },
      });
      print(json, reclaimed, () => reclaimText(reclaimed));
    });
}

async function planReclaim(
  wish: BodyOf<'planReclaim'>,
  { smallest, includeVms, json }: ReclaimOptions,
): Promise<void> {
  const prefer = smallest === true ? 'smallest' : 'oldest';
  const plan = await connect().whole('planReclaim', {
    body: { ...wish, prefer, includeVms, limit: PAGE_ITEMS },
  });
  print(json, plan, () => planText(plan, prefer));
}

function spaceText(report: SpaceReport): string {
  const { ratios, ratiosWithoutBackups } = report;
  const times = (ratio: number): string => `${formatRatio(ratio)}×`;
  const rows: [string, number, string][] = [
    ['logical', report.logicalBytes, `${plural(report.vms, 'VM')}, ${plural(report.backups, 'backup')}`],
    ['allocated', report.allocatedBytes, `holes left out: ${times(ratios.thin)}`],
    [
      'unique',
      report.uniqueBytes,
      `clones and backups share: ${times(ratios.lineage)}, equal chunks: ${times(ratios.dedupe)}`,
    ],
    ['data stored', report.dataStoredBytes, `compression: ${times(ratios.compression)}`],
    ['', -1, `together: ${times(ratios.total)} (VMs alone: ${times(ratiosWithoutBackups.total)})`],
    ['metadata', report.metadataBytes, 'tree nodes, headers and footers'],
    ['garbage', report.garbageBytes, 'what a gc can free'],
    ['index', report.indexBytes, report.keyed ? 'of ids that are keyed' : ''],
    ['log', report.logBytes, 'what is not in the tree yet'],
    ['spare log', report.logSpareBytes, 'files that the log uses again'],
    ['catalog', report.catalogBytes, ''],
    ['on disk', report.storedBytes, 'all of it'],
  ];
  return bytesTable(rows);
}

function bytesTable(rows: readonly (readonly [string, number, string])[]): string {
  return table(rows, [
    { title: '', text: ([name]) => name },
    { title: '', right: true, text: ([, bytes]) => (bytes < 0 ? '' : formatSize(bytes)) },
    { title: '', text: ([, , remark]) => remark },
  ]).trimStart();
}

function ownerTable(owners: readonly OwnerSpace[]): string {
  return table(owners, [
    { title: 'NAME', text: ({ name }) => name },
    { title: 'KIND', text: ({ kind }) => kind },
    { title: 'LOGICAL', right: true, text: ({ logicalBytes }) => formatSize(logicalBytes) },
    { title: 'ALLOCATED', right: true, text: ({ allocatedBytes }) => formatSize(allocatedBytes) },
    { title: 'ONLY ITS OWN', right: true, text: ({ exclusiveBytes }) => formatSize(exclusiveBytes) },
    { title: 'FAIR SHARE', right: true, text: ({ fairBytes }) => formatSize(fairBytes) },
  ]);
}

function accountsText({ by, items, totals }: AccountsPage): string {
  const lines = [...items].sort((a, b) => b.totalBytes - a.totalBytes);
  const owned = table(lines, [
    {
      title: by.toUpperCase(),
      text: ({ name, isGone, vms }) =>
        name === undefined ? unnamed(by, vms) : `${name}${isGone === true ? ' (gone)' : ''}`,
    },
    { title: 'VMS', right: true, text: ({ vms }) => String(vms) },
    { title: 'BACKUPS', right: true, text: ({ backups }) => String(backups) },
    { title: 'ONLY ITS OWN', right: true, text: ({ exclusiveBytes }) => formatSize(exclusiveBytes) },
    { title: 'OF WHAT IS SHARED', right: true, text: ({ sharedBytes }) => formatSize(sharedBytes) },
    { title: 'TOGETHER', right: true, text: ({ totalBytes }) => formatSize(totalBytes) },
  ]);
  const rows = (
    [
      ['held', totals.ownedBytes, 'all lines together'],
      ['not told apart', totals.untoldBytes, 'of that, in no line: docs/reports.md'],
      ['under way', totals.inFlightBytes, 'imports and writes that nobody holds yet'],
      ['garbage', totals.garbageBytes, 'what a gc can free'],
      ['index', totals.indexBytes, ''],
      ['log', totals.logBytes, ''],
      ['catalog', totals.catalogBytes, ''],
      ['on disk', totals.storedBytes, 'all of it'],
    ] as const
  ).filter(([name, bytes]) => bytes > 0 || (name !== 'not told apart' && name !== 'under way'));
  return `${owned}\n\n${bytesTable(rows)}`;
}

function unnamed(by: AccountsPage['by'], vms: number): string {
  if (by === 'tag') return '(no tag)';
  return vms > 0 ? '(VMs)' : '(by hand)';
}

function holdersText({ owner, reachedBytes, exclusiveBytes, untoldBytes, items }: HoldersPage): string {
  const head = `${owner.name} holds ${formatSize(reachedBytes)}, ${formatSize(exclusiveBytes)} of it alone.`;
  if (items.length === 0) return `${head} Nobody shares with it.${untoldText(untoldBytes)}`;
  const shown = table(items.slice(0, SHOWN_MAX), [
    { title: 'SHARED WITH', text: ({ name }) => name },
    { title: 'KIND', text: ({ kind }) => kind },
    { title: 'SHARED', right: true, text: ({ sharedBytes }) => formatSize(sharedBytes) },
  ]);
  return `${head}${untoldText(untoldBytes)}\n\n${shown}${moreText(items.length)}`;
}

function reclaimText(report: ReclaimReport): string {
  const { vms, backups, freedBytes, aloneBytes, stayingBytes, inFlightBytes, untoldBytes, items } = report;
  const sum = `Deleting ${who(vms, backups)} frees ${formatSize(freedBytes)} after the next gc`;
  const alone =
    vms + backups < 2 || aloneBytes === freedBytes
      ? '.'
      : `; each alone would free ${formatSize(aloneBytes)} in all.`;
  const flight = inFlightBytes === 0 ? '' : ` Work under way still needs ${formatSize(inFlightBytes)} of it.`;
  const head = `${sum}${alone}${lockedText(report.locked)}${flight}${untoldText(untoldBytes)}`;
  if (items.length === 0) return head;
  const shown = table(items.slice(0, SHOWN_MAX), [
    { title: 'STAYS BECAUSE OF', text: ({ name }) => name },
    { title: 'KIND', text: ({ kind }) => kind },
    { title: 'STAYS', right: true, text: ({ sharedBytes }) => formatSize(sharedBytes) },
    { title: 'FREED IF IT WENT TOO', right: true, text: ({ aloneBytes: bytes }) => formatSize(bytes) },
  ]);
  return `${head} ${formatSize(stayingBytes)} of theirs stays.\n\n${shown}${moreText(items.length)}`;
}

function planText(plan: ReclaimPlan, prefer: 'oldest' | 'smallest'): string {
  const { wantedBytes, freedBytes, isEnough, isFewest, vms, backups, locked, items } = plan;
  const left = isEnough ? '' : lockedText(locked);
  if (items.length === 0) return `Nothing that may be deleted frees anything.${left}`;
  const sum = `Deleting ${who(vms, backups)} frees ${formatSize(freedBytes)} after the next gc`;
  const head = isEnough
    ? `${sum}.`
    : `${sum}: all that can be had, less than ${formatSize(wantedBytes)}.${left}`;
  const fewest = isFewest ? ' No fewer free as much.' : ' There may be fewer that free as much.';
  const shown = table(items, [
    { title: 'NAME', text: ({ name }) => name },
    { title: 'KIND', text: ({ kind }) => kind },
    { title: 'MADE', text: ({ createdAt }) => formatTime(createdAt) },
  ]);
  return `${head}${prefer === 'smallest' ? fewest : ''}\n\n${shown}`;
}

function who(vms: number, backups: number): string {
  const both = [vms > 0 ? plural(vms, 'VM') : '', backups > 0 ? plural(backups, 'backup') : ''];
  return both.filter((text) => text !== '').join(' and ') || 'nothing';
}

function lockedText(locked: number): string {
  return locked === 0 ? '' : ` ${plural(locked, 'backup')} cannot be deleted yet: locked.`;
}

function untoldText(bytes: number): string {
  return bytes === 0 ? '' : ` (${formatSize(bytes)} of the store are shared by many who are not told apart.)`;
}

function moreText(count: number): string {
  return count > SHOWN_MAX ? `\n… and ${plural(count - SHOWN_MAX, 'other')}; --json has all.` : '';
}
