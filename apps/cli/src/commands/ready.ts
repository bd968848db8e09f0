/** `pando ready`: whether the server can do its work, check by check. */
import type { Command } from 'commander';
import { connect } from '../connect.ts';
import { CommandFailure } from '../failures.ts';
import { print, table } from '../output.ts';
import type { JsonOption } from './arguments.ts';

export function addReadyCommand(program: Command): void {
  program
    .command('ready')
    .description('whether the server takes reads and writes, check by check; exit status 1 if not')
    .option('--json', 'print JSON')
    .action(async ({ json }: JsonOption) => {
      const found = await connect().call('apiReady');
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
