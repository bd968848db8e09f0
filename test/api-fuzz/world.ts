/**
 * The server that is fuzzed, with a bit of everything in it: VMs with and without tags, data and clients; backups, a locked one among them; policies, a
 * suspended one; webhooks, jobs, tokens of every role with and without a scope; files to import, good and bad; guests that freeze, and that do not.
 */
import { NbdClient } from '@pando/nbd/client';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FakeGuest } from '../../packages/guest-agent/src/fake-agent.ts';
import { TestServer } from '../support/server.ts';

const SCHEDULE = { timeZone: 'Europe/Berlin', everyMinutes: 60 };
const FAR_MS = 1000 * 24 * 60 * 60_000;

export interface World {
  readonly server: TestServer;
  /** Authorization of requests, the first that of most: an admin. */
  readonly actors: readonly Readonly<Record<string, string>>[];
  /** Names and ids of the actors' tokens: to revoke one would end what is fuzzed. */
  readonly spared: readonly string[];
  /** Texts that chance does not come by, by the names of parameters. */
  readonly known: Readonly<Record<string, readonly string[]>>;
  close(): Promise<void>;
}

export async function makeWorld(seed: number): Promise<World> {
  const scratch = await mkdtemp(join(tmpdir(), 'pando-fuzz-'));
  const images = join(scratch, 'images');
  const agents = join(scratch, 'agents');
  await makeImages(images);
  const guests = await makeGuests(agents);
  const server = await TestServer.start({
    args: [
      ...['--log-level', 'warn', '--file-appliances', '0'],
      ...['--import-dir', images, '--guest-agent-dir', agents],
      // Some routes answer otherwise then.
      ...(seed % 4 === 0 ? ['--keyed-hash'] : []),
    ],
  });
  const clients: NbdClient[] = [];
  const close = async (): Promise<void> => {
    for (const client of clients) await client.close();
    await server.close();
    for (const guest of guests) guest.close();
    await rm(scratch, { recursive: true, force: true });
  };
  try {
    await fill(server, clients);
    const tokens = await makeTokens(server);
    return {
      server,
      actors: [server.authorization, ...tokens.actors],
      spared: tokens.spared,
      known: {
        path: ['good.raw', 'odd.raw', 'empty.raw', 'broken.qcow2', 'other.vmdk', 'outside', 'pipe', 'folder'],
        quiesce: ['good', 'rude', 'gone', 'file', '{vm}', '../x'].map(
          (name) => `qemu-ga:${join(agents, name)}`,
        ),
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

async function fill({ rest, nbdPort }: TestServer, clients: NbdClient[]): Promise<void> {
  const disks = [
    { name: 'disk0', sizeBytes: 2 ** 20 },
    { name: 'data', sizeBytes: 2 ** 16 + 512 },
  ];
  await rest.must('POST', '/vms', { name: 'web', disks, tags: ['a'] });
  await rest.must('POST', '/vms', { name: 'attached', disks: disks.slice(0, 1), tags: ['a', 'b'] });
  await rest.job('/imports', { name: 'full', path: 'good.raw', tags: ['b'] });
  await rest.must('POST', '/vms/full/clone', { name: 'w', count: 3, tags: ['c'] });
  await rest.must('POST', '/vms/web/backups', { name: 'first', labels: { env: 'prod' } });
  const lockedUntil = new Date(Date.now() + FAR_MS).toISOString();
  await rest.must('POST', '/vms/full/backups', { name: 'locked', lockedUntil });
  for (const name of ['one', 'two', 'three', 'four', 'five', 'six'])
    await rest.must('POST', '/vms/full/backups', { name });
  await rest.must('POST', '/vms', { name: 'gone', disks });
  await rest.must('POST', '/vms/gone/backups', { name: 'left' });
  await rest.must('DELETE', '/vms/gone');
  for (const name of ['nightly', 'hourly', 'p1', 'p2', 'p3', 'p4']) {
    const rules = [{ schedule: SCHEDULE, retention: { keepLast: 3 } }];
    await rest.must('POST', '/policies', { name, rules, ...(name < 'p' ? { tags: ['a'] } : {}) });
  }
  await rest.must('POST', '/policies/p1/assign', { vms: ['full', 'web'], tags: ['c'] });
  await rest.must('POST', '/policies/p2/suspend', {});
  for (const kinds of [['backup-created'], ['job-failed']])
    await rest.must('POST', '/webhooks', { url: 'https://127.0.0.1:9/', kinds });
  await rest.job('/verify', { quick: true });
  for (const exportName of ['attached/disk0', 'full@one/disk0'])
    clients.push(await NbdClient.connect({ host: '127.0.0.1', port: nbdPort }, { exportName }));
}

async function makeTokens({
  rest,
}: TestServer): Promise<{ actors: Readonly<Record<string, string>>[]; spared: string[] }> {
  const own = (await rest.must('GET', '/whoami')) as { name: string; tokenId: string };
  const spared = [own.name, own.tokenId];
  const actors: Record<string, string>[] = [];
  for (const wanted of [
    { name: 'operator', role: 'operator' },
    { name: 'viewer', role: 'viewer' },
    { name: 'operator of a', role: 'operator', scope: { tags: ['a'], vms: ['w*'] } },
    { name: 'viewer of b', role: 'viewer', scope: { tags: ['b'] } },
  ]) {
    const made = (await rest.must('POST', '/tokens', wanted)) as { id: string; name: string; token: string };
    spared.push(made.id, made.name);
    actors.push({ authorization: `Bearer ${made.token}` });
  }
  return { actors: [...actors, {}, { authorization: 'Bearer pando_nobody' }], spared };
}

/** Files as people have them, and as those have them who mean ill. */
async function makeImages(folder: string): Promise<void> {
  await mkdir(join(folder, 'folder'), { recursive: true });
  await writeFile(join(folder, 'good.raw'), Buffer.concat([randomBytes(65_536), Buffer.alloc(2 ** 18)]));
  await writeFile(join(folder, 'odd.raw'), randomBytes(1000));
  await writeFile(join(folder, 'empty.raw'), '');
  await writeFile(
    join(folder, 'broken.qcow2'),
    Buffer.concat([Buffer.from('QFI\xfb', 'latin1'), randomBytes(600)]),
  );
  await writeFile(
    join(folder, 'other.vmdk'),
    '# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 8 FLAT "../secret" 0\n',
  );
  await symlink('/etc/passwd', join(folder, 'outside'));
  execFileSync('mkfifo', [join(folder, 'pipe')]);
}

/** One that does as it is told, and one that hangs up. */
async function makeGuests(folder: string): Promise<Server[]> {
  await mkdir(folder);
  await writeFile(join(folder, 'file'), '');
  const honest = createServer((socket) => {
    const agent = new FakeGuest().connect();
    socket.on('error', () => agent.destroy());
    socket.pipe(agent).pipe(socket);
  });
  const rude = createServer((socket) => socket.destroy());
  for (const [server, name] of [
    [honest, 'good'],
    [rude, 'rude'],
  ] as const)
    await new Promise<void>((resolve) => server.listen(join(folder, name), resolve));
  return [honest, rude];
}
