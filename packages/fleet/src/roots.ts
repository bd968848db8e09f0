/** Roots of disks as users see them, and proofs under them. */
import { idToHex, PandoError } from '@pando/common';
import { makeProof, PROOF_RANGE_BYTES_MAX } from '@pando/proof';
import type { Root, TreeNode } from '@pando/tree';
import type { DiskRoot, DiskRoots, NamedRoot } from './answer-types.ts';
import { chooseDisk } from './attach.ts';
import type { FleetContext } from './context.ts';
import { findOwner, holdBackup, holdVm } from './lookup.ts';
import type { StoredDisk } from './records.ts';

export function toDiskRoot(ctx: FleetContext, { id, size }: Root): DiskRoot {
  const { chunkBytes, isKeyed } = ctx.store;
  return { root: idToHex(id), sizeBytes: size, chunkBytes, keyed: isKeyed };
}

/** Refuses what takes ids that mean something outside of the store. @throws `ids-keyed` */
export function refuseKeyed(ctx: FleetContext, why: string): void {
  if (ctx.store.isKeyed) throw new PandoError('ids-keyed', why);
}

/** Destages what is still in overlays first. */
export function diskRoot(ctx: FleetContext, ref: string, diskName: string): Promise<DiskRoot> {
  return holdBackup(ctx, ref, 'shared', async ({ record }) => {
    const { disk } = chooseDisk(`${record.vmName}@${record.name}`, record.disks, diskName);
    return toDiskRoot(ctx, await ctx.volumes.settle(disk));
  });
}

/** The roots of all disks of a backup, or of a VM: then each of an instant of its own, after the call and before the answer. */
export async function diskRoots(ctx: FleetContext, ref: string): Promise<DiskRoots> {
  const settle = async (disks: readonly StoredDisk[]): Promise<NamedRoot[]> => {
    const roots: NamedRoot[] = [];
    for (const { name, disk } of disks) {
      const root = await ctx.volumes.settle(disk);
      roots.push({ disk: name, ...toDiskRoot(ctx, root), height: root.height });
    }
    return roots;
  };
  const { kind, id } = await findOwner(ctx, ref);
  if (kind === 'vm') {
    return holdVm(ctx, id, 'shared', async ({ record }) => ({
      kind,
      id,
      name: record.name,
      items: await settle(record.disks),
    }));
  }
  return holdBackup(ctx, id, 'shared', async ({ record }) => ({
    kind,
    id,
    name: `${record.vmName}@${record.name}`,
    items: await settle(record.disks),
  }));
}

/** Makes proofs, so many at a time. */
export class Proofs {
  readonly #ctx: FleetContext;
  #underWay = 0;

  constructor(ctx: FleetContext) {
    this.#ctx = ctx;
  }

  /**
   * A proof that a range of a disk of a backup holds what it holds, under the disk's root (packages/proof).
   * @throws `ids-keyed` in a store of keyed ids: whoever checked the proof would need the key; `backup-missing`, `disk-missing`, `range-invalid`,
   * `too-busy`, errors of kind `data`
   */
  async prove(ref: string, diskName: string | undefined, range: ByteRange): Promise<Uint8Array> {
    refuseKeyed(this.#ctx, 'a proof under a root of this store cannot be checked outside of it');
    const { proofsMax } = this.#ctx.limits;
    if (this.#underWay >= proofsMax) {
      throw new PandoError('too-busy', `${proofsMax} proofs are being made`);
    }
    this.#underWay++;
    try {
      return await prove(this.#ctx, ref, diskName, range);
    } finally {
      this.#underWay--;
    }
  }
}

interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

function prove(
  ctx: FleetContext,
  ref: string,
  diskName: string | undefined,
  range: ByteRange,
): Promise<Uint8Array> {
  return holdBackup(ctx, ref, 'shared', async ({ record }) => {
    const { disk } = chooseDisk(`${record.vmName}@${record.name}`, record.disks, diskName);
    const root = await ctx.volumes.settle(disk);
    checkRange(root, range);
    const { chunkBytes } = ctx.store;
    const { offset, length } = range;
    const claim = { rootId: root.id, height: root.height, sizeBytes: root.size, chunkBytes, offset, length };
    let leaf: TreeNode | undefined;
    const pieces: Uint8Array[] = [];
    const proof = makeProof(claim, {
      node: async (ids, at) => {
        leaf = ctx.store.peekNode(ids, at) ?? (await ctx.store.readNode(ids, at));
        return leaf.bytes;
      },
      chunks: async (_bytes, first, count) => {
        const target = new Uint8Array(count * chunkBytes);
        await ctx.store.readChunks(leaf!, first, count, target, 0);
        return target;
      },
    });
    for await (const piece of proof) pieces.push(piece);
    return Buffer.concat(pieces);
  });
}

function checkRange({ size }: Root, { offset, length }: ByteRange): void {
  const isRange = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 1;
  if (!isRange || offset + length > size) {
    throw new PandoError(
      'range-invalid',
      `${length} bytes at ${offset} are not inside a disk of ${size} bytes`,
    );
  }
  if (length > PROOF_RANGE_BYTES_MAX) {
    throw new PandoError(
      'range-invalid',
      `a proof is of at most ${PROOF_RANGE_BYTES_MAX} bytes, not ${length}: ask for several`,
    );
  }
}
