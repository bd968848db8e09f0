/** `pando top`: what the server does right now, out of two looks at its metrics. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from '@pando/client';
import { formatSize } from '@pando/common';
import type { Command } from 'commander';
import { connect } from '../connect.ts';
import { interruptible } from '../interrupt.ts';
import { table } from '../output.ts';
import { grown, parseMetrics, sumOf, type Scrape } from '../scrape.ts';
import { countArgument, type JsonOption } from './arguments.ts';

const COMMANDS = ['read', 'write', 'flush', 'trim', 'write_zeroes'] as const;
/** Clears the terminal and goes to its corner. */
const CLEAR = '\u001b[2J\u001b[H';

interface CommandFigures {
  readonly command: string;
  readonly perSecond: number;
  readonly bytesPerSecond: number;
  /** Of those that had to wait; absent where none did. */
  readonly waitMs?: number;
  readonly waitedPerSecond: number;
  readonly failedPerSecond: number;
}

interface Figures {
  readonly at: string;
  readonly seconds: number;
  readonly commands: readonly CommandFigures[];
  readonly inFlight: number;
  readonly connections: number;
  readonly overlayBytes: number;
  readonly logBytes: number;
  readonly destagedBytesPerSecond: number;
  readonly newChunksPerSecond: number;
  readonly knownChunksPerSecond: number;
  readonly runHits?: number;
  readonly nodeHits?: number;
  readonly syncMs?: number;
  readonly residentBytes: number;
  readonly processorShare: number;
  readonly freeBytes: number;
  readonly jobs: number;
  readonly problems: readonly string[];
}

interface TopFlags extends JsonOption {
  readonly once?: boolean;
  readonly interval: number;
}

export function addTopCommand(program: Command): void {
  program
    .command('top')
    .description('requests, throughput, latency, caches and log right now, until Ctrl-C')
    .option('--interval <seconds>', 'how long each look is (2)', countArgument, 2)
    .option('--once', 'one look, then end')
    .option('--json', 'print JSON, a line for each look')
    .action(async ({ once = false, interval, json = false }: TopFlags) => {
      await interruptible(async (signal) => {
        const pando = connect({ signal });
        let before = await look(pando);
        for (;;) {
          await sleep(interval * 1000, undefined, { signal }).catch(() => signal.throwIfAborted());
          const after = await look(pando);
          const figures = figuresOf(before, after);
          const clear = process.stdout.isTTY && !once ? CLEAR : '';
          process.stdout.write(json ? `${JSON.stringify(figures)}\n` : `${clear}${textOf(figures)}\n`);
          if (once) return;
          before = after;
        }
      });
    });
}

interface Look {
  readonly atMs: number;
  readonly scrape: Scrape;
}

async function look(pando: Client): Promise<Look> {
  const { bytes } = await pando.bytes('apiMetrics');
  return { atMs: performance.now(), scrape: parseMetrics(bytes.toString()) };
}

function figuresOf({ atMs: from, scrape: before }: Look, { atMs: to, scrape: after }: Look): Figures {
  const seconds = (to - from) / 1000;
  const delta = (key: string): number => grown(before, after, key);
  const rate = (key: string): number => delta(key) / seconds;
  const gauge = (key: string): number => after.get(key) ?? 0;
  const share = (name: string): number | undefined => {
    const hits = delta(`${name}{result="hit"}`);
    const all = hits + delta(`${name}{result="miss"}`);
    return all === 0 ? undefined : hits / all;
  };
  const mean = (name: string, labels = ''): number | undefined => {
    const count = delta(`${name}_count${labels}`);
    return count === 0 ? undefined : (delta(`${name}_sum${labels}`) / count) * 1000;
  };
  return {
    at: new Date().toISOString(),
    seconds,
    commands: COMMANDS.map((command) => {
      const labels = `{command="${command}"}`;
      return {
        command,
        perSecond: rate(`pando_nbd_requests_total${labels}`),
        bytesPerSecond: rate(`pando_nbd_request_bytes_total${labels}`),
        ...given('waitMs', mean('pando_nbd_request_wait_seconds', labels)),
        waitedPerSecond: rate(`pando_nbd_request_wait_seconds_count${labels}`),
        failedPerSecond: rate(`pando_nbd_request_failures_total${labels}`),
      };
    }),
    inFlight: gauge('pando_nbd_requests_in_flight'),
    connections: gauge('pando_nbd_connections'),
    overlayBytes: gauge('pando_overlay_bytes'),
    logBytes: gauge('pando_log_bytes'),
    destagedBytesPerSecond: rate('pando_destaged_bytes_total'),
    newChunksPerSecond: rate('pando_chunks_total{result="new"}'),
    knownChunksPerSecond: rate('pando_chunks_total{result="known"}'),
    ...given('runHits', share('pando_run_requests_total')),
    ...given('nodeHits', share('pando_node_requests_total')),
    ...given('syncMs', mean('pando_log_sync_seconds')),
    residentBytes: gauge('process_resident_memory_bytes'),
    processorShare: rate('process_cpu_seconds_total'),
    freeBytes: gauge('pando_disk_free_bytes'),
    jobs: sumOf(after, 'pando_jobs'),
    problems: [...after].flatMap(([key, value]) => {
      const check = /^pando_check\{check="(.+)"\}$/.exec(key)?.[1];
      return check === undefined || value === 0 ? [] : [check];
    }),
  };
}

function given<Name extends string>(name: Name, value: number | undefined): { [name in Name]?: number } {
  return value === undefined ? {} : ({ [name]: value } as { [name in Name]: number });
}

function textOf(figures: Figures): string {
  const bytes = (value: number): string => (value === 0 ? '0' : formatSize(Math.round(value)));
  const percent = (value: number | undefined): string =>
    value === undefined ? '-' : `${(value * 100).toFixed(1)} %`;
  const ms = (value: number | undefined): string => (value === undefined ? '-' : `${value.toFixed(2)} ms`);
  const commands = table(figures.commands, [
    { title: 'NBD', text: ({ command }) => command },
    { title: 'PER SECOND', right: true, text: ({ perSecond }) => perSecond.toFixed(0) },
    { title: 'BYTES/S', right: true, text: ({ bytesPerSecond }) => bytes(bytesPerSecond) },
    { title: 'WAITED', right: true, text: ({ waitedPerSecond }) => waitedPerSecond.toFixed(0) },
    { title: 'FOR', right: true, text: ({ waitMs }) => ms(waitMs) },
    { title: 'FAILED', right: true, text: ({ failedPerSecond }) => failedPerSecond.toFixed(0) },
  ]);
  const { problems } = figures;
  return [
    `${figures.at}   ${problems.length === 0 ? 'all checks ok' : `look at pando ready: ${problems.join(', ')}`}`,
    '',
    commands,
    '',
    `clients   ${figures.connections} connections, ${figures.inFlight} requests in flight`,
    `log       ${bytes(figures.logBytes)} wait for the tree, ${bytes(figures.overlayBytes)} in memory, sync ${ms(figures.syncMs)}`,
    `destage   ${bytes(figures.destagedBytesPerSecond)}/s, chunks ${figures.newChunksPerSecond.toFixed(0)} new and ${figures.knownChunksPerSecond.toFixed(0)} known a second`,
    `caches    runs ${percent(figures.runHits)}, nodes ${percent(figures.nodeHits)}`,
    `process   ${bytes(figures.residentBytes)} resident, ${percent(figures.processorShare)} of a processor, ${figures.jobs} jobs`,
    `disk      ${bytes(figures.freeBytes)} free`,
  ].join('\n');
}
