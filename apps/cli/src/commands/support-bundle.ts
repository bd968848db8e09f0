/** `pando support-bundle FILE`: what somebody who helps wants to see, in one archive, with names and without secrets. */
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { arch, cpus, freemem, platform, release, totalmem } from 'node:os';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import type { Client } from '@pando/client';
import { PandoError } from '@pando/common';
import type { Command } from 'commander';
import { packTar } from 'modern-tar';
import { connect } from '../connect.ts';
import { plural, print } from '../output.ts';
import { withoutSecrets } from '../secrets.ts';
import type { JsonOption } from './arguments.ts';

/** Of each answer, at most. */
const PART_BYTES_MAX = 8 * 1024 * 1024;
const FOLDER = 'pando-support';

/** Items of each list, at most: those of one page. */
const limit = 1000;
const since = '2000-01-01T00:00:00Z';

/** Answers of the server, by the name of their file. */
const PARTS: readonly (readonly [file: string, ask: (pando: Client) => Promise<IncomingMessage>])[] = [
  ['health.json', (pando) => pando.open('apiHealth')],
  ['ready.json', (pando) => pando.open('apiReady')],
  ['metrics.txt', (pando) => pando.open('apiMetrics')],
  ['events.json', (pando) => pando.open('listEvents', { limit })],
  ['webhooks.json', (pando) => pando.open('listWebhooks')],
  ['jobs.json', (pando) => pando.open('listJobs', { limit })],
  ['verify-last.json', (pando) => pando.open('lastVerifications')],
  ['space-history-days.json', (pando) => pando.open('spaceHistory', { grain: '1d', since, limit })],
  ['space-history-fine.json', (pando) => pando.open('spaceHistory', { grain: '5m', since, limit })],
];

interface Part {
  readonly name: string;
  readonly text: string;
}

export function addSupportBundleCommand(program: Command): void {
  program
    .command('support-bundle')
    .description(
      'write health, metrics, events, jobs and configuration into an archive (tar.gz): names are in it, secrets are not',
    )
    .argument('<file>')
    .option('--force', 'overwrite the file')
    .option('--json', 'print JSON')
    .action(async (file: string, { force = false, json }: { force?: boolean } & JsonOption) => {
      const parts = [about(), await configuration()];
      const pando = connect();
      for (const [name, ask] of PARTS) parts.push(await answer(name, () => ask(pando)));
      const bytes = await archive(parts);
      await writeFile(file, bytes, { flag: force ? 'w' : 'wx', mode: 0o600 }).catch((error: unknown) => {
        const exists = (error as NodeJS.ErrnoException).code === 'EEXIST';
        throw new PandoError(
          exists ? 'file-exists' : 'file-failed',
          `cannot write ${file}: ${(error as Error).message}`,
          {
            cause: error,
          },
        );
      });
      const failed = parts.filter(({ name }) => name.endsWith('.error.txt')).map(({ name }) => name);
      print(json, { file, bytes: bytes.byteLength, parts: parts.map(({ name }) => name) }, () => {
        const missing =
          failed.length === 0
            ? ''
            : ` The server did not give ${plural(failed.length, 'part')}: ${failed.join(', ')} say why.`;
        return `${file}: ${plural(parts.length, 'part')}. It has names of VMs, files and hosts in it: look through it before you send it on.${missing}`;
      });
    });
}

function about(): Part {
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  const machine = {
    ...{ pando: version, node: process.versions.node, madeAt: new Date().toISOString() },
    ...{ platform: platform(), release: release(), arch: arch(), processors: cpus().length },
    ...{ memoryBytes: totalmem(), freeMemoryBytes: freemem() },
  };
  return { name: 'about.json', text: `${JSON.stringify(machine, undefined, 2)}\n` };
}

/** Of a server that would be started here: of the one that is asked if that is on this machine. */
async function configuration(): Promise<Part> {
  try {
    const { readConfiguration } = await import('@pando/server/config');
    const { file, settings, mistakes } = await readConfiguration({}, process.env);
    const text = JSON.stringify(
      { ...(file === undefined ? {} : { file }), settings, mistakes },
      undefined,
      2,
    );
    return { name: 'configuration-here.json', text: `${text}\n` };
  } catch (error) {
    return { name: 'configuration-here.error.txt', text: `${(error as Error).message}\n` };
  }
}

async function answer(name: string, ask: () => Promise<IncomingMessage>): Promise<Part> {
  try {
    const stream = await ask();
    const parts: Buffer[] = [];
    let bytes = 0;
    for await (const part of stream) {
      bytes += (part as Buffer).byteLength;
      if (bytes > PART_BYTES_MAX) throw new Error(`it has more than ${PART_BYTES_MAX} bytes`);
      parts.push(part as Buffer);
    }
    return { name, text: Buffer.concat(parts).toString() };
  } catch (error) {
    return { name: `${name}.error.txt`, text: `${(error as Error).message}\n` };
  }
}

async function archive(parts: readonly Part[]): Promise<Buffer> {
  const tar = await packTar(
    parts.map(({ name, text }) => {
      const body = Buffer.from(withoutSecrets(text));
      return { header: { name: `${FOLDER}/${name}`, size: body.byteLength, mode: 0o600 }, body };
    }),
  );
  return promisify(gzip)(tar);
}
