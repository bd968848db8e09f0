/** Real clients on disks in memory: what fails here is the NBD server's fault, not the engine's. */
import { MemoryBlockDevice } from '@pando/block-device';
import { createNbdServer } from '@pando/nbd';
import { DeviceExports } from '@pando/nbd/testing';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { testNbdClients } from './nbd-clients.ts';
import type { DiskFactory } from './nbd-clients.ts';
import { testStorageTools } from './storage-tools.ts';

async function start(): Promise<DiskFactory> {
  const folder = await mkdtemp(join(tmpdir(), 'pando-interop-'));
  const socket = join(folder, 'nbd.sock');
  const exports = new DeviceExports();
  const server = createNbdServer({ exports });
  await server.listen({ path: socket });
  const tcp = await server.listen({ host: '127.0.0.1', port: 0 });
  const port = 'port' in tcp ? tcp.port : 0;
  let disks = 0;
  return {
    create: (sizeBytes) => {
      const exportName = `vm-${++disks}/disk0`;
      exports.set(exportName, new MemoryBlockDevice({ size: sizeBytes }));
      return Promise.resolve({
        exportName,
        socket,
        uri: `nbd+unix:///${exportName}?socket=${socket}`,
        tcpUri: `nbd://127.0.0.1:${port}/${exportName}`,
      });
    },
    close: async () => {
      await server.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

testNbdClients('disks in memory', start);
testStorageTools('disks in memory', start);
