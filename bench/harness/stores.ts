/** What users put disk images into instead: each in a folder of its own, which begins empty. */
import { cp, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Bench } from './bench.ts';
import { run } from './processes.ts';

export interface Store {
  /** All that it takes on disk is in it. */
  readonly path: string;
  /** Puts one file into it, by one command. */
  readonly put: (image: string, name: string) => Promise<void>;
}

export interface Repository extends Store {
  readonly env: Readonly<Record<string, string>>;
}

let emptyRestic: Promise<string> | undefined;

/** A repository of restic, which always encrypts. Making one takes seconds (it tries how much its key may cost): later ones are copies of the first. */
export async function resticIn(bench: Bench, folder: string): Promise<Repository> {
  const path = join(folder, 'repository');
  const env = { RESTIC_PASSWORD: 'bench', RESTIC_CACHE_DIR: join(folder, 'cache') };
  const options = { env, prefix: bench.pin.prefix };
  emptyRestic ??= bench.folder('empty-restic').then(async (empty) => {
    await run('restic', ['--repo', empty, 'init'], options);
    return empty;
  });
  await cp(await emptyRestic, path, { recursive: true });
  return {
    ...{ path, env },
    put: async (image) => {
      await run('restic', ['--repo', path, 'backup', '--force', image], options);
    },
  };
}

/** A repository of borg, without encryption. */
export async function borgIn(bench: Bench, folder: string): Promise<Repository> {
  const path = join(folder, 'repository');
  const env = { BORG_BASE_DIR: folder, BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK: 'yes' };
  const options = { env, prefix: bench.pin.prefix };
  await run('borg', ['init', '--encryption', 'none', path], options);
  return {
    ...{ path, env },
    put: async (image, name) => {
      const args = ['create', '--files-cache', 'disabled', `${path}::${name}`, image];
      await run('borg', args, options);
    },
  };
}

/** A store of casync with an index for each image. */
export async function casyncIn(bench: Bench, folder: string): Promise<Store> {
  const path = join(folder, 'casync');
  await mkdir(path);
  return {
    path,
    put: async (image, name) => {
      const args = ['make', `--store=${join(path, 'store.castr')}`, join(path, `${name}.caibx`), image];
      await run('casync', args, { prefix: bench.pin.prefix });
    },
  };
}

/** Compressed qcow2 files. */
export async function compressedQcow2In(bench: Bench, folder: string): Promise<Store> {
  const path = join(folder, 'compressed');
  await mkdir(path);
  return {
    path,
    put: async (image, name) => {
      const args = ['convert', '-c', '-f', 'raw', '-O', 'qcow2', image, join(path, `${name}.qcow2`)];
      await run('qemu-img', args, { prefix: bench.pin.prefix });
    },
  };
}
