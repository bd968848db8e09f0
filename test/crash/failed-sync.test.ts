/**
 * A sync that really fails, in the real server: strace answers it with EIO in place of the kernel. For each of the four kinds of
 * file that are synced: `/health` says so, nothing is written any more, no sync of the file is tried again,
 * reads go on, and the next start has everything that had been flushed.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fillRandom, seededRandom } from '@pando/common/testing';
import { describe, expect } from 'vitest';
import { connect, createVm, importVm, MiB, readExport } from '../support/disks.ts';
import { TestServer } from '../support/server.ts';
import { itWithTools } from '../support/tools.ts';

const CHUNK = 4096;
const image = Buffer.from(fillRandom(seededRandom(1), new Uint8Array(MiB)));
const flushed = Buffer.from(fillRandom(seededRandom(2), new Uint8Array(CHUNK)));

/** strace, attached to a process. */
class Injector {
  readonly #child: ChildProcess;
  readonly #output: string;

  private constructor(child: ChildProcess, output: string) {
    this.#child = child;
    this.#output = output;
  }

  /** From when it resolves on, every sync of `file` by any thread of the server fails. */
  static async attach(server: TestServer, file: string): Promise<Injector> {
    const output = join(tmpdir(), `pando-strace-${process.pid}-${server.pid!}`);
    const what = ['-P', file, '-e', 'trace=fsync,fdatasync', '-e', 'inject=fsync,fdatasync:error=EIO'];
    const child = spawn('strace', ['-f', '-o', output, ...what, '-p', String(server.pid)], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let said = '';
    await new Promise<void>((resolve, reject) => {
      child.stderr.on('data', (data: Buffer) => {
        said += data.toString();
        if (/attached/.test(said)) resolve();
      });
      child.on('exit', () => reject(new Error(`strace ended: ${said}`)));
    });
    return new Injector(child, output);
  }

  /** Lets go of the server; resolves to how many syncs it has made fail. */
  async detach(): Promise<number> {
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGINT');
    await ended;
    const lines = (await readFile(this.#output, 'utf8')).split('\n');
    await rm(this.#output);
    return lines.filter((line) => line.includes('(INJECTED)')).length;
  }
}

interface Case {
  readonly what: string;
  /** The file that it is about, which is there when the disks have been made. */
  readonly file: (data: string) => Promise<string>;
  /** Something that has to sync it, and fails. */
  readonly provoke: (server: TestServer) => Promise<unknown>;
}

const newest = async (folder: string, end: string): Promise<string> =>
  join(
    folder,
    (await readdir(folder))
      .filter((name) => name.endsWith(end))
      .sort()
      .at(-1)!,
  );

async function writeTo(server: TestServer, exportName: string, data: Uint8Array): Promise<void> {
  const client = await connect(server, exportName);
  try {
    await client.write(0, data);
    await client.flush();
  } finally {
    await client.close();
  }
}

const CASES: readonly Case[] = [
  {
    what: 'the write log',
    file: (data) => newest(join(data, 'log'), '.log'),
    provoke: (server) => writeTo(server, 'other/disk0', image.subarray(0, CHUNK)),
  },
  {
    what: 'a segment',
    file: (data) => newest(join(data, 'segments'), '.seg'),
    // More than what is stored already, so that it has to be written.
    provoke: (server) => importVm(server, 'more', fillRandom(seededRandom(3), new Uint8Array(MiB))),
  },
  {
    what: 'the catalog',
    file: (data) => newest(join(data, 'catalog'), '.log'),
    provoke: (server) => createVm(server, 'more', MiB),
  },
  {
    what: 'the index',
    file: (data) => newest(join(data, 'index'), '.log'),
    // A collection seals the segment, and notes in the index how far that is complete.
    provoke: (server) => server.rest.job('/gc'),
  },
];

describe('a failed sync of', () => {
  for (const { what, file, provoke } of CASES) {
    itWithTools(['strace'], what, async () => {
      const server = await TestServer.start({ args: ['--gc-every', '0', '--verify-every', '0'] });
      try {
        await importVm(server, 'web', image);
        await createVm(server, 'other', MiB);
        await writeTo(server, 'web/disk0', flushed);
        expect(await server.rest.must('GET', '/health')).toMatchObject({ status: 'ok', store: 'ready' });
        const injector = await Injector.attach(server, await file(server.dataDirectory));
        let syncs: number;
        try {
          await expect(provoke(server)).rejects.toThrow();
          await expect
            .poll(async () => (await server.rest.call('GET', '/health')).body, { timeout: 30_000 })
            .toMatchObject({ status: 'failed', store: 'failed' });
          // Long enough for whatever would try again by itself: destage looks twice a second.
          await sleep(1_000);
        } finally {
          syncs = await injector.detach();
        }
        expect(syncs).toBe(1);
        // The disk would work again, and that changes nothing: what the kernel has dropped, no later sync brings.
        expect((await server.rest.call('GET', '/health')).status).toBe(503);
        await expect(writeTo(server, 'other/disk0', image.subarray(0, CHUNK))).rejects.toThrow();
        await expect(server.rest.must('POST', '/vms/web/backups', { name: 'late' })).rejects.toThrow(
          /store-failed/,
        );
        // Whether the commit is there after a restart nobody knows: what it alone reaches is no garbage.
        if (what === 'the catalog')
          await expect(server.rest.job('/gc')).rejects.toThrow(/nothing is collected/);
        const expected = Buffer.concat([flushed, image.subarray(CHUNK)]);
        expect((await readExport(server, 'web/disk0')).equals(expected)).toBe(true);
        await server.kill();
        await server.restart();
        expect(await server.rest.must('GET', '/health')).toMatchObject({ status: 'ok' });
        expect((await readExport(server, 'web/disk0')).equals(expected)).toBe(true);
        await writeTo(server, 'other/disk0', flushed);
      } finally {
        await server.close();
      }
    });
  }
});
