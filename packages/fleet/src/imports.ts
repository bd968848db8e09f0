/**
 * Import: a source straight into chunks, not through the write log. Nothing of it is in the catalog before the last
 * step, so whatever breaks off leaves only chunks that nobody points at. The result is a new VM, or a backup in the
 * lineage of the backup that it follows.
 */
import type { WriteSession } from '@pando/chunk-store';
import { DISK_BYTES_MAX, ID_BYTES, PandoError, idToHex, type DiskPart } from '@pando/common';
import { diffTrees, rootOf, rootsEqual, type Root } from '@pando/tree';
import { attach, chooseDisk } from './attach.ts';
import { reserveName, toBackup } from './backups.ts';
import { ChunkPipeline } from './chunk-pipeline.ts';
import type { FleetContext } from './context.ts';
import { findBackup, withVmNames } from './lookup.ts';
import { checkName, checkSize, checkTags } from './names.ts';
import {
  put,
  putBackup,
  withTags,
  type BackupRecord,
  type StoredBackup,
  type StoredDisk,
} from './records.ts';
import { removeDisks } from './restore.ts';
import { refuseKeyed, toDiskRoot } from './roots.ts';
import type {
  Backup,
  BackupImportResult,
  ChunkIds,
  Fleet,
  ImportFigures,
  ImportProgress,
  ImportResult,
  ImportSource,
  Work,
} from './types.ts';
import { newVm } from './vms.ts';

export const DISK_NAME_DEFAULT = 'disk0';

/** Progress is told at most this often. */
const PROGRESS_MS = 100;

export class Imports {
  #running = 0;

  async importVm(
    ctx: FleetContext,
    request: Parameters<Fleet['importVm']>[0],
    work: Work<ImportProgress>,
  ): Promise<ImportResult> {
    const name = checkName('VM name', request.name);
    const diskName = checkName('disk name', request.diskName ?? DISK_NAME_DEFAULT);
    const tags = checkTags(request.tags ?? []);
    return this.#oneMore(ctx, request.source, () =>
      withVmNames(ctx, [name], async () => {
        const vm = newVm(ctx, { name, tags });
        const figures = await importDisk(ctx, request, work, async (root) => {
          await ctx.volumes.create({ root }, (disk) => vm.store([{ name: diskName, disk, size: root.size }]));
        });
        return { vm: vm.made(), ...figures };
      }),
    );
  }

  async importBackup(
    ctx: FleetContext,
    request: Parameters<Fleet['importBackup']>[0],
    work: Work<ImportProgress>,
  ): Promise<BackupImportResult> {
    const name = request.name === undefined ? undefined : checkName('backup name', request.name);
    const since = await findBackup(ctx, request.since);
    const { vmId, vmName } = since.record;
    const chosen = chooseDisk(`${vmName}@${since.record.name}`, since.record.disks, request.diskName);
    return this.#oneMore(ctx, request.source, async () => {
      // As a client of the backup, which therefore cannot be deleted, nor its chunks be collected, before this ends.
      const held = await attach(ctx, `${since.id}/${chosen.name}`);
      const given =
        name === undefined ? undefined : await reserveName(ctx, vmId, name, 0, '').catch(closed(held));
      try {
        const before = await ctx.volumes.settle(chosen.disk);
        let backup: Backup | undefined;
        let changedBytes = 0;
        const figures = await importDisk(ctx, request, work, async (root) => {
          // Before the backup exists: it reads both trees, and may find one damaged.
          changedBytes = await bytesChanged(ctx, before, root);
          backup = await storeBackup(ctx, since, chosen, root, given?.name);
        });
        return { backup: backup!, changedBytes, ...figures };
      } finally {
        given?.release();
        await held.close();
      }
    });
  }

  async #oneMore<T>(ctx: FleetContext, source: ImportSource, action: () => Promise<T>): Promise<T> {
    if (source.sizeBytes !== undefined) checkSize(source.sizeBytes);
    if (this.#running >= ctx.limits.importsMax) {
      throw new PandoError('too-busy', `${this.#running} imports are running`);
    }
    this.#running++;
    try {
      return await action();
    } finally {
      this.#running--;
    }
  }
}

/** For a failure before there is a try block to close it. */
function closed(held: { close(): Promise<void> }): (error: unknown) => Promise<never> {
  return async (error) => {
    await held.close();
    throw error;
  };
}

/** Brings the bytes into the store; `record` puts the root into the catalog while its chunks are pinned. */
async function importDisk(
  ctx: FleetContext,
  request: { readonly source: ImportSource; readonly verify?: boolean },
  work: Work<ImportProgress>,
  record: (root: Root) => Promise<void>,
): Promise<ImportFigures> {
  const session: WriteSession = ctx.store.openSession();
  const pipeline = new ChunkPipeline(session, ctx.limits.importBatchesMax);
  try {
    session.setPinSource(pipeline);
    await copy(ctx, request.source, pipeline, work);
    // Not rounded: a source that is not whole sectors is no disk, but a file taken for one, or one cut short.
    const size = pipeline.position;
    checkSize(size);
    const root = await pipeline.finish(size);
    await session.flush();
    if (request.verify === true) await verifySource(ctx, request.source, root, work);
    await record(root);
    const counts = session.counts;
    return {
      ...toDiskRoot(ctx, root),
      readBytes: pipeline.dataBytes,
      newBytes: counts.newBytes,
      storedBytes: counts.storedBytes,
      chunks: pipeline.chunks,
      zeroChunks: pipeline.zeroChunks,
      knownChunks: counts.knownChunks,
      newChunks: counts.newChunks,
    };
  } finally {
    await pipeline.settle();
    session.release();
  }
}

/** Reads the source a second time. @throws `verify-failed` when it does not hold what was stored */
async function verifySource(
  ctx: FleetContext,
  source: ImportSource,
  stored: Root,
  work: Work<ImportProgress>,
): Promise<void> {
  let told = ctx.clock.monotonic();
  const found = await readOut(ctx, work.signal, (signal) =>
    rootOf(bytesOnly(source.parts(signal)), {
      chunkBytes: ctx.store.chunkBytes,
      hash: ctx.store.hash,
      onProgress: (doneBytes) => {
        refuseAborted(ctx, work.signal);
        const now = ctx.clock.monotonic();
        if (now - told < PROGRESS_MS) return;
        told = now;
        work.onProgress?.({ phase: 'verifying', doneBytes, allBytes: stored.size });
      },
    }),
  );
  if (rootsEqual(found, stored)) {
    work.onProgress?.({ phase: 'verifying', doneBytes: stored.size, allBytes: stored.size });
    return;
  }
  throw new PandoError(
    'verify-failed',
    `the source, read again, has ${found.size} bytes with root ${idToHex(found.id)}; stored are ${stored.size} with ${idToHex(stored.id)}`,
  );
}

/**
 * One commit puts the backup into the catalog. The imported disk is forked into it like the others, from a disk that
 * exists for a moment only; the record of its removal comes with it, so that a crash in between leaves nothing.
 */
async function storeBackup(
  ctx: FleetContext,
  { record: since }: StoredBackup,
  chosen: StoredDisk,
  root: Root,
  given: string | undefined,
): Promise<Backup> {
  return ctx.locks.hold(since.vmId, 'shared', async () => {
    const removal = ctx.newId();
    const scratch = await ctx.volumes.create({ root }, (disk) => [
      put('disk-removal', removal, { disks: [disk] }),
    ]);
    const id = ctx.newId();
    const createdAt = ctx.clock.now();
    let reserved: { readonly name: string; readonly release: () => void } | undefined;
    try {
      reserved =
        given === undefined ? await reserveName(ctx, since.vmId, undefined, createdAt, id) : undefined;
      let record: BackupRecord | undefined;
      await ctx.volumes.fork({
        sources: since.disks.map((disk) => (disk === chosen ? scratch : disk.disk)),
        copies: 1,
        readOnly: true,
        records: ([numbers]) => {
          const disks = since.disks.map((disk, i) => ({
            name: disk.name,
            disk: numbers![i]!,
            size: disk === chosen ? root.size : disk.size,
          }));
          // What was said about the other one is not said about this.
          const { vmId, vmName, lineage, tags } = since;
          const name = given ?? reserved!.name;
          record = { version: 1, name, vmId, vmName, lineage, createdAt, disks, ...withTags(tags) };
          return [...putBackup(id, record), put('backup-compare', id, {})];
        },
      });
      return toBackup({ id, record: record! });
    } finally {
      reserved?.release();
      await removeDisks(ctx, removal, [scratch]);
    }
  });
}

/** In whole chunks, cut at the end of the larger disk. */
async function bytesChanged(ctx: FleetContext, before: Root, after: Root): Promise<number> {
  const { chunkBytes } = ctx.store;
  const end = Math.max(before.size, after.size);
  let bytes = 0;
  for await (const { start, count } of diffTrees(ctx.store, before, after)) {
    bytes += Math.min((start + count) * chunkBytes, end) - start * chunkBytes;
  }
  return bytes;
}

/** Reads the source to its end, or stops it: also when a write fails, it is told so by its signal. */
async function copy(
  ctx: FleetContext,
  source: ImportSource,
  pipeline: ChunkPipeline,
  work: Work<ImportProgress>,
): Promise<void> {
  const allBytes = source.sizeBytes;
  let told = ctx.clock.monotonic();
  const tell = (): void => {
    work.onProgress?.({ doneBytes: pipeline.position, ...(allBytes === undefined ? {} : { allBytes }) });
  };
  await readOut(
    ctx,
    work.signal,
    async (signal) => {
      for await (const part of source.parts(signal)) {
        refuseAborted(ctx, work.signal);
        const bytes = bytesOf(part, ctx.store.chunkBytes);
        if (!Number.isSafeInteger(bytes) || bytes < 0)
          throw new PandoError('request-invalid', `a hole of ${bytes} bytes`);
        if (pipeline.position + bytes > (allBytes ?? DISK_BYTES_MAX)) {
          throw new PandoError(
            'size-invalid',
            `the source has more than ${allBytes ?? DISK_BYTES_MAX} bytes`,
          );
        }
        if (part instanceof Uint8Array) await pipeline.write(part);
        else if ('ids' in part) {
          refuseKeyed(ctx, 'chunks do not come by their ids here');
          await pipeline.claim(part.ids);
        } else await pipeline.skip(bytes);
        const now = ctx.clock.monotonic();
        if (now - told >= PROGRESS_MS) {
          told = now;
          tell();
        }
      }
    },
    () => ` at byte ${pipeline.position}`,
  );
  if (allBytes !== undefined && pipeline.position < allBytes) {
    throw new PandoError(
      'import-interrupted',
      `the source ended at byte ${pipeline.position} of ${allBytes}`,
    );
  }
  tell();
}

function bytesOf(part: DiskPart | ChunkIds, chunkBytes: number): number {
  if (part instanceof Uint8Array) return part.byteLength;
  return 'ids' in part ? (part.ids.byteLength / ID_BYTES) * chunkBytes : part.holeBytes;
}

/** A second reading has to bring bytes: ids prove nothing. */
async function* bytesOnly(parts: AsyncIterable<DiskPart | ChunkIds>): AsyncGenerator<DiskPart> {
  for await (const part of parts) {
    if ('ids' in part) throw new PandoError('internal', 'a source of ids cannot be verified');
    yield part;
  }
}

/** Runs what reads a source, with a signal that stops the source also when the reading fails for other reasons. */
async function readOut<T>(
  ctx: FleetContext,
  signal: AbortSignal | undefined,
  action: (signal: AbortSignal) => Promise<T>,
  where = (): string => ' when it was read again',
): Promise<T> {
  const stopped = new AbortController();
  const signals = [stopped.signal, ctx.closing, ...(signal === undefined ? [] : [signal])];
  try {
    refuseAborted(ctx, signal);
    const result = await action(AbortSignal.any(signals));
    refuseAborted(ctx, signal);
    return result;
  } catch (error) {
    stopped.abort(error);
    refuseAborted(ctx, signal);
    if (error instanceof PandoError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new PandoError('import-interrupted', `the source broke off${where()}: ${reason}`, { cause: error });
  }
}

/** A stopped source may say anything; why it was stopped is what counts. */
function refuseAborted(ctx: FleetContext, signal: AbortSignal | undefined): void {
  if (ctx.closing.aborted) throw ctx.closing.reason as Error;
  if (signal?.aborted === true)
    throw new PandoError('cancelled', 'the import was cancelled', { cause: signal.reason });
}
