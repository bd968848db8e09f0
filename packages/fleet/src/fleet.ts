/** Opens the fleet: puts its parts together, and counts what is under way so that it can be closed. */
import type { Catalog } from '@pando/catalog';
import type { ChunkStore } from '@pando/chunk-store';
import { ID_BYTES, PandoError, type Clock, type Random } from '@pando/common';
import type { OnEvent } from '@pando/events';
import { account, reclaimable } from '@pando/gc';
import type { DiskNumber, Volumes } from '@pando/volume';
import { attach, listExports } from './attach.ts';
import { Attachments } from './attachments.ts';
import { changeBackup, createBackup, deleteBackup, expireBackup, getBackup, listBackups } from './backups.ts';
import { changeHistory } from './change-history.ts';
import { diff } from './compare.ts';
import type { FleetContext } from './context.ts';
import { DiskOwners } from './disk-owners.ts';
import { idSource, newestIdMs } from './ids.ts';
import { Imports } from './imports.ts';
import { FLEET_LIMITS, type FleetLimits } from './limits.ts';
import { Locks, Reservations } from './locks.ts';
import { finishRemovals, restoreBackup } from './restore.ts';
import { diskRoot, diskRoots, Proofs, refuseKeyed } from './roots.ts';
import { Sharing } from './sharing.ts';
import { Space } from './space.ts';
import { Tending } from './tending.ts';
import { TrustedTime } from './trusted-time.ts';
import type { Backup, Fleet } from './types.ts';
import { cloneVm, createVm, deleteVm, getVm, listVms, renameVm, resizeDisk, setTags } from './vms.ts';

export interface FleetOptions {
  readonly catalog: Catalog;
  readonly store: ChunkStore;
  readonly volumes: Volumes;
  readonly clock: Clock;
  readonly random: Random;
  readonly onEvent?: OnEvent;
  /** A backup is gone because its time had come. */
  readonly onExpired?: (backup: Backup) => void;
  readonly limits?: Partial<FleetLimits>;
}

export interface OpenFleet extends Fleet {
  /**
   * Refuses new work, cancels imports and reports, waits for operations under way, throws all clients out.
   * Catalog, store and volumes are the caller's to close afterwards. Idempotent.
   */
  close(): Promise<void>;
  /**
   * Id of the VM that a disk belongs to which a client has open, or had lately; undefined for others. Costs nothing, and answers after
   * `close`, too.
   */
  vmOfDisk(disk: DiskNumber): string | undefined;
}

/** Opens the fleet over rooms that are open, and finishes what an earlier process was interrupted in. */
export async function openFleet(options: FleetOptions): Promise<OpenFleet> {
  const { catalog, store, volumes, clock, random } = options;
  const limits = { ...FLEET_LIMITS, ...options.limits };
  const closing = new AbortController();
  const ctx: FleetContext = {
    catalog,
    store,
    volumes,
    clock,
    time: await TrustedTime.open(catalog, clock, options.onEvent ?? (() => undefined)),
    limits,
    locks: new Locks(limits.lockWaitersMax),
    reservations: new Reservations(),
    attachments: new Attachments(clock, limits),
    owners: new DiskOwners(limits.diskOwnersMax),
    closing: closing.signal,
    onExpired: options.onExpired ?? (() => undefined),
    // Not by the clock alone: it may have been set back since the last start.
    newId: idSource(clock, random, await newestIdMs(catalog)),
  };
  const imports = new Imports();
  const space = new Space(ctx, account);
  const sharing = new Sharing(ctx, space, reclaimable);
  const proofs = new Proofs(ctx);
  const tending = new Tending(ctx);
  await finishRemovals(ctx);

  const operations = new Set<Promise<unknown>>();
  let closed: Promise<void> | undefined;

  /** Every operation goes through here. */
  const run = async <T>(action: () => Promise<T>): Promise<T> => {
    if (closing.signal.aborted) throw closing.signal.reason as Error;
    const operation = action();
    operations.add(operation);
    try {
      return await operation;
    } finally {
      operations.delete(operation);
    }
  };
  /** A signal that aborts with the caller's, and when the fleet closes. */
  const withClosing = <W extends { readonly signal?: AbortSignal }>(
    work: W | undefined,
  ): W & { readonly signal: AbortSignal } => ({
    ...(work as W),
    signal: work?.signal === undefined ? closing.signal : AbortSignal.any([work.signal, closing.signal]),
  });

  return {
    chunkBytes: store.chunkBytes,
    isKeyed: store.isKeyed,
    vmOfDisk: (disk) => ctx.owners.vmOf(disk),
    knownChunks: (ids) =>
      run(() => {
        refuseKeyed(ctx, 'which ids are stored is told to nobody here');
        return store.knownChunks(ids, ids.byteLength / ID_BYTES);
      }),
    createVm: (request) => run(() => createVm(ctx, request)),
    importVm: (request, work = {}) => run(() => imports.importVm(ctx, request, work)),
    importBackup: (request, work = {}) => run(() => imports.importBackup(ctx, request, work)),
    listVms: (request = {}) => run(() => listVms(ctx, request)),
    getVm: (vm) => run(() => getVm(ctx, vm)),
    renameVm: (vm, name) => run(() => renameVm(ctx, vm, name)),
    setTags: (vm, tags) => run(() => setTags(ctx, vm, tags)),
    resizeDisk: (vm, disk, sizeBytes, how = {}) => run(() => resizeDisk(ctx, vm, disk, sizeBytes, how)),
    deleteVm: (vm, how = {}) => run(() => deleteVm(ctx, vm, how)),
    cloneVm: (vm, request) => run(() => cloneVm(ctx, vm, request)),
    createBackup: (vm, request = {}) => run(() => createBackup(ctx, vm, request)),
    listBackups: (request = {}) => run(() => listBackups(ctx, request)),
    getBackup: (backup) => run(() => getBackup(ctx, backup)),
    changeBackup: (backup, change) => run(() => changeBackup(ctx, backup, change)),
    deleteBackup: (backup) => run(() => deleteBackup(ctx, backup)),
    expireBackup: (backup) => run(() => expireBackup(ctx, backup)),
    changeHistory: (vm) => run(() => changeHistory(ctx, vm)),
    trustedTime: () => ({ now: ctx.time.now(), isBehind: ctx.time.isBehind }),
    tend: () => run(() => tending.tend()),
    restoreBackup: (backup, request = {}, work = {}) => run(() => restoreBackup(ctx, backup, request, work)),
    diskRoot: (backup, disk) => run(() => diskRoot(ctx, backup, disk)),
    attach: (exportName) => run(() => attach(ctx, exportName)),
    listExports: (limit) => run(() => listExports(ctx, limit)),
    space: (work) => run(() => space.report(withClosing(work))),
    ownerSpaces: (request = {}) => run(() => space.owners(request)),
    answers: {
      accounts: (request) => run(() => sharing.accounts(request)),
      holders: (ref, request = {}) => run(() => sharing.holders(ref, request)),
      reclaim: (request, work) => run(() => sharing.reclaim(request, withClosing(work))),
      planReclaim: (request, work) => run(() => sharing.planReclaim(request, withClosing(work))),
      diff: (request) => run(() => diff(ctx, request)),
      roots: (owner) => run(() => diskRoots(ctx, owner)),
      prove: (backup, disk, range) => run(() => proofs.prove(backup, disk, range)),
    },
    close: () =>
      (closed ??= (async () => {
        const reason = new PandoError('shutting-down', 'the server is stopping');
        closing.abort(reason);
        // Twice: an attach that was under way may have ended in between.
        await ctx.attachments.disconnectAll(reason);
        await Promise.allSettled(operations);
        await ctx.attachments.disconnectAll(reason);
      })()),
  };
}
