/** Names that the server has, for completion: asked for while somebody waits for a key, so quickly, or not at all. */
import type { RootCommand } from '@bomb.sh/tab';
import type { Client } from '@pando/client';
import type { Command } from 'commander';
import { connect } from './connect.ts';

const ANSWER_MS_MAX = 700;
const NAMES_MAX = 200;

type Ask = (pando: Client, typed: string) => Promise<string[]>;

const vms: Ask = async (pando, typed) => {
  const found = await pando.first(NAMES_MAX, 'listVms', { prefix: typed === '' ? undefined : typed });
  return found.map(({ name }) => name);
};

const backups: Ask = async (pando, typed) => {
  const [vm, name] = typed.split('@');
  const found = await pando.first(NAMES_MAX, 'listBackups', { vm: name === undefined ? undefined : vm });
  return found.map((backup) => `${backup.vmName}@${backup.name}`);
};

const vmsOrBackups: Ask = (pando, typed) => (typed.includes('@') ? backups : vms)(pando, typed);

const policies: Ask = async (pando) => (await pando.first(NAMES_MAX, 'listPolicies')).map(({ name }) => name);

/** By what an argument is called in the usage of its command. */
const ASK: Readonly<Record<string, Ask>> = {
  'vm': vmsOrBackups,
  'vms': vms,
  'backup': backups,
  'backups': backups,
  'vm or backup': vmsOrBackups,
  'a': vmsOrBackups,
  'b': vmsOrBackups,
  'owners': vmsOrBackups,
  'policy': policies,
  'policies': policies,
};

/** Gives the arguments of the command that is being typed what the server has for them. Without a server: nothing, and no word about it. */
export async function addNames(
  program: Command,
  completion: RootCommand,
  words: readonly string[],
): Promise<void> {
  const typed = words.at(-1) ?? '';
  if (typed.startsWith('-')) return;
  const path: string[] = [];
  let command = program;
  for (const word of words.slice(0, -1)) {
    const child = command.commands.find((one) => one.name() === word);
    if (child === undefined) break;
    path.push(word);
    command = child;
  }
  const known = completion.commands.get(path.join(' '))?.arguments;
  const asks = new Set([...(known?.keys() ?? [])].flatMap((name) => ASK[name] ?? []));
  if (known === undefined || asks.size === 0) return;
  try {
    const pando = connect({ signal: AbortSignal.timeout(ANSWER_MS_MAX) });
    for (const ask of asks) {
      const names = (await ask(pando, typed)).filter((name) => /^[\p{L}\p{N}\p{P}\p{S}]+$/u.test(name));
      for (const [name, argument] of known) {
        if (ASK[name] === ask) argument.handler = (complete) => names.forEach((one) => complete(one, ''));
      }
    }
  } catch {
    // Whoever presses a key wants no error.
  }
}
