/** `pando events`, `pando webhook …`: what happened, and where it is sent on to. */
import type { ArgumentsOf, Event, Webhook } from '@pando/client';
import { InvalidArgumentError, Option, type Command } from 'commander';
import { connect } from '../connect.ts';
import { CommandFailure } from '../failures.ts';
import { interruptible } from '../interrupt.ts';
import { fields, formatTime, print, printable, table } from '../output.ts';
import { countArgument, type JsonOption } from './arguments.ts';

type Severity = NonNullable<ArgumentsOf<'listEvents'>['severity']>;

const SEVERITIES: readonly Severity[] = ['info', 'warning', 'error'];
const UNIT_MS = { m: 60_000, h: 3_600_000, d: 86_400_000 };

/** An instant, or how long ago: `30m`, `2h`, `7d`. */
function sinceArgument(text: string): string {
  const ago = /^(\d{1,6})([mhd])$/.exec(text);
  const time =
    ago === null ? Date.parse(text) : Date.now() - Number(ago[1]) * UNIT_MS[ago[2] as keyof typeof UNIT_MS];
  if (Number.isNaN(time)) throw new InvalidArgumentError('it is a time, or how long ago: 30m, 2h, 7d');
  return new Date(time).toISOString();
}

interface EventFlags extends JsonOption {
  readonly follow?: boolean;
  readonly kind?: string;
  readonly severity?: Severity;
  readonly subject?: string;
  readonly since?: string;
  readonly limit: number;
}

interface AddFlags extends JsonOption {
  readonly kind?: string[];
  readonly severity?: Severity;
  readonly insecure?: boolean;
}

export function addEventCommands(program: Command): void {
  program
    .command('events')
    .description('what happened, oldest first')
    .option('--follow', 'go on with what happens, until Ctrl-C')
    .option('--kind <kind>', 'only this kind: docs/operating.md lists them')
    .addOption(new Option('--severity <severity>', 'this bad or worse').choices(SEVERITIES))
    .option('--subject <subject>', 'only about this: a VM, vm@backup, a policy')
    .option('--since <time>', 'from then on, or how long ago: 30m, 2h, 7d', sinceArgument)
    .option('--limit <n>', 'at most so many, the newest', countArgument, 50)
    .option('--json', 'print JSON; with --follow a line for each')
    .action(async ({ follow = false, limit, since, json, ...filter }: EventFlags) => {
      const newest = await connect().first(limit, 'listEvents', { ...filter, since });
      const found = newest.toReversed();
      if (!follow) {
        print(json, { items: found }, () => (found.length === 0 ? 'No events.' : eventTable(found)));
        return;
      }
      const show = (event: Event): void => {
        process.stdout.write(json === true ? `${JSON.stringify(event)}\n` : `${eventLine(event)}\n`);
      };
      for (const event of found) show(event);
      const after = found.at(-1)?.id ?? 0;
      await interruptible(async (signal) => {
        for await (const event of connect({ signal }).stream('followEvents', { ...filter, after }))
          show(event);
      });
    });

  const webhook = program.command('webhook').description('where events are sent on to');

  webhook
    .command('add')
    .description('send events on, from now on, to a URL; prints the secret that signs them, once')
    .argument('<url>')
    .option('--kind <kind...>', 'only these kinds')
    .addOption(new Option('--severity <severity>', 'this bad or worse').choices(SEVERITIES))
    .option('--insecure', 'let the URL be http')
    .option('--json', 'print JSON')
    .action(async (url: string, { json, kind, ...how }: AddFlags) => {
      const made = await connect().call('createWebhook', { body: { url, kinds: kind, ...how } });
      print(json, made, () =>
        fields([
          ['webhook', made.webhook.id],
          ['secret', made.secret],
        ]),
      );
    });

  webhook
    .command('ls')
    .description('list webhooks, and how they do')
    .option('--json', 'print JSON')
    .action(async ({ json }: JsonOption) => {
      const { items } = await connect().call('listWebhooks');
      print(json, { items }, () => (items.length === 0 ? 'No webhooks.' : webhookTable(items)));
    });

  webhook
    .command('rm')
    .description('send nothing there any more')
    .argument('<ids...>')
    .option('--json', 'print JSON')
    .action(async (ids: string[], { json }: JsonOption) => {
      const pando = connect();
      for (const id of ids) await pando.call('deleteWebhook', { id });
      print(json, { deleted: ids }, `Deleted ${ids.join(', ')}.`);
    });

  webhook
    .command('test')
    .description('send a test there, and say what came of it; exit status 1 if it was not taken')
    .argument('<id>')
    .option('--json', 'print JSON')
    .action(async (id: string, { json }: JsonOption) => {
      const result = await connect().call('testWebhook', { id });
      print(json, result, () => (result.taken ? 'Taken.' : `Not taken: ${result.problem ?? ''}.`));
      if (!result.taken) throw new CommandFailure(1);
    });
}

const eventLine = ({ at, severity, kind, text, subject }: Event): string =>
  printable([formatTime(at), severity, kind, ...(subject === undefined ? [] : [subject]), text].join('  '));

function eventTable(events: readonly Event[]): string {
  return table(events, [
    { title: 'TIME', text: ({ at }) => formatTime(at) },
    { title: 'SEVERITY', text: ({ severity }) => severity },
    { title: 'KIND', text: ({ kind }) => kind },
    { title: 'SUBJECT', text: ({ subject }) => subject ?? '' },
    { title: 'TEXT', text: ({ text }) => text },
  ]);
}

function webhookTable(webhooks: readonly Webhook[]): string {
  return table(webhooks, [
    { title: 'ID', text: ({ id }) => id },
    { title: 'URL', text: ({ url }) => url },
    { title: 'EVENTS', text: ({ kinds, severity }) => kinds?.join(', ') ?? severity ?? 'all' },
    { title: 'STATE', text: stateOf },
  ]);
}

function stateOf({ isGone, failing, deliveredAt }: Webhook): string {
  if (isGone) return 'gone (410)';
  if (failing !== undefined) return `failing since ${formatTime(failing.since)}: ${failing.problem}`;
  return deliveredAt === undefined ? 'waits' : `took the last one at ${formatTime(deliveredAt)}`;
}
