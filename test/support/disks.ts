/** What tests do with VMs of a real server: make them, open their disks, read them whole. */
import { createHash } from 'node:crypto';
import { NbdClient } from '@pando/nbd/client';
import type { TestServer } from './server.ts';
import { tokenOfServing, type Reachable } from './tokens.ts';

export const MiB = 2 ** 20;

/** A VM with one empty disk, `disk0`. */
export async function createVm(server: TestServer, name: string, sizeBytes: number): Promise<void> {
  await server.rest.must('POST', '/vms', { name, disks: [{ name: 'disk0', sizeBytes }] });
}

/** A VM whose `disk0` is `image`, uploaded. */
export async function importVm(
  server: Pick<TestServer, 'fetch'> | Reachable,
  name: string,
  image: Uint8Array,
): Promise<void> {
  const type = { 'content-type': 'application/octet-stream' };
  const upload = { method: 'POST', body: image.slice() };
  const send = (path: string): Promise<Response> => {
    if ('fetch' in server) return server.fetch(path, { ...upload, headers: type });
    const headers = { ...type, authorization: `Bearer ${tokenOfServing(server)}` };
    return fetch(server.addresses.http + path, { ...upload, headers });
  };
  const response = await send(`/api/v1/imports?name=${encodeURIComponent(name)}`);
  if (response.status !== 201) {
    throw new Error(`the import of ${name} answered ${response.status}: ${await response.text()}`);
  }
  await response.arrayBuffer();
}

/** Opens an export over TCP. The caller closes it. */
export function connect(server: TestServer, exportName: string): Promise<NbdClient> {
  return NbdClient.connect({ host: '127.0.0.1', port: server.nbdPort }, { exportName });
}

/** All bytes of an export. */
export async function readExport(server: TestServer, exportName: string): Promise<Buffer> {
  const client = await connect(server, exportName);
  try {
    const bytes = Buffer.alloc(client.size);
    await client.read(0, client.size, bytes, 0);
    return bytes;
  } finally {
    await client.close();
  }
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** The job `POST /verify` reads every chunk. @throws Error with what is damaged */
export async function mustVerify(server: TestServer): Promise<void> {
  const { damaged, disks, isComplete } = (await server.rest.job('/verify')) as {
    damaged: readonly unknown[];
    disks: readonly unknown[];
    isComplete: boolean;
  };
  if (damaged.length > 0 || disks.length > 0 || !isComplete)
    throw new Error(`verify found damage: ${JSON.stringify({ damaged, disks, isComplete })}`);
}
