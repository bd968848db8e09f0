/** `pando verify`: what is damaged, and which disks it affects. */
import type { VerifyReport } from '@pando/client';
import { isPandoError, PandoError } from '@pando/common';
import { IMAGE_FORMATS } from '@pando/images';
import type { VerifyWork } from '@pando/server';
import { Option, type Command } from 'commander';
import { connect } from '../connect.ts';
import { CommandFailure } from '../failures.ts';
import { interruptible } from '../interrupt.ts';
import { runJob } from '../job-work.ts';
import { print } from '../output.ts';
import { startProgress } from '../progress.ts';
import type { RepairOptions } from '../repair.ts';
import { hasDamage, lastText, resumedText, unfinishedText, verifyText } from '../verify-text.ts';
import type { JsonOption } from './arguments.ts';

export function addVerifyCommand(program: Command): void {
  program
    .command('verify')
    .description('check the store: read every chunk, and name the disks that damage affects')
    .option('--quick', 'structure only: read headers, footers and nodes, hash no data')
    .option('--data <dir>', 'a data directory that no server has open')
    .option('--rebuild-index', 'make the index anew first; needs --data')
    .option('--rebuild-catalog', 'make a lost or damaged catalog anew first, from its mirror; needs --data')
    .option('--force', 'with --rebuild-catalog: also a whole one, or from an older mirror than the newest')
    .option('--resume', 'go on where the last one was cut off')
    .option(
      '--repair-from <source>',
      'store damaged chunks anew from an image file, an NBD URI, or the data directory of a store',
    )
    .option('--path', 'the source is one of the server, inside its --import-dir')
    .addOption(
      new Option('--format <format>', 'of the source (recognised by its content)').choices(IMAGE_FORMATS),
    )
    .option('--backing-dir <dir>', 'where files that the source names may lie (the directory of the source)')
    .option('--trust-image', 'read the source without a sandbox: only where nobody hostile made it')
    .option('--last', 'do nothing but tell what the last ones found')
    .option('--json', 'print JSON')
    .action(async function (this: Command, options: VerifyFlags) {
      const problem = wrongUse(options);
      if (problem !== undefined) this.error(`error: ${problem}`);
      if (options.repairFrom !== undefined) {
        // Only here: the other commands start faster without what reads and hashes images.
        const { repairFrom } = await import('../repair.ts');
        await repairFrom(options.repairFrom, options);
      } else await (options.last === true ? showLast(options.json) : verify(options));
    });
}

interface VerifyFlags extends JsonOption, RepairOptions {
  readonly repairFrom?: string;
  readonly rebuildIndex?: boolean;
  readonly rebuildCatalog?: boolean;
  readonly force?: boolean;
  readonly quick?: boolean;
  readonly resume?: boolean;
  readonly last?: boolean;
}

function wrongUse(flags: VerifyFlags): string | undefined {
  const { data, quick, resume, last, repairFrom, path, ...about } = flags;
  const rebuilds = flags.rebuildIndex === true || flags.rebuildCatalog === true;
  if (rebuilds && data === undefined)
    return '--rebuild-index and --rebuild-catalog need --data DIR and no server that has it open';
  if (flags.force === true && flags.rebuildCatalog !== true) return '--force goes with --rebuild-catalog';
  if (last === true && (data !== undefined || quick === true || resume === true || repairFrom !== undefined))
    return '--last asks the server, and goes with nothing but --json';
  if (resume === true && (quick === true || rebuilds))
    return '--resume goes on with a full verification; --quick, --rebuild-index and --rebuild-catalog begin anew';
  if (repairFrom !== undefined && (quick === true || resume === true || rebuilds))
    return '--repair-from goes by the last full verification, or does one: it takes no other way to verify';
  if (path === true && data !== undefined) return '--path asks the server, --data needs none';
  const { format, backingDir, trustImage } = about;
  const isOfSource = path === true || trustImage === true || format !== undefined || backingDir !== undefined;
  if (repairFrom === undefined && isOfSource)
    return '--path, --format, --backing-dir and --trust-image go with --repair-from';
  if (path === true && (trustImage === true || backingDir !== undefined))
    return 'with --path the server reads the source: it has --trust-images, and its import directory';
  return undefined;
}

async function verify(flags: VerifyFlags): Promise<void> {
  const { data, rebuildIndex = false, quick = false, resume = false, json } = flags;
  if (data !== undefined && flags.rebuildCatalog === true) {
    // Only here: the other commands start faster without the engine.
    const { rebuildCatalogOf } = await import('../rebuild-catalog.ts');
    await rebuildCatalogOf(data, { rebuildIndex, force: flags.force === true, quick, json });
    return;
  }
  const report = await interruptible((signal) =>
    data === undefined
      ? runJob('verify', { body: { quick, resume } }, { label: 'verifying', unit: 'bytes', json, signal })
      : verifyDirectory(data, { rebuild: rebuildIndex, quick, resume, json, signal }),
  ).catch((error: unknown) => {
    if (quick || !isPandoError(error, 'cancelled')) throw error;
    throw new PandoError('cancelled', `${error.message}; pando verify --resume goes on with it`, {
      cause: error,
    });
  });
  print(json, report, () => `${resume ? `${resumedText(report)}\n` : ''}${verifyText(report)}`);
  if (hasDamage(report)) throw new CommandFailure(1);
}

async function showLast(json: boolean | undefined): Promise<void> {
  const last = await connect().call('lastVerifications');
  const all = [last.full, last.quick].filter((each) => each !== undefined);
  const { unfinished } = last;
  print(json, last, () => {
    const lines = all.length === 0 ? ['Nothing has been verified yet.'] : all.map(lastText);
    return [...lines, ...(unfinished === undefined ? [] : [unfinishedText(unfinished)])].join('\n');
  });
  if (all.some(({ report }) => hasDamage(report))) throw new CommandFailure(1);
}

async function verifyDirectory(
  path: string,
  how: { rebuild: boolean; quick: boolean; resume: boolean; json: boolean | undefined; signal: AbortSignal },
): Promise<VerifyReport> {
  // Only here: the other commands start faster without the engine.
  const { rebuildIndex, verifyOffline } = await import('@pando/server');
  const { rebuild, quick, resume, json, signal } = how;
  const progress = startProgress('verifying', { json, unit: 'bytes' });
  try {
    const work: VerifyWork = {
      quick,
      signal,
      onProgress: ({ phase, done, all }) => {
        // Nodes of disks are no bytes; the bytes stand still at their end.
        if (phase === 'segments') progress.update(done, all);
      },
    };
    return await (rebuild ? rebuildIndex(path, work) : verifyOffline(path, work, { resume }));
  } finally {
    progress.stop();
  }
}
