/** What the golden stores hold, and what is written down about them. */
import { SeededRandom } from '@pando/block-device/testing';
import { readExport, sha256 } from '../support/disks.ts';
import type { TestServer } from '../support/server.ts';
import { fileURLToPath } from 'node:url';

/** Formats of which there is a golden store. */
export const GOLDEN_FORMATS = [1, 2, 3] as const;

/** Those of today, with the flags that make such a store: ids are plain, or keyed. */
export const PLAIN = { format: 2, flags: [] };
export const KEYED = { format: 3, flags: ['--keyed-hash'] };

export function goldenStore(format: number): string {
  return fileURLToPath(new URL(`./store-${format}`, import.meta.url));
}

export function goldenContents(format: number): string {
  return fileURLToPath(new URL(`./contents-${format}.json`, import.meta.url));
}

interface Disk {
  readonly name: string;
  readonly sizeBytes: number;
}

/** What REST says of a VM or a backup and stays the same, and the SHA-256 of each disk. */
export interface GoldenOwner {
  readonly id: string;
  readonly name: string;
  readonly vmId?: string;
  readonly vmName?: string;
  readonly lineage: string;
  readonly createdAt: string;
  readonly disks: readonly Disk[];
  readonly sha256: Readonly<Record<string, string>>;
}

export interface GoldenContents {
  readonly vms: readonly GoldenOwner[];
  readonly backups: readonly GoldenOwner[];
}

/** Everything that a server serves: lists and hashes. */
export async function contentsOf(server: TestServer): Promise<GoldenContents> {
  const list = async (path: string): Promise<GoldenOwner[]> => {
    const { items } = (await server.rest.must('GET', path)) as { items: GoldenOwner[] };
    const owners: GoldenOwner[] = [];
    for (const { id, name, vmId, vmName, lineage, createdAt, disks } of items) {
      const exportName = vmName === undefined ? name : `${vmName}@${name}`;
      const hashes: Record<string, string> = {};
      for (const disk of disks)
        hashes[disk.name] = sha256(await readExport(server, `${exportName}/${disk.name}`));
      const backup = vmId === undefined || vmName === undefined ? {} : { vmId, vmName };
      owners.push({ id, name, ...backup, lineage, createdAt, disks, sha256: hashes });
    }
    return owners;
  };
  return { vms: await list('/vms'), backups: await list('/backups') };
}

/** Bytes of every kind that the store treats differently: noise, text, zeros, repetition, and an odd end. */
export function goldenImage(seed: number): Buffer {
  const image = Buffer.alloc(640 * 1024 + 512);
  const random = new SeededRandom(seed);
  image.set(random.bytes(24 * 1024), 0);
  for (let at = 64 * 1024; at < 96 * 1024; at += 32) image.write(`line ${at} of a file of text\n`, at);
  image.copy(image, 520 * 1024, 0, 16 * 1024);
  image.set(random.bytes(512), image.length - 512);
  return image;
}
