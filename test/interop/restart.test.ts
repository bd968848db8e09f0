/** A client that retries does not lose a byte when the server goes away and comes back: nbdkit's retry filter. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { testSeed } from '@pando/block-device/testing';
import { afterAll, beforeAll, describe, expect } from 'vitest';
import { connect, createVm, MiB } from '../support/disks.ts';
import { TestServer } from '../support/server.ts';
import { itWithTools, mustRun } from '../support/tools.ts';

const DISK_MIB = 80;
/** Bits a second. The copy is held down at first, so that the server goes away in the middle of it. */
const SLOWLY = '64M';
const FREELY = '100G';
const PROGRESS_MS_MAX = 60_000;

describe('a server that goes away and comes back', () => {
  const seed = testSeed();
  let server: TestServer;
  let folder: string;

  beforeAll(async () => {
    console.log(`PANDO_TEST_SEED=${seed}`);
    folder = await mkdtemp(join(tmpdir(), 'pando-restart-'));
    server = await TestServer.start();
    await createVm(server, 'vm', DISK_MIB * MiB);
  });

  afterAll(async () => {
    await server.close();
    await rm(folder, { recursive: true, force: true });
  });

  /** Waits until some data is stored behind an offset of the disk. */
  async function reached(offset: number): Promise<void> {
    const client = await connect(server, 'vm/disk0');
    try {
      const bytes = Buffer.alloc(MiB);
      const deadline = performance.now() + PROGRESS_MS_MAX;
      for (;;) {
        await client.read(offset, MiB, bytes, 0);
        if (bytes.some((byte) => byte !== 0)) return;
        if (performance.now() > deadline) throw new Error(`nothing was written at ${offset}`);
        await sleep(20);
      }
    } finally {
      await client.close();
    }
  }

  itWithTools(
    ['nbdkit', 'nbdcopy', 'cmp'],
    "a copy through nbdkit's retry filter is complete after a stop and a kill of the server",
    async () => {
      const image = join(folder, 'image.raw');
      await mustRun('nbdcopy', ['--', '[', 'nbdkit', 'random', `${DISK_MIB}M`, `seed=${seed}`, ']', image]);
      const rate = join(folder, 'rate');
      await writeFile(rate, SLOWLY);
      let isDone = false;
      const copy = mustRun('nbdkit', [
        ...['-U', '-', '--filter=rate', '--filter=retry', 'nbd', `uri=${server.nbdUri('vm/disk0', 'unix')}`],
        ...[`rate-file=${rate}`, 'retries=40', 'retry-delay=1', 'retry-exponential=no'],
        ...['--run', `nbdcopy "${image}" "$uri"`],
      ]).finally(() => {
        isDone = true;
      });
      // Awaited below, unless something else fails first.
      copy.catch(() => undefined);
      await reached(8 * MiB);
      expect(isDone).toBe(false);
      await server.stop();
      await server.restart();
      await reached(24 * MiB);
      expect(isDone).toBe(false);
      await server.kill();
      await server.restart();
      await writeFile(rate, FREELY);
      await copy;
      const copied = join(folder, 'copied.raw');
      await mustRun('nbdcopy', [server.nbdUri('vm/disk0'), copied]);
      await mustRun('cmp', [image, copied]);
    },
  );
});
