/**
 * Import: a source straight into chunks, not through the write log. Nothing of it is in the catalog before the last
 * step, so whatever breaks off leaves only chunks that nobody points at.
 */
import { DISK_BYTES_MAX, PandoError } from '@pando/common';
import type { FleetContext } from './context.ts';
import { ChunkPipeline } from './chunk-pipeline.ts';
import { withVmNames } from './lookup.ts';
import { checkName, checkSize } from './names.ts';
import type { ImportProgress, ImportResult, ImportSource, Work } from './types.ts';
import { newVm } from './vms.ts';

export const DISK_NAME_DEFAULT = 'disk0';

/** Progress is told at most this often. */
const PROGRESS_MS = 100;

export class Imports {
  #running = 0;

  async run(
    ctx: FleetContext,
    request: { readonly name: string; readonly diskName?: string; readonly source: ImportSource },
    work: Work<ImportProgress>,
  ): Promise<ImportResult> {
    const name = checkName('VM name', request.name);
    const diskName = checkName('disk name', request.diskName ?? DISK_NAME_DEFAULT);
    const { sizeBytes } = request.source;
    if (sizeBytes !== undefined) checkSize(sizeBytes);
    if (this.#running >= ctx.limits.importsMax) {
      throw new PandoError('too-busy', `${this.#running} imports are running`);
    }
    this.#running++;
    try {
      return await withVmNames(ctx, [name], () => importDisk(ctx, name, diskName, request.source, work));
    } finally {
      this.#running--;
    }
  }
}

async function importDisk(
  ctx: FleetContext,
  name: string,
  diskName: string,
  source: ImportSource,
  work: Work<ImportProgress>,
): Promise<ImportResult> {
  const session = ctx.store.openSession();
  const pipeline = new ChunkPipeline(session, ctx.limits.importBatchesMax);
  try {
    session.setPinSource(pipeline);
    await copy(ctx, source, pipeline, work);
    // Not rounded: a source that is not whole sectors is no disk, but a file taken for one, or one cut short.
    const size = pipeline.position;
    checkSize(size);
    const root = await pipeline.finish(size);
    await session.flush();
    const vm = newVm(ctx, { name });
    await ctx.volumes.create({ root }, (disk) => vm.store([{ name: diskName, disk, size }]));
    const counts = session.counts;
    return {
      vm: vm.made(),
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

/** Reads the source to its end, or stops it: also when a write fails, it is told so by its signal. */
async function copy(
  ctx: FleetContext,
  source: ImportSource,
  pipeline: ChunkPipeline,
  work: Work<ImportProgress>,
): Promise<void> {
  const stopped = new AbortController();
  const signals = [stopped.signal, ctx.closing, ...(work.signal === undefined ? [] : [work.signal])];
  const signal = AbortSignal.any(signals);
  const allBytes = source.sizeBytes;
  let told = ctx.clock.monotonic();
  const tell = (): void => {
    work.onProgress?.({ doneBytes: pipeline.position, ...(allBytes === undefined ? {} : { allBytes }) });
  };
  try {
    refuseAborted(ctx, work.signal);
    for await (const part of source.parts(signal)) {
      refuseAborted(ctx, work.signal);
      const bytes = part instanceof Uint8Array ? part.byteLength : part.holeBytes;
      if (!Number.isSafeInteger(bytes) || bytes < 0)
        throw new PandoError('request-invalid', `a hole of ${bytes} bytes`);
      if (pipeline.position + bytes > (allBytes ?? DISK_BYTES_MAX)) {
        throw new PandoError('size-invalid', `the source has more than ${allBytes ?? DISK_BYTES_MAX} bytes`);
      }
      if (part instanceof Uint8Array) await pipeline.write(part);
      else await pipeline.skip(bytes);
      const now = ctx.clock.monotonic();
      if (now - told >= PROGRESS_MS) {
        told = now;
        tell();
      }
    }
    refuseAborted(ctx, work.signal);
  } catch (error) {
    stopped.abort(error);
    refuseAborted(ctx, work.signal);
    if (error instanceof PandoError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new PandoError(
      'import-interrupted',
      `the source broke off at byte ${pipeline.position}: ${reason}`,
      { cause: error },
    );
  }
  if (allBytes !== undefined && pipeline.position < allBytes) {
    throw new PandoError(
      'import-interrupted',
      `the source ended at byte ${pipeline.position} of ${allBytes}`,
    );
  }
  tell();
}

/** A stopped source may say anything; why it was stopped is what counts. */
function refuseAborted(ctx: FleetContext, signal: AbortSignal | undefined): void {
  if (ctx.closing.aborted) throw ctx.closing.reason as Error;
  if (signal?.aborted === true)
    throw new PandoError('cancelled', 'the import was cancelled', { cause: signal.reason });
}
