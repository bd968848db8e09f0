/**
 * What the accounts of a server have to be, worked out from the model alone: every disk is cut into chunks and built into a
 * tree here, by what docs/format.md says and with nothing of the engine but its hash. So chunks, nodes, roots and allocated bytes
 * are known exactly, and what the server adds up is held against them and against the files in its directory.
 */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { openLevelCatalog } from '@pando/catalog';
import { hashChunk } from '@pando/chunk-store';
import type { TestServer } from '../support/server.ts';
import { SECTOR, sectorBytes, type SectorModel } from './sectors.ts';
import type { Owner, World } from './world.ts';

const CHUNK_BYTES = 4096;
const ID_BYTES = 32;
/** The ids of 128 children. */
const NODE_BYTES = 128 * ID_BYTES;
/** All of docs/format.md but those of the store itself. */
const TABLES_OF_OWNERS = [
  ...['disk', 'disk-pending', 'disk-removal', 'vm', 'vm-name', 'vm-gone', 'vm-gone-name'],
  ...['backup', 'backup-name', 'backup-label', 'vm-backup'],
];
const ZEROS = Buffer.alloc(CHUNK_BYTES);
/** What a store may hold for itself: the mirrors of its catalog (a few pages, nodes and anchors), and those before as garbage. */
const OWN_CHUNKS_MAX = 24;
export const OWN_BYTES_MAX = 24 * 1024;
/** Overlays rest for three seconds, then they are destaged. */
const QUIET_MS_MAX = 60_000;
const QUIET_POLL_MS = 50;
/** Index, catalog and log may be written while they are added up; segments of a quiet server stay. */
const SUM_TRIES_MAX = 20;

export interface Space {
  readonly logicalBytes: number;
  readonly allocatedBytes: number;
  readonly uniqueBytes: number;
  readonly dataStoredBytes: number;
  readonly metadataBytes: number;
  readonly garbageBytes: number;
  readonly logBytes: number;
  readonly vms: number;
  readonly backups: number;
}

interface OwnerSpace {
  readonly name: string;
  readonly logicalBytes: number;
  readonly allocatedBytes: number;
  readonly exclusiveBytes: number;
  readonly fairBytes: number;
}

interface GcReport {
  readonly liveChunks: number;
  readonly deadChunks: number;
}

/** What one owner holds. */
interface Holding {
  readonly logicalBytes: number;
  readonly allocatedBytes: number;
  readonly data: ReadonlySet<string>;
  readonly nodes: ReadonlySet<string>;
  /** Of its disks, in hexadecimal as the API has them. */
  readonly roots: readonly string[];
}

export function space(server: TestServer): Promise<Space> {
  return server.rest.must('GET', '/report/space') as Promise<Space>;
}

/** Waits until everything is in the tree. @throws Error when that takes too long */
export async function untilLogEmpty(server: TestServer): Promise<void> {
  const deadline = performance.now() + QUIET_MS_MAX;
  while ((await space(server)).logBytes > 0) {
    if (performance.now() > deadline) throw new Error('the log is not empty');
    await sleep(QUIET_POLL_MS);
  }
}

/** The root of a backup's disk as the server says it, for which all that is older is destaged. */
async function rootOfBackup(server: TestServer, backup: string, disk: number): Promise<string | null> {
  const path = `/api/v1/backups/${encodeURIComponent(backup)}/disks/disk${disk}/content`;
  const answer = await server.fetch(path, { method: 'HEAD' });
  if (answer.status !== 200) throw new Error(`HEAD ${path} answered ${answer.status}`);
  return answer.headers.get('pando-root');
}

/**
 * Destages everything, by asking for roots: those of all backups, and of all VMs through backups taken for it. All are compared
 * with the model's. The world must have been checked before, so that nothing in it is in doubt.
 */
export async function checkRoots(server: TestServer, world: World): Promise<void> {
  const compare = async (backup: string, { name, disks }: Owner): Promise<void> => {
    const { roots } = holdingOf(disks);
    for (const i of disks.keys()) {
      const root = await rootOfBackup(server, backup, i);
      if (root !== roots[i])
        throw new Error(`the root of ${name}/disk${i} is ${root} instead of ${roots[i]!}`);
    }
  };
  for (const backup of world.backups.values()) await compare(backup.name, backup);
  for (const vm of world.vms.values()) {
    const backup = `${vm.name}@for-its-root`;
    await server.rest.must('POST', `/vms/${vm.name}/backups`, { name: 'for-its-root' });
    await compare(backup, vm);
    await server.rest.must('DELETE', `/backups/${backup}`);
  }
  await untilLogEmpty(server);
}

/**
 * The sums that hold whatever is destaged: VMs, backups and the sizes of their disks; and every byte of the segment files is
 * data, nodes, garbage or the store's own. Nobody may be using the server. @throws Error with what does not add up
 */
export async function checkSums(server: TestServer, world: World): Promise<Space> {
  const owners = [...world.vms.values(), ...world.backups.values()];
  const logicalBytes = owners.reduce((sum, { disks }) => sum + sizeOf(disks), 0);
  for (let tries = 1; ; tries++) {
    const report = await space(server);
    const fileBytes = await segmentFileBytes(server);
    const { dataStoredBytes, metadataBytes, garbageBytes } = report;
    mustBe('VMs of the report', report.vms, world.vms.size);
    mustBe('backups of the report', report.backups, world.backups.size);
    mustBe('logical bytes', report.logicalBytes, logicalBytes);
    const ownBytes = fileBytes - dataStoredBytes - metadataBytes - garbageBytes;
    if (ownBytes >= 0 && ownBytes <= OWN_BYTES_MAX) return report;
    // A destage may be on its way.
    if (tries === SUM_TRIES_MAX) {
      throw new Error(
        `${dataStoredBytes} of data, ${metadataBytes} of nodes and ${garbageBytes} of garbage are not the ` +
          `${fileBytes} bytes of the segments`,
      );
    }
    await sleep(QUIET_POLL_MS * tries);
  }
}

/** Everything that the reports say, exactly. All must be in the tree: after `checkRoots`. @throws Error with what is wrong */
export async function checkAccounts(server: TestServer, world: World): Promise<Space> {
  const report = await checkSums(server, world);
  const { data, byName } = holdings(world);
  const { items } = (await server.rest.must('GET', '/report/space/owners?limit=1000')) as {
    items: readonly OwnerSpace[];
  };
  mustBe(
    'owners',
    items
      .map(({ name }) => name)
      .sort()
      .join(' '),
    [...byName.keys()].sort().join(' '),
  );
  const holders = new Map<string, number>();
  for (const { data, nodes } of byName.values()) {
    for (const id of [...data, ...nodes]) holders.set(id, (holders.get(id) ?? 0) + 1);
  }
  let exclusiveBytes = 0;
  let allocatedBytes = 0;
  let fairBytes = 0;
  for (const item of items) {
    const own = byName.get(item.name)!;
    mustBe(`logical bytes of ${item.name}`, item.logicalBytes, own.logicalBytes);
    mustBe(`allocated bytes of ${item.name}`, item.allocatedBytes, own.allocatedBytes);
    const hasOwn = [...own.data, ...own.nodes].some((id) => holders.get(id) === 1);
    mustBe(`whether ${item.name} holds something alone`, item.exclusiveBytes > 0, hasOwn);
    exclusiveBytes += item.exclusiveBytes;
    fairBytes += item.fairBytes;
    allocatedBytes += own.allocatedBytes;
  }
  mustBe('fair shares of all', fairBytes, report.dataStoredBytes + report.metadataBytes);
  mustBe('allocated bytes', report.allocatedBytes, allocatedBytes);
  mustBe('unique bytes', report.uniqueBytes, data.size * CHUNK_BYTES);
  const sharedBytes = report.dataStoredBytes + report.metadataBytes - exclusiveBytes;
  const isShared = [...holders.values()].some((count) => count > 1);
  if (sharedBytes < 0) throw new Error(`owners hold ${-sharedBytes} bytes alone that are not stored`);
  mustBe('whether anything is shared', sharedBytes > 0, isShared);
  return report;
}

/**
 * Collects garbage, with `thorough` all of it, and checks that the chunks of the model are alive and, but for the store's own,
 * no others. As `checkAccounts`
 * otherwise, which it includes.
 */
export async function checkCollection(
  server: TestServer,
  world: World,
  { thorough }: { readonly thorough: boolean },
): Promise<Space> {
  const { liveChunks } = (await server.rest.job('/gc', { thorough })) as GcReport;
  const { data, nodes } = holdings(world);
  mustBeUpTo('chunks alive', liveChunks, data.size + nodes.size, OWN_CHUNKS_MAX);
  const report = await checkAccounts(server, world);
  if (thorough) mustBeUpTo('garbage after a thorough collection', report.garbageBytes, 0, OWN_BYTES_MAX);
  return report;
}

/** Deletes everything and checks that nothing stays: no chunk but the store's own, no record of the log. Ends the world. */
export async function checkNothingLeft(server: TestServer, world: World): Promise<void> {
  // VMs first: then backups outlive them.
  for (const name of world.vms.keys()) await server.rest.must('DELETE', `/vms/${name}`);
  for (const name of world.backups.keys()) await server.rest.must('DELETE', `/backups/${name}`);
  world.backups.clear();
  world.vms.clear();
  await untilLogEmpty(server);
  const report = await checkCollection(server, world, { thorough: true });
  mustBe('bytes of the log', report.logBytes, 0);
  mustBeUpTo('bytes of the segments', await segmentFileBytes(server), 0, OWN_BYTES_MAX);
}

/** No record of any owner is in the catalog of a stopped server from which everything was deleted. @throws Error with the table */
export async function checkNoRecords(dataDirectory: string): Promise<void> {
  const catalog = await openLevelCatalog(join(dataDirectory, 'catalog'));
  try {
    for (const table of TABLES_OF_OWNERS) {
      const left = await catalog.list(table, { limit: 1000 });
      mustBe(`records of the table ${table}`, left.map(({ key }) => key).join(' '), '');
    }
  } finally {
    await catalog.close();
  }
}

async function segmentFileBytes(server: TestServer): Promise<number> {
  const directory = join(server.dataDirectory, 'segments');
  let bytes = 0;
  for (const name of await readdir(directory)) bytes += (await stat(join(directory, name))).size;
  return bytes;
}

/** What the owners hold, by name, and all of it together. */
function holdings(world: World): {
  readonly data: ReadonlySet<string>;
  readonly nodes: ReadonlySet<string>;
  readonly byName: ReadonlyMap<string, Holding>;
} {
  const data = new Set<string>();
  const nodes = new Set<string>();
  const byName = new Map<string, Holding>();
  for (const { name, disks } of [...world.vms.values(), ...world.backups.values()]) {
    const holding = holdingOf(disks);
    for (const id of holding.data) data.add(id);
    for (const id of holding.nodes) nodes.add(id);
    byName.set(name, holding);
  }
  return { data, nodes, byName };
}

function holdingOf(disks: readonly SectorModel[]): Holding {
  const data = new Set<string>();
  const nodes = new Set<string>();
  const roots: string[] = [];
  let allocatedBytes = 0;
  for (const { tags } of disks) {
    const bytes = sectorBytes(tags);
    const count = Math.ceil(bytes.byteLength / CHUNK_BYTES);
    const padded = Buffer.alloc(count * CHUNK_BYTES);
    padded.set(bytes);
    let level = Buffer.alloc(count * ID_BYTES);
    for (let i = 0; i < count; i++) {
      const id = idOf(padded.subarray(i * CHUNK_BYTES, (i + 1) * CHUNK_BYTES), level, i);
      if (id === undefined) continue;
      data.add(id);
      // The last chunk counts as far as the disk goes.
      allocatedBytes += Math.min(CHUNK_BYTES, bytes.byteLength - i * CHUNK_BYTES);
    }
    do {
      const parents = Math.ceil(level.byteLength / NODE_BYTES);
      const children = Buffer.alloc(parents * NODE_BYTES);
      children.set(level);
      level = Buffer.alloc(parents * ID_BYTES);
      for (let i = 0; i < parents; i++) {
        const id = idOf(children.subarray(i * NODE_BYTES, (i + 1) * NODE_BYTES), level, i);
        if (id !== undefined) nodes.add(id);
      }
    } while (level.byteLength > ID_BYTES);
    roots.push(level.toString('hex'));
  }
  return { logicalBytes: sizeOf(disks), allocatedBytes, data, nodes, roots };
}

/** Puts the id into its place among `ids`; undefined for a hole, whose place stays zeros. */
function idOf(chunk: Uint8Array, ids: Buffer, index: number): string | undefined {
  if (ZEROS.equals(chunk)) return undefined;
  const id = Buffer.from(hashChunk(chunk));
  ids.set(id, index * ID_BYTES);
  return id.toString('hex');
}

function sizeOf(disks: readonly SectorModel[]): number {
  return disks.reduce((sum, { tags }) => sum + tags.length * SECTOR, 0);
}

function mustBe(what: string, found: string | number | boolean, expected: string | number | boolean): void {
  if (found !== expected) throw new Error(`${what}: ${found} instead of ${expected}`);
}

/** At least what is expected, and at most so much more. */
function mustBeUpTo(what: string, found: number, expected: number, more: number): void {
  if (found >= expected && found <= expected + more) return;
  throw new Error(`${what}: ${found} instead of ${expected}, and ${more} more at most`);
}
