/** What `npm test -- …` understands. */

export const TOOLS_ENVIRONMENT_NOTE = 'a condition of the suite is not met on this machine; see its name';

export interface TestArguments {
  /** Parts of file names; none means all. */
  readonly filters: string[];
  readonly options: { testNamePattern?: string; project?: string[] };
}

/** @throws Error on an unknown option */
export function parseArguments(args: readonly string[]): TestArguments {
  const filters: string[] = [];
  const options: TestArguments['options'] = {};
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    const value = args[i + 1];
    if (arg === '-t' && value !== undefined) {
      options.testNamePattern = value;
      i++;
    } else if (arg === '--project' && value !== undefined) {
      options.project = [...(options.project ?? []), value];
      i++;
    } else if (arg.startsWith('-')) {
      throw new Error(`unknown option ${arg}; use: npm test -- [file …] [-t name] [--project name]`);
    } else {
      filters.push(arg);
    }
  }
  return { filters, options };
}
