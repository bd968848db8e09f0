/**
 * What a server is told, out of flags, environment and file, in this order of precedence, with the place that each value has
 * come from. Every mistake is found, not only the first, and named with its place.
 */
import { access } from 'node:fs/promises';
import { isPandoError, PandoError } from '@pando/common';
import { FILE_FLAGS, parseConfig, readConfigFile, type Mistake, type Place } from './config-file.ts';
import { checkHttpExposure } from './http-security.ts';
import { checkExposure } from './nbd-security.ts';
import {
  CONFIG_FILE_DEFAULT,
  runOptions,
  SERVE_FLAGS,
  type Flag,
  type FlagValues,
  type RunOptions,
} from './options.ts';

export { parseConfig, type Mistake, type Place } from './config-file.ts';

type Environment = Readonly<Record<string, string | undefined>>;

/** The value of one option that is in force. */
export interface Setting {
  readonly name: string;
  readonly value: string | boolean | readonly string[];
  readonly from: 'flag' | 'environment' | 'file' | 'default';
  /** For a value of a file. */
  readonly place?: Place;
}

export interface Configuration {
  /** The file that was read, if one was. */
  readonly file?: string;
  readonly settings: readonly Setting[];
  readonly mistakes: readonly Mistake[];
  /** Absent when there are mistakes. */
  readonly options?: RunOptions;
}

/** Name of an option in the environment. */
export function environmentName(name: string): string {
  return `PANDO_${name.toUpperCase().replaceAll('-', '_')}`;
}

/** @throws `server-file-unreadable` */
export async function readConfiguration(
  flags: FlagValues,
  environment: Environment,
  { defaultFile = CONFIG_FILE_DEFAULT } = {},
): Promise<Configuration> {
  const mistakes: Mistake[] = [];
  const settings = new Map<string, Setting>();
  const file = await chooseFile(flags, environment, defaultFile);
  if (file !== undefined) {
    const found = parseConfig(await readConfigFile(file), file);
    mistakes.push(...found.mistakes);
    for (const [name, { value, place }] of found.values)
      settings.set(name, { name, value, from: 'file', place });
  }
  for (const flag of SERVE_FLAGS) {
    const { name } = flag;
    const given = flag.only === 'flag' ? undefined : environment[environmentName(name)];
    if (given === undefined || given === '') continue;
    const value = environmentValue(flag, given);
    if (value === undefined)
      mistakes.push({ key: environmentName(name), problem: 'true or false is expected' });
    else settings.set(name, { name, value, from: 'environment' });
  }
  for (const { name } of SERVE_FLAGS) {
    const value = flags[name];
    if (value !== undefined) settings.set(name, { name, value, from: 'flag' });
  }
  const values = Object.fromEntries([...settings.values()].map(({ name, value }) => [name, value]));
  const checked = check(values, settings);
  mistakes.push(...checked.mistakes);
  return {
    ...(file === undefined ? {} : { file }),
    settings: withDefaults(settings),
    mistakes,
    ...(mistakes.length === 0 && checked.options !== undefined ? { options: checked.options } : {}),
  };
}

/**
 * The options in force; messages have every mistake and its place, a line each.
 * @throws `request-invalid` when flags are wrong, `config-invalid` when anything else is; `server-file-unreadable`
 */
export async function configuredOptions(flags: FlagValues, environment: Environment): Promise<RunOptions> {
  const { options, mistakes } = await readConfiguration(flags, environment);
  if (options !== undefined) return options;
  const isUsage = mistakes.every(({ key }) => key?.startsWith('--') === true);
  throw new PandoError(isUsage ? 'request-invalid' : 'config-invalid', mistakes.map(mistakeLine).join('\n'));
}

/** `/etc/pando/pando.toml:3:8: gc-every is a number of minutes …` */
export function mistakeLine({ place, key, problem }: Mistake): string {
  const what = key === undefined || problem.startsWith(`${key} `) ? problem : `${key}: ${problem}`;
  return place === undefined ? what : `${place.file}:${place.line}:${place.column}: ${what}`;
}

/** What a server would refuse to start with although each value is good: that it would listen for everybody without TLS. */
export function exposureMistakes({ options, settings }: Configuration): readonly Mistake[] {
  if (options === undefined) return [];
  return (
    [
      ['http', checkHttpExposure],
      ['nbd', checkExposure],
    ] as const
  ).flatMap(([name, check]) => {
    try {
      check(options);
      return [];
    } catch (error) {
      return [
        mistakeOf(
          settings.find((setting) => setting.name === name)!,
          error as PandoError,
        ),
      ];
    }
  });
}

async function chooseFile(
  flags: FlagValues,
  environment: Environment,
  defaultFile: string,
): Promise<string | undefined> {
  const named = flags['config'] ?? environment['PANDO_CONFIG'];
  if (typeof named === 'string' && named !== '') return named;
  // Who names a data directory means a store of his own, not the one that this machine was set up for.
  if (flags['data'] !== undefined || (environment['PANDO_DATA'] ?? '') !== '') return undefined;
  return access(defaultFile).then(
    () => defaultFile,
    () => undefined,
  );
}

function environmentValue(flag: Flag, given: string): Setting['value'] | undefined {
  if (flag.value !== undefined) {
    const parts = given.split(',').map((part) => part.trim());
    return flag.multiple === true ? parts.filter((part) => part !== '') : given;
  }
  return { true: true, 1: true, false: false, 0: false }[given.toLowerCase()];
}

/** Each value that is not taken: when they are not good together, each is tried alone. */
function check(
  values: FlagValues,
  settings: ReadonlyMap<string, Setting>,
): { readonly options?: RunOptions; readonly mistakes: readonly Mistake[] } {
  try {
    return { options: runOptions(values), mistakes: [] };
  } catch (error) {
    if (!isPandoError(error)) throw error;
    const mistakes = [...settings.values()].flatMap((setting) => {
      try {
        runOptions({ [setting.name]: setting.value });
        return [];
      } catch (alone) {
        return [mistakeOf(setting, alone as PandoError)];
      }
    });
    if (mistakes.length > 0) return { mistakes };
    // None is wrong alone: they do not go together.
    const named = /--([a-z-]+)/.exec(error.message)?.[1];
    const setting = named === undefined ? undefined : settings.get(named);
    return { mistakes: [setting === undefined ? { problem: error.message } : mistakeOf(setting, error)] };
  }
}

function mistakeOf({ name, from, place }: Setting, { message }: Error): Mistake {
  const key = { flag: `--${name}`, environment: environmentName(name), file: name, default: name }[from];
  return { ...(place === undefined ? {} : { place }), key, problem: message.replaceAll(`--${name}`, key) };
}

function withDefaults(settings: ReadonlyMap<string, Setting>): readonly Setting[] {
  return FILE_FLAGS.flatMap(({ name, fallback }) => {
    const setting = settings.get(name);
    if (setting !== undefined) return [setting];
    return fallback === undefined ? [] : [{ name, value: fallback, from: 'default' as const }];
  });
}
