/** A fleet in memory that does what the contract says to small disks: whole buffers, copied on clone. For tests of the api. */
import { createHash } from 'node:crypto';
import {
  DISK_BYTES_MAX,
  ID_BYTES,
  idToHex,
  isHole,
  NAME_BYTES_MAX,
  isPandoError,
  PandoError,
  SECTOR_BYTES,
  type DiskPart,
} from '@pando/common';
import { backupMissing, vmMissing } from '@pando/fleet';
import type {
  Attachment,
  Backup,
  BackupFilter,
  BackupImportResult,
  ChangeHistory,
  ChunkIds,
  DiskRoot,
  Fleet,
  ImportFigures,
  ImportProgress,
  ImportResult,
  ImportSource,
  OwnerSpace,
  Page,
  PageRequest,
  SpaceReport,
  Tended,
  Vm,
  Work,
} from '@pando/fleet';
import { FakeAnswers } from './fake-answers.ts';

const BLOCK = 4096;

interface VmState extends Omit<Vm, 'disks' | 'attachedClients'> {
  disks: Map<string, Buffer>;
  clients: Set<AbortController>;
}
interface BackupState extends Omit<Backup, 'disks'> {
  disks: Map<string, Buffer>;
}
type Attributes = Omit<Parameters<Fleet['changeBackup']>[1], 'name'>;

export class FakeFleet implements Fleet {
  readonly vms = new Map<string, VmState>();
  readonly backups = new Map<string, BackupState>();
  readonly chunkBytes = BLOCK;
  /** Set by a test. */
  isKeyed = false;
  readonly answers = new FakeAnswers(this);
  /** By their ids in hex; what imports bring by ids is looked for here, and nothing puts it there but tests. */
  readonly chunks = new Map<string, Buffer>();
  /** Set by a test: what the next call throws. */
  failNext: Error | undefined;
  /** Codes of what was thrown because a test said so. */
  readonly thrown = new Set<string>();
  /** Buffers that imports hold right now, in bytes. */
  heldBytes = 0;
  /** Set by a test: an import waits for it before every pull. */
  gate: (() => Promise<void>) | undefined;
  /** Set by a test: a client that goes waits for it. */
  beforeDetach: (() => Promise<void>) | undefined;
  #next = 1;

  async createVm({ name, disks, tags }: Parameters<Fleet['createVm']>[0]): Promise<Vm> {
    this.#fail();
    this.#free(name);
    for (const disk of disks) {
      checkName(disk.name);
      checkSize(disk.sizeBytes);
    }
    return this.#addVm(name, new Map(disks.map((disk) => [disk.name, Buffer.alloc(disk.sizeBytes)])), tags);
  }

  async importVm(
    { name, diskName, source, verify, tags }: Parameters<Fleet['importVm']>[0],
    work: Parameters<Fleet['importVm']>[1] = {},
  ): Promise<ImportResult> {
    this.#fail();
    this.#free(name);
    const { bytes, figures } = await this.#read(source, verify === true, work);
    this.#free(name);
    return { vm: this.#addVm(name, new Map([[diskName ?? 'disk0', bytes]]), tags), ...figures };
  }

  async importBackup(
    { since, name, diskName, source, verify }: Parameters<Fleet['importBackup']>[0],
    work: Parameters<Fleet['importBackup']>[1] = {},
  ): Promise<BackupImportResult> {
    this.#fail();
    const before = this.#backup(since);
    const disk = diskName ?? [...before.disks.keys()][0]!;
    const old = this.#disk(before.disks, disk);
    const { bytes, figures } = await this.#read(source, verify === true, work);
    const id = this.#id();
    const disks = copy(before.disks).set(disk, bytes);
    const { vmId, vmName, lineage, tags } = before;
    const about = { vmId, vmName, lineage, tags, labels: {}, consistency: 'crash' as const };
    const backup: BackupState = { ...about, id, name: name ?? `backup ${id}`, createdAt: NOW, disks };
    this.backups.set(id, backup);
    return { backup: showBackup(backup), changedBytes: old.equals(bytes) ? 0 : bytes.byteLength, ...figures };
  }

  async #read(
    source: ImportSource,
    verify: boolean,
    work: Work<ImportProgress>,
  ): Promise<{ bytes: Buffer; figures: ImportFigures }> {
    if (source.sizeBytes !== undefined) checkSize(source.sizeBytes);
    const parts: Buffer[] = [];
    let doneBytes = 0;
    let readBytes = 0;
    const signal = work.signal ?? new AbortController().signal;
    for await (const part of source.parts(signal)) {
      work.signal?.throwIfAborted();
      const bytes = this.#bytesOf(part);
      if (part instanceof Uint8Array) readBytes += bytes.byteLength;
      parts.push(bytes);
      doneBytes += bytes.byteLength;
      this.heldBytes += bytes.byteLength;
      work.onProgress?.({
        doneBytes,
        ...(source.sizeBytes === undefined ? {} : { allBytes: source.sizeBytes }),
      });
      await this.gate?.();
    }
    checkSize(doneBytes);
    const bytes = Buffer.concat(parts);
    if (verify) {
      const again: Buffer[] = [];
      for await (const part of source.parts(signal)) {
        again.push(this.#bytesOf(part));
      }
      if (!Buffer.concat(again).equals(bytes))
        throw new PandoError('verify-failed', 'it holds something else');
    }
    const chunks = Math.ceil(doneBytes / BLOCK);
    const counts = { chunks, zeroChunks: 0, knownChunks: 0, newChunks: chunks };
    return {
      bytes,
      figures: { ...rootOfBytes(bytes), readBytes, newBytes: readBytes, storedBytes: readBytes, ...counts },
    };
  }

  #bytesOf(part: DiskPart | ChunkIds): Buffer {
    if (part instanceof Uint8Array) return Buffer.from(part);
    if (!('ids' in part)) return Buffer.alloc(part.holeBytes);
    const chunks: Buffer[] = [];
    for (let at = 0; at < part.ids.byteLength; at += ID_BYTES) {
      const chunk = isHole(part.ids, at) ? Buffer.alloc(BLOCK) : this.chunks.get(idToHex(part.ids, at));
      if (chunk === undefined) throw new PandoError('chunk-unknown', 'not there');
      chunks.push(chunk);
    }
    return Buffer.concat(chunks);
  }

  async knownChunks(ids: Uint8Array): Promise<Uint8Array> {
    this.#fail();
    return Uint8Array.from({ length: ids.byteLength / ID_BYTES }, (_, i) =>
      isHole(ids, i * ID_BYTES) || this.chunks.has(idToHex(ids, i * ID_BYTES)) ? 1 : 0,
    );
  }

  async listVms(request: PageRequest & { namePrefix?: string; tag?: string } = {}): Promise<Page<Vm>> {
    this.#fail();
    const names = [...this.vms.values()].filter(
      (vm) =>
        vm.name.startsWith(request.namePrefix ?? '') &&
        (request.tag === undefined || vm.tags.includes(request.tag)),
    );
    return page(names, (vm) => vm.name, request, showVm);
  }

  async getVm(vm: string): Promise<Vm> {
    this.#fail();
    return showVm(this.#vm(vm));
  }

  async renameVm(vm: string, name: string): Promise<Vm> {
    const state = this.#vm(vm);
    this.#free(name);
    const renamed = { ...state, name };
    this.vms.set(state.id, renamed);
    return showVm(renamed);
  }

  async setTags(vm: string, tags: readonly string[]): Promise<Vm> {
    const tagged = { ...this.#vm(vm), tags: [...tags].sort() };
    this.vms.set(tagged.id, tagged);
    return showVm(tagged);
  }

  async resizeDisk(
    vm: string,
    disk: string,
    sizeBytes: number,
    options: { shrink?: boolean; force?: boolean } = {},
  ): Promise<Vm> {
    const state = this.#vm(vm);
    const old = this.#disk(state.disks, disk);
    checkSize(sizeBytes);
    if (sizeBytes < old.byteLength) {
      if (options.shrink !== true) throw new PandoError('shrink-refused', 'smaller');
      this.#detach(state, options.force);
    }
    const bytes = Buffer.alloc(sizeBytes);
    old.copy(bytes);
    state.disks.set(disk, bytes);
    return showVm(state);
  }

  async deleteVm(vm: string, options: { force?: boolean } = {}): Promise<void> {
    this.#fail();
    const state = this.#vm(vm);
    this.#detach(state, options.force);
    this.vms.delete(state.id);
  }

  async cloneVm(vm: string, { name, count, tags }: Parameters<Fleet['cloneVm']>[1]): Promise<readonly Vm[]> {
    this.#fail();
    const state = this.#vm(vm);
    const names =
      count === undefined ? [name] : Array.from({ length: count }, (_, index) => `${name}-${index + 1}`);
    for (const each of names) this.#free(each);
    return names.map((each) => this.#addVm(each, copy(state.disks), tags, state.lineage));
  }

  async createBackup(
    vm: string,
    { policy, ...request }: Parameters<Fleet['createBackup']>[1] & object = {},
  ): Promise<Backup> {
    this.#fail();
    const state = this.#vm(vm);
    const name = request.name ?? `backup ${this.#next}`;
    checkName(name);
    if ([...this.backups.values()].some((backup) => backup.vmId === state.id && backup.name === name)) {
      throw new PandoError('name-taken', `${name} is taken`);
    }
    const before: BackupState = {
      id: this.#id(),
      name,
      vmId: state.id,
      vmName: state.name,
      lineage: state.lineage,
      createdAt: NOW,
      disks: copy(state.disks),
      tags: state.tags,
      consistency: request.consistency ?? 'crash',
      labels: {},
      ...(policy === undefined ? {} : { policy: { ...policy, dueAt: toInstant(policy.dueAt) } }),
    };
    const backup = withAttributes(before, request);
    this.backups.set(backup.id, backup);
    return showBackup(backup);
  }

  async listBackups(request: PageRequest & BackupFilter = {}): Promise<Page<Backup>> {
    const { label, policy, rule } = request;
    const vm = request.vm === undefined ? undefined : this.#vm(request.vm);
    const chosen = [...this.backups.values()].filter(
      (backup) =>
        (vm === undefined || backup.vmId === vm.id) &&
        (label === undefined || backup.labels[label.name] === label.value) &&
        (policy === undefined || backup.policy?.id === policy) &&
        (rule === undefined || backup.policy?.rule === rule),
    );
    return page(chosen, (backup) => backup.id, request, showBackup);
  }

  async changeBackup(
    backup: string,
    { name, ...change }: Parameters<Fleet['changeBackup']>[1],
  ): Promise<Backup> {
    this.#fail();
    const state = this.#backup(backup);
    if (name !== undefined) checkName(name);
    const changed = { ...withAttributes(state, change), name: name ?? state.name };
    this.backups.set(state.id, changed);
    return showBackup(changed);
  }

  async expireBackup(backup: string): Promise<boolean> {
    const state = this.backups.get(backup);
    const isKept =
      state === undefined ||
      isLocked(state) ||
      (state.expiresAt === undefined ? state.policy === undefined : !(Date.parse(state.expiresAt) <= NOW_MS));
    if (!isKept) this.backups.delete(backup);
    return !isKept;
  }

  async changeHistory(vm: string): Promise<ChangeHistory> {
    const disks = [...this.#vm(vm).disks.values()];
    // Its backups are all of one time.
    return {
      logicalBytes: disks.reduce((sum, { byteLength }) => sum + byteLength, 0),
      samples: [],
      storedRatio: 1,
    };
  }

  trustedTime(): { now: number; isBehind: boolean } {
    return { now: NOW_MS, isBehind: false };
  }

  async tend(): Promise<Tended> {
    return { expired: 0, isMore: false };
  }

  async getBackup(backup: string): Promise<Backup> {
    return showBackup(this.#backup(backup));
  }

  async deleteBackup(backup: string): Promise<void> {
    const state = this.#backup(backup);
    if (isLocked(state)) throw new PandoError('backup-locked', `it is locked until ${state.lockedUntil}`);
    this.backups.delete(state.id);
  }

  async restoreBackup(
    backup: string,
    request: Parameters<Fleet['restoreBackup']>[1] & object = {},
    work: Work<ImportProgress> = {},
  ): Promise<Vm> {
    const state = this.#backup(backup);
    if (request.verify === true) {
      this.#fail();
      work.onProgress?.({ phase: 'verifying', doneBytes: 1, allBytes: 2 });
    }
    const { disk } = request;
    const disks = disk === undefined ? state.disks : new Map([[disk, this.#disk(state.disks, disk)]]);
    if (request.as !== undefined) {
      this.#free(request.as);
      return this.#addVm(request.as, copy(disks), request.tags, state.lineage);
    }
    const vm = this.#vm(state.vmId);
    if (disk !== undefined) this.#disk(vm.disks, disk);
    this.#detach(vm, request.force);
    vm.disks = disk === undefined ? copy(disks) : new Map([...vm.disks, ...copy(disks)]);
    return showVm(vm);
  }

  async diskRoot(backup: string, disk: string): Promise<DiskRoot> {
    return rootOfBytes(this.#disk(this.#backup(backup).disks, disk));
  }

  async attach(exportName: string): Promise<Attachment> {
    const slash = exportName.lastIndexOf('/');
    const [owner, diskName] = [exportName.slice(0, slash), exportName.slice(slash + 1)];
    const isBackup = this.backups.has(owner) || owner.includes('@');
    const vm = isBackup ? undefined : this.#vm(owner);
    const bytes = this.#disk(vm === undefined ? this.#backup(owner).disks : vm.disks, diskName);
    const revoke = new AbortController();
    vm?.clients.add(revoke);
    return {
      exportName,
      size: bytes.byteLength,
      readOnly: isBackup,
      blockBytes: BLOCK,
      revoked: revoke.signal,
      read: (offset, length, target, targetOffset) => {
        target.set(bytes.subarray(offset, offset + length), targetOffset);
        return undefined;
      },
      write: (offset, data) => {
        bytes.set(data, offset);
        return undefined;
      },
      zero: (offset, length) => {
        bytes.fill(0, offset, offset + length);
        return undefined;
      },
      flush: () => Promise.resolve(),
      prefetch: () => Promise.resolve(),
      allocation: (offset, length, extentsMax) =>
        Promise.resolve(extentsOf(bytes.subarray(0, offset + length), offset, extentsMax)),
      contextNames: () => Promise.resolve([]),
      openContext: () => Promise.resolve(undefined),
      leave: () => undefined,
      close: async () => {
        await this.beforeDetach?.();
        vm?.clients.delete(revoke);
      },
    };
  }

  async listExports(limit: number): Promise<readonly string[]> {
    return [...this.vms.values()]
      .flatMap((vm) => [...vm.disks.keys()].map((disk) => `${vm.name}/${disk}`))
      .slice(0, limit);
  }

  async space(): Promise<SpaceReport> {
    this.#fail();
    let logicalBytes = 0;
    for (const vm of this.vms.values()) for (const disk of vm.disks.values()) logicalBytes += disk.byteLength;
    const ratios = { thin: 1, lineage: 1, dedupe: 1, compression: 1, total: 1 };
    return {
      logicalBytes,
      allocatedBytes: logicalBytes,
      uniqueBytes: logicalBytes,
      dataStoredBytes: logicalBytes,
      metadataBytes: 0,
      garbageBytes: 0,
      indexBytes: 0,
      logBytes: 0,
      logSpareBytes: 0,
      catalogBytes: 0,
      storedBytes: logicalBytes,
      ratios,
      ratiosWithoutBackups: ratios,
      vms: this.vms.size,
      backups: this.backups.size,
      keyed: this.isKeyed,
    };
  }

  async ownerSpaces(request: PageRequest & { kind?: 'vm' | 'backup' } = {}): Promise<Page<OwnerSpace>> {
    const owner =
      (kind: 'vm' | 'backup') =>
      (state: VmState | BackupState): OwnerSpace => {
        const bytes = [...state.disks.values()].reduce((sum, disk) => sum + disk.byteLength, 0);
        return {
          kind,
          id: state.id,
          name: state.name,
          logicalBytes: bytes,
          allocatedBytes: bytes,
          exclusiveBytes: bytes,
          fairBytes: bytes,
        };
      };
    const owners = [
      ...[...this.vms.values()].map(owner('vm')),
      ...[...this.backups.values()].map(owner('backup')),
    ];
    return page(
      owners.filter(({ kind }) => request.kind === undefined || kind === request.kind),
      ({ id }) => id,
      request,
      (each) => each,
    );
  }

  #addVm(name: string, disks: Map<string, Buffer>, tags: readonly string[] = [], lineage = this.#id()): Vm {
    const id = this.#id();
    const vm: VmState = { id, name, lineage, createdAt: NOW, disks, tags, clients: new Set() };
    this.vms.set(vm.id, vm);
    return showVm(vm);
  }

  #vm(reference: string): VmState {
    const found = this.vms.get(reference) ?? [...this.vms.values()].find((vm) => vm.name === reference);
    if (found === undefined) throw vmMissing(reference);
    return found;
  }

  #backup(reference: string): BackupState {
    const found =
      this.backups.get(reference) ??
      [...this.backups.values()].find((backup) => `${backup.vmName}@${backup.name}` === reference);
    if (found === undefined) throw backupMissing(reference);
    return found;
  }

  #disk(disks: Map<string, Buffer>, name: string): Buffer {
    const disk = disks.get(name);
    if (disk === undefined) throw new PandoError('disk-missing', `no disk ${name}`);
    return disk;
  }

  #detach(vm: VmState, force = false): void {
    if (vm.clients.size > 0 && !force)
      throw new PandoError('vm-attached', `${vm.name} has ${vm.clients.size} clients`);
    for (const client of vm.clients) client.abort();
    vm.clients.clear();
  }

  #free(name: string): void {
    checkName(name);
    if ([...this.vms.values()].some((vm) => vm.name === name))
      throw new PandoError('name-taken', `${name} is taken`);
  }

  #id(): string {
    return `id-${String(this.#next++).padStart(6, '0')}`;
  }

  #fail(): void {
    const error = this.failNext;
    this.failNext = undefined;
    if (error === undefined) return;
    if (isPandoError(error)) this.thrown.add(error.code);
    throw error;
  }
}

/** Names content as a root does; another hash, which nobody looks at here. */
function rootOfBytes(bytes: Uint8Array): DiskRoot {
  const root = createHash('sha256').update(bytes).digest('hex');
  return { root, sizeBytes: bytes.byteLength, chunkBytes: BLOCK, keyed: false };
}

const NOW = '2026-11-20T10:00:00.000Z';
const NOW_MS = Date.parse(NOW);

const toInstant = (ms: number): string => new Date(ms).toISOString();

function isLocked({ lockedUntil }: BackupState): boolean {
  return lockedUntil !== undefined && Date.parse(lockedUntil) > NOW_MS;
}

function withAttributes(
  state: BackupState,
  { note, labels, lockedUntil, expiresAt }: Attributes,
): BackupState {
  if (
    lockedUntil !== undefined &&
    isLocked(state) &&
    !((lockedUntil ?? 0) >= Date.parse(state.lockedUntil!))
  ) {
    throw new PandoError('backup-locked', `it is locked until ${state.lockedUntil}`);
  }
  for (const at of [lockedUntil, expiresAt]) {
    if (typeof at === 'number' && at <= NOW_MS) throw new PandoError('request-invalid', 'it is in the past');
  }
  const change = {
    ...(note === undefined ? {} : { note: note ?? undefined }),
    ...(labels === undefined ? {} : { labels }),
    ...(lockedUntil === undefined
      ? {}
      : { lockedUntil: lockedUntil === null ? undefined : toInstant(lockedUntil) }),
    ...(expiresAt === undefined
      ? {}
      : { expiresAt: typeof expiresAt === 'number' ? toInstant(expiresAt) : (expiresAt ?? undefined) }),
  };
  const entries = Object.entries({ ...state, ...change }).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as unknown as BackupState;
}

function copy(disks: Map<string, Buffer>): Map<string, Buffer> {
  return new Map([...disks].map(([name, bytes]) => [name, Buffer.from(bytes)]));
}

function showVm({ clients, disks, ...vm }: VmState): Vm {
  return {
    ...vm,
    disks: [...disks].map(([name, bytes]) => ({ name, sizeBytes: bytes.byteLength })),
    attachedClients: clients.size,
  };
}

function showBackup({ disks, ...backup }: BackupState): Backup {
  return { ...backup, disks: [...disks].map(([name, bytes]) => ({ name, sizeBytes: bytes.byteLength })) };
}

function page<S, T>(
  all: S[],
  key: (state: S) => string,
  { cursor, limit = 100 }: PageRequest,
  show: (state: S) => T,
): Page<T> {
  if (cursor === 'nonsense') throw new PandoError('cursor-invalid', 'nonsense');
  const sorted = all
    .sort((a, b) => (key(a) < key(b) ? -1 : 1))
    .filter((state) => cursor === undefined || key(state) > cursor);
  const items = sorted.slice(0, limit);
  return {
    items: items.map(show),
    ...(items.length < sorted.length ? { nextCursor: key(items.at(-1)!) } : {}),
  };
}

function extentsOf(
  bytes: Buffer,
  offset: number,
  extentsMax: number,
): { lengths: number[]; holes: boolean[] } {
  const lengths: number[] = [];
  const holes: boolean[] = [];
  for (let at = offset; at < bytes.byteLength;) {
    const end = Math.min(bytes.byteLength, (Math.floor(at / BLOCK) + 1) * BLOCK);
    const hole = bytes.subarray(at, end).every((byte) => byte === 0);
    if (holes.at(-1) === hole) lengths[lengths.length - 1]! += end - at;
    else if (lengths.length === extentsMax) break;
    else {
      lengths.push(end - at);
      holes.push(hole);
    }
    at = end;
  }
  return { lengths, holes };
}

function checkName(name: string): void {
  const bytes = Buffer.byteLength(name);
  if (bytes === 0 || bytes > NAME_BYTES_MAX || /[/@\u0000-\u001f\u007f]/.test(name)) {
    throw new PandoError('name-invalid', `${JSON.stringify(name)} is no name`);
  }
}

function checkSize(bytes: number): void {
  if (bytes < SECTOR_BYTES || bytes > DISK_BYTES_MAX || bytes % SECTOR_BYTES !== 0) {
    throw new PandoError('size-invalid', `${bytes} is no size`);
  }
}
