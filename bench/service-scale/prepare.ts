/**
 * Makes a data directory with so many VMs and backups: `node prepare.ts DIRECTORY VMS BACKUPS-A-VM`. VMs are clones of `golden`, made by the engine.
 * Their backups are records like those that it writes, of the disk of `golden`, put into its catalog in large batches: a million forks, one
 * after another, would take half an hour and be the same records.
 */
import { openDataDirectory } from '../../apps/server/src/data-directory.ts';
import { openStore } from '../../apps/server/src/store.ts';
import { listOwnedDisks } from '@pando/fleet';
import { GiB, systemClock } from '@pando/common';
import type { CatalogOperation } from '@pando/catalog';

const CLONES_A_REQUEST = 1000;
const OPERATIONS_A_BATCH = 20_000;
/** Of backups, hourly ones: their times are so far apart. */
const HOUR_MS = 3_600_000;

const [path, ...numbers] = process.argv.slice(2);
const [vms, backupsEach] = numbers.map(Number) as [number, number];
const directory = await openDataDirectory(path!, { clock: systemClock, create: true });
const open = await openStore(directory, systemClock, { refusal: undefined });
const { fleet, catalog } = open;
await fleet.createVm({ name: 'golden', disks: [{ name: 'disk0', sizeBytes: GiB }] });
await fleet.createBackup('golden', { name: 'first' });
for (let made = 1; made < vms;) {
  const count = Math.min(CLONES_A_REQUEST, vms - made);
  await fleet.cloneVm('golden', { name: `vm-${made}`, count, tags: ['all'] });
  made += count;
}

const [first] = (await fleet.listBackups({ limit: 1 })).items;
const stored = (await catalog.get('backup', first!.id)) as { disks: readonly { disk: number }[] };
const disk = await catalog.get('disk', diskKey(stored.disks[0]!.disk));
let number = 0;
for await (const owned of listOwnedDisks(catalog)) number = Math.max(number, owned.number);

let batch: CatalogOperation[] = [];
const put = (table: string, key: string, value: object): void => {
  batch.push({ type: 'put', table, key, value: { version: 1, ...value } });
};
const start = Date.parse(first!.createdAt) - backupsEach * HOUR_MS;
let cursor: string | undefined;
let made = 0;
do {
  const page = await fleet.listVms({ limit: 1000, ...(cursor === undefined ? {} : { cursor }) });
  for (const vm of page.items) {
    for (let age = 0; age < backupsEach; age++) {
      const createdAt = start + age * HOUR_MS;
      const id = idAt(createdAt, made++);
      const name = `hour-${age}`;
      put('disk', diskKey(++number), disk as object);
      put('backup', id, {
        ...{ name, vmId: vm.id, vmName: vm.name, lineage: vm.lineage, createdAt },
        disks: [{ name: 'disk0', disk: number, size: GiB }],
      });
      put('vm-backup', `${vm.id}/${id}`, {});
      put('backup-name', `${vm.id}/${name}`, { id });
      put('backup-label', `${vm.name}@${name}/${id}`, {});
      if (batch.length >= OPERATIONS_A_BATCH) await catalog.commit(batch.splice(0));
    }
  }
  cursor = page.nextCursor;
} while (cursor !== undefined);
if (batch.length > 0) await catalog.commit(batch);
batch = [];
await fleet.close();
await open.volumes.close();
await open.mirror.close();
await open.store.close();
await directory.catalog.close();

function diskKey(of: number): string {
  return String(of).padStart(12, '0');
}

/** A UUIDv7 of that time. */
function idAt(milliseconds: number, counter: number): string {
  const time = milliseconds.toString(16).padStart(12, '0');
  const low = counter.toString(16).padStart(12, '0');
  return `${time.slice(0, 8)}-${time.slice(8)}-7000-8000-${low}`;
}
