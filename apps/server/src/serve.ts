/** Starts everything over one data directory, and stops it in the order that loses nothing. */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { AuditTrail, Tokens } from '@pando/access';
import { Activity } from '@pando/activity';
import { buildApi, HttpCounts, Jobs, type App } from '@pando/api';
import {
  FileSystemSpaceGuard,
  fromIoError,
  GiB,
  nodeFileSystem,
  PandoError,
  systemClock,
  systemRandom,
  TRIPWIRE_LOCK_DAYS,
} from '@pando/common';
import type { OnEvent } from '@pando/events';
import { idSource } from '@pando/fleet';
import { createNbdServer, type NbdServer, type TlsMode } from '@pando/nbd';
import { openPolicies } from '@pando/policies';
import { pino, type Logger } from 'pino';
import { adminTokenFile, ensureAdminToken, offerAdminToken } from './admin-token.ts';
import { formatAddress, isLoopback, listenError } from './addresses.ts';
import { openDataDirectory } from './data-directory.ts';
import {
  GC_EVERY_MS_DEFAULT,
  Housekeeping,
  VERIFY_BYTES_PER_SECOND_DEFAULT,
  VERIFY_EVERY_MS_DEFAULT,
} from './housekeeping.ts';
import { openGuestAgents } from './guest-agents.ts';
import { openFilesOf, releasing } from './guest-files.ts';
import { JobCounts } from './job-counts.ts';
import {
  checkHttpExposure,
  httpLimits,
  readHttpTls,
  reloadHttpTls,
  watchFiles,
  type Securable,
} from './http-security.ts';
import { HttpSocket } from './http-socket.ts';
import { lossLines } from './log-loss.ts';
import { Metrics } from './metrics.ts';
import {
  checkExposure,
  readNbdSecurity,
  reloadNbdSecurity,
  tlsModeOf,
  warnOfExposure,
} from './nbd-security.ts';
import { eventOfAuditCut, eventOfJob, Operations } from './operations.ts';
import type { ServeOptions } from './options.ts';
import { readProcessIo } from './process-io.ts';
import { freeBytesOf, POLICIES_MS_MAX, READY_MS_MAX, readyChecks, readyParts, sharedLook } from './ready.ts';
import { repair } from './repair.ts';
import { isRotational } from './rotational.ts';
import { SpaceHistory, spaceCounts } from './space-history.ts';
import { openStoreSource } from './store-source.ts';
import { collectGarbage, openStore, storeState, type OpenStore } from './store.ts';
import { lastVerifications, verifyAndKeep, type VerificationParts } from './verification.ts';
import { verifyLogOf } from './verify.ts';
import { VERSION } from './version.ts';

/** How long requests that are under way may take when the server stops. */
const HTTP_DRAIN_MS = 2_000;
const NBD_DRAIN_MS = 10_000;
const AUDIT_DAYS_DEFAULT = 400;
const AUDIT_BYTES_DEFAULT = GiB;

export interface Addresses {
  /** `http://127.0.0.1:7400`, or `https://…` */
  readonly http: string;
  /** `nbd://127.0.0.1:10809`, or `nbds://…` where TLS is required */
  readonly nbd: string;
  readonly nbdTls: TlsMode;
  /** Paths of the Unix sockets, where there are some. */
  readonly httpSocket?: string;
  readonly nbdSocket?: string;
}

export interface Serving {
  readonly addresses: Addresses;
  readonly storeId: string;
  /** Whether the data directory was made just now. */
  readonly isNew: boolean;
  /** Where the first token is kept; and the token itself, when it was made just now. */
  readonly adminTokenFile: string;
  readonly newAdminToken?: string;
  /**
   * Puts it where the command of the same user looks for it, while it is good. Resolves to what takes it away again. Never
   * rejects.
   */
  offerAdminToken(): Promise<() => Promise<void>>;
  /**
   * Reads certificates and keys, and access rules of NBD again. What is wrong with them is logged, and the old ones stay.
   */
  reload(): Promise<void>;
  /**
   * Stops listening, drains clients, ends jobs, and closes the store: everything that was acknowledged is on disk.
   * Takes bounded time. Idempotent.
   */
  close(): Promise<void>;
}

/**
 * Serves a data directory until it is closed.
 * @throws what `openDataDirectory` throws; `address-in-use`, `address-invalid`; errors of kind `data` from recovery
 */
export async function serve(
  options: ServeOptions,
  logger: Logger = pino({ level: 'silent' }),
): Promise<Serving> {
  const clock = systemClock;
  if (options.importDirectory !== undefined) await checkImportDirectory(options.importDirectory);
  checkHttpExposure(options);
  const https = await readHttpTls(options, clock, logger);
  checkExposure(options);
  const security = await readNbdSecurity(options, clock, logger);
  const operations = new Operations({ clock, logger, certificates: certificatesOf(options) });

  // Undone in reverse order, when starting fails as when the server stops.
  const closers: (() => Promise<void>)[] = [];
  const closeAll = async (): Promise<void> => {
    const failures: unknown[] = [];
    for (const close of closers.reverse()) {
      await close().catch((error: unknown) => {
        logger.error({ err: error }, 'a part did not close');
        failures.push(error);
      });
    }
    if (failures.length > 0) throw failures[0];
  };

  try {
    const acceptCatalogDamage = options.acceptDamage?.includes('catalog') === true;
    const directory = await openDataDirectory(options.dataDirectory, {
      clock,
      create: true,
      chunkBytes: options.chunkBytes,
      keyedHash: options.keyedHash,
      acceptCatalogDamage,
    });
    closers.push(() => directory.catalog.close());
    if (directory.mended !== undefined)
      logger.warn({ problem: directory.mended }, 'store.json was made again from the segments');
    const space = new FileSystemSpaceGuard(directory.path, clock);
    await space.start();
    closers.push(() => space.close());
    let activity: Activity | undefined;
    const open = await openStore(directory, clock, space, {
      onEvent: operations.raise,
      acceptLogDamage: options.acceptDamage?.includes('log') === true,
      acceptCatalogDamage,
      onIndexRebuild: (error) => {
        logger.warn({ err: error }, 'the index is made anew from the segments');
        operations.raise({ kind: 'index-rebuilt', text: `The index is made anew: ${error.message}.` });
      },
      onDestaged: (disk, counts) => activity?.destaged(disk, counts),
      onMirrorTrouble: (error) => {
        if (error === undefined) logger.info('the catalog is mirrored again');
        else logger.warn({ err: error }, 'the catalog could not be mirrored; it is tried again');
        operations.mirrorTrouble(error);
      },
    });
    await tellLogLoss(open, logger, operations.raise);
    space.setPromised(() => open.volumes.stats.overlayBytes);
    closers.push(() => open.store.close());
    closers.push(() => open.mirror.close());
    const watched = (activity = new Activity({
      ...{ catalog: open.catalog, clock, chunkBytes: open.store.chunkBytes, fleet: open.fleet },
      onEvent: operations.raise,
      lockMs: (options.tripwireLockDays ?? TRIPWIRE_LOCK_DAYS) * 24 * 60 * 60_000,
      onTrouble: (error) => logger.warn({ err: error }, 'what VMs write could not be kept or judged'),
    }));
    closers.push(() => watched.close());
    closers.push(() => open.volumes.close());
    await operations.open(open.catalog, () => storeState(open));
    closers.push(() => operations.close());

    const guestAgents = await openGuestAgents({
      directory: options.guestAgentDirectory,
      catalog: open.catalog,
      clock,
      logger,
      onEvent: operations.raise,
    });
    closers.push(() => guestAgents.close());
    const tokens = await Tokens.open({
      ...{ catalog: open.catalog, clock, random: systemRandom },
      onTrouble: (error) => logger.warn({ err: error }, 'when tokens were last used could not be kept'),
    });
    closers.push(() => tokens.close());
    const audit = await AuditTrail.open({
      ...{ fs: nodeFileSystem, directory: join(directory.path, 'audit'), clock },
      keepDays: options.auditDays ?? AUDIT_DAYS_DEFAULT,
      bytesMax: options.auditBytes ?? AUDIT_BYTES_DEFAULT,
      catalog: open.catalog,
      onTrouble: (error) => logger.error({ err: error }, 'the audit trail has trouble'),
    }).catch((error: unknown) => {
      throw fromIoError(error, 'opening the audit trail', 'store-failed');
    });
    closers.push(() => audit.close());
    if (audit.cut !== undefined) {
      logger.error(audit.cut, 'lines of the audit trail are missing or were changed');
      operations.raise(eventOfAuditCut(audit.cut));
    }
    const newAdminToken = await ensureAdminToken(tokens, directory.path);

    const housekeeping = new Housekeeping();
    const jobCounts = new JobCounts();
    const history = await SpaceHistory.open({
      ...{ catalog: open.catalog, clock },
      count: () => spaceCounts(open),
      report: (signal) => open.fleet.space({ signal }),
      onTrouble: (error) => logger.warn({ err: error }, 'no sample of the space report could be kept'),
    });
    const files = await openFilesOf(open.fleet, {
      ...{ appliances: options.fileAppliances, storeId: directory.store.storeId, clock, logger },
    });
    const fleet = history.watch(housekeeping.watch(releasing(open.fleet, files)));
    const policies = openPolicies({
      ...{ catalog: open.catalog, fleet, clock, onEvent: operations.raise },
      ...(guestAgents.quiesce === undefined ? {} : { quiesce: guestAgents.quiesce }),
      newId: idSource(clock, systemRandom),
      onError: (error) => logger.warn({ err: error }, 'policies could not do what is due; it is tried again'),
    });
    const jobs = new Jobs({
      clock,
      onInternalError: (job, error) =>
        logger.error({ err: error, job: job.id, kind: job.kind }, 'a job failed'),
      onEnded: (job) => {
        jobCounts.count(job);
        const event = eventOfJob(job);
        if (event !== undefined) operations.raise(event);
      },
    });
    watched.start();
    // Fleet and jobs end together: an import is both, and each would wait for the other.
    closers.push(async () => {
      await Promise.all([open.fleet.close(), jobs.close()]);
    });
    closers.push(() => files.close());
    closers.push(() => history.close());
    closers.push(() => watched.stop());

    const nbd = createNbdServer({
      exports: { list: (limit) => fleet.listExports(limit), open: (name) => fleet.attach(name) },
      logger,
      clock,
      rotational: await isRotational(directory.path),
      tls: tlsModeOf(options),
      ...security,
      ...(options.nbdSocketMode === undefined ? {} : { socketMode: options.nbdSocketMode }),
    });
    closers.push(() => nbd.close({ drainMsMax: NBD_DRAIN_MS }));
    const verification: VerificationParts = {
      catalog: open.catalog,
      store: open.store,
      clock,
      verifyLog: () => verifyLogOf(directory),
      onDamage: () => open.mirror.renew(),
      onNotKept: (error) => logger.warn({ err: error }, 'the result of a verification could not be kept'),
    };
    const httpCounts = new HttpCounts();
    const policyTrouble = sharedLook(clock, POLICIES_MS_MAX, () =>
      // One damaged record of a policy is no reason to say nothing of the store.
      policies.trouble().catch((error: unknown) => ({ unreadable: (error as Error).message })),
    );
    const ready = sharedLook(clock, READY_MS_MAX, async () =>
      readyChecks(await readyParts(open, operations, space, directory.path, await policyTrouble(), audit)),
    );
    const metrics = new Metrics(async () => ({
      version: VERSION,
      state: storeState(open),
      nbd: nbd.stats(),
      volumes: open.volumes.stats,
      store: await open.store.stats(),
      catalogBytes: await open.catalog.bytes(),
      catalogCommitTimes: directory.catalog.commitTimes,
      activity: watched.stats,
      processIo: await readProcessIo(),
      policies: { ...policies.counters, dueLagMs: await policies.dueLagMs() },
      http: httpCounts.all(),
      httpRefusals: httpCounts.refusals(),
      wrongTokens: httpCounts.wrongTokens,
      jobs: jobCounts.all(),
      gc: jobCounts.gc,
      activeJobs: jobs.active(),
      checks: await ready(),
      freeBytes: await freeBytesOf(directory.path),
      lostEvents: operations.events.lost,
    }));
    const httpSocket = new HttpSocket(clock);
    const app = await buildApi({
      fleet,
      policies,
      jobs,
      engine: {
        gc: (work, options) => collectGarbage(open, work, options),
        verify: (work, { quick, resume }) => verifyAndKeep(verification, { ...work, quick }, { resume }),
        lastVerifications: () => lastVerifications(open.catalog, clock),
        repair: (work, source) => repair(verification, source, work),
        openStoreSource,
        store: () => storeState(open),
      },
      events: operations.events,
      webhooks: operations.webhooks,
      ready,
      history,
      httpCounts,
      activity: watched,
      clock,
      tokens,
      audit,
      isTrusted: httpSocket.isTrusted,
      ...(https === undefined ? {} : { https }),
      files,
      version: VERSION,
      metrics,
      logger,
      limits: httpLimits(options),
      hostNames: [options.http.host, ...(options.hostNames ?? [])],
      ...(options.importDirectory === undefined ? {} : { importDirectory: options.importDirectory }),
      trustImages: options.trustImages === true,
      ...(guestAgents.quiesce === undefined ? {} : { quiesce: guestAgents.quiesce }),
    });
    // Beside each other: what is under way on either ends because its work is ended.
    closers.push(async () => {
      await Promise.all([closeHttp(app, open, jobs), httpSocket.close(HTTP_DRAIN_MS)]);
    });

    const addresses = await listen(options, app, nbd, httpSocket);
    if (!isLoopback(options.http.host) && https === undefined) {
      logger.warn(
        { host: options.http.host },
        'REST listens beyond this machine, and who listens on the way sees tokens',
      );
    }
    warnOfExposure(options, security, logger);
    housekeeping.start(open, {
      ...{ clock, jobs, logger, verification },
      gcEveryMs: options.gcEveryMs ?? GC_EVERY_MS_DEFAULT,
      verifyEveryMs: options.verifyEveryMs ?? VERIFY_EVERY_MS_DEFAULT,
      verifyBytesPerSecond: options.verifyBytesPerSecond ?? VERIFY_BYTES_PER_SECOND_DEFAULT,
      createdAt: Date.parse(directory.store.createdAt),
    });
    closers.push(() => housekeeping.close());
    policies.start();
    closers.push(() => policies.close());
    history.start();

    operations.raise({
      kind: 'server-started',
      text: `Pando ${VERSION} serves.`,
      data: { version: VERSION },
    });
    const reloadTls = async (): Promise<void> => {
      await reloadHttpTls(options, app.server as unknown as Securable, clock, logger);
      await operations.lookAtCertificates();
    };
    if (options.tlsFiles !== undefined) {
      const { certificate, key } = options.tlsFiles;
      const stop = new AbortController();
      const watching = watchFiles([certificate, key], clock, stop.signal, reloadTls);
      closers.push(() => {
        stop.abort();
        return watching;
      });
    }

    let closing: Promise<void> | undefined;
    let reloading = Promise.resolve();
    return {
      addresses,
      storeId: directory.store.storeId,
      isNew: directory.isNew,
      adminTokenFile: adminTokenFile(directory.path),
      ...(newAdminToken === undefined ? {} : { newAdminToken }),
      offerAdminToken: () => offerAdminToken(tokens, directory.path, reachableUrl(addresses.http), logger),
      // One after another: the files that were read last are those in force.
      reload: () =>
        (reloading = reloading.then(async () => {
          await reloadNbdSecurity(options, nbd, clock, logger);
          await reloadTls();
        })),
      close: () => (closing ??= closeAll()),
    };
  } catch (error) {
    await closeAll().catch(() => undefined);
    throw error;
  }
}

async function listen(
  options: ServeOptions,
  app: App,
  nbdServer: NbdServer,
  socket: HttpSocket,
): Promise<Addresses> {
  const { http, httpSocket, nbd, nbdSocket } = options;
  const nbdTls = tlsModeOf(options);
  const trying = async <T>(where: string, action: () => Promise<T>): Promise<T> => {
    try {
      return await action();
    } catch (error) {
      throw listenError(error, where);
    }
  };
  const bound = await trying(formatAddress(nbd), () => nbdServer.listen(nbd));
  if (nbdSocket !== undefined) await trying(nbdSocket, () => nbdServer.listen({ path: nbdSocket }));
  await trying(formatAddress(http), () => app.listen({ host: http.host, port: http.port }));
  if (httpSocket !== undefined)
    await trying(httpSocket, () => socket.listen(app, httpSocket, options.httpSocketMode ?? 0o600));
  const address = app.server.address();
  const httpPort = typeof address === 'object' && address !== null ? address.port : http.port;
  return {
    http: `${options.tlsFiles === undefined ? 'http' : 'https'}://${formatAddress({ host: http.host, port: httpPort })}`,
    nbdTls,
    nbd: `${nbdTls === 'require' ? 'nbds' : 'nbd'}://${formatAddress({ host: nbd.host, port: 'port' in bound ? bound.port : nbd.port })}`,
    ...(httpSocket === undefined ? {} : { httpSocket }),
    ...(nbdSocket === undefined ? {} : { nbdSocket }),
  };
}

/** As somebody on this machine would call it. */
function reachableUrl(http: string): string {
  return http.replace('//0.0.0.0:', '//127.0.0.1:').replace('//[::]:', '//127.0.0.1:');
}

/** Requests under way get a moment; uploads, downloads and followers of jobs end because their work is ended. */
async function closeHttp(app: App, { fleet }: OpenStore, jobs: Jobs): Promise<void> {
  const closed = app.close();
  const timer = setTimeout(() => app.server.closeAllConnections(), HTTP_DRAIN_MS);
  await Promise.all([fleet.close(), jobs.close()]);
  await closed;
  clearTimeout(timer);
}

/** What was lost with damage that was accepted goes into the log, disk by disk. */
async function tellLogLoss({ catalog, volumes }: OpenStore, logger: Logger, onEvent: OnEvent): Promise<void> {
  if (volumes.logLoss === undefined) return;
  const { places } = volumes.logLoss;
  logger.error({ places }, 'the write log is damaged, and that was accepted');
  for (const line of await lossLines(catalog, volumes.logLoss)) {
    logger.error({ lost: line }, 'writes are lost');
    onEvent({ kind: 'log-loss', text: line });
  }
}

function certificatesOf({ tlsFiles, nbdTlsFiles }: ServeOptions): readonly string[] {
  const named = [tlsFiles?.certificate, nbdTlsFiles?.certificate].filter((path) => path !== undefined);
  return [...new Set(named)];
}

async function checkImportDirectory(path: string): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isDirectory() !== true)
    throw new PandoError('import-path-refused', `--import-dir ${path} is no directory`);
}
