import { afterEach, describe, expect, it, vi } from 'vitest';
import { mustRun, requireTools, runTool } from './tools.ts';

const ABSENT = 'pando-no-such-tool';

afterEach(() => {
  vi.unstubAllEnvs();
});

describe('tools of tests', () => {
  it('names what is missing, and nothing when all is there', () => {
    vi.stubEnv('CI', '');
    expect(requireTools('sh', ABSENT)).toBe(`not installed: ${ABSENT}`);
    expect(requireTools('sh', 'ls')).toBeUndefined();
  });

  it('fails in CI instead of skipping', () => {
    vi.stubEnv('CI', 'true');
    expect(() => requireTools(ABSENT)).toThrow(ABSENT);
    expect(requireTools('sh')).toBeUndefined();
  });

  it('gives the exit code and output of a program, or fails with both', async () => {
    expect(await runTool('sh', ['-c', 'echo out; echo err >&2; exit 3'])).toEqual({
      code: 3,
      stdout: 'out\n',
      stderr: 'err\n',
    });
    await expect(mustRun('sh', ['-c', 'echo why >&2; exit 3'])).rejects.toThrow(/ended with 3[^]*why/);
    await expect(runTool(ABSENT, [])).rejects.toThrow(/did not end by itself/);
  });
});
