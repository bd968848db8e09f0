/** Starts everything over one data directory, part by part, and stops it in the order that loses nothing. */
import { stat } from 'node:fs/promises';
import { PandoError, systemClock } from '@pando/common';
import { createNbdServer } from '@pando/nbd';
import { pino, type Logger } from 'pino';
import { openAccess } from './access.ts';
import { adminTokenFile, offerAdminToken } from './admin-token.ts';
import { isLoopback } from './addresses.ts';
import { CloseStack } from './close-stack.ts';
import { openEngine } from './engine.ts';
import { openGuestAgents } from './guest-agents.ts';
import {
  GC_EVERY_MS_DEFAULT,
  VERIFY_BYTES_PER_SECOND_DEFAULT,
  VERIFY_EVERY_MS_DEFAULT,
} from './housekeeping.ts';
import {
  checkHttpExposure,
  readHttpTls,
  reloadHttpTls,
  watchFiles,
  type Securable,
} from './http-security.ts';
import { HttpSocket } from './http-socket.ts';
import { listen, reachableUrl, type Addresses } from './listen.ts';
import {
  checkExposure,
  readNbdSecurity,
  reloadNbdSecurity,
  tlsModeOf,
  warnOfExposure,
} from './nbd-security.ts';
import { Operations } from './operations.ts';
import type { ServeOptions } from './options.ts';
import { openRest } from './rest.ts';
import { isRotational } from './rotational.ts';
import type { ServerContext } from './server-context.ts';
import { openServices } from './services.ts';
import { storeState } from './store.ts';
import type { VerificationParts } from './verification.ts';
import { verifyLogOf } from './verify.ts';
import { VERSION } from './version.ts';

const NBD_DRAIN_MS = 10_000;

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
  const closing = new CloseStack(logger);
  try {
    return await start({ options, clock, logger, operations, closing }, https, security);
  } catch (error) {
    await closing.close().catch(() => undefined);
    throw error;
  }
}

/** What fails leaves what was opened before it on the stack. */
async function start(
  context: ServerContext,
  https: Awaited<ReturnType<typeof readHttpTls>>,
  security: Awaited<ReturnType<typeof readNbdSecurity>>,
): Promise<Serving> {
  const { options, clock, logger, operations, closing } = context;
  const engine = await openEngine(context);
  const { directory, open } = engine;
  await operations.open(open.catalog, () => storeState(open));
  closing.push(() => operations.close());
  const guestAgents = await openGuestAgents({
    directory: options.guestAgentDirectory,
    catalog: open.catalog,
    clock,
    logger,
    onEvent: operations.raise,
  });
  closing.push(() => guestAgents.close());
  const access = await openAccess(context, engine);
  const services = await openServices(context, engine, guestAgents);
  const { fleet, policies, jobs, history, housekeeping } = services;

  const nbd = createNbdServer({
    exports: { list: (limit) => fleet.listExports(limit), open: (name) => fleet.attach(name) },
    logger,
    clock,
    rotational: await isRotational(directory.path),
    tls: tlsModeOf(options),
    ...security,
    ...(options.nbdSocketMode === undefined ? {} : { socketMode: options.nbdSocketMode }),
  });
  closing.push(() => nbd.close({ drainMsMax: NBD_DRAIN_MS }));
  const verification: VerificationParts = {
    catalog: open.catalog,
    store: open.store,
    clock,
    verifyLog: () => verifyLogOf(directory),
    onDamage: () => open.mirror.renew(),
    onNotKept: (error) => logger.warn({ err: error }, 'the result of a verification could not be kept'),
  };
  const httpSocket = new HttpSocket(clock);
  const app = await openRest(context, {
    ...{ engine, services, access, guestAgents, nbd, verification, https, httpSocket },
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
  closing.push(() => housekeeping.close());
  policies.start();
  closing.push(() => policies.close());
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
    closing.push(() => {
      stop.abort();
      return watching;
    });
  }
  let reloading = Promise.resolve();
  const { newAdminToken } = access;
  return {
    addresses,
    storeId: directory.store.storeId,
    isNew: directory.isNew,
    adminTokenFile: adminTokenFile(directory.path),
    ...(newAdminToken === undefined ? {} : { newAdminToken }),
    offerAdminToken: () =>
      offerAdminToken(access.tokens, directory.path, reachableUrl(addresses.http), logger),
    // One after another: the files that were read last are those in force.
    reload: () =>
      (reloading = reloading.then(async () => {
        await reloadNbdSecurity(options, nbd, clock, logger);
        await reloadTls();
      })),
    close: () => closing.close(),
  };
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
