/**
 * Holds the engine, after a restart, against the oracle: every name, every disk, every byte. Operations that were under way
 * are told from what is there, whole or not at all. What is found is what counts from then on.
 */
import type { Fleet } from '@pando/fleet';
import type { Engine } from './machine.ts';
import type { Disks, Oracle, Pending } from './oracle.ts';

export class Wrong extends Error {}

type Listed = ReadonlyMap<string, ReadonlyMap<string, number>>;

/** Everything that there is. @throws `Wrong` */
export async function check(engine: Engine, oracle: Oracle): Promise<void> {
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
  for (const [id, operation] of [...oracle.pending]) {
    if (operation.kind === 'restore') restores.push([id, operation]);
    else if (hasHappened(operation, vms, backups)) oracle.happened(id);
    else oracle.didNot(id);
  }
  const contents = new Map<string, Map<string, Buffer>>();
  for (const name of [...vms.keys(), ...backups.keys()]) {
    const disks = new Map<string, Buffer>();
    for (const disk of (vms.get(name) ?? backups.get(name)!).keys())
      disks.set(disk, await contentOf(fleet, `${name}/${disk}`));
    contents.set(name, disks);
  }
  for (const [id, operation] of restores) {
    const target = oracle.vms.get(operation.vm)!;
    const isOld = [...target].every(([disk, { model }]) => {
      const bytes = contents.get(operation.vm)?.get(disk);
      return bytes?.byteLength === model.size && model.wrongSector(bytes) === undefined;
    });
    if (isOld) oracle.didNot(id);
    else oracle.happened(id);
  }
  compareNames('VMs', oracle.vms, vms);
  compareNames('backups', oracle.backups, backups);
  for (const [all, listed] of [
    [oracle.vms, vms],
    [oracle.backups, backups],
  ] as const) {
    for (const [name, disks] of all) compareDisks(name, disks, listed.get(name)!, contents.get(name)!);
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
  contents: ReadonlyMap<string, Buffer>,
): void {
  for (const [disk, { listed: size, model }] of disks) {
    const label = `${name}/${disk}`;
    if (listed.get(disk) !== size)
      throw new Wrong(`${label} is listed with ${listed.get(disk)} bytes, not ${size}`);
    const bytes = contents.get(disk)!;
    if (bytes.byteLength !== model.size) {
      if (bytes.byteLength < model.size || !model.mayGrowTo.has(bytes.byteLength))
        throw new Wrong(`${label} has ${bytes.byteLength} bytes, not ${model.size}`);
      model.resize(bytes.byteLength);
    }
    const sector = model.wrongSector(bytes);
    if (sector !== undefined) {
      const found = bytes.subarray(sector * 512, sector * 512 + 8).toString('hex');
      throw new Wrong(
        `${label}, sector ${sector}, holds ${found}, which nobody may find there: ${model.describe(sector)}`,
      );
    }
    model.settle(bytes);
  }
}

/** All bytes of a disk; what it calls holes reads as zeros. */
async function contentOf(fleet: Fleet, exportName: string): Promise<Buffer> {
  const device = await fleet.attach(exportName);
  try {
    const bytes = Buffer.alloc(device.size, 0xee);
    const holes: number[] = [];
    await device.read(0, device.size, bytes, 0, holes);
    for (let i = 0; i < holes.length; i += 2) {
      const hole = bytes.subarray(holes[i], holes[i]! + holes[i + 1]!);
      if (!hole.equals(Buffer.alloc(hole.byteLength))) throw new Wrong(`a hole of ${exportName} holds data`);
    }
    return bytes;
  } finally {
    await device.close();
  }
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
