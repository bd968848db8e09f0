/** Real clients on VMs of the real server: what passes on memory and fails here is the engine's fault. */
import { TestServer } from '../support/server.ts';
import { testNbdClients } from './nbd-clients.ts';

testNbdClients('VMs of the real server', async () => {
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
});
