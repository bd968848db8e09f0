import { MemoryBlockDevice } from '@pando/block-device';
import type { BlockDevice } from '@pando/block-device';
import { testBlockDevice } from '@pando/block-device/conformance';
import { DelayDevice, SeededRandom } from '@pando/block-device/testing';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect } from 'vitest';
import type { ReplyStyle } from './negotiation.ts';
import { createNbdServer } from './server.ts';
import { tlsCredentials } from './tls.ts';
import type { ClientTls } from './client/client-tls.ts';
import { NbdClient } from './client/client.ts';
import {
  AUTHORITY,
  CLIENT_CERTIFICATE,
  CLIENT_KEY,
  SERVER_CERTIFICATE,
  SERVER_KEY,
} from './testing/certificates.ts';
import { DeviceExports } from './testing/device-exports.ts';
import type { NbdAddress, NbdServer } from './types.ts';

const KEY = Buffer.alloc(32, 7);
const exports = new DeviceExports();
const clients: NbdClient[] = [];
let folder: string;
let server: NbdServer;
let unix: NbdAddress;
let tcp: NbdAddress;
let devices = 0;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pando-nbd-'));
  const credentials = tlsCredentials(
    {
      certificate: SERVER_CERTIFICATE,
      key: SERVER_KEY,
      clientCa: AUTHORITY,
      pskKeys: `alice:${KEY.toString('hex')}\n`,
    },
    Date.now(),
  );
  server = createNbdServer({ exports, tls: 'allow', credentials });
  unix = await server.listen({ path: join(folder, 'nbd.sock') });
  tcp = await server.listen({ host: '127.0.0.1', port: 0 });
});

afterAll(async () => {
  await server.close();
  await rm(folder, { recursive: true });
});

async function connect(
  address: NbdAddress,
  exportName: string,
  replies: ReplyStyle,
  tls?: ClientTls,
): Promise<NbdClient> {
  const client = await NbdClient.connect(address, {
    exportName,
    ...(tls === undefined ? {} : { tls }),
    structuredReplies: replies !== 'simple',
    extendedHeaders: replies === 'extended',
  });
  clients.push(client);
  expect(client.session.structuredReplies).toBe(replies !== 'simple');
  expect(client.session.extendedHeaders).toBe(replies === 'extended');
  return client;
}

/** Some operations finish at once, some in the next turn, some a few turns later: replies overtake each other. */
function someLater(seed: number): () => Promise<void> | undefined {
  const random = new SeededRandom(seed);
  return () => {
    let turns = random.below(4);
    if (turns === 0) return undefined;
    return new Promise((resolve) => {
      const step = (): void => {
        if (turns-- > 0) setImmediate(step);
        else resolve();
      };
      step();
    });
  };
}

interface Variant {
  readonly name: string;
  readonly address: () => NbdAddress;
  readonly replies: ReplyStyle;
  readonly tls?: ClientTls;
  readonly wrap: (device: BlockDevice) => BlockDevice;
}

const variants: readonly Variant[] = [
  {
    name: 'NBD, Unix socket, structured replies',
    address: () => unix,
    replies: 'structured',
    wrap: (device) => device,
  },
  {
    name: 'NBD, TCP, structured replies',
    address: () => tcp,
    replies: 'structured',
    wrap: (device) => device,
  },
  {
    name: 'NBD, Unix socket, simple replies',
    address: () => unix,
    replies: 'simple',
    wrap: (device) => device,
  },
  {
    name: 'NBD, TCP, a device that takes its time',
    address: () => tcp,
    replies: 'structured',
    wrap: (device) => new DelayDevice(device, someLater(11)),
  },
  {
    name: 'NBD, Unix socket, simple replies, a device that takes its time',
    address: () => unix,
    replies: 'simple',
    wrap: (device) => new DelayDevice(device, someLater(12)),
  },
  {
    name: 'NBD, Unix socket, extended headers',
    address: () => unix,
    replies: 'extended',
    wrap: (device) => device,
  },
  {
    name: 'NBD, TCP, extended headers, a device that takes its time',
    address: () => tcp,
    replies: 'extended',
    wrap: (device) => new DelayDevice(device, someLater(13)),
  },
  {
    name: 'NBD, TCP, TLS by certificate, structured replies, a device that takes its time',
    address: () => tcp,
    replies: 'structured',
    tls: { kind: 'x509', ca: AUTHORITY, certificate: CLIENT_CERTIFICATE, key: CLIENT_KEY },
    wrap: (device) => new DelayDevice(device, someLater(14)),
  },
  {
    name: 'NBD, Unix socket, TLS by key, extended headers',
    address: () => unix,
    replies: 'extended',
    tls: { kind: 'psk', identity: 'alice', key: KEY },
    wrap: (device) => device,
  },
];

for (const { name, address, replies, tls, wrap } of variants) {
  const names = new Map<BlockDevice, string>();
  const open = async (device: BlockDevice): Promise<NbdClient> => {
    const exportName = `device-${devices++}`;
    exports.set(exportName, device);
    const client = await connect(address(), exportName, replies, tls);
    names.set(client, exportName);
    return client;
  };
  testBlockDevice(
    name,
    {
      create: (size) => open(wrap(new MemoryBlockDevice({ size }))),
      createReadOnly: (size) => open(wrap(new MemoryBlockDevice({ size, readOnly: true }))),
      openAnother: (device) => connect(address(), names.get(device)!, replies, tls),
      cleanUp: async () => {
        await Promise.all(clients.splice(0).map((client) => client.close()));
        names.clear();
      },
    },
    { reportsHoles: replies !== 'simple', modelOperations: 250 },
  );
}
