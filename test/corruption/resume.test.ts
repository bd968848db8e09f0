/** A verification that was cut off goes on where it was, and still knows what it had found. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fillRandom, runSeed, seededRandom } from '@pando/common/testing';
import { serve, type Serving } from '@pando/server';
import { expect, it } from 'vitest';
import { pando } from '../cli/pando.ts';
import { importVm, MiB } from '../support/disks.ts';
import { restOf } from '../support/rest.ts';

interface Unfinished {
  readonly doneBytes: number;
  readonly allBytes: number;
  readonly damagedSegments: number;
}

interface Last {
  readonly full?: { readonly scheduled: boolean; readonly report: { readonly damaged: readonly unknown[] } };
  readonly unfinished?: Unfinished;
}

const seed = runSeed();

async function last(server: Serving): Promise<Last> {
  return (await restOf(server).must('GET', '/verify/last')) as Last;
}

interface JobView {
  readonly state: string;
  readonly progress?: { readonly phase?: string; readonly done: number; readonly all?: number };
}

/** Waits until the verification that the server runs by itself is so far. Resolves to how far it was when it was first seen. */
async function reached(server: Serving, share: number): Promise<number> {
  let first: number | undefined;
  for (;;) {
    const { items } = (await restOf(server).must('GET', '/jobs')) as { items: readonly JobView[] };
    const [job] = items;
    if (job !== undefined) {
      expect(job.state).toMatch(/queued|running/);
      if (job.progress !== undefined) {
        const done = job.progress.done / job.progress.all!;
        first ??= done;
        if (done >= share) return first;
      }
    }
    await sleep(20);
  }
}

it(`goes on over stops of the server, by itself and when it is told to (seed ${seed})`, async () => {
  const folder = await mkdtemp(join(tmpdir(), 'pando-resume-'));
  const dataDirectory = join(folder, 'data');
  const own: Serving[] = [];
  const serving = async (verifyEveryMs: number): Promise<Serving> => {
    const address = { host: '127.0.0.1', port: 0 };
    const how = { gcEveryMs: 0, verifyEveryMs, verifyBytesPerSecond: MiB };
    const server = await serve({ dataDirectory, http: address, nbd: address, ...how });
    own.push(server);
    return server;
  };
  try {
    const random = seededRandom(seed);
    for (let i = 0; i < 5; i++) {
      const server = await serving(0);
      const image = fillRandom(random, new Uint8Array(MiB));
      await importVm(server, `vm-${i}`, image);
      await server.close(); // seals the segment
    }
    const segments = join(dataDirectory, 'segments');
    const [first] = (await readdir(segments)).sort();
    const bytes = await readFile(join(segments, first!));
    bytes[bytes.byteLength >> 1]! ^= 1;
    await writeFile(join(segments, first!), bytes);

    let scrubbing = await serving(1000);
    await reached(scrubbing, 0.3);
    await scrubbing.close();

    const quiet = await serving(0);
    const cutOff = (await last(quiet)).unfinished!;
    expect(cutOff.damagedSegments).toBe(1);
    expect(cutOff.doneBytes).toBeGreaterThan(0);
    expect(cutOff.doneBytes).toBeLessThan(cutOff.allBytes);
    const told = await pando(['verify', '--last'], { url: quiet.addresses.http });
    expect(told.stdout).toMatch(
      /Not finished: the full one begun .+, at \d+ %, damage in 1 segment so far\. pando verify --resume goes on with it\.\n$/,
    );
    await quiet.close();

    // The server goes on by itself, and is stopped again.
    scrubbing = await serving(1000);
    expect(await reached(scrubbing, 0.6)).toBeGreaterThanOrEqual(cutOff.doneBytes / cutOff.allBytes);
    await scrubbing.close();

    const resumed = await pando(['verify', '--resume', '--data', dataDirectory]);
    expect(resumed.status, resumed.stderr).toBe(1);
    const [, percent] = /^resumed at (\d+) %\n/.exec(resumed.stdout)!;
    expect(Number(percent)).toBeGreaterThan(Math.floor((cutOff.doneBytes / cutOff.allBytes) * 100));
    expect(resumed.stdout).toContain(`segments/${first!} at byte `);
    expect(resumed.stdout).toContain('Affected: 1 disk.');

    const after = await serving(0);
    expect(await last(after)).toMatchObject({ full: { scheduled: false } });
    expect(await last(after)).not.toHaveProperty('unfinished');
    const none = await pando(['verify', '--resume'], { url: after.addresses.http });
    expect(none.stdout).toMatch(/^There was none to go on with: from the start\.\n/);
    expect(none.stdout).toContain(`segments/${first!} at byte `);
    expect((await pando(['verify', '--resume', '--quick'])).status).toBe(2);
  } finally {
    for (const each of own) await each.close();
    await rm(folder, { recursive: true, force: true });
  }
});
