/** What a policy would bring about, of all VMs that are meant. */
import type { BodyOf, HeldBackups, VmImpact } from '@pando/client';
import { formatSize } from '@pando/common';
import { connect } from './connect.ts';
import { plural, print, table } from './output.ts';

/** VMs that are listed one by one; the sum is of all. */
const ROWS_MAX = 50;
const PAGE_VMS = 100;

export type ImpactBody = BodyOf<'reportPolicyImpact'>;

export async function printImpact(body: ImpactBody, json: boolean | undefined): Promise<void> {
  const items = await connect().all('reportPolicyImpact', { body: { ...body, limit: PAGE_VMS } });
  print(json, { items }, () => impactText(items, body.horizonDays ?? 30));
}

function impactText(items: readonly VmImpact[], days: number): string {
  if (items.length === 0) return 'No VMs.';
  const unknown = items.filter(({ then }) => then.bytes === undefined).length;
  const sum = (of: (item: VmImpact) => number): number => items.reduce((all, item) => all + of(item), 0);
  const held = (of: (item: VmImpact) => HeldBackups | undefined): string =>
    items.every((item) => of(item) === undefined)
      ? 'ever more'
      : `${plural(
          sum((item) => of(item)?.backups ?? 0),
          'backup',
        )}, ${formatSize(sum((item) => of(item)?.bytes ?? 0))}`;
  const lines = [
    table(items.slice(0, ROWS_MAX), [
      { title: 'VM', text: ({ vm }) => vm.name },
      { title: 'TAKEN', right: true, text: ({ created }) => String(created) },
      { title: 'EXPIRED', right: true, text: ({ expired }) => String(expired) },
      { title: 'NOW', right: true, text: ({ now }) => heldText(now) },
      { title: `IN ${days} DAYS`, right: true, text: ({ then }) => heldText(then) },
      { title: 'IN THE LONG RUN', right: true, text: ({ steady }) => heldText(steady) },
    ]),
    ...(items.length > ROWS_MAX ? [`… and ${plural(items.length - ROWS_MAX, 'VM')} more.`] : []),
    '',
    `In ${days} days ${plural(items.length, 'VM')}: ${sum(({ created }) => created)} taken, ${sum(({ expired }) => expired)} expired; now ${held(({ now }) => now)}, ` +
      `then ${held(({ then }) => then)}, in the long run ${held(({ steady }) => steady)}.`,
    ...(unknown > 0
      ? [
          `The bytes of ${plural(unknown, 'VM')} are unknown and not in the sum: there are no two backups to compare.`,
        ]
      : []),
  ];
  return lines.join('\n');
}

function heldText(held: HeldBackups | undefined): string {
  if (held === undefined) return 'ever more';
  return `${held.backups} · ${held.bytes === undefined ? 'unknown' : formatSize(held.bytes)}`;
}
