/**
 * `pando completion SHELL`, and what the printed script asks for at each press of the key: `pando complete -- …`. Both come out of the tree of
 * commands; names of VMs, backups and policies come from the server, if it is quick. The library that does it is loaded for these two only: the other commands start faster without it.
 */
import type { Command } from 'commander';

export async function addCompletion(program: Command, args: readonly string[]): Promise<void> {
  const isHelp = args.includes('--help') || args.includes('-h');
  if (args[0] === 'complete' || (args[0] === 'completion' && !isHelp)) {
    const { default: tab } = await import('@bomb.sh/tab/commander');
    const completion = tab(program, { completionCommandName: 'completion' });
    if (args[0] === 'complete') {
      const { addNames } = await import('./completion-names.ts');
      await addNames(program, completion, args.slice(args.indexOf('--') + 1));
    }
    return;
  }
  program
    .command('completion')
    .description('print completion for a shell, to be read by its start-up file')
    .argument('<shell>', 'bash, zsh or fish');
}
