/** What a question gets: its folder, its peers, its sizes, and how to say what happens. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { DiskImage } from './images.ts';
import { onPath } from './processes.ts';
import type { Pinning } from './processes.ts';
import type { Row } from './rounds.ts';

export interface Scale {
  readonly rounds: number;
  readonly fioSeconds: number;
  /** Random reads and writes stay inside so many bytes: they fit into the caches of all sides. */
  readonly workingSetBytes: number;
  readonly chainDepth: number;
  readonly qcowChainDepth: number;
}

export const FULL: Scale = {
  rounds: 5,
  fioSeconds: 4,
  workingSetBytes: 128 * 1024 * 1024,
  chainDepth: 1000,
  qcowChainDepth: 100,
};

/** For rot, not for numbers. */
export const SMOKE: Scale = {
  rounds: 1,
  fioSeconds: 0.05,
  workingSetBytes: 1024 * 1024,
  chainDepth: 4,
  qcowChainDepth: 3,
};

export interface Bench {
  readonly scale: Scale;
  readonly pin: Pinning;
  /** Everything tiny: for rot, not for numbers. */
  readonly isSmoke: boolean;
  /** All data that this run draws by itself comes from it. */
  readonly seed: number;
  /** Where servers write CPU profiles when asked to. */
  readonly profileDirectory: string | undefined;
  readonly image: () => Promise<DiskImage>;
  /** A system that was booted, and two that were installed independently of it and of each other; or those that were named. */
  readonly images: () => Promise<readonly DiskImage[]>;
  readonly say: (line: string) => void;
  /** An empty folder; all of them are on one file system. */
  folder(name: string): Promise<string>;
  /** Whether all tools are there; what is missing is named once in the results. */
  has(...tools: string[]): boolean;
  readonly missing: ReadonlySet<string>;
  /** Resident bytes that a server of Pando had at most, for the question that is being asked. */
  notePeak(bytes: number): void;
  /** Those noted since the last call. */
  takePeaks(): readonly number[];
}

/** One folder of `bench/`. */
export interface Question {
  readonly name: string;
  readonly title: string;
  run(bench: Bench): Promise<readonly Row[]>;
}

export function makeBench(
  root: string,
  parts: Omit<Bench, 'folder' | 'has' | 'missing' | 'notePeak' | 'takePeaks'>,
): Bench {
  const missing = new Set<string>();
  let peaks: number[] = [];
  return {
    ...parts,
    missing,
    notePeak: (bytes) => void peaks.push(bytes),
    takePeaks: () => {
      const taken = peaks;
      peaks = [];
      return taken;
    },
    folder: async (name) => {
      const path = join(root, name);
      await mkdir(path);
      return path;
    },
    has: (...tools) => {
      const absent = tools.filter((tool) => !onPath(tool));
      for (const tool of absent) {
        if (!missing.has(tool)) parts.say(`  not installed: ${tool}; its rows are left out`);
        missing.add(tool);
      }
      return absent.length === 0;
    },
  };
}
