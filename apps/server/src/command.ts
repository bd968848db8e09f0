/** The command line of the server: flags, then a server. Started by main.ts. */
import { parseArgs, type ParseArgsConfig } from 'node:util';
import { isPandoError } from '@pando/common';
import { configuredOptions } from './config.ts';
import { SERVE_FLAGS, type FlagValues, type RunOptions } from './options.ts';
import { failureLines, run } from './run.ts';

const flags: NonNullable<ParseArgsConfig['options']> = { help: { type: 'boolean', short: 'h' } };
for (const { name, value, multiple } of SERVE_FLAGS) {
  flags[name] = { type: value === undefined ? 'boolean' : 'string', multiple: multiple ?? false };
}

function help(): string {
  const rows = SERVE_FLAGS.map(({ name, value, fallback, help }) => {
    const flag = `--${name}${value === undefined ? '' : ` ${value}`}`;
    return `  ${flag.padEnd(22)}${help}${fallback === undefined ? '' : ` (${fallback})`}`;
  });
  return ['Usage: npm start -- [flags]', '', ...rows, ''].join('\n');
}

async function read(): Promise<RunOptions | undefined> {
  try {
    const { values } = parseArgs({ options: flags, strict: true, allowPositionals: false });
    if (values['help'] === true) return undefined;
    return await configuredOptions(values as FlagValues, process.env);
  } catch (error) {
    const isUsage =
      isPandoError(error, 'request-invalid') ||
      (error as { code?: string }).code?.startsWith('ERR_PARSE_ARGS') === true;
    if (isPandoError(error) && !isUsage) {
      process.stderr.write(failureLines(error));
      process.exit(1);
    }
    if (!isUsage) throw error;
    process.stderr.write(`pando: ${(error as Error).message}\n\n${help()}`);
    process.exit(2);
  }
}

const options = await read();
if (options === undefined) process.stdout.write(help());
else process.exit(await run(options));
