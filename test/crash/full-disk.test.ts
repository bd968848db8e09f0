/**
 * A server whose disk is full, really: a small ext4 in a file. Writes are refused, reads go on, the server lives and says
 * what is wrong; when there is room again, it writes again by itself. Nothing acknowledged is lost on the way.
 */
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, open, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SeededRandom, testSeed } from '@pando/block-device/testing';
import type { NbdClient } from '@pando/nbd/client';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { connect, createVm, MiB, mustVerify, readExport } from '../support/disks.ts';
import { TestServer } from '../support/server.ts';
import { mustRun, requireTools } from '../support/tools.ts';

const FILE_SYSTEM_BYTES = 144 * MiB;
/** More than what is left to the store: what waits in the log can be destaged when the ballast is gone. */
const BALLAST_BYTES = 76 * MiB;
const DISK_BYTES = 256 * MiB;
const BLOCK_BYTES = 60 * 1024 + 512;
const IN_FLIGHT_MAX = 8;
/** Longer than overlays rest before they are destaged. */
const DESTAGE_MS = 4_500;
const RECOVER_MS_MAX = 60_000;

/** A disk that is written front to back with blocks that are all different, and what of it was acknowledged. */
class Filler {
  readonly name: string;
  readonly #seed: number;
  readonly #acknowledged = new Set<number>();
  #next = 0;

  constructor(name: string, seed: number) {
    this.name = name;
    this.#seed = seed;
  }

  get blocks(): number {
    return this.#acknowledged.size;
  }

  #bytes(block: number): Uint8Array {
    return new SeededRandom(this.#seed + block).bytes(BLOCK_BYTES);
  }

  async write(client: NbdClient, block = this.#next++): Promise<void> {
    await client.write(block * BLOCK_BYTES, this.#bytes(block));
    this.#acknowledged.add(block);
  }

  /** Writes until it is refused for lack of room. @throws whatever else goes wrong */
  async untilFull(client: NbdClient): Promise<void> {
    let refused: unknown;
    const writer = async (): Promise<void> => {
      while (refused === undefined) await this.write(client);
    };
    const writers = Array.from({ length: IN_FLIGHT_MAX }, () =>
      writer().catch((error: unknown) => (refused ??= error)),
    );
    await Promise.all(writers);
    expect(refused).toMatchObject({ code: 'store-full' });
  }

  /** Every acknowledged block reads as it was written. */
  async check(server: TestServer): Promise<void> {
    const disk = await readExport(server, `${this.name}/disk0`);
    for (const block of this.#acknowledged) {
      const found = disk.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
      if (Buffer.compare(found, this.#bytes(block)) !== 0)
        throw new Error(`block ${block} of ${this.name} is wrong`);
    }
  }
}

/** Tries until it works, as guests and people do; only a lack of room is tried again. */
async function untilRoom(action: () => Promise<unknown>): Promise<void> {
  const deadline = performance.now() + RECOVER_MS_MAX;
  for (;;) {
    try {
      await action();
      return;
    } catch (error) {
      if (!/store-full|ENOSPC|error 28/.test((error as Error).message)) throw error;
      if (performance.now() > deadline) throw new Error('there is still no room', { cause: error });
    }
    await sleep(200);
  }
}

/** What other programs on the same disk do. */
async function fillToTheLastByte(path: string): Promise<void> {
  const file = await open(path, 'w');
  try {
    for (let bytes = MiB; bytes >= 512; bytes /= 2) {
      const part = Buffer.alloc(bytes, 2);
      try {
        for (;;) await file.appendFile(part);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
      }
    }
  } finally {
    await file.close();
  }
}

async function health(server: TestServer): Promise<string> {
  return ((await server.rest.must('GET', '/health')) as { store: string }).store;
}

async function untilHealth(server: TestServer, state: string): Promise<void> {
  const deadline = performance.now() + RECOVER_MS_MAX;
  while ((await health(server)) !== state) {
    if (performance.now() > deadline) throw new Error(`health still says ${await health(server)}`);
    await sleep(100);
  }
}

function whyNot(): string | undefined {
  if (process.getuid?.() !== 0) return 'mounting a file system needs root';
  if (!existsSync('/dev/loop-control')) return 'this machine has no loop devices';
  return requireTools('mkfs.ext4', 'mount', 'umount');
}

describe('a full disk', () => {
  const seed = testSeed();
  let folder: string;
  let mounted = false;
  let server: TestServer;

  beforeEach(async (context) => {
    const reason = whyNot();
    if (reason !== undefined) {
      console.warn(`skipped "${context.task.name}": ${reason}`);
      context.skip(reason);
    }
    console.log(`PANDO_TEST_SEED=${seed}`);
    folder = await mkdtemp(join(tmpdir(), 'pando-full-'));
    await writeFile(join(folder, 'disk.img'), '');
    await truncate(join(folder, 'disk.img'), FILE_SYSTEM_BYTES);
    await mkdir(join(folder, 'mount'));
    await mustRun('mkfs.ext4', ['-q', '-F', join(folder, 'disk.img')]);
    await mustRun('mount', ['-o', 'loop', join(folder, 'disk.img'), join(folder, 'mount')]);
    mounted = true;
    await writeFile(join(folder, 'mount', 'ballast'), Buffer.alloc(BALLAST_BYTES, 1));
    server = await TestServer.start({
      dataDirectory: join(folder, 'mount', 'data'),
      args: ['--gc-every', '0'],
    });
  });

  afterEach(async (context) => {
    if (!mounted) return;
    if (context.task.result?.state === 'fail') {
      console.log(server.log);
      console.log(await mustRun('du', ['-a', '-B1K', join(folder, 'mount')]));
      console.log(await mustRun('df', ['-B1K', join(folder, 'mount')]));
    }
    await server.close();
    await mustRun('umount', [join(folder, 'mount')]);
    mounted = false;
    await rm(folder, { recursive: true, force: true });
  });

  /** A VM that is written, backed up, and never touched again. */
  async function quietVm(): Promise<Filler> {
    await createVm(server, 'quiet', 4 * MiB);
    const quiet = new Filler('quiet', seed ^ 1);
    const client = await connect(server, 'quiet/disk0');
    for (let i = 0; i < 40; i++) await quiet.write(client);
    await client.close();
    await server.rest.must('POST', '/vms/quiet/backups', { name: 'b' });
    return quiet;
  }

  it('refuses writes, serves reads, and goes on by itself when there is room', async () => {
    const quiet = await quietVm();
    await createVm(server, 'filler', DISK_BYTES);
    const filler = new Filler('filler', seed);
    const client = await connect(server, 'filler/disk0');
    await filler.untilFull(client);
    expect(filler.blocks).toBeGreaterThan(100);
    await untilHealth(server, 'full');
    const pid = server.pid;
    for (let i = 0; i < 3; i++) {
      await expect(filler.write(client)).rejects.toMatchObject({ code: 'store-full' });
      await quiet.check(server);
    }
    await filler.check(server);

    await rm(join(folder, 'mount', 'ballast'));
    await untilRoom(() => filler.write(client));
    await untilHealth(server, 'ready');
    for (let i = 0; i < 50; i++) await filler.write(client);
    await client.flush();
    await client.close();
    expect(server.pid).toBe(pid);
    await filler.check(server);
    expect(await server.stop()).toBe(0);
    await server.restart();
    await filler.check(server);
    await quiet.check(server);
    expect(
      Buffer.compare(await readExport(server, 'quiet@b/disk0'), await readExport(server, 'quiet/disk0')),
    ).toBe(0);
    await mustVerify(server);
  });

  it('stops in order when others fill the disk to the last byte, and has everything when it starts again', async () => {
    const quiet = await quietVm();
    await createVm(server, 'filler', DISK_BYTES);
    const filler = new Filler('filler', seed);
    const client = await connect(server, 'filler/disk0');
    for (let i = 0; i < 120; i++) await filler.write(client);
    await fillToTheLastByte(join(folder, 'mount', 'others'));
    await filler.untilFull(client);
    await untilHealth(server, 'full');
    // Destage finds no room either.
    await sleep(DESTAGE_MS);
    await quiet.check(server);
    await filler.check(server);
    await client.close();
    expect(await server.stop()).toBe(0);
    // It starts on what is left of the disk, or says why not.
    const start = server.restart();
    await start.then(
      () => filler.check(server),
      (error: unknown) => expect((error as Error).message).toContain('(store-full)'),
    );
    await server.kill();
    await rm(join(folder, 'mount', 'others'));
    await server.restart();
    await quiet.check(server);
    await filler.check(server);
    const again = await connect(server, 'filler/disk0');
    await untilRoom(() => filler.write(again));
    await again.close();
    expect(await server.stop()).toBe(0);
    await server.restart();
    await filler.check(server);
    await mustVerify(server);
  });

  it('gets room by deleting a VM and collecting garbage', async () => {
    const quiet = await quietVm();
    await createVm(server, 'filler', DISK_BYTES);
    const filler = new Filler('filler', seed);
    const client = await connect(server, 'filler/disk0');
    await filler.untilFull(client);
    await client.close();

    await untilRoom(() => server.rest.must('DELETE', '/vms/filler?force=true'));
    const next = new Filler('next', seed ^ 2);
    await untilRoom(() => createVm(server, 'next', DISK_BYTES));
    const again = await connect(server, 'next/disk0');
    await untilRoom(async () => {
      await server.rest.job('/gc');
      for (let i = 0; i < 100; i++) await next.write(again);
    });
    await again.flush();
    await again.close();
    await untilHealth(server, 'ready');
    await next.check(server);
    await server.kill();
    await server.restart();
    await next.check(server);
    await quiet.check(server);
    await mustVerify(server);
  });
});
