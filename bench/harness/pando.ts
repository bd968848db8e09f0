/** The real Pando server as a side: a process of its own, and the command `pando` as a user types it. */
import { createReadStream } from 'node:fs';
import { mkdir, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Rest } from '../../test/support/rest.ts';
import { TestServer } from '../../test/support/server.ts';
import type { Bench } from './bench.ts';
import { endWithBench, hasEnded, peakBytes, run, untilQuiet } from './processes.ts';

const CLI = fileURLToPath(new URL('../../apps/cli/bin/pando.js', import.meta.url));
const DESTAGED_MS_MAX = 120_000;
const LOOK_EVERY_MS = 250;

export interface PandoOptions {
  /** An existing empty folder: the data directory is made in it. */
  readonly folder: string;
  /** More flags. */
  readonly args?: readonly string[];
}

export class Pando {
  readonly dataDirectory: string;
  readonly #server: TestServer;
  readonly #bench: Bench;

  private constructor(server: TestServer, bench: Bench) {
    this.#server = server;
    this.#bench = bench;
    this.dataDirectory = server.dataDirectory;
  }

  static async start(bench: Bench, options: PandoOptions): Promise<Pando> {
    const dataDirectory = join(options.folder, 'data');
    await mkdir(dirname(dataDirectory), { recursive: true });
    const { profileDirectory } = bench;
    const server = await TestServer.start({
      dataDirectory,
      wrapper: bench.pin.prefix,
      // A collection that happens to fall into one round would be noise, not an answer.
      args: ['--log-level', 'warn', '--gc-every', '0', ...(options.args ?? [])],
      env:
        profileDirectory === undefined
          ? {}
          : { NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${profileDirectory}` },
    });
    endWithBench(server.pid);
    return new Pando(server, bench);
  }

  get rest(): Rest {
    return this.#server.rest;
  }

  get pid(): number {
    return this.#server.pid!;
  }

  get nbdSocket(): string {
    return this.#server.nbdSocket;
  }

  uri(exportName: string): string {
    return this.#server.nbdUri(exportName, 'unix');
  }

  get token(): string {
    return this.#server.token;
  }

  get url(): string {
    return this.#server.url;
  }

  /** Runs `pando …` against this server. */
  async cli(...args: readonly string[]): Promise<string> {
    return run(process.execPath, [CLI, ...args], {
      env: { PANDO_URL: this.#server.url, PANDO_TOKEN: this.#server.token },
    });
  }

  /** Makes a VM of one disk, `disk0`, of a raw image: for what is measured afterwards. */
  async upload(path: string, name: string): Promise<void> {
    const { size } = await stat(path);
    const response = await this.#server.fetch(`/api/v1/imports?name=${name}`, {
      method: 'POST',
      headers: { 'content-type': 'application/octet-stream', 'content-length': String(size) },
      body: Readable.toWeb(createReadStream(path)) as ReadableStream,
      duplex: 'half',
    });
    if (response.status !== 201) throw new Error(`uploading ${path}: ${await response.text()}`);
  }

  /** Seconds from typing the command to its end. */
  async timedCli(...args: readonly string[]): Promise<number> {
    const started = performance.now();
    await this.cli(...args);
    return (performance.now() - started) / 1000;
  }

  /** What it counts under a name, as `/metrics` says; the sum where there are labels. */
  async metric(name: string): Promise<number> {
    const text = await (await this.#server.fetch('/metrics')).text();
    const samples = text.matchAll(new RegExp(`^${name}(?:\\{.*\\})? (\\S+)$`, 'gm'));
    const values = [...samples].map((match) => Number(match[1]));
    if (values.length === 0) throw new Error(`the server does not count ${name}`);
    return values.reduce((sum, value) => sum + value, 0);
  }

  /** Waits until what was written is destaged, and the server idle. In a smoke run it does not: that takes seconds. */
  async settle(): Promise<void> {
    if (this.#bench.isSmoke) return;
    const deadline = performance.now() + DESTAGED_MS_MAX;
    // Past the time after which the server begins to destage what nobody asked it to.
    while ((await this.metric('pando_overlays')) > 0) {
      if (performance.now() > deadline) throw new Error(`not destaged after ${DESTAGED_MS_MAX} ms`);
      await sleep(LOOK_EVERY_MS);
    }
    await untilQuiet(this.pid);
  }

  /** An orderly stop, with everything on disk. */
  async stop(): Promise<void> {
    try {
      this.#bench.notePeak(await peakBytes(this.pid));
      const status = await this.#server.stop();
      if (status !== 0) throw new Error(`the server ended with ${String(status)}\n${this.#server.log}`);
    } finally {
      await this.#server.close();
      hasEnded(this.#server.pid);
    }
  }
}
