/**
 * `pando completion SHELL`, and what the printed script asks for at each press of the key: `pando complete -- …`. Both come out of the tree of
 * commands. The library that does it is loaded for these two only: the other commands start faster without it.
 */
import type { Command } from 'commander';

export async function addCompletion(program: Command, args: readonly string[]): Promise<void> {
  const isHelp = args.includes('--help') || args.includes('-h');
  if (args[0] === 'complete' || (args[0] === 'completion' && !isHelp)) {
    const { default: tab } = await import('@bomb.sh/tab/commander');
    tab(program, { completionCommandName: 'completion' });
    return;
  }
  program
    .command('completion')
    .description('print completion for a shell, to be read by its start-up file')
    .argument('<shell>', 'bash, zsh or fish');
}
