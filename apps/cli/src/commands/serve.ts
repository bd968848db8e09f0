/** `pando serve`: the server in this process, with the flags of `npm start`. */
import { isPandoError } from '@pando/common';
import { SERVE_FLAGS, type RunOptions } from '@pando/server/options';
import type { Command } from 'commander';
import { CommandFailure } from '../failures.ts';

export function addServeCommand(program: Command): void {
  const serve = program.command('serve').description('serve a data directory over REST and NBD');
  for (const { name, value, multiple, fallback, help } of SERVE_FLAGS) {
    const flag =
      value === undefined
        ? `--${name}`
        : `--${name} <${value.toLowerCase()}${multiple === true ? '...' : ''}>`;
    serve.option(flag, `${help}${fallback === undefined ? '' : ` (${fallback})`}`);
  }
  serve.action(async function (this: Command, given: Record<string, string | boolean | string[]>) {
    const values = Object.fromEntries(
      Object.entries(given).map(([name, value]) => [
        name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`),
        value,
      ]),
    );
    const { configuredOptions } = await import('@pando/server/config');
    let options: RunOptions;
    try {
      options = await configuredOptions(values, process.env);
    } catch (error) {
      if (!isPandoError(error, 'request-invalid')) throw error;
      this.error(`error: ${error.message}`);
    }
    // Only here: the other commands start faster without the engine.
    const { run } = await import('@pando/server');
    const status = await run(options);
    if (status !== 0) throw new CommandFailure(status);
  });
}
