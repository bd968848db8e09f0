/**
 * Where the memory of a server is: the isolate of each thread as it sees itself, and the mappings of the process as the kernel sees
 * them. What malloc holds is more than what is in use: its arenas keep what was freed.
 */
import { readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';

/** Environment variable with the directory into which the threads of the server write. */
export const PROBE_FILES = 'PANDO_MEMORY_PROBE';

export interface IsolateMemory {
  readonly heapUsed: number;
  readonly heapTotal: number;
  /** Young generation, as far as pages of it are in memory. */
  readonly youngResident: number;
  readonly external: number;
  readonly arrayBuffers: number;
}

const ARENA_BYTES = 64 * 2 ** 20;
/** Pages of V8's heaps; neighbours may have been joined by the kernel. */
const V8_PAGE_BYTES = 256 * 1024;

/** Where a thread writes: processes that the server starts load the probe too. */
export function memoryFile(directory: string, pid: number, thread: number): string {
  return join(directory, `${pid}-${thread}.json`);
}

/** What a server is started with to have the probe in each of its threads. */
export function probeEnvironment(directory: string): Record<string, string> {
  const probe = new URL('./memory-probe.ts', import.meta.url).href;
  return {
    NODE_OPTIONS: `${process.env['NODE_OPTIONS'] ?? ''} --import=${probe}`.trim(),
    [PROBE_FILES]: directory,
  };
}

/** A line for each isolate, and one for the mappings. */
export async function memoryLines(pid: number, directory: string): Promise<string[]> {
  const lines: string[] = [];
  for (const name of (await readdir(directory)).sort()) {
    const [, of, thread] = /^(\d+)-(\d+)\.json$/.exec(name) ?? [];
    if (thread === undefined || Number(of) !== pid) continue;
    const memory = JSON.parse(await readFile(join(directory, name), 'utf8')) as IsolateMemory;
    lines.push(`thread ${thread}: ${cells(Object.entries(memory))}`);
  }
  lines.push(`anonymous: ${cells([...mappings(await readFile(`/proc/${pid}/smaps`, 'utf8'))])}`);
  return lines;
}

function cells(entries: readonly (readonly [string, number])[]): string {
  return entries.map(([name, bytes]) => `${name} ${(bytes / 2 ** 20).toFixed(1)}`).join(', ');
}

/** Anonymous bytes by what the mapping is for, as far as that can be told. */
export function mappings(smaps: string): ReadonlyMap<string, number> {
  const bytes = new Map<string, number>();
  let what = '';
  for (const line of smaps.split('\n')) {
    const mapping = /^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \d+ *(.*)$/.exec(line);
    if (mapping !== null) {
      what = useOf(
        Number.parseInt(mapping[1]!, 16),
        Number.parseInt(mapping[2]!, 16),
        mapping[3]!,
        mapping[4]!,
      );
      continue;
    }
    const anonymous = /^Anonymous: +(\d+) kB$/.exec(line);
    if (anonymous !== null) bytes.set(what, (bytes.get(what) ?? 0) + Number(anonymous[1]) * 1024);
  }
  return bytes;
}

function useOf(from: number, to: number, permissions: string, name: string): string {
  if (name === '[heap]') return 'malloc, main arena';
  if (name !== '') return 'files and stacks';
  if (permissions.includes('x')) return 'compiled code';
  if (from % ARENA_BYTES === 0 && to - from <= ARENA_BYTES) return 'malloc, other arenas';
  return to - from <= V8_PAGE_BYTES ? 'V8 pages' : 'other mappings';
}

export type DescriptorKinds = ReadonlyMap<string, number>;

/** Open descriptors, counted by what they are. */
export async function descriptorsByKind(pid: number): Promise<DescriptorKinds> {
  const kinds = new Map<string, number>();
  for (const name of await readdir(`/proc/${pid}/fd`)) {
    const target = await readlink(`/proc/${pid}/fd/${name}`).catch(() => undefined);
    if (target === undefined) continue;
    const kind =
      /\/(log|segments|index|catalog)\//.exec(target)?.[1] ??
      target.replace(/:?\[.*$/, '').replace(/^.*\//, '');
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  }
  return kinds;
}
