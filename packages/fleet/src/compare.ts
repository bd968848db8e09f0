/**
 * What differs between any two disks of the store, of whichever VMs and backups: it is the trees and overlays that are
 * compared, so it costs what differs and not what there is, and no history is needed.
 *
 * A page is of one instant; what a VM writes between two pages is in the later one. Backups never change. Both owners are held by shared
 * locks while a page is made: backups before VMs, each in the order of their ids, as everybody takes them.
 */
import { PandoError } from '@pando/common';
import type { OpenVolume } from '@pando/volume';
import type { DiffItem, DiffPage, DiffRequest } from './answer-types.ts';
import { chooseDisk } from './attach.ts';
import type { FleetContext } from './context.ts';
import { decodeCursor, encodeCursor, pageLimit } from './cursors.ts';
import { findOwner, holdBackup, holdVm } from './lookup.ts';
import { splitExportName } from './names.ts';
import type { StoredDisk } from './records.ts';

/** How often the volumes are asked for one page; each answer reads at most some thousand pairs of nodes. */
const ANSWERS_MAX = 16;
/** Extents that one such answer may have. */
const EXTENTS_MAX = 4096;

interface Owner {
  readonly kind: 'vm' | 'backup';
  readonly id: string;
}

/** A disk of an owner that is held. */
interface Side {
  readonly name: string;
  readonly disk: StoredDisk;
}

export async function diff(ctx: FleetContext, request: DiffRequest): Promise<DiffPage> {
  const limit = pageLimit(request);
  const { chunkBytes } = ctx.store;
  const grainBytes = request.grainBytes ?? chunkBytes;
  if (!Number.isSafeInteger(grainBytes) || grainBytes < chunkBytes || grainBytes % chunkBytes !== 0) {
    throw new PandoError(
      'request-invalid',
      `the grain is a multiple of ${chunkBytes} bytes, not ${grainBytes}`,
    );
  }
  const [nameA, nameB] = [splitExportName(request.a), splitExportName(request.b)];
  const owners = [await findOwner(ctx, nameA.owner), await findOwner(ctx, nameB.owner)] as const;
  // Who names one of the disks means the same of both.
  const disks = [nameA.disk ?? nameB.disk, nameB.disk ?? nameA.disk] as const;
  return holdAll(ctx, owners, new Map(), async (held) => {
    const sides = owners.map(({ id }, i): Side => {
      const { name, disks: all } = held.get(id)!;
      return { name, disk: chooseDisk(name, all, disks[i]) };
    });
    const [a, b] = sides as [Side, Side];
    const list = `diff/${a.disk.disk}/${b.disk.disk}/${grainBytes}`;
    const from = Number(decodeCursor(list, request.cursor) ?? 0);
    const one = await ctx.volumes.open(a.disk.disk);
    try {
      const other = await ctx.volumes.open(b.disk.disk);
      try {
        if (!(Number.isSafeInteger(from) && from >= 0 && from % chunkBytes === 0)) {
          throw new PandoError('cursor-invalid', 'the cursor is not one of this list');
        }
        const { items, end } = await compare(one, other, { from, limit, grainBytes });
        const page = {
          a: { name: a.name, disk: a.disk.name, sizeBytes: one.size },
          b: { name: b.name, disk: b.disk.name, sizeBytes: other.size },
          grainBytes,
          comparedBytes: Math.max(0, end - from),
          changedBytes: items.reduce((sum, { changedBytes }) => sum + changedBytes, 0),
          items,
        };
        return end < Math.max(one.size, other.size)
          ? { ...page, nextCursor: encodeCursor(list, String(end)) }
          : page;
      } finally {
        await other.close();
      }
    } finally {
      await one.close();
    }
  });
}

/** Differing ranges from `from` on, as many as fit, and how far they go. What lies past the end of one disk is compared with a hole. */
async function compare(
  one: OpenVolume,
  other: OpenVolume,
  { from, limit, grainBytes }: { from: number; limit: number; grainBytes: number },
): Promise<{ items: DiffItem[]; end: number }> {
  const [large, small] = one.size >= other.size ? [one, other] : [other, one];
  const items: { offset: number; bytes: number; changedBytes: number }[] = [];
  let at = Math.min(from, large.size);
  for (let answers = 0; at < large.size && answers < ANSWERS_MAX; answers++) {
    const { lengths, flags } = await large.differences(small, at, large.size - at, EXTENTS_MAX);
    for (const [i, length] of lengths.entries()) {
      if (flags[i] === 1) {
        const last = items.at(-1);
        if (last !== undefined && at - (last.offset + last.bytes) < grainBytes) {
          last.bytes = at + length - last.offset;
          last.changedBytes += length;
        } else if (items.length === limit) return { items, end: at };
        else items.push({ offset: at, bytes: length, changedBytes: length });
      }
      at += length;
    }
  }
  return { items, end: at };
}

type Held = Map<string, { readonly name: string; readonly disks: readonly StoredDisk[] }>;

/** Runs the action while all owners are held, each once. @throws `vm-missing`, `backup-missing` */
function holdAll<T>(
  ctx: FleetContext,
  owners: readonly Owner[],
  held: Held,
  action: (held: Held) => Promise<T>,
): Promise<T> {
  const rank = ({ kind, id }: Owner): string => `${kind === 'backup' ? 0 : 1}${id}`;
  const left = owners.filter(({ id }) => !held.has(id)).sort((a, b) => (rank(a) < rank(b) ? -1 : 1));
  const next = left[0];
  if (next === undefined) return action(held);
  if (next.kind === 'vm') {
    return holdVm(ctx, next.id, 'shared', ({ record }) =>
      holdAll(ctx, left, held.set(next.id, { name: record.name, disks: record.disks }), action),
    );
  }
  return holdBackup(ctx, next.id, 'shared', ({ record }) => {
    const name = `${record.vmName}@${record.name}`;
    return holdAll(ctx, left, held.set(next.id, { name, disks: record.disks }), action);
  });
}
