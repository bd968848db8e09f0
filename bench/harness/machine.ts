/** On what a result was taken. */
import { cpus, loadavg, release, totalmem } from 'node:os';
import { onPath, run } from './processes.ts';

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly kernel: string;
  /** Of the last minute, before the run began: other work on the machine makes results noise. */
  readonly loadBefore: number;
  readonly versions: Readonly<Record<string, string>>;
}

const VERSION_ARGUMENTS: Readonly<Record<string, readonly string[]>> = {
  'fio': ['--version'],
  'qemu-img': ['--version'],
  'qemu-nbd': ['--version'],
  'nbdkit': ['--version'],
  'restic': ['version'],
  'borg': ['--version'],
  'casync': ['--version'],
  'qemu-system-x86_64': ['--version'],
};

export async function describeMachine(): Promise<Machine> {
  const versions: Record<string, string> = { node: process.version };
  await Promise.all(
    Object.entries(VERSION_ARGUMENTS).map(async ([tool, args]) => {
      if (onPath(tool)) versions[tool] = (await run(tool, args)).split('\n', 1)[0]!.trim();
    }),
  );
  if (onPath('git')) {
    const commit = await run('git', ['rev-parse', '--short', 'HEAD']).catch(() => 'no repository');
    versions['pando'] = commit.trim();
  }
  const [first] = cpus();
  return {
    cpu: first?.model ?? 'unknown',
    cores: cpus().length,
    memoryBytes: totalmem(),
    kernel: release(),
    loadBefore: loadavg()[0]!,
    versions,
  };
}
