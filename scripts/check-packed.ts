/**
 * `npm run check:packed`: installs the tarballs of `npm run pack:all` into an empty folder, as a user would, checks
 * types and imports of every package, and runs the command from there: version, help, and the demo to its end.
 */
import { execFileSync } from 'node:child_process';
import { globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { ROOT, readManifest, workspaces } from './workspaces.ts';

const INSTALL_MS_MAX = 5 * 60_000;
const RUN_MS_MAX = 5 * 60_000;

const tarballs = globSync('build/tarballs/*.tgz', { cwd: ROOT });
if (tarballs.length === 0) throw new Error('there are no tarballs; run `npm run pack:all` first');

const folder = mkdtempSync(join(tmpdir(), 'pando-packed-'));
/** A module that imports all packages that have something to import. */
const consumer = workspaces()
  .filter(({ manifest }) => manifest.exports?.['.'] !== undefined)
  .map(({ manifest: { name } }, i) => `import * as package${i} from '${name}';\nexport { package${i} };\n`)
  .join('');

/** As outside of this repository: nothing of its node_modules but Node itself, nothing that npm says to scripts. */
const env: NodeJS.ProcessEnv = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !/^npm_(lifecycle|package|config_local)/.test(name)),
);
const elsewhere = (process.env['PATH'] ?? '')
  .split(delimiter)
  .filter((path) => !path.startsWith(join(ROOT, 'node_modules')));
env['PATH'] = [dirname(process.execPath), ...elsewhere].join(delimiter);

function run(command: string, args: readonly string[], timeout: number): string {
  console.log(`$ ${[command, ...args.map((arg) => arg.replace(join(ROOT, 'build'), 'build'))].join(' ')}`);
  const started = performance.now();
  const output = execFileSync(command, args, {
    cwd: folder,
    env,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout,
    maxBuffer: 64 * 1024 * 1024,
  });
  console.log(output.trimEnd());
  console.log(`  (${((performance.now() - started) / 1000).toFixed(1)} s)`);
  return output;
}

function check(holds: boolean, what: string): void {
  if (!holds) throw new Error(`the packed command is wrong: ${what}`);
}

try {
  writeFileSync(join(folder, 'package.json'), '{ "name": "empty", "private": true }\n');
  run(
    'npm',
    [
      'install',
      '--no-audit',
      '--no-fund',
      '--prefer-offline',
      '--loglevel=error',
      ...tarballs.map((path) => join(ROOT, path)),
    ],
    INSTALL_MS_MAX,
  );
  const lock = readFileSync(join(folder, 'package-lock.json'), 'utf8');
  check(!lock.includes(`"link": true`), 'a package was linked instead of installed');
  writeFileSync(join(folder, 'consumer.mts'), consumer);
  const compiler = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
  const strict = ['--strict', '--skipLibCheck', '--target', 'es2024', '--module', 'nodenext'];
  run(process.execPath, [compiler, ...strict, 'consumer.mts'], RUN_MS_MAX);
  run(process.execPath, ['consumer.mjs'], RUN_MS_MAX);
  const version = readManifest('apps/cli').version;
  check(
    run('npx', ['--no-install', 'pando', '--version'], RUN_MS_MAX).trim().endsWith(version),
    `its version is not ${version}`,
  );
  check(
    run('npx', ['--no-install', 'pando', '--help'], RUN_MS_MAX).includes('backup'),
    'its help does not name backups',
  );
  run('npx', ['--no-install', 'pando', 'demo'], RUN_MS_MAX);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
