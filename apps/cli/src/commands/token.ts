/** `pando token …`, `pando login`, `pando whoami`: who may do what, and who one is. */
import { rm } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import type { Scope, Token } from '@pando/client';
import { PandoError } from '@pando/common';
import { tokenFile, writeTokenFile } from '@pando/server/token-files';
import { InvalidArgumentError, Option, type Command } from 'commander';
import { connect } from '../connect.ts';
import { fields, formatTime, print, table } from '../output.ts';
import { checkedToken } from '../token.ts';
import type { JsonOption } from './arguments.ts';

const ROLES = ['viewer', 'operator', 'admin'];
const UNIT_MS: Record<string, number> = { m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 };

interface CreateOptions extends JsonOption {
  readonly role: Token['role'];
  readonly vm?: string[];
  readonly tag?: string[];
  readonly expires?: string;
}

export function addTokenCommands(program: Command): void {
  const token = program.command('token').description('tokens: who may do what');

  token
    .command('create')
    .description('make a token; its text is printed this once')
    .argument('<name>')
    .addOption(
      new Option('--role <role>', 'viewer: look; operator: also change; admin: also tokens')
        .choices(ROLES)
        .default('viewer'),
    )
    .option('--vm <name...>', 'only for VMs of this name, `*` stands for any characters, and their backups')
    .option('--tag <tag...>', 'only for VMs that carry this tag, and their backups')
    .option('--expires <when>', 'in 12h, 30d, 8w, or at a time such as 2027-01-31', expiryArgument)
    .option('--json', 'print JSON')
    .action(async (name: string, { role, vm, tag, expires, json }: CreateOptions) => {
      const scope = (vm ?? tag) === undefined ? undefined : { vms: vm, tags: tag };
      const made = await connect().call('createToken', { body: { name, role, scope, expiresAt: expires } });
      print(json, made, made.token);
    });

  token
    .command('ls')
    .description('list tokens')
    .option('--json', 'print JSON')
    .action(async ({ json }: JsonOption) => {
      const items = await connect().all('listTokens');
      print(json, { items }, () => tokenTable(items));
    });

  token
    .command('show')
    .description('show a token')
    .argument('<token>', 'name or id')
    .option('--json', 'print JSON')
    .action(async (reference: string, { json }: JsonOption) => {
      const shown = await connect().call('getToken', { token: reference });
      print(json, shown, () =>
        fields([
          ['name', shown.name],
          ['id', shown.id],
          ['role', shown.role],
          ['scope', formatScope(shown.scope)],
          ['created', formatTime(shown.createdAt)],
          ['expires', formatExpiry(shown)],
          ['last used', formatUse(shown)],
        ]),
      );
    });

  token
    .command('rm')
    .description('revoke tokens; what is under way with them is cut off')
    .argument('<tokens...>', 'names or ids')
    .option('--json', 'print JSON')
    .action(async (references: string[], { json }: JsonOption) => {
      const pando = connect();
      for (const reference of references) await pando.call('revokeToken', { token: reference });
      print(json, { deleted: references }, `Revoked ${references.join(', ')}.`);
    });

  token
    .command('reset')
    .description('make another admin token for a store that no server has open, when all are lost')
    .requiredOption('--data <dir>', 'data directory')
    .option('--json', 'print JSON')
    .action(async ({ data, json }: { data: string } & JsonOption) => {
      // Only here: the other commands start faster without the engine.
      const { resetAdminTokenOffline } = await import('@pando/server');
      const made = await resetAdminTokenOffline(data);
      print(json, made, `Made the token ${made.name}. It is in ${made.file}, for its owner only.`);
    });

  program
    .command('whoami')
    .description('show whom the token belongs to, and what it may do')
    .option('--json', 'print JSON')
    .action(async ({ json }: JsonOption) => {
      const me = await connect().call('whoami');
      print(json, me, () =>
        fields([
          ['name', me.name],
          ['role', me.role],
          ['scope', formatScope(me.scope)],
          ['expires', me.expiresAt === undefined ? 'never' : formatTime(me.expiresAt)],
        ]),
      );
    });

  program
    .command('login')
    .description('keep a token for a server, read from standard input; with --forget remove it')
    .argument('[url]', 'of the server (PANDO_URL)')
    .option('--forget', 'remove the token that is kept for the server')
    .option('--json', 'print JSON')
    .action(async (url: string | undefined, { forget, json }: { forget?: boolean } & JsonOption) => {
      const server = new URL(connect({ url, token: 'none' }).url);
      if (!/^https?:$/.test(server.protocol))
        throw new PandoError('request-invalid', 'a Unix socket takes no token: whoever may open it, may');
      const file = tokenFile(server);
      if (forget === true) {
        await rm(file, { force: true });
        print(json, { file }, `No token is kept for ${server.origin}.`);
        return;
      }
      const text = checkedToken(await readSecret(`Token for ${server.origin}: `), 'standard input');
      // One that is not good is not kept.
      const me = await connect({ url, token: text }).call('whoami');
      await writeTokenFile(file, text).catch((error: unknown) => {
        throw new PandoError('file-failed', `the token cannot be kept: ${(error as Error).message}`, {
          cause: error,
        });
      });
      print(json, { ...me, file }, `Logged in to ${server.origin} as ${me.name} (${me.role}).`);
    });
}

/** When the token shall expire, as the API wants it. */
function expiryArgument(text: string): string {
  const within = /^([1-9]\d{0,5})([mhdw])$/.exec(text);
  const at = within === null ? Date.parse(text) : Date.now() + Number(within[1]) * UNIT_MS[within[2]!]!;
  if (Number.isNaN(at) || (within === null && !/^\d{4}-\d\d-\d\d/.test(text)))
    throw new InvalidArgumentError('it is a span such as 12h, 30d or 8w, or a time such as 2027-01-31');
  return new Date(at).toISOString();
}

/** The first line of standard input. A terminal does not show what is typed. */
async function readSecret(prompt: string): Promise<string> {
  const { stdin, stderr } = process;
  const isTyped = stdin.isTTY;
  if (isTyped) stderr.write(prompt);
  const lines = createInterface({ input: stdin, terminal: isTyped });
  try {
    return await new Promise((resolve, reject) => {
      lines.once('line', resolve);
      lines.once('SIGINT', () => reject(new PandoError('cancelled', 'no token was given')));
      lines.once('close', () => resolve(''));
    });
  } finally {
    lines.close();
    if (isTyped) stderr.write('\n');
  }
}

function formatScope(scope: Scope | undefined): string {
  if (scope === undefined) return 'everything';
  const { vms = [], tags = [] } = scope;
  return [...vms, ...tags.map((tag) => `tag ${tag}`)].join(', ');
}

function formatExpiry({ expiresAt, expired }: Token): string {
  if (expiresAt === undefined) return 'never';
  return expired ? `expired ${formatTime(expiresAt)}` : formatTime(expiresAt);
}

function formatUse({ lastUsedAt, lastUsedFrom }: Token): string {
  if (lastUsedAt === undefined) return 'never';
  return lastUsedFrom === undefined
    ? formatTime(lastUsedAt)
    : `${formatTime(lastUsedAt)} from ${lastUsedFrom}`;
}

function tokenTable(items: readonly Token[]): string {
  return table(items, [
    { title: 'NAME', text: ({ name }) => name },
    { title: 'ROLE', text: ({ role }) => role },
    { title: 'SCOPE', text: ({ scope }) => formatScope(scope) },
    { title: 'EXPIRES', text: formatExpiry },
    { title: 'LAST USED', text: formatUse },
    { title: 'ID', text: ({ id }) => id },
  ]);
}
