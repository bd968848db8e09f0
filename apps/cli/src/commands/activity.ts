/** `pando vm activity`, `pando vm tripwire` */
import type { ActivityBucket, ArgumentsOf, Tripwire } from '@pando/client';
import { formatSize } from '@pando/common';
import { Option, type Command } from 'commander';
import { connect } from '../connect.ts';
import { fields, formatTime, print, table } from '../output.ts';
import { countArgument, type JsonOption } from './arguments.ts';

type Grain = NonNullable<ArgumentsOf<'listActivity'>['grain']>;

const BAR_CHARACTERS = 24;
const LIMIT_MAX = 1000;

export function addActivityCommands(vm: Command): void {
  vm.command('activity')
    .description('what a VM has written over time, and what came of it')
    .argument('<vm>', 'name or id')
    .addOption(
      new Option('--grain <grain>', 'five minutes of the last day, hours of 30 days, days of a year')
        .choices(['5m', '1h', '1d'])
        .default('1h'),
    )
    .option('--limit <n>', 'the newest so many', countArgument, 24)
    .option('--json', 'print JSON')
    .action(
      async (reference: string, { grain, limit, json }: { grain: Grain; limit: number } & JsonOption) => {
        const count = Math.min(limit, LIMIT_MAX);
        const page = await connect().call('listActivity', { vm: reference, grain, limit: count });
        print(json, page, () => (page.items.length === 0 ? 'Nothing written.' : bucketTable(page.items)));
      },
    );

  vm.command('tripwire')
    .description(
      'what tells that the disk of a VM is being encrypted: what it knows, and how sensitive it is',
    )
    .argument('<vm>', 'name or id')
    .addOption(
      new Option('--sensitivity <level>', 'how little it takes').choices(['off', 'low', 'normal', 'high']),
    )
    .option('--json', 'print JSON')
    .action(
      async (
        reference: string,
        { sensitivity, json }: { sensitivity?: Tripwire['sensitivity'] } & JsonOption,
      ) => {
        const tripwire =
          sensitivity === undefined
            ? await connect().call('getTripwire', { vm: reference })
            : await connect().call('setTripwire', { vm: reference, body: { sensitivity } });
        print(json, tripwire, () => tripwireText(tripwire));
      },
    );
}

/** Oldest first, as a log is read. */
function bucketTable(newestFirst: readonly ActivityBucket[]): string {
  const most = newestFirst.reduce((max, { writtenBytes }) => Math.max(max, writtenBytes), 1);
  return table(newestFirst.toReversed(), [
    { title: 'FROM', text: ({ start }) => formatTime(start) },
    { title: 'WRITTEN', right: true, text: ({ writtenBytes }) => formatSize(writtenBytes) },
    { title: 'KNOWN', right: true, text: ({ knownBytes }) => formatSize(knownBytes) },
    { title: 'NEW', right: true, text: ({ newBytes }) => formatSize(newBytes) },
    { title: 'STORED', right: true, text: ({ storedBytes }) => formatSize(storedBytes) },
    {
      title: 'RAW',
      right: true,
      text: ({ rawBytes, newBytes }) => (newBytes === 0 ? '-' : percent(rawBytes / newBytes)),
    },
    {
      title: '',
      text: ({ writtenBytes }) => '#'.repeat(Math.ceil((writtenBytes / most) * BAR_CHARACTERS)),
    },
  ]);
}

const STATES: Readonly<Record<Tripwire['state'], string>> = {
  off: 'off',
  learning: 'learning: it does not know the VM long enough',
  blind: 'blind: nearly nothing that it writes can be compressed anyway, so nothing would show',
  quiet: 'quiet',
  jump: 'TRIPPED: the VM writes as if its disk were being encrypted',
};

function tripwireText({ sensitivity, state, readyAt, usualShare, trip, ...limits }: Tripwire): string {
  const { hourLimitBytes, dayLimitBytes } = limits;
  const last: (readonly [string, string])[] =
    trip === undefined
      ? []
      : [
          ['last tripped', `${formatTime(trip.at)}, for what began ${formatTime(trip.since)}`],
          [
            'seen',
            `${formatSize(trip.rawBytes)} of ${formatSize(trip.newBytes)} new in one ${trip.window}; it took ${formatSize(trip.limitBytes)}`,
          ],
          ['backup before it', backupText(trip)],
        ];
  return fields([
    ['state', readyAt === undefined ? STATES[state] : `${STATES[state]}; ready ${formatTime(readyAt)}`],
    ['sensitivity', sensitivity],
    ['usually raw', `${percent(usualShare)} of what is new`],
    ['trips at', `${formatSize(hourLimitBytes)} raw in an hour, ${formatSize(dayLimitBytes)} in a day`],
    ...last,
  ]);
}

function backupText({ backup, lockedUntil, notLocked }: NonNullable<Tripwire['trip']>): string {
  if (backup === undefined) return 'none';
  if (lockedUntil !== undefined) return `${backup.name}, locked until ${formatTime(lockedUntil)}`;
  return notLocked === undefined ? `${backup.name}, not locked` : `${backup.name}, not locked: ${notLocked}`;
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}
