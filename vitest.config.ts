/**
 * Tests in four groups that run one after another: units beside their sources; what crosses packages (the simulation of
 * it with a flag of its own); the slow ones (a booting guest, kill -9 under load); and three guests at work, who get the
 * machine for themselves.
 */
import { defineConfig } from 'vitest/config';

/** Keeps both cores and the disk busy by itself. */
const WORK = 'test/guest/work.test.ts';
/** Suites that keep a core and the disk busy for long. */
const SLOW = [
  'test/guest/**/*.test.ts',
  'test/crash/**/*.test.ts',
  'test/load/**/*.test.ts',
  'test/**/*crash*.test.ts',
];
/** Boots an engine some hundred times a second, each with large buffers of a short life. */
const SIMULATION = ['test/simulation/**/*.test.ts', 'test/durability/matrix.test.ts'];
/** Without them V8 looks for garbage whenever 64 MiB of buffers were made: half of the processor time went there. */
const SIMULATION_FLAGS = [
  '--no-incremental-marking',
  '--external-memory-accounted-in-global-limit',
  '--max-old-space-size=1000',
];
const WORKERS_MAX = 2;

export default defineConfig({
  test: {
    pool: 'forks',
    maxWorkers: WORKERS_MAX,
    watch: false,
    teardownTimeout: 20_000,
    projects: [
      {
        test: {
          name: 'unit',
          include: ['packages/*/src/**/*.test.ts', 'apps/*/src/**/*.test.ts', 'scripts/**/*.test.ts'],
          pool: 'forks',
          maxWorkers: WORKERS_MAX,
          sequence: { groupOrder: 0 },
          testTimeout: 30_000,
          hookTimeout: 30_000,
        },
      },
      {
        test: {
          name: 'system',
          include: ['test/**/*.test.ts', 'bench/**/*.test.ts'],
          exclude: [...SLOW, ...SIMULATION, '**/node_modules/**'],
          pool: 'forks',
          maxWorkers: WORKERS_MAX,
          sequence: { groupOrder: 1 },
          testTimeout: 120_000,
          hookTimeout: 120_000,
        },
      },
      {
        test: {
          name: 'simulation',
          include: SIMULATION,
          pool: 'forks',
          execArgv: SIMULATION_FLAGS,
          maxWorkers: WORKERS_MAX,
          sequence: { groupOrder: 1 },
          testTimeout: 120_000,
          hookTimeout: 120_000,
        },
      },
      {
        test: {
          name: 'slow',
          include: SLOW,
          exclude: [WORK, '**/node_modules/**'],
          pool: 'forks',
          maxWorkers: WORKERS_MAX,
          sequence: { groupOrder: 2 },
          testTimeout: 600_000,
          hookTimeout: 600_000,
        },
      },
      {
        test: {
          name: 'work',
          include: [WORK],
          pool: 'forks',
          fileParallelism: false,
          sequence: { groupOrder: 3 },
          testTimeout: 600_000,
          hookTimeout: 600_000,
        },
      },
    ],
  },
});
