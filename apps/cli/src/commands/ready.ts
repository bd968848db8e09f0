/** `pando ready`: whether the server can do its work, check by check. */
import { setTimeout as sleep } from 'node:timers/promises';
import { isPandoError } from '@pando/common';
import type { Command } from 'commander';
import { connect } from '../connect.ts';
import { CommandFailure } from '../failures.ts';
import { interruptible } from '../interrupt.ts';
import { print, table } from '../output.ts';
import { secondsArgument, type JsonOption } from './arguments.ts';

const WAIT_STEP_MS = 250;

interface ReadyOptions extends JsonOption {
  readonly wait?: number;
}

export function addReadyCommand(program: Command): void {
  program
    .command('ready')
    .description('whether the server takes reads and writes, check by check; exit status 1 if not')
    .option('--wait <seconds>', 'wait so long for a server that starts, or is not ready', secondsArgument)
    .option('--json', 'print JSON')
    .action(async ({ json, wait = 0 }: ReadyOptions) => {
      const found = await interruptible((signal) => ask(wait * 1000, signal));
      print(json, found, () =>
        table(found.checks, [
          { title: 'CHECK', text: ({ name }) => name },
          { title: 'STATUS', text: ({ status }) => status },
          { title: '', text: ({ detail }) => detail ?? '' },
        ]),
      );
      if (!found.ready) throw new CommandFailure(1);
    });
}

/** The last answer before the time is over. @throws what the last try came to, when it came to none */
async function ask(waitMs: number, signal: AbortSignal) {
  const end = performance.now() + waitMs;
  for (;;) {
    const isLast = performance.now() >= end;
    try {
      // Each time anew: a server that starts makes its socket and its token.
      const found = await connect({ signal }).call('apiReady');
      if (found.ready || isLast) return found;
    } catch (error) {
      if (isLast || !isPandoError(error, 'server-unreachable')) throw error;
    }
    await sleep(WAIT_STEP_MS, undefined, { signal }).catch(() => signal.throwIfAborted());
  }
}
