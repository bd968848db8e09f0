/**
 * Real systems to import: a Debian guest that was booted and used, and two that were installed independently of it and of
 * each other, with other packages. Built once a recipe and kept beside the guest tests' image: `$PANDO_TEST_CACHE`, or
 * `pando-test` in the user's cache folder. An entry is named by the hash of all that it is made of and appears whole, by
 * rename; flock(1) makes others wait for a build under way. `node bench/harness/debian-images.ts` builds them ahead.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { guestImage } from '../../test/guest/build-image.ts';
import { namedImage } from './images.ts';
import type { DiskImage } from './images.ts';
import { run } from './processes.ts';

const RECIPE = fileURLToPath(new URL('debian', import.meta.url));

/** Builds by the given command under the lock, unless somebody else has done so meanwhile; then puts the result in its place. */
const BUILD_ONCE = `
set -eu
entry=$1
shift
if [ -d "$entry" ]; then exit 0; fi
rm -rf "$entry".partial.*
work=$(mktemp -d "$entry.partial.XXXXXX")
chmod 0755 "$work"
trap 'rm -rf "$work"' EXIT
"$@" "$work"
sync "$work"/*
mv -T "$work" "$entry"
`;

/** The booted one first. @throws Error with the builder's output when one cannot be built */
export async function debianImages(): Promise<readonly DiskImage[]> {
  const guest = await guestImage();
  const boot = [process.execPath, join(RECIPE, 'boot.ts'), guest.disk, guest.kernel, guest.initrd];
  // The folder of the guest is named by its recipe.
  const booted = { madeOf: ['boot.ts', 'work.sh'], base: basename(dirname(guest.disk)), command: boot };
  const installed = (name: string): Recipe => ({
    ...{ madeOf: ['install.sh'], base: '', command: ['sh', join(RECIPE, 'install.sh'), name] },
  });
  const cache = dirname(dirname(guest.disk));
  return [
    await build(cache, 'booted', booted, 'Debian 12 guest of test/guest, booted and used'),
    await build(cache, 'database', installed('database'), 'Debian 12 installed with PostgreSQL'),
    await build(cache, 'web', installed('web'), 'Debian 12 installed with nginx and Django'),
  ];
}

interface Recipe {
  /** Files of the folder `debian`. */
  readonly madeOf: readonly string[];
  /** What else it is made of. */
  readonly base: string;
  /** Gets the folder as its last argument in which it is to make `disk.raw`. */
  readonly command: readonly string[];
}

async function build(cache: string, name: string, recipe: Recipe, words: string): Promise<DiskImage> {
  const entry = join(cache, `bench-${name}-${await hashOf(recipe)}`);
  if (!existsSync(entry)) {
    const lock = join(cache, 'bench.lock');
    await run('flock', [lock, 'sh', '-c', BUILD_ONCE, 'sh', entry, ...recipe.command]);
  }
  return namedImage(join(entry, 'disk.raw'), words);
}

async function hashOf({ madeOf, base }: Recipe): Promise<string> {
  const hash = createHash('sha256').update(`${BUILD_ONCE}\0${base}`);
  for (const name of madeOf) hash.update(`\0${name}\0`).update(await readFile(join(RECIPE, name)));
  return hash.digest('hex').slice(0, 16);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const started = performance.now();
  console.log(await debianImages());
  console.log(`${((performance.now() - started) / 1000).toFixed(1)} s`);
}
