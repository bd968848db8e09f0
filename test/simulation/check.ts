/**
 * Holds the engine, after a restart, against the oracle: every name, every disk, every byte. Operations that were under way
 * are told from what is there, whole or not at all. What is found is what counts from then on.
 */
import { isPandoError } from '@pando/common';
import type { Attachment, Fleet } from '@pando/fleet';
import { SECTOR_BYTES, type DiskModel } from './disk-model.ts';
import { CHUNK_BYTES, type Engine } from './machine.ts';
import type { Disks, Oracle, Pending } from './oracle.ts';

export class Wrong extends Error {}

type Listed = ReadonlyMap<string, ReadonlyMap<string, number>>;

export interface CheckOptions {
  /** What is stored may be damaged: chunks that cannot be read are taken for right. */
  readonly isDamaged?: boolean;
  /** No restart has come before: nothing is settled, and what is under way stays open. */
  readonly isRunning?: boolean;
}

/** Everything that there is. @throws `Wrong` */
export async function check(engine: Engine, oracle: Oracle, options: CheckOptions = {}): Promise<void> {
  const { isDamaged = false, isRunning = false } = options;
  const { fleet } = engine;
  const vms = await listAll(
    (cursor) => fleet.listVms(page(cursor)),
    ({ name }) => name,
  );
  const backups = await listAll(
    (cursor) => fleet.listBackups(page(cursor)),
    ({ vmName, name }) => `${vmName}@${name}`,
  );
  const restores: [number, Pending & { kind: 'restore' }][] = [];
  for (const [id, operation] of isRunning ? [] : [...oracle.pending]) {
    if (operation.kind === 'restore') restores.push([id, operation]);
    else if (hasHappened(operation, vms, backups)) oracle.happened(id);
    else oracle.didNot(id);
  }
  const contents = new Map<string, Map<string, Content>>();
  for (const name of [...vms.keys(), ...backups.keys()]) {
    const disks = new Map<string, Content>();
    for (const disk of (vms.get(name) ?? backups.get(name)!).keys())
      disks.set(disk, await contentOf(fleet, `${name}/${disk}`, isDamaged));
    contents.set(name, disks);
  }
  for (const [id, operation] of restores) {
    const target = oracle.vms.get(operation.vm)!;
    const isOld = [...target].every(([disk, { model }]) => {
      const content = contents.get(operation.vm)?.get(disk);
      return content?.bytes.byteLength === model.size && wrongSector(model, content) === undefined;
    });
    if (isOld) oracle.didNot(id);
    else oracle.happened(id);
  }
  if (oracle.pending.size === 0) {
    compareNames('VMs', oracle.vms, vms);
    compareNames('backups', oracle.backups, backups);
  }
  for (const [all, listed] of [
    [oracle.vms, vms],
    [oracle.backups, backups],
  ] as const) {
    for (const [name, disks] of all) {
      if (oracle.isInDoubt(name)) continue;
      compareDisks(name, disks, listed.get(name)!, contents.get(name)!, isRunning);
    }
  }
}

/** What must hold of a store that nothing has damaged. @throws `Wrong` */
export async function verify(engine: Engine): Promise<void> {
  const { damaged } = await engine.store.verify();
  if (damaged.length > 0) throw new Wrong(`verification found damage: ${JSON.stringify(damaged)}`);
}

function hasHappened(
  operation: Exclude<Pending, { kind: 'restore' }>,
  vms: Listed,
  backups: Listed,
): boolean {
  switch (operation.kind) {
    case 'create':
    case 'clone': {
      const names = operation.kind === 'clone' ? operation.names : operation.vms.map(({ name }) => name);
      const there = names.filter((name) => vms.has(name)).length;
      if (there > 0 && there < names.length)
        throw new Wrong(`of ${names.join(', ')} only ${there} are there`);
      return there > 0;
    }
    case 'backup':
      return backups.has(`${operation.vm}@${operation.name}`);
    case 'rename':
      return vms.has(operation.to);
    case 'resize':
      return vms.get(operation.vm)?.get(operation.disk) === operation.size;
    case 'deleteVm':
      return !vms.has(operation.vm);
    case 'deleteBackup':
      return !backups.has(operation.backup);
  }
}

function compareNames(what: string, expected: ReadonlyMap<string, Disks>, found: Listed): void {
  const want = [...expected.keys()].sort().join(' ');
  const have = [...found.keys()].sort().join(' ');
  if (want !== have) throw new Wrong(`${what} are [${have}], not [${want}]`);
}

function compareDisks(
  name: string,
  disks: Disks,
  listed: ReadonlyMap<string, number>,
  contents: ReadonlyMap<string, Content>,
  isRunning: boolean,
): void {
  for (const [disk, { listed: size, model }] of disks) {
    const label = `${name}/${disk}`;
    if (listed.get(disk) !== size)
      throw new Wrong(`${label} is listed with ${listed.get(disk)} bytes, not ${size}`);
    const content = contents.get(disk)!;
    const { bytes } = content;
    if (bytes.byteLength !== model.size) {
      if (bytes.byteLength < model.size || !model.mayGrowTo.has(bytes.byteLength))
        throw new Wrong(`${label} has ${bytes.byteLength} bytes, not ${model.size}`);
      if (isRunning) continue;
      model.resize(bytes.byteLength);
    }
    const sector = wrongSector(model, content);
    if (sector !== undefined) {
      const found = bytes.subarray(sector * 512, sector * 512 + 8).toString('hex');
      throw new Wrong(
        `${label}, sector ${sector}, holds ${found}, which nobody may find there: ${model.describe(sector)}`,
      );
    }
    if (!isRunning) model.settle(bytes, (number) => isUnreadable(content, number));
  }
}

interface Content {
  readonly bytes: Buffer;
  /** Numbers of chunks that could not be read. */
  readonly damaged: ReadonlySet<number>;
}

function isUnreadable({ damaged }: Content, sector: number): boolean {
  return damaged.size > 0 && damaged.has(Math.floor((sector * SECTOR_BYTES) / CHUNK_BYTES));
}

function wrongSector(model: DiskModel, content: Content): number | undefined {
  return model.wrongSector(content.bytes, undefined, (sector) => isUnreadable(content, sector));
}

/** All bytes of a disk; what it calls holes reads as zeros. */
async function contentOf(fleet: Fleet, exportName: string, isDamaged: boolean): Promise<Content> {
  const device = await fleet.attach(exportName);
  try {
    const bytes = Buffer.alloc(device.size, 0xee);
    const holes: number[] = [];
    try {
      await device.read(0, device.size, bytes, 0, holes);
    } catch (error) {
      if (!isDamaged || !isPandoError(error) || error.kind !== 'data') throw error;
      return { bytes, damaged: await unreadableChunks(device, bytes) };
    }
    for (let i = 0; i < holes.length; i += 2) {
      const hole = bytes.subarray(holes[i], holes[i]! + holes[i + 1]!);
      if (!hole.equals(Buffer.alloc(hole.byteLength))) throw new Wrong(`a hole of ${exportName} holds data`);
    }
    return { bytes, damaged: new Set() };
  } finally {
    await device.close();
  }
}

/** Reads chunk by chunk into `bytes`; the numbers of those that are damaged. */
async function unreadableChunks(device: Attachment, bytes: Buffer): Promise<Set<number>> {
  const damaged = new Set<number>();
  for (let at = 0; at < device.size; at += CHUNK_BYTES) {
    try {
      await device.read(at, Math.min(CHUNK_BYTES, device.size - at), bytes, at);
    } catch (error) {
      if (!isPandoError(error) || error.kind !== 'data') throw error;
      damaged.add(at / CHUNK_BYTES);
    }
  }
  return damaged;
}

function page(cursor: string | undefined): { limit: number; cursor?: string } {
  return { limit: 50, ...(cursor === undefined ? {} : { cursor }) };
}

interface Item {
  readonly disks: readonly { readonly name: string; readonly sizeBytes: number }[];
}

async function listAll<T extends Item>(
  list: (
    cursor: string | undefined,
  ) => Promise<{ readonly items: readonly T[]; readonly nextCursor?: string }>,
  nameOf: (item: T) => string,
): Promise<Listed> {
  const all = new Map<string, ReadonlyMap<string, number>>();
  let cursor: string | undefined;
  do {
    const { items, nextCursor } = await list(cursor);
    for (const item of items) {
      if (all.has(nameOf(item))) throw new Wrong(`${nameOf(item)} is listed twice`);
      all.set(nameOf(item), new Map(item.disks.map((disk) => [disk.name, disk.sizeBytes])));
    }
    cursor = nextCursor;
  } while (cursor !== undefined);
  return all;
}
