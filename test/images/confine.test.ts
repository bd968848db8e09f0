/** What is left to a program that reads images, when all the rest has gone wrong: a shell in its place tries. */
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect } from 'vitest';
import { LAUNCHER } from '../../packages/images/src/confine.ts';
import { itWithTools, runTool } from '../support/tools.ts';

const TOOLS = ['python3', 'bash', 'cat'];
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pando-confine-'));
  await writeFile(join(folder, 'image'), 'the image');
  await writeFile(join(folder, 'secret'), 'the secret');
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

/** Runs a program as qemu-nbd is run, with the image as descriptor 4 and nothing as 3. */
function confined(
  mode: 'r' | 'w',
  program: string,
  ...args: string[]
): Promise<{ code: number; output: string }> {
  const shell = 'exec 3<&- 4<>"$0"; exec python3 -I -S -c "$@"';
  const launch = [LAUNCHER, String(process.pid), mode, String(2 ** 32), '1', '', program, ...args];
  return new Promise((resolve) => {
    const child = execFile(
      'bash',
      ['-c', shell, join(folder, 'image'), ...launch],
      { timeout: 60_000 },
      (error, stdout, stderr) =>
        resolve({ code: error === null ? 0 : Number(error.code), output: stdout + stderr }),
    );
    child.stdin?.end();
  });
}

async function kernelHasLandlock(): Promise<boolean> {
  const ask =
    'import ctypes; print(ctypes.CDLL(None).syscall(ctypes.c_long(444), None, ctypes.c_size_t(0), 1))';
  return Number((await runTool('python3', ['-c', ask])).stdout) > 0;
}

describe('a program in the place of qemu-nbd', () => {
  itWithTools(TOOLS, 'can read the image that it was handed', async () => {
    expect(await confined('r', '/usr/bin/cat', '/dev/fd/4')).toEqual({ code: 0, output: 'the image' });
  });

  itWithTools(TOOLS, 'can open no other file, and list no directory', async (): Promise<void> => {
    if (!(await kernelHasLandlock()))
      throw new Error('the kernel has no Landlock: this cannot be shown here');
    const files = [
      join(folder, 'secret'),
      '/etc/passwd',
      '/etc/hostname',
      '/proc/1/environ',
      '/proc/self/environ',
    ];
    for (const [tool, paths] of [
      ['cat', files],
      ['ls', [folder, '/etc', '/root', '/']],
    ] as const) {
      for (const path of paths) {
        const { code, output } = await confined('r', '/usr/bin/bash', '-c', `${tool} "${path}"`);
        expect(code, path).not.toBe(0);
        expect(output, path).toMatch(/Permission denied/);
      }
    }
  });

  itWithTools(TOOLS, 'can write nowhere: neither to the image nor to a new file', async () => {
    for (const path of [
      '/dev/fd/4',
      join(folder, 'new'),
      '/tmp/pando-confine-new',
      '/usr/pando-confine-new',
    ]) {
      const { code } = await confined('r', '/usr/bin/bash', '-c', `printf overwritten > "${path}"`);
      expect(code, path).not.toBe(0);
    }
    expect(await readFile(join(folder, 'image'), 'utf8')).toBe('the image');
    await expect(stat(join(folder, 'new'))).rejects.toThrow('ENOENT');
    // One that writes an image can write that, and nothing else.
    expect((await confined('w', '/usr/bin/bash', '-c', 'printf overwritten > /dev/fd/4')).code).toBe(0);
    expect(await readFile(join(folder, 'image'), 'utf8')).toBe('overwritten');
    expect(
      (await confined('w', '/usr/bin/bash', '-c', `printf x > "${join(folder, 'secret')}"`)).code,
    ).not.toBe(0);
    await writeFile(join(folder, 'image'), 'the image');
  });

  itWithTools(
    TOOLS,
    'can neither make a socket, nor change modes, owners and times, nor trace, nor signal',
    async () => {
      if (!['x64', 'arm64'].includes(process.arch)) throw new Error('no seccomp filter for this machine');
      const python = `
import ctypes, os, socket
def attempt(name, action):
    try:
        action()
        print(name, 'done')
    except PermissionError:
        print(name, 'refused')
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK):
    attempt('socket', lambda: socket.socket(family, socket.SOCK_STREAM))
attempt('chmod', lambda: os.chmod('${join(folder, 'secret')}', 0o777))
attempt('chown', lambda: os.chown('${join(folder, 'secret')}', 0, 0))
attempt('utime', lambda: os.utime('${join(folder, 'secret')}'))
attempt('setxattr', lambda: os.setxattr('${join(folder, 'secret')}', 'user.x', b'x'))
attempt('kill', lambda: os.kill(os.getppid(), 0))
attempt('unlink', lambda: os.unlink('${join(folder, 'secret')}'))
attempt('mkdir', lambda: os.mkdir('${join(folder, 'made')}'))
libc = ctypes.CDLL(None, use_errno=True)
def ptrace():
    if libc.ptrace(16, os.getppid(), 0, 0) != 0: raise PermissionError()
attempt('ptrace', ptrace)
`;
      const { output } = await confined('r', '/usr/bin/python3', '-I', '-S', '-c', python);
      const lines = output.trim().split('\n');
      expect(lines.filter((line) => !line.endsWith(' refused'))).toEqual([]);
      expect(lines).toHaveLength(12);
    },
  );

  itWithTools(TOOLS, 'has bounds on memory, descriptors, core and other files', async () => {
    const { output } = await confined(
      'r',
      '/usr/bin/bash',
      '-c',
      'ulimit -v; ulimit -n; ulimit -c; ulimit -f',
    );
    expect(output.trim().split('\n')).toEqual([String(2 ** 32 / 1024), '257', '0', '0']);
  });
});
