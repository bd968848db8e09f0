/**
 * The guest's disk: built once a recipe (the files in `image/`), kept outside the checkout.
 *
 * The cache is `$PANDO_TEST_CACHE`, or `pando-test` in the user's cache folder; an entry is named by the hash of the
 * recipe and appears whole, by rename. flock(1) makes others wait for a build under way, and lets go of it when
 * the builder dies. `node test/guest/build-image.ts` builds it ahead of the tests.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, readdir } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export interface GuestImage {
  /** The whole disk, ext4 without a partition table, sparse; nobody may write to it. */
  readonly disk: string;
  readonly kernel: string;
  readonly initrd: string;
}

const RECIPE = fileURLToPath(new URL('image', import.meta.url));
const BUILD_MS_MAX = 10 * 60_000;

/** Builds under the lock, unless somebody else has done so meanwhile; then puts the result in its place. */
const BUILD_ONCE = `
set -eu
recipe=$1 entry=$2
if [ -d "$entry" ]; then exit 0; fi
rm -rf "$entry".partial.*
work=$(mktemp -d "$entry.partial.XXXXXX")
chmod 0755 "$work"
trap 'rm -rf "$work"' EXIT
sh "$recipe/build.sh" "$recipe" "$work"
sync "$work"/*
mv -T "$work" "$entry"
`;

/** @throws Error with the builder's output when the image cannot be built */
export async function guestImage(): Promise<GuestImage> {
  const cache =
    process.env['PANDO_TEST_CACHE'] ??
    join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'pando-test');
  const entry = join(cache, `guest-${await recipeHash()}`);
  if (!existsSync(entry)) {
    await mkdir(cache, { recursive: true });
    await run('flock', [join(cache, 'guest.lock'), 'sh', '-c', BUILD_ONCE, 'sh', RECIPE, entry]);
  }
  return { disk: join(entry, 'disk.raw'), kernel: join(entry, 'vmlinuz'), initrd: join(entry, 'initrd') };
}

async function recipeHash(): Promise<string> {
  const hash = createHash('sha256').update(BUILD_ONCE);
  for (const name of (await readdir(RECIPE)).sort()) {
    hash.update(`\0${name}\0`).update(await readFile(join(RECIPE, name)));
  }
  return hash.digest('hex').slice(0, 16);
}

function run(command: string, args: readonly string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], timeout: BUILD_MS_MAX });
    let output = '';
    const keep = (data: Buffer): void => {
      output = (output + data.toString()).slice(-20_000);
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    child.on('error', reject);
    child.on('close', (status, signal) => {
      if (status === 0) resolve();
      else reject(new Error(`building the guest's disk ended with ${signal ?? String(status)}:\n${output}`));
    });
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const started = performance.now();
  console.log(await guestImage());
  console.log(`${((performance.now() - started) / 1000).toFixed(1)} s`);
}
