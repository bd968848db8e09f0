/** A server with devices in memory, and everything that tests have opened on it, in one place. */
import { MemoryBlockDevice } from '@pando/block-device';
import type { BlockDevice } from '@pando/block-device';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createNbdServer } from '../server.ts';
import type { NbdAddress, NbdServer, NbdServerOptions } from '../types.ts';
import { DeviceExports } from './device-exports.ts';
import { RawClient } from './raw-client.ts';

export class TestServer {
  readonly server: NbdServer;
  readonly exports: DeviceExports;
  readonly address: NbdAddress;
  readonly #folder: string;
  readonly #clients: RawClient[] = [];

  /** Listens on a Unix socket (or TCP, port 0) and exports `disk`: 1 MiB in memory unless a device is given. */
  static async start(
    options: Omit<NbdServerOptions, 'exports'> & { device?: BlockDevice; tcp?: boolean } = {},
  ): Promise<TestServer> {
    const { device = new MemoryBlockDevice({ size: 2 ** 20 }), tcp = false, ...serverOptions } = options;
    const exports = new DeviceExports();
    exports.set('disk', device);
    const server = createNbdServer({ ...serverOptions, exports });
    const folder = await mkdtemp(join(tmpdir(), 'pando-nbd-'));
    const address = await server.listen(
      tcp ? { host: '127.0.0.1', port: 0 } : { path: join(folder, 'nbd.sock') },
    );
    return new TestServer(server, exports, address, folder);
  }

  private constructor(server: NbdServer, exports: DeviceExports, address: NbdAddress, folder: string) {
    this.server = server;
    this.exports = exports;
    this.address = address;
    this.#folder = folder;
  }

  connect(): RawClient {
    const client = new RawClient(this.address);
    this.#clients.push(client);
    return client;
  }

  /** Ends the clients, then the server. */
  async stop(): Promise<void> {
    for (const client of this.#clients) client.destroy();
    await this.server.close({ drainMsMax: 2_000 });
    await rm(this.#folder, { recursive: true, force: true });
  }
}

/** Polls until the condition holds; gives up after a generous while. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  for (let i = 0; i < 2_000; i++) {
    if (condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error(`never happened: ${what}`);
}
