/** A server as a program: what it prints, how it is stopped, and how it dies when it must. */
import { withoutSecrets } from '@pando/access';
import { isPandoError, ERROR_CODES, type PandoError } from '@pando/common';
import { pino, type Logger } from 'pino';
import type { RunOptions } from './options.ts';
import { serve, type Serving } from './serve.ts';
import { tellServiceManager } from './service-manager.ts';
import { VERSION } from './version.ts';

/** However long a stop hangs, it ends. Longer than all drains together. */
const STOP_MS_MAX = 60_000;

/** Runs a server until a signal ends it; resolves to the exit status. */
export async function run(options: RunOptions): Promise<number> {
  // Logs go to standard error, unbuffered: the last lines before a death are the ones that matter.
  const logger = pino(
    { level: options.logLevel, base: null, hooks: { streamWrite: withoutSecrets } },
    pino.destination({ fd: 2, sync: true }),
  );
  dieOfWhatNobodyCaught(logger);
  const stop = new Promise<NodeJS.Signals>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, resolve);
  });
  // Closed terminals and readers of the greeting that went away are no reason to end.
  let reload = (): void => undefined;
  process.on('SIGHUP', () => reload());
  process.stdout.on('error', () => undefined);

  let serving: Serving;
  try {
    serving = await serve(options, logger);
  } catch (error) {
    if (!isPandoError(error)) throw error;
    process.stderr.write(failureLines(error));
    return 1;
  }
  // Before anybody is told that it is up, and may ask for that.
  reload = () => {
    serving.reload().catch((error: unknown) => logger.error({ err: error }, 'reading files again failed'));
  };
  const withdrawToken = await serving.offerAdminToken();
  process.stdout.write(options.json ? readyLine(serving, options) : greeting(serving, options));
  logger.info({ ...serving.addresses, data: options.dataDirectory, version: VERSION }, 'serving');
  await tellServiceManager('READY=1', logger);

  const signal = await stop;
  logger.info({ signal }, 'stopping; once more to stop at once');
  for (const again of ['SIGINT', 'SIGTERM'] as const) process.once(again, () => process.exit(130));
  const timer = setTimeout(() => {
    logger.fatal('stopping took too long');
    process.exit(1);
  }, STOP_MS_MAX);
  // The timer also keeps the process alive: what is waited for may be nothing but clocks, which do not.
  try {
    await tellServiceManager('STOPPING=1', logger);
    await withdrawToken();
    await serving.close();
  } catch {
    return 1; // which part it was is in the log
  } finally {
    clearTimeout(timer);
  }
  logger.info('stopped; everything is on disk');
  return 0;
}

/** After an error that nobody caught, nobody knows what state things are in: the log replays at the next start. */
function dieOfWhatNobodyCaught(logger: Logger): void {
  const die = (error: unknown, what: string): void => {
    logger.fatal({ err: error }, what);
    process.exit(70);
  };
  process.on('uncaughtException', (error) => die(error, 'an exception that nobody caught'));
  process.on('unhandledRejection', (error) => die(error, 'a rejection that nobody handled'));
}

export function failureLines(error: PandoError): string {
  return `pando: ${error.message} (${error.code})\n       ${ERROR_CODES[error.code].remedy}\n`;
}

function readyLine({ addresses, storeId, adminTokenFile }: Serving, { dataDirectory }: RunOptions): string {
  return `${JSON.stringify({ ...addresses, pid: process.pid, data: dataDirectory, storeId, adminTokenFile, version: VERSION })}\n`;
}

function greeting(
  { addresses, isNew, adminTokenFile, newAdminToken }: Serving,
  { dataDirectory }: RunOptions,
): string {
  const { http, httpSocket, nbd, nbdSocket, nbdTls } = addresses;
  const tls = { off: '', allow: '   TLS on request', require: '   TLS required' }[nbdTls];
  const lines = [
    `Pando ${VERSION}`,
    `  REST  ${http}${httpSocket === undefined ? '' : `   and ${httpSocket}`}   try it: ${http}/docs`,
    `  NBD   ${nbd}${nbdSocket === undefined ? '' : `   and ${nbdSocket}`}${tls}`,
    `  data  ${dataDirectory}${isNew ? ' (new)' : ''}`,
  ];
  if (newAdminToken !== undefined && process.env['JOURNAL_STREAM'] === undefined) {
    // This once. Where output goes into the system's journal, which others may read, not even that.
    lines.push('', `Token of an admin: ${newAdminToken}`, `It is kept, for you only, in ${adminTokenFile}`);
  }
  if (process.stdout.isTTY) {
    const elsewhere = http === 'http://127.0.0.1:7400' ? '' : `PANDO_URL=${http} `;
    lines.push(
      '',
      'In another terminal:',
      `  ${elsewhere}npx pando vm import disk.raw --name golden`,
      `  ${elsewhere}npx pando vm clone golden web --count 100`,
      `  qemu-system-x86_64 -m 1G -drive file=${nbd}/web-1/disk0,format=raw,if=virtio`,
      `  ${elsewhere}npx pando report space`,
      '',
      'Ctrl-C stops it.',
    );
  }
  return `${lines.join('\n')}\n`;
}
