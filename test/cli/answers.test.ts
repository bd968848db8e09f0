/** Reports, comparisons, roots and proofs, as people ask for them: one server, and the command. */
import { fillRandom, seededRandom } from '@pando/common/testing';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { TestServer } from '../support/server.ts';
import { pando, type Ran } from './pando.ts';

const MiB = 2 ** 20;
const CHUNK = 4096;

let server: TestServer;
let folder: string;
let golden: Buffer;

async function run(...args: string[]): Promise<Ran> {
  const ran = await pando(args, { url: server.url });
  expect(ran, `${args.join(' ')}: ${ran.stderr}`).toMatchObject({ status: 0 });
  return ran;
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pando-answers-'));
  server = await TestServer.start();
  golden = Buffer.alloc(16 * MiB);
  fillRandom(seededRandom(1), golden.subarray(0, 2 * MiB));
  await writeFile(join(folder, 'golden.raw'), golden);
  const changed = Buffer.from(golden);
  fillRandom(seededRandom(2), changed.subarray(MiB, MiB + 10 * CHUNK));
  await writeFile(join(folder, 'changed.raw'), changed);
  await run('vm', 'import', join(folder, 'golden.raw'), '--name', 'golden');
  await run('vm', 'clone', 'golden', 'web', '--tag', 'ci');
  await run('backup', 'create', 'web', '--name', 'mon');
  await run('vm', 'import', join(folder, 'changed.raw'), '--since', 'web@mon', '--name', 'tue');
});
afterAll(async () => {
  await server.close();
  await rm(folder, { recursive: true });
});

test('accounts add up, to the byte', async () => {
  const { items, totals } = (await run('report', 'accounts', '--by', 'tag', '--json')).json<{
    items: { name?: string; totalBytes: number }[];
    totals: Record<string, number>;
  }>();
  expect(items.reduce((sum, { totalBytes }) => sum + totalBytes, 0)).toBe(totals['ownedBytes']);
  const { storedBytes, untoldBytes, ...parts } = totals;
  expect(Object.values(parts).reduce((sum, bytes) => sum + bytes, 0)).toBe(storedBytes);
  expect(untoldBytes).toBe(0);
  const text = (await run('report', 'accounts')).stdout;
  expect(text).toMatch(/^VM +VMS +BACKUPS +ONLY ITS OWN +OF WHAT IS SHARED +TOGETHER\n/);
  expect(text).toMatch(/\nweb +1 +2 +/);
  expect(text).toMatch(/\non disk +[\d.]+ MiB +all of it/);
});

test('who shares is named, and what deleting frees is said and proposed', async () => {
  expect((await run('report', 'holders', 'web@tue')).stdout).toMatch(
    /web@tue holds .* of it alone\..*golden/s,
  );
  const both = (await run('report', 'reclaim', 'web', '--with-backups', '--json')).json<{
    freedBytes: number;
  }>();
  expect(both.freedBytes).toBeGreaterThan(9 * CHUNK);
  expect((await run('report', 'reclaim', '--tag', 'ci', '--kind', 'backup')).stdout).toMatch(
    /^Deleting 2 backups frees .*STAYS BECAUSE OF/s,
  );
  const plan = (await run('report', 'reclaim', '--free', '20K', '--json')).json<{
    isEnough: boolean;
    items: { name: string }[];
  }>();
  expect(plan).toMatchObject({ isEnough: true, items: [{ name: 'web@tue' }] });
  expect((await run('report', 'reclaim', '--free', '20K', '--smallest')).stdout).toMatch(
    /^Deleting 1 backup frees .* No fewer free as much\.\n/,
  );
  for (const wrong of [[], ['web', '--free', '1G']]) {
    const { status, stderr } = await pando(['report', 'reclaim', ...wrong], { url: server.url });
    expect(status, stderr).toBe(2);
  }
});

test('two disks are compared, with a picture and ranges', async () => {
  const { stdout } = await run('diff', 'golden', 'web@tue', '--ranges');
  expect(stdout).toContain('golden/disk0 and web@tue/disk0 differ in 40 KiB of 16 MiB.');
  expect(stdout).toMatch(/\|    \+ {59}\|/);
  expect(stdout).toMatch(new RegExp(`\\n *${MiB} +${10 * CHUNK} +${10 * CHUNK}\\n1 range`));
  expect((await run('diff', 'web@tue', 'web', '--json')).json()).toEqual({
    a: { name: 'web@tue', disk: 'disk0', sizeBytes: 16 * MiB },
    b: { name: 'web', disk: 'disk0', sizeBytes: 16 * MiB },
    comparedBytes: 16 * MiB,
    changedBytes: 10 * CHUNK,
  });
});

test('a proof is checked against the root, without the server', async () => {
  const { items } = (await run('root', 'web@mon', '--json')).json<{
    items: { root: string; sizeBytes: number }[];
  }>();
  const root = `${items[0]!.root}:${items[0]!.sizeBytes}`;
  expect((await run('root', 'golden')).stdout).toContain(root);
  const proof = join(folder, 'a.proof');
  await run('prove', 'web@mon', proof, '--range', '1000K+70000');
  const nowhere = { url: 'http://127.0.0.1:1' };
  const out = join(folder, 'range.bin');
  const checked = await pando(['check-proof', proof, '--root', root, '--out', out], nowhere);
  expect(checked, checked.stderr).toMatchObject({ status: 0 });
  expect(checked.stdout).toContain(`proves 70000 bytes at 1024000 under the root\n${root}`);
  expect((await readFile(out)).equals(golden.subarray(1_024_000, 1_094_000))).toBe(true);
  expect((await pando(['check-proof', proof], nowhere)).stdout).toContain('only who knows it can tell');

  const refused = async (...args: string[]): Promise<string> => {
    const { status, stderr } = await pando(['check-proof', ...args], nowhere);
    expect(status).toBe(1);
    return stderr;
  };
  expect(await refused(proof, '--root', `${'0'.repeat(64)}:${16 * MiB}`)).toContain('under another root');
  expect(await refused(proof, '--root', `${items[0]!.root}:512`)).toContain('another size');
  const forged = await readFile(proof);
  forged[forged.length - 1]! ^= 1;
  await writeFile(join(folder, 'forged.proof'), forged);
  expect(await refused(join(folder, 'forged.proof'), '--root', root)).toContain(
    'not the one that it must be',
  );
  const again = await pando(['prove', 'web@mon', proof, '--range', '0+1'], { url: server.url });
  expect(again).toMatchObject({ status: 1 });
  expect(again.stderr).toContain('exists');
});
