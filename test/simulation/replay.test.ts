/** A seed gives the same run again, in this process and in another: else nothing that is found can be looked into. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { simulate } from './run.ts';

const MAIN = fileURLToPath(new URL('./main.ts', import.meta.url));

it('plays a seed in the same way each time, in any process, and other seeds in other ways', async () => {
  const seed = 7;
  const first = await simulate(seed, { operation: 1 });
  expect(await simulate(seed, { operation: 1 })).toBe(first);
  expect(await simulate(seed + 1, { operation: 1 })).not.toBe(first);
  const all = await simulate(seed);
  expect(all).not.toBe(first);
  const { stdout } = await promisify(execFile)(process.execPath, [MAIN, '--seed', String(seed)]);
  expect(stdout).toContain(`seed ${seed}: all well, trace ${all}`);
});

it('says how it is called, and refuses what it does not understand', async () => {
  const run = promisify(execFile);
  expect((await run(process.execPath, [MAIN, '--help'])).stdout).toContain('--operation');
  await expect(run(process.execPath, [MAIN, '--seed', 'x'])).rejects.toMatchObject({ code: 2 });
});
