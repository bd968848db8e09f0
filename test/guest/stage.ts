/**
 * What stories with guests are played on: a server, the command `pando`, a golden VM with two disks (the system, and
 * an empty one for data), and guests. All of it ends with the test, whatever happens; when the test fails, the ends of all
 * consoles and logs are printed, and the whole of them is kept in `$PANDO_TEST_ARTIFACTS` (default: the folder
 * for temporary files).
 */
import { mkdir, mkdtemp, readdir, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { onTestFailed, onTestFinished } from 'vitest';
import { pando } from '../cli/pando.ts';
import { TestServer } from '../support/server.ts';
import { mustRun } from '../support/tools.ts';
import { guestImage, type GuestImage } from './build-image.ts';
import { Guest } from './qemu.ts';

export const TOOLS = [
  ...['qemu-system-x86_64', 'setpriv', 'nbdcopy'],
  ...['mmdebstrap', 'mke2fs', 'flock'], // which build the image
];

const DATA_DISK_BYTES = 1024 ** 3;
const WORK = fileURLToPath(new URL('work', import.meta.url));

export class Stage {
  readonly server: TestServer;
  readonly #image: GuestImage;
  readonly #guests: { readonly name: string; readonly guest: Guest }[] = [];

  private constructor(server: TestServer, image: GuestImage) {
    this.server = server;
    this.#image = image;
  }

  /** To be called in a test, which then owns it: nothing has to be closed. */
  static async open(): Promise<Stage> {
    const image = await guestImage();
    const server = await TestServer.start();
    const stage = new Stage(server, image);
    onTestFinished(() => stage.#close(), 60_000);
    onTestFailed(() => stage.#keepLogs(), 60_000);
    const disks = ['--disk', 'system=2G', '--disk', `data=${DATA_DISK_BYTES / 1024 ** 2}M`];
    await stage.pando('vm', 'create', 'golden', ...disks);
    await mustRun('nbdcopy', ['--destination-is-zero', image.disk, server.nbdUri('golden/system', 'unix')]);
    return stage;
  }

  /** Runs the command with `--json` and resolves to what it prints. @throws Error when it does not end with 0 */
  async pando<T = Record<string, unknown>>(...args: readonly string[]): Promise<T> {
    const ran = await pando([...args, '--json'], { url: this.server.url });
    if (ran.status !== 0) throw new Error(`pando ${args.join(' ')} ended with ${ran.status}:\n${ran.stderr}`);
    return ran.json<T>();
  }

  /** Boots a VM from its exports, with the scripts of `work/` in /run/work. */
  async boot(
    vm: string,
    options: { readonly transport?: 'tcp' | 'unix'; readonly kernelArguments?: string } = {},
  ): Promise<Guest> {
    const { transport = 'unix', ...more } = options;
    const drives = ['system', 'data'].map((disk) => this.server.nbdUri(`${vm}/${disk}`, transport));
    const guest = await Guest.boot({ image: this.#image, drives, ...more });
    this.#guests.push({ name: vm, guest });
    await guest.must('mkdir /run/work');
    for (const script of await readdir(WORK)) {
      const text = await readFile(join(WORK, script), 'utf8');
      await guest.must(`cat >/run/work/${script} <<'THE END'\n${text}THE END`);
    }
    return guest;
  }

  async #close(): Promise<void> {
    await Promise.all(this.#guests.map(({ guest }) => guest.close()));
    await this.server.close();
  }

  async #keepLogs(): Promise<void> {
    const parent = process.env['PANDO_TEST_ARTIFACTS'] ?? tmpdir();
    await mkdir(parent, { recursive: true });
    const folder = await mkdtemp(join(parent, 'pando-guests-'));
    await writeFile(join(folder, 'server.log'), this.server.log);
    for (const [index, { name, guest }] of this.#guests.entries()) {
      const path = join(folder, `${index}-${name}`);
      await writeFile(`${path}.console`, guest.console, 'latin1');
      await writeFile(`${path}.reports`, guest.reports.join('\n'), 'latin1');
      console.error(`── ${name}: ${guest.describe()}`);
    }
    console.error(`── the server said:\n${this.server.log.slice(-5000)}`);
    console.error(`── consoles and logs are kept in ${folder}`);
  }
}

/** Prints how long each part took: for people who wonder where the time goes. */
export function stopwatch(): (what: string) => void {
  let since = performance.now();
  return (what) => {
    const now = performance.now();
    console.log(`${what}: ${((now - since) / 1000).toFixed(1)} s`);
    since = now;
  };
}
