/**
 * `pando demo`: the whole story in a temporary folder, each step with its time and checked. The commands are those that
 * people type; guests are played by an NBD client that changes a disk.
 */
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { formatSize } from '@pando/common';
import { NbdClient } from '@pando/nbd/client';
import { connect } from '../connect.ts';
import { CommandFailure, explain } from '../failures.ts';
import { firstDifference } from './compare.ts';
import { makeImage, makeNoise } from './image.ts';
import { DemoServer } from './server.ts';

const WRITE_OFFSET = 100 * 1024 * 1024;
const WRITE_BYTES = 1024 * 1024;

const NOISE_BYTES = 8 * 1024 * 1024;

/** Runs a command line, given without the name of the program. */
type RunCommand = (args: readonly string[]) => Promise<unknown>;

export async function runDemo(
  options: { readonly clones: string; readonly keep?: boolean },
  run: RunCommand,
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'pando-demo-'));
  const started = performance.now();
  let server: DemoServer | undefined;
  let failure: unknown;
  // A demo that is interrupted tidies up as well.
  const interrupted = new Promise<never>((_resolve, reject) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const)
      process.once(signal, () => reject(new Error('interrupted')));
  });
  try {
    const story = async (): Promise<void> => {
      const image = join(folder, 'golden.raw');
      await step('make a disk image', async () => {
        const what = await makeImage(folder, image);
        const { size, blocks } = await stat(image);
        say(`${formatSize(size)}, of which ${formatSize(blocks * 512)} are allocated: ${what}`);
      });
      server = await step('start a server', () =>
        DemoServer.start(join(folder, 'data'), join(folder, 'config')),
      );
      say(`REST ${server.url}, NBD ${server.nbd.host}:${server.nbd.port}`);
      process.env['PANDO_URL'] = server.url;
      delete process.env['PANDO_TOKEN'];
      process.env['PANDO_TOKEN_FILE'] = server.tokenFile;
      await play(folder, image, server, Number(options.clones), run);
    };
    await Promise.race([story(), interrupted]);
  } catch (error) {
    failure = error;
  }
  try {
    await step('stop the server and tidy up', async () => {
      await server?.stop();
      if (options.keep === true) say(`left behind: ${folder}`);
      else await rm(folder, { recursive: true, force: true });
    });
  } catch (error) {
    failure ??= error;
  }
  if (failure !== undefined) {
    process.stderr.write(`\nThe demo failed.\n${explain(failure, false)}`);
    throw new CommandFailure(1);
  }
  process.stdout.write(`\nAll is well, after ${seconds(started)}.\n`);
}

async function play(
  folder: string,
  image: string,
  server: DemoServer,
  clones: number,
  run: RunCommand,
): Promise<void> {
  /** Runs a command as if it had been typed. */
  const pando = async (...args: string[]): Promise<void> => {
    const typed = ['pando', ...args].map((arg) => (/^[\w@./-]+$/.test(arg) ? arg : `'${arg}'`)).join(' ');
    await step(`$ ${typed}`, () => run(args));
  };
  const client = connect();
  await pando('vm', 'import', image, '--name', 'golden');
  await pando('vm', 'clone', 'golden', 'web', '--count', String(clones));
  const vms = await step('list them', () => client.all('listVms'));
  expect(vms.length === clones + 1, `there are ${vms.length} VMs, not ${clones + 1}`);
  say(`${vms.length} VMs`);
  await pando('vm', 'show', 'web-1');
  await pando('backup', 'create', 'web-1', '--name', 'before-upgrade');

  const written = Buffer.alloc(WRITE_BYTES, 'upgraded ');
  await step(`a guest writes ${formatSize(WRITE_BYTES)} to web-1 over NBD, and flushes`, async () => {
    const disk = await NbdClient.connect(server.nbd, { exportName: 'web-1/disk0' });
    try {
      await disk.write(WRITE_OFFSET, written);
      await disk.flush();
      const read = Buffer.alloc(WRITE_BYTES);
      await disk.read(WRITE_OFFSET, WRITE_BYTES, read, 0);
      expect(read.equals(written), 'what was read back is not what was written');
    } finally {
      await disk.close();
    }
  });
  const changed = join(folder, 'changed.raw');
  await pando('vm', 'export', 'web-1', changed);
  await compare(changed, image, WRITE_OFFSET);

  await pando('backup', 'restore', 'web-1@before-upgrade', '--as', 'web-1b');
  const restored = join(folder, 'restored.raw');
  await pando('vm', 'export', 'web-1b', restored);
  await compare(restored, image, -1);
  await pando('backup', 'restore', 'web-1@before-upgrade');
  const inPlace = join(folder, 'in-place.raw');
  await pando('vm', 'export', 'web-1', inPlace);
  await compare(inPlace, image, -1);

  const noise = join(folder, 'noise.raw');
  await makeNoise(noise, NOISE_BYTES);
  await pando('vm', 'import', noise, '--name', 'noise');
  await pando('report', 'space');
  await pando('vm', 'rm', 'golden', 'web-1b', 'noise');
  const before = await client.call('reportSpace');
  expect(before.garbageBytes >= NOISE_BYTES, `only ${before.garbageBytes} bytes are garbage`);
  await pando('gc', 'run');
  const last = join(folder, 'last.raw');
  await pando('vm', 'export', `web-${clones}`, last);
  await compare(last, image, -1);
  await pando('verify');
  await pando('report', 'space');
  const space = await client.call('reportSpace');
  expect(
    space.vms === clones && space.backups === 1,
    `${space.vms} VMs and ${space.backups} backups are left`,
  );
  const { size } = await stat(image);
  expect(
    space.storedBytes < size,
    `${clones} VMs and a backup take ${space.storedBytes} bytes, more than one disk`,
  );
}

async function compare(exported: string, image: string, expected: number): Promise<void> {
  const what =
    expected < 0
      ? 'it is the image, byte for byte'
      : `it is the image up to byte ${expected}, where the guest wrote`;
  await step('compare the exported file', async () => {
    const at = await firstDifference(exported, image);
    expect(at === expected, at < 0 ? 'the files are equal' : `the files differ at byte ${at}`);
    say(what);
  });
}

async function step<T>(title: string, action: () => Promise<T>): Promise<T> {
  process.stdout.write(`\n${title}\n`);
  const started = performance.now();
  const result = await action();
  say(`— ${seconds(started)}`);
  return result;
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

function seconds(since: number): string {
  const ms = performance.now() - since;
  return ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

function expect(condition: boolean, otherwise: string): void {
  if (!condition) throw new Error(otherwise);
}
