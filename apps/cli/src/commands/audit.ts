/** `pando audit …`: who has changed what. */
import type { AuditEntry } from '@pando/client';
import type { Command } from 'commander';
import { connect } from '../connect.ts';
import { CommandFailure } from '../failures.ts';
import { formatTime, plural, print, table } from '../output.ts';
import { countArgument, type JsonOption } from './arguments.ts';

interface ListOptions extends JsonOption {
  readonly since?: string;
  readonly until?: string;
  readonly actor?: string;
  readonly operation?: string;
  readonly subject?: string;
  readonly limit: number;
}

export function addAuditCommands(program: Command): void {
  const audit = program.command('audit').description('who has changed what, from where, and what came of it');

  audit
    .command('ls')
    .description('list changes, newest first')
    .option('--since <time>', 'from then on, RFC 3339')
    .option('--until <time>', 'before then')
    .option('--actor <token>', 'by this token, by name or id, or socket')
    .option('--operation <name>', 'such as deleteVm')
    .option('--subject <name>', 'about this VM, backup, token, …, as it was named, or by its id')
    .option('--limit <n>', 'how many lines are looked at', countArgument, 200)
    .option('--json', 'print JSON: lines as they are written')
    .action(async ({ json, limit, ...filter }: ListOptions) => {
      const items = await connect().first(limit, 'listAudit', filter);
      print(json, { items }, () => auditTable(items));
    });

  audit
    .command('verify')
    .description('whether lines of the audit trail in a data directory were taken out or changed')
    .requiredOption('--data <dir>', 'data directory')
    .option('--json', 'print JSON')
    .action(async ({ data, json }: { data: string } & JsonOption) => {
      // Only here: the other commands start faster without the engine.
      const { verifyAuditOffline } = await import('@pando/server');
      const found = await verifyAuditOffline(data);
      const { files, lines, problems, unknownEnd } = found;
      print(json, found, () =>
        [
          `${plural(lines, 'line')} in ${plural(files, 'file')}: ${problems.length === 0 ? 'each follows the one before.' : 'something is wrong.'}`,
          ...problems.map(({ file, line, problem }) => `${file}, line ${line}: ${problem}`),
          ...(unknownEnd === undefined
            ? []
            : [`Whether lines are missing at its end: not known (${unknownEnd}).`]),
        ].join('\n'),
      );
      if (problems.length > 0) throw new CommandFailure(1);
    });
}

/** What the server does by itself. */
const EXPIRY = 'expireBackup';

/** A line for each request: that it was asked for only where nothing is known of its end. */
function auditTable(items: readonly AuditEntry[]): string {
  const ended = new Set(items.filter(({ kind }) => kind === 'outcome').map(({ request }) => request));
  const shown = items.filter(({ kind, request }) => kind !== 'change' || !ended.has(request));
  return table(shown, [
    { title: 'TIME', text: ({ at }) => formatTime(at) },
    { title: 'WHO', text: ({ actor, kind }) => (kind === 'break' ? '' : (actor?.name ?? 'nobody')) },
    {
      title: 'FROM',
      text: ({ from, actor, operation }) =>
        from ?? (actor === undefined || operation === EXPIRY ? '' : 'socket'),
    },
    {
      title: 'WHAT',
      text: ({ kind, operation, after = 0 }) =>
        kind === 'break' ? `a sync failed: lines after number ${after} may be missing` : operation,
    },
    { title: 'ABOUT', text: ({ subjects = [] }) => subjects.join(', ') },
    {
      title: 'OUTCOME',
      text: ({ kind, status, code }) =>
        kind === 'break' ? '' : (code ?? (status === undefined ? 'unknown' : 'done')),
    },
  ]);
}
