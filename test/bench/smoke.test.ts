/** The bench runs, on a tiny scale: for rot, not for numbers. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect } from 'vitest';
import { itWithTools, mustRun, runTool } from '../support/tools.ts';

const MAIN = fileURLToPath(new URL('../../bench/main.ts', import.meta.url));
/** Of a machine that does other things besides. */
const SMOKE_MS_MAX = 240_000;
const TOOLS = [
  ...['fio', 'qemu-img', 'qemu-io', 'qemu-nbd', 'qemu-system-x86_64', 'nbdkit'],
  ...['restic', 'borg', 'casync'],
  ...['nbdfuse', 'fusermount3', 'mkfs.ext4', '/dev/fuse'],
];

interface Result {
  readonly smoke: boolean;
  readonly missing: readonly string[];
  readonly rows: readonly {
    readonly question: string;
    readonly ratio: { readonly median: number };
    readonly ratios: readonly number[];
  }[];
}

describe('the bench', () => {
  itWithTools(
    TOOLS,
    'answers every question on a tiny scale',
    async () => {
      const folder = await mkdtemp(join(tmpdir(), 'pando-smoke-'));
      try {
        const out = join(folder, 'result.json');
        const printed = await mustRun(process.execPath, [MAIN, '--smoke', '--dir', folder, '--out', out], {
          msMax: SMOKE_MS_MAX,
        });
        const result = JSON.parse(await readFile(out, 'utf8')) as Result;
        expect(result.smoke).toBe(true);
        expect(result.missing).toEqual([]);
        const questions = new Set(result.rows.map(({ question }) => question));
        expect([...questions].sort()).toEqual([
          'boot-storm',
          'cached-reads',
          'clone-chain',
          'clone-latency',
          'cold-reads',
          'depth-one',
          'export',
          'gc',
          'group-commit',
          'guest-boot',
          'hot-rewrites',
          'import',
          'random-writes',
          'sequential',
          'service-scale',
          'start-up',
          'sustained-writes',
          'thousand-clones',
          'trim',
        ]);
        for (const { question, ratio, ratios } of result.rows) {
          expect(printed).toContain(`| ${question} `);
          expect(ratios).toHaveLength(1);
          expect(ratio.median).toBeGreaterThan(0);
        }
      } finally {
        await rm(folder, { recursive: true, force: true });
      }
    },
    SMOKE_MS_MAX,
  );

  itWithTools([], 'refuses a question that nobody wrote', async () => {
    const { code, stderr } = await runTool(process.execPath, [MAIN, 'meaning-of-life']);
    expect(code).toBe(2);
    expect(stderr).toContain('there is no question "meaning-of-life"');
  });
});
