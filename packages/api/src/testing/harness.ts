/** An api over a fake fleet, for tests. */
import { AuditTrail, Tokens, type Actor } from '@pando/access';
import { MemoryCatalog } from '@pando/catalog';
import { Activity } from '@pando/activity';
import { MemoryFileSystem, PandoError, systemClock, systemRandom } from '@pando/common';
import { EventLog, Webhooks, type Send } from '@pando/events';
import { openPolicies, type OpenPolicies } from '@pando/policies';
import { buildApi, Jobs, type ApiOptions, type App, type Engine } from '../index.ts';
import type { GcReport, RepairReport, VerifyReport } from '../schemas/index.ts';
import { FakeFiles } from './fake-files.ts';
import { FakeFleet } from './fake-fleet.ts';
import { unlistedEnd, watchErrors, type Unlisted } from './listed-errors.ts';

export const GC_REPORT: GcReport = {
  roots: 3,
  liveChunks: 10,
  liveBytes: 40_960,
  deadChunks: 2,
  droppedSegments: 1,
  compactedSegments: 0,
  damagedSegments: 0,
  freedBytes: 8192,
};

export const VERIFY_REPORT: VerifyReport = {
  quick: false,
  chunks: 5,
  bytes: 20_480,
  nodes: 1,
  checkedDisks: 2,
  missingChunks: 0,
  damaged: [],
  moreDamaged: 0,
  disks: [],
  moreDisks: 0,
  isComplete: true,
};

export const REPAIR_REPORT: RepairReport = {
  verifiedAt: '2026-11-20T10:00:00.000Z',
  readBytes: 4096,
  lostChunks: 2,
  lostNodes: 0,
  repairedChunks: 1,
  repairedNodes: 0,
  repairedDisks: [{ kind: 'vm', id: 'x', name: 'web', disk: 'disk0' }],
  again: false,
  report: VERIFY_REPORT,
};

export interface Harness {
  readonly app: App;
  readonly fleet: FakeFleet;
  /** Over the fake fleet; nothing runs but when a test says `tick`. */
  readonly policies: OpenPolicies;
  readonly jobs: Jobs;
  readonly engine: { -readonly [K in keyof Engine]: Engine[K] };
  readonly internalErrors: unknown[];
  readonly events: EventLog;
  /** Of the disks that `vmOfDisk` has, by their numbers. */
  readonly activity: Activity;
  readonly vmOfDisk: Map<number, string>;
  /** What webhooks were sent. */
  readonly sent: Parameters<Send>[0][];
  readonly tokens: Tokens;
  /** In `/audit` of `fs`. */
  readonly audit: AuditTrail;
  readonly fs: MemoryFileSystem;
  close(): Promise<void>;
}

/** Who comes without a token, where a test does not ask about them. */
const NOBODY: Actor = { name: 'test', role: 'admin' };

/** `strict`: no request passes without a token. */
export async function harness({
  strict = false,
  ...options
}: Partial<ApiOptions> & { strict?: boolean } = {}): Promise<Harness> {
  const fleet = new FakeFleet();
  let policyIds = 0;
  const policies = openPolicies({
    catalog: new MemoryCatalog(),
    fleet,
    clock: systemClock,
    newId: () => `policy-${++policyIds}`,
  });
  const internalErrors: unknown[] = [];
  const unlistedEnds: Unlisted[] = [];
  const jobs = new Jobs({
    clock: systemClock,
    onInternalError: (_job, error) => internalErrors.push(error),
    onEnded: (job) => unlistedEnds.push(...unlistedEnd(job)),
  });
  const engine: Harness['engine'] = {
    gc: () => Promise.resolve(GC_REPORT),
    verify: () => Promise.resolve(VERIFY_REPORT),
    lastVerifications: () => Promise.resolve({}),
    repair: () => Promise.resolve(REPAIR_REPORT),
    openStoreSource: () => Promise.reject(new PandoError('store-missing', 'there are no segments')),
    store: () => 'ready',
  };
  const catalog = new MemoryCatalog();
  const events = await EventLog.open({ catalog, clock: systemClock });
  const vmOfDisk = new Map<number, string>();
  const activity = new Activity({
    ...{ catalog, clock: systemClock, chunkBytes: 4096, onEvent: events.raise, lockMs: 0 },
    fleet: {
      vmOfDisk: (disk) => vmOfDisk.get(disk),
      getVm: (vm) => fleet.getVm(vm),
      listBackups: (request) => fleet.listBackups(request),
      changeBackup: (backup, change) => fleet.changeBackup(backup, change),
      trustedTime: () => fleet.trustedTime(),
    },
  });
  const sent: Harness['sent'] = [];
  const webhooks = await Webhooks.open({
    ...{ catalog, log: events, clock: systemClock, random: systemRandom, onEvent: events.raise },
    send: (request) => {
      sent.push(request);
      return Promise.resolve({ status: 204 });
    },
  });
  const tokens = await Tokens.open({
    catalog: new MemoryCatalog(),
    clock: systemClock,
    random: systemRandom,
  });
  const fs = new MemoryFileSystem();
  const audit = await AuditTrail.open({
    fs,
    directory: '/audit',
    clock: systemClock,
    keepDays: 400,
    bytesMax: 2 ** 30,
  });
  const app = await buildApi({
    fleet,
    policies,
    jobs,
    events,
    webhooks,
    ready: () => Promise.resolve([{ name: 'store', status: 'ok' }]),
    history: { list: () => Promise.resolve({ items: [] }) },
    activity,
    engine: {
      gc: (work, given) => engine.gc(work, given),
      verify: (work, given) => engine.verify(work, given),
      lastVerifications: () => engine.lastVerifications(),
      repair: (work, source) => engine.repair(work, source),
      openStoreSource: (path) => engine.openStoreSource(path),
      store: () => engine.store(),
    },
    tokens: {
      authenticate: (text, from) =>
        text === undefined && !strict ? NOBODY : tokens.authenticate(text, from),
      create: (...request) => tokens.create(...request),
      get: (reference) => tokens.get(reference),
      list: (request) => tokens.list(request),
      revoke: (reference) => tokens.revoke(reference),
      onEnd: (watcher) => tokens.onEnd(watcher),
    },
    audit,
    files: new FakeFiles(),
    clock: systemClock,
    version: '1.2.3',
    metrics: { contentType: 'text/plain; version=0.0.4', print: () => Promise.resolve('up 1\n') },
    ...options,
  });
  const unlisted = watchErrors(app);
  return {
    app,
    fleet,
    policies,
    jobs,
    engine,
    internalErrors,
    events,
    activity,
    vmOfDisk,
    tokens,
    audit,
    fs,
    sent,
    close: async () => {
      await jobs.close();
      await app.close();
      await activity.close();
      await webhooks.close();
      await events.close();
      await tokens.close();
      await audit.close();
      const missing = [...unlisted(), ...unlistedEnds].filter(({ code }) => !fleet.thrown.has(code));
      const text = missing.map(({ operation, code }) => `${operation}: ${code}`).join(', ');
      if (text !== '') throw new Error(`answered, and not listed in route-errors.ts: ${text}`);
    },
  };
}

/** Waits until `check` says so; the test's own time limit is the bound. */
export async function until(check: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await check())) await new Promise((resolve) => setTimeout(resolve, 5));
}
