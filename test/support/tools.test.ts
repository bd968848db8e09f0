import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
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

  it('asks a tool for its version, and for devices', () => {
    vi.stubEnv('CI', '');
    const folder = mkdtempSync(join(tmpdir(), 'pando-tools-'));
    try {
      const tool = join(folder, 'versioned');
      writeFileSync(tool, '#!/bin/sh\necho "versioned 8.2.1 (a distribution 1:9.9)"\n', { mode: 0o755 });
      vi.stubEnv('PATH', `${folder}:${process.env['PATH'] ?? ''}`);
      expect(requireTools('versioned>=8.2', 'versioned>=7.10')).toBeUndefined();
      expect(requireTools('versioned>=8.3')).toContain('versioned 8.3 or newer (this is 8.2)');
      expect(requireTools('versioned>=10.0')).toContain('10.0');
      expect(requireTools('/dev/null')).toBeUndefined();
      expect(requireTools('/dev/pando-none')).toContain('/dev/pando-none');
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
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
