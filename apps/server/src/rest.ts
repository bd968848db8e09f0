/** REST over the engine and its services: what the API package asks for, readiness and metrics. */
import { buildApi, HttpCounts, type App, type Jobs } from '@pando/api';
import type { NbdServer } from '@pando/nbd';
import type { Access } from './access.ts';
import type { Engine } from './engine.ts';
import type { GuestAgents } from './guest-agents.ts';
import { httpLimits, type readHttpTls } from './http-security.ts';
import type { HttpSocket } from './http-socket.ts';
import { Metrics } from './metrics.ts';
import { readProcessIo } from './process-io.ts';
import { freeBytesOf, POLICIES_MS_MAX, READY_MS_MAX, readyChecks, readyParts, sharedLook } from './ready.ts';
import { repair } from './repair.ts';
import type { ServerContext } from './server-context.ts';
import type { Services } from './services.ts';
import { openStoreSource } from './store-source.ts';
import { collectGarbage, storeState, type OpenStore } from './store.ts';
import { lastVerifications, verifyAndKeep, type VerificationParts } from './verification.ts';
import { VERSION } from './version.ts';

/** How long requests that are under way may take when the server stops. */
const HTTP_DRAIN_MS = 2_000;

/** What REST answers from. */
export interface RestParts {
  readonly engine: Engine;
  readonly services: Services;
  readonly access: Access;
  readonly guestAgents: GuestAgents;
  readonly nbd: NbdServer;
  readonly verification: VerificationParts;
  readonly https: Awaited<ReturnType<typeof readHttpTls>>;
  readonly httpSocket: HttpSocket;
}

/** The application; it listens nowhere yet. */
export async function openRest(context: ServerContext, parts: RestParts): Promise<App> {
  const { options, clock, logger, operations, closing } = context;
  const { engine, services, access, guestAgents, nbd, verification, https, httpSocket } = parts;
  const { directory, space, open, activity } = engine;
  const { fleet, files, policies, jobs, jobCounts, history } = services;
  const httpCounts = new HttpCounts();
  const policyTrouble = sharedLook(clock, POLICIES_MS_MAX, () =>
    // One damaged record of a policy is no reason to say nothing of the store.
    policies.trouble().catch((error: unknown) => ({ unreadable: (error as Error).message })),
  );
  const ready = sharedLook(clock, READY_MS_MAX, async () =>
    readyChecks(
      await readyParts(open, operations, space, directory.path, await policyTrouble(), access.audit),
    ),
  );
  const metrics = new Metrics(async () => ({
    version: VERSION,
    state: storeState(open),
    nbd: nbd.stats(),
    volumes: open.volumes.stats,
    store: await open.store.stats(),
    catalogBytes: await open.catalog.bytes(),
    catalogCommitTimes: directory.catalog.commitTimes,
    activity: activity.stats,
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
  const app = await buildApi({
    fleet,
    policies,
    jobs,
    engine: {
      gc: (work, request) => collectGarbage(open, work, request),
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
    activity,
    clock,
    tokens: access.tokens,
    audit: access.audit,
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
  closing.push(async () => {
    await Promise.all([closeHttp(app, open, jobs), httpSocket.close(HTTP_DRAIN_MS)]);
  });
  return app;
}

/** Requests under way get a moment; uploads, downloads and followers of jobs end because their work is ended. */
async function closeHttp(app: App, { fleet }: OpenStore, jobs: Jobs): Promise<void> {
  const closed = app.close();
  const timer = setTimeout(() => app.server.closeAllConnections(), HTTP_DRAIN_MS);
  await Promise.all([fleet.close(), jobs.close()]);
  await closed;
  clearTimeout(timer);
}
