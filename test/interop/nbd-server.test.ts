/** Real clients on VMs of the real server: what passes on memory and fails here is the engine's fault. */
import { TestServer } from '../support/server.ts';
import { testNbdClients } from './nbd-clients.ts';
import type { DiskFactory } from './nbd-clients.ts';
import { testStorageTools } from './storage-tools.ts';

async function start(): Promise<DiskFactory> {
  const server = await TestServer.start();
  let vms = 0;
  return {
    create: async (sizeBytes) => {
      const name = `vm-${++vms}`;
      await server.rest.must('POST', '/vms', { name, disks: [{ name: 'disk0', sizeBytes }] });
      const exportName = `${name}/disk0`;
      return {
        exportName,
        socket: server.nbdSocket,
        uri: server.nbdUri(exportName, 'unix'),
        tcpUri: server.nbdUri(exportName),
      };
    },
    close: () => server.close(),
  };
}

testNbdClients('VMs of the real server', start);
testStorageTools('VMs of the real server', start);
