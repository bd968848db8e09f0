/** Disks that other NBD servers serve, brought in: each of the three that people run, with its own idea of the protocol. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { access, chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SeededRandom, testSeed } from '@pando/block-device/testing';
import { afterAll, beforeAll, describe, expect } from 'vitest';
import { pando } from '../cli/pando.ts';
import { MiB, readExport, sha256 } from '../support/disks.ts';
import { TestServer } from '../support/server.ts';
import { itWithTools, mustRun, runTool } from '../support/tools.ts';

const DISK_BYTES = 24 * MiB + 512;
const READY_MS_MAX = 20_000;

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as AddressInfo;
  probe.close();
  await once(probe, 'close');
  return port;
}

async function until(isReady: () => Promise<boolean>, what: string): Promise<void> {
  const deadline = performance.now() + READY_MS_MAX;
  while (!(await isReady())) {
    if (performance.now() > deadline) throw new Error(`${what} does not answer`);
    await sleep(50);
  }
}

describe('disks of other NBD servers', () => {
  const seed = testSeed();
  let server: TestServer;
  let folder: string;
  let image: Buffer;
  let imagePath: string;

  beforeAll(async () => {
    console.log(`PANDO_TEST_SEED=${seed}`);
    folder = await mkdtemp(join(tmpdir(), 'pando-foreign-'));
    // nbd-server may give up its rights.
    await chmod(folder, 0o755);
    server = await TestServer.start();
    const random = new SeededRandom(seed);
    image = Buffer.alloc(DISK_BYTES);
    for (let i = 0; i < 30; i++) {
      image.set(random.bytes(random.below(200_000)), random.below(DISK_BYTES - 200_000));
    }
    image.set(random.bytes(512), DISK_BYTES - 512);
    imagePath = join(folder, 'disk.raw');
    await writeFile(imagePath, image);
  });

  afterAll(async () => {
    await server.close();
    await rm(folder, { recursive: true, force: true });
  });

  async function imports(name: string, uri: string): Promise<void> {
    const args = ['vm', 'import', uri, '--name', name, '--verify'];
    const { status, stderr } = await pando(args, { url: server.url });
    expect(`${status} ${stderr}`).toMatch(/^0 /);
    expect(sha256(await readExport(server, `${name}/disk0`))).toBe(sha256(image));
  }

  /** Runs a server in the foreground until the body has ended. */
  async function serving(
    command: readonly string[],
    socket: string,
    body: () => Promise<void>,
  ): Promise<void> {
    const child: ChildProcess = spawn(command[0]!, command.slice(1), {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    const closed = once(child, 'close');
    try {
      await until(
        () =>
          access(socket).then(
            () => true,
            () => false,
          ),
        command[0]!,
      );
      await body();
    } finally {
      child.kill('SIGTERM');
      await closed;
    }
  }

  itWithTools(['qemu-nbd'], 'from qemu-nbd', async () => {
    const socket = join(folder, 'qemu.sock');
    const command = [
      'qemu-nbd',
      '-r',
      '-t',
      '-e',
      '8',
      '-x',
      'some/disk',
      '-k',
      socket,
      '-f',
      'raw',
      imagePath,
    ];
    await serving(command, socket, () => imports('qemu', `nbd+unix:///some/disk?socket=${socket}`));
  });

  itWithTools(['nbdkit'], 'from nbdkit, which answers late and knows no holes', async () => {
    const socket = join(folder, 'kit.sock');
    const filters = ['--filter=noextents', '--filter=blocksize-policy', '--filter=delay'];
    const parameters = [
      'rdelay=1ms',
      'blocksize-minimum=512',
      'blocksize-maximum=1M',
      'blocksize-error-policy=error',
    ];
    const command = ['nbdkit', '-f', '-r', '-U', socket, ...filters, 'file', imagePath, ...parameters];
    await serving(command, socket, () => imports('kit', `nbd+unix:///?socket=${socket}`));
  });

  itWithTools(['nbd-server', 'nbdinfo'], 'from nbd-server, which has no structured replies', async () => {
    const port = await freePort();
    const [config, pidFile] = [join(folder, 'nbd-server.conf'), join(folder, 'nbd-server.pid')];
    const lines = ['[generic]', 'listenaddr = 127.0.0.1', `port = ${port}`, 'allowlist = true'];
    await writeFile(
      config,
      [...lines, '[disk]', `exportname = ${imagePath}`, 'readonly = true', ''].join('\n'),
    );
    // It goes to the background by itself.
    await mustRun('nbd-server', ['-C', config, '-p', pidFile]);
    const uri = `nbd://127.0.0.1:${port}/disk`;
    try {
      await until(async () => (await runTool('nbdinfo', ['--size', uri])).code === 0, 'nbd-server');
      await imports('classic', uri);
    } finally {
      process.kill(Number(await readFile(pidFile, 'utf8')), 'SIGTERM');
    }
  });
});
