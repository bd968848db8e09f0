/** What `npm test -- …` understands. */

export interface TestArguments {
  /** Parts of file names; none means all. */
  readonly filters: string[];
  readonly options: { testNamePattern?: string; project?: string[] };
}

/** Reads the arguments; on an unknown option prints the usage and returns undefined. */
export function parseArguments(args: readonly string[]): TestArguments | undefined {
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
      console.error(
        `unknown option ${arg}\nusage: npm test -- [part of a file name …] [-t name] [--project name]`,
      );
      return undefined;
    } else {
      filters.push(arg);
    }
  }
  return { filters, options };
}
