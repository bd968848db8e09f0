/** `pando config …`: what a server that is started here would be told, without starting one. */
import type { Command } from 'commander';
import type { Configuration, Setting } from '@pando/server/config';
import { CommandFailure } from '../failures.ts';
import { print, table } from '../output.ts';
import type { JsonOption } from './arguments.ts';

export function addConfigCommands(program: Command): void {
  const config = program.command('config').description('configuration of a server that is started here');

  config
    .command('check')
    .description(
      'look for mistakes in the configuration file and the environment; exit status 1 if there are',
    )
    .argument('[file]', 'configuration file (the one that pando serve would read)')
    .option('--json', 'print JSON')
    .action(async (file: string | undefined, { json }: JsonOption) => {
      const { exposureMistakes, mistakeLine } = await import('@pando/server/config');
      const found = await read(file);
      const mistakes = [...found.mistakes, ...exposureMistakes(found)];
      print(json, { ...(found.file === undefined ? {} : { file: found.file }), mistakes }, () =>
        mistakes.length > 0
          ? mistakes.map(mistakeLine).join('\n')
          : `${found.file ?? 'No file; environment'}: good.`,
      );
      if (mistakes.length > 0) throw new CommandFailure(1);
    });

  config
    .command('show')
    .description('every value in force, and where it comes from')
    .argument('[file]', 'configuration file (the one that pando serve would read)')
    .option('--json', 'print JSON')
    .action(async (file: string | undefined, { json }: JsonOption) => {
      const { environmentName, mistakeLine } = await import('@pando/server/config');
      const found = await read(file);
      const { settings, mistakes } = found;
      print(json, { ...(found.file === undefined ? {} : { file: found.file }), settings, mistakes }, () =>
        table(settings, [
          { title: 'OPTION', text: ({ name }) => name },
          { title: 'VALUE', text: ({ value }) => (Array.isArray(value) ? value.join(', ') : String(value)) },
          { title: 'FROM', text: (setting) => originOf(setting, environmentName) },
        ]),
      );
      for (const mistake of mistakes) process.stderr.write(`${mistakeLine(mistake)}\n`);
      if (mistakes.length > 0) throw new CommandFailure(1);
    });
}

async function read(file: string | undefined): Promise<Configuration> {
  // Only here: the other commands start faster without it.
  const { readConfiguration } = await import('@pando/server/config');
  return readConfiguration(file === undefined ? {} : { config: file }, process.env);
}

function originOf({ name, from, place }: Setting, environmentName: (name: string) => string): string {
  if (place !== undefined) return `${place.file}:${place.line}`;
  return from === 'environment' ? environmentName(name) : from;
}
