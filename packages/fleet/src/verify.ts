/**
 * Reading every chunk of a backup and checking it against its id, before something is built on it. Meanwhile the backup
 * has the verification as a client: it cannot be deleted. Memory: LEAVES_MAX leaves with their chunks.
 */
import { ID_BYTES, PandoError, idsEqual, isHole } from '@pando/common';
import { FANOUT, type Root, type TreeNode } from '@pando/tree';
import { attach } from './attach.ts';
import type { FleetContext } from './context.ts';
import { findBackup } from './lookup.ts';
import type { Attachment, ImportProgress, Work } from './types.ts';

/** Leaves that are read at the same time. */
const LEAVES_MAX = 8;
/** Damaged ranges that the error names, and that are looked for. */
const NAMED_MAX = 10;
const RANGES_MAX = 1000;

interface Damage {
  readonly disk: string;
  readonly from: number;
  to: number;
}

/**
 * @throws `chunk-corrupt` naming the disks and ranges that are damaged, or cannot be read; `cancelled`
 */
export async function verifyBackup(
  ctx: FleetContext,
  ref: string,
  work: Work<ImportProgress>,
): Promise<void> {
  const { id, record } = await findBackup(ctx, ref);
  const held: Attachment[] = [];
  const damaged: Damage[] = [];
  try {
    for (const { name } of record.disks) held.push(await attach(ctx, `${id}/${name}`));
    const allBytes = record.disks.reduce((sum, { size }) => sum + size, 0);
    let before = 0;
    for (const { name, disk, size } of record.disks) {
      const root = await ctx.volumes.settle(disk);
      const done = before;
      await new DiskCheck(ctx, name, damaged, (position) => {
        refuseStopped(ctx, work.signal);
        work.onProgress?.({ phase: 'verifying', doneBytes: done + Math.min(position, size), allBytes });
      }).run(root);
      before += size;
    }
    work.onProgress?.({ phase: 'verifying', doneBytes: allBytes, allBytes });
  } finally {
    for (const attachment of held) await attachment.close();
  }
  if (damaged.length > 0) throw damageError(`${record.vmName}@${record.name}`, damaged);
}

function damageError(label: string, damaged: readonly Damage[]): PandoError {
  const ranges = [...damaged].sort((a, b) =>
    a.disk === b.disk ? a.from - b.from : a.disk < b.disk ? -1 : 1,
  );
  const named = ranges
    .slice(0, NAMED_MAX)
    .map(({ disk, from, to }) => `${disk} bytes ${from} to ${to - 1}`)
    .join(', ');
  const more = ranges.length > NAMED_MAX ? `, and ${ranges.length - NAMED_MAX} ranges more` : '';
  return new PandoError('chunk-corrupt', `backup ${label} is damaged: ${named}${more}`);
}

function refuseStopped(ctx: FleetContext, signal: AbortSignal | undefined): void {
  if (ctx.closing.aborted) throw ctx.closing.reason as Error;
  if (signal?.aborted === true) {
    throw new PandoError('cancelled', 'the verification was cancelled', { cause: signal.reason });
  }
}

/** The check of one disk. */
class DiskCheck {
  readonly #ctx: FleetContext;
  readonly #disk: string;
  readonly #damaged: Damage[];
  readonly #onPosition: (position: number) => void;
  readonly #reading = new Set<Promise<void>>();
  #failure: { readonly error: unknown } | undefined;
  #size = 0;

  constructor(ctx: FleetContext, disk: string, damaged: Damage[], onPosition: (position: number) => void) {
    this.#ctx = ctx;
    this.#disk = disk;
    this.#damaged = damaged;
    this.#onPosition = onPosition;
  }

  async run(root: Root): Promise<void> {
    this.#size = root.size;
    try {
      if (!isHole(root.id)) await this.#subtree(root.id, 0, root.height, 0);
    } catch (error) {
      this.#failure ??= { error };
    }
    await Promise.all(this.#reading);
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** Goes through the subtree in order of the disk; its leaves are checked side by side. */
  async #subtree(ids: Uint8Array, offset: number, level: number, firstChunk: number): Promise<void> {
    if (this.#damaged.length >= RANGES_MAX) return;
    if (level === 1) {
      this.#onPosition(firstChunk * this.#ctx.store.chunkBytes);
      while (this.#reading.size >= LEAVES_MAX) await Promise.race(this.#reading);
      if (this.#failure !== undefined) throw this.#failure.error;
      const reading: Promise<void> = this.#leaf(ids, offset, firstChunk)
        .catch((error: unknown) => {
          this.#failure ??= { error };
        })
        .finally(() => this.#reading.delete(reading));
      this.#reading.add(reading);
      return;
    }
    const node = await this.#node(ids, offset, level, firstChunk);
    if (node === undefined) return;
    const span = FANOUT ** (level - 1);
    for (let child = 0; child < FANOUT; child++) {
      if (isHole(node.bytes, child * ID_BYTES)) continue;
      await this.#subtree(node.bytes, child * ID_BYTES, level - 1, firstChunk + child * span);
    }
  }

  /** The node, or undefined when it is damaged. */
  async #node(
    ids: Uint8Array,
    offset: number,
    level: number,
    firstChunk: number,
  ): Promise<TreeNode | undefined> {
    const node = await sound(() => this.#ctx.store.readNode(ids, offset));
    if (node !== undefined && idsEqual(this.#ctx.store.hash(node.bytes), 0, ids, offset)) return node;
    this.#note(firstChunk, FANOUT ** level);
    return undefined;
  }

  async #leaf(ids: Uint8Array, offset: number, firstChunk: number): Promise<void> {
    const { store } = this.#ctx;
    const leaf = await this.#node(ids, offset, 1, firstChunk);
    if (leaf === undefined) return;
    const bytes = new Uint8Array(FANOUT * store.chunkBytes);
    const whole = await sound(async () => {
      await store.readChunks(leaf, 0, FANOUT, bytes, 0);
      return true;
    });
    for (let child = 0; child < FANOUT; child++) {
      if (isHole(leaf.bytes, child * ID_BYTES)) continue;
      const at = child * store.chunkBytes;
      // Of a leaf with damage, each chunk is read alone to see which it is.
      const read =
        whole ??
        (await sound(async () => {
          await store.readChunks(leaf, child, 1, bytes, at);
          return true;
        }));
      const isRight =
        read === true &&
        idsEqual(store.hash(bytes.subarray(at, at + store.chunkBytes)), 0, leaf.bytes, child * ID_BYTES);
      if (!isRight) this.#note(firstChunk + child, 1);
    }
  }

  #note(firstChunk: number, count: number): void {
    const { chunkBytes } = this.#ctx.store;
    const from = firstChunk * chunkBytes;
    const to = Math.min((firstChunk + count) * chunkBytes, this.#size);
    const before = this.#damaged.find((range) => range.disk === this.#disk && range.to === from);
    if (before === undefined) this.#damaged.push({ disk: this.#disk, from, to });
    else before.to = to;
  }
}

/** Undefined in place of an error that says that stored bytes are wrong. */
async function sound<T>(read: () => Promise<T>): Promise<T | undefined> {
  try {
    return await read();
  } catch (error) {
    if (error instanceof PandoError && error.kind === 'data') return undefined;
    throw error;
  }
}
