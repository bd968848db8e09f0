/**
 * Runs before every npm script, with nothing installed yet: plain JavaScript, Node's built-ins only, Node ≥ 20.
 *
 * Installs the dependencies when they are missing or older than package-lock.json, and makes sure that the Node
 * which the repository pins (npm package `node`, which npm scripts find first on PATH) is really there: it comes
 * through an install script, and those can be switched off.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { delimiter, dirname, join, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const INSTALL_WAIT_MS_MAX = 10 * 60_000;
const windows = process.platform === 'win32';
const pinnedNode = join(root, 'node_modules', 'node', 'bin', windows ? 'node.exe' : 'node');

/** What package-lock.json asks for and what npm noted when it installed; undefined when a file is not there. */
function readLock(path) {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  }
}

/** Why an install is needed, or undefined. */
function whyInstall() {
  const wanted = readLock(join(root, 'package-lock.json'));
  if (wanted === undefined) return undefined;
  const installed = readLock(join(root, 'node_modules', '.package-lock.json'));
  if (installed === undefined) return 'the dependencies are not installed yet';
  for (const [path, entry] of Object.entries(wanted.packages)) {
    if (!path.startsWith('node_modules/')) continue;
    const have = installed.packages[path];
    if (have === undefined) {
      // npm leaves out what is optional and made for another platform.
      if (entry.optional || entry.devOptional || entry.peer) continue;
      return `${path.slice('node_modules/'.length)} is missing`;
    }
    if (have.version !== entry.version) {
      return `${path.slice('node_modules/'.length)} is ${have.version}, wanted ${entry.version}`;
    }
  }
  return undefined;
}

/** The environment for a nested npm: without this repository's own bin folder, which `npm ci` is about to delete. */
function outsideEnvironment() {
  const env = { ...process.env };
  const own = join(root, 'node_modules') + sep;
  env.PATH = (env.PATH ?? '')
    .split(delimiter)
    .filter((folder) => !(folder + sep).startsWith(own))
    .join(delimiter);
  for (const name of Object.keys(env)) {
    if (/^npm_(lifecycle|package)_/.test(name)) delete env[name];
  }
  return env;
}

function fail(message, output = '') {
  process.stderr.write(`${output}\n${message}\n`);
  process.exit(1);
}

/** Runs npm from outside the checkout's node_modules; its output is shown only when it fails. */
function npm(args, folder) {
  const result = spawnSync(windows ? 'npm.cmd' : 'npm', args, {
    cwd: folder,
    env: outsideEnvironment(),
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    shell: windows,
    maxBuffer: 64 * 1024 * 1024,
  });
  const output = `${result.stdout ?? ''}${result.stderr ?? ''}${result.error ? String(result.error) : ''}`;
  return { ok: result.status === 0, output };
}

function pinnedNodeWorks() {
  if (!existsSync(pinnedNode)) return false;
  const wanted = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).devDependencies.node;
  return spawnSync(pinnedNode, ['--version'], { encoding: 'utf8' }).stdout?.trim() === `v${wanted}`;
}

/** Fetches the pinned Node as the install script of the package `node` does. */
function installPinnedNode() {
  const folder = join(root, 'node_modules', 'node');
  const script = join(folder, 'installArchSpecificPackage.js');
  if (!existsSync(script)) fail('node_modules/node is incomplete; delete node_modules and try again.');
  console.log('pando: install scripts were off, fetching the pinned Node …');
  const result = spawnSync(windows ? 'node.exe' : 'node', ['installArchSpecificPackage.js'], {
    cwd: folder,
    env: outsideEnvironment(),
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  if (!pinnedNodeWorks()) {
    fail(
      'The pinned Node could not be fetched. Run `npm rebuild node --ignore-scripts=false` and try again.',
      `${result.stdout ?? ''}${result.stderr ?? ''}`,
    );
  }
}

/** npm links a package's command only when its file is there at that moment; npm scripts find Node by this link. */
function linkPinnedNode() {
  const link = join(root, 'node_modules', '.bin', 'node');
  if (windows || existsSync(link)) return;
  rmSync(link, { force: true });
  symlinkSync(join('..', 'node', 'bin', 'node'), link);
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}

/** One install at a time: `npm start` and `npm test` may be started together on a fresh checkout. */
function withLock(work) {
  const lock = join(root, '.installing');
  const started = Date.now();
  for (;;) {
    try {
      writeFileSync(lock, String(process.pid), { flag: 'wx' });
      break;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
    const holder = Number(readFileSync(lock, { encoding: 'utf8', flag: 'a+' }));
    // An empty file is one whose owner has not got round to writing; only age tells it from an orphan.
    const orphaned = holder > 0 ? !isAlive(holder) : Date.now() - statSync(lock).mtimeMs > 5000;
    if (orphaned) rmSync(lock, { force: true });
    else if (Date.now() - started > INSTALL_WAIT_MS_MAX)
      fail(`Process ${holder} still installs; see ${lock}.`);
    else Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500);
  }
  process.on('exit', () => rmSync(lock, { force: true }));
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1));
  work();
}

const [major] = process.versions.node.split('.').map(Number);
if (major < 20) fail(`Pando needs Node 20 or newer to start npm with; this is ${process.version}.`);

if (
  whyInstall() !== undefined ||
  !pinnedNodeWorks() ||
  !existsSync(join(root, 'node_modules', '.bin', 'node'))
) {
  withLock(() => {
    const why = whyInstall();
    if (why !== undefined) {
      console.log(`pando: running npm ci, because ${why} …`);
      const started = Date.now();
      const { ok, output } = npm(['ci', '--no-audit', '--no-fund', '--loglevel=error'], root);
      if (!ok) fail('npm ci failed; its output is above.', output);
      console.log(`pando: installed in ${((Date.now() - started) / 1000).toFixed(1)} s`);
    }
    if (!pinnedNodeWorks()) installPinnedNode();
    linkPinnedNode();
  });
}
