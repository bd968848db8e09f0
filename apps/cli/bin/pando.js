#!/usr/bin/env -S MALLOC_ARENA_MAX=2 MALLOC_MMAP_THRESHOLD_=524288 MALLOC_TRIM_THRESHOLD_=1048576 node --max-semi-space-size=8
/**
 * The command `pando`. Plain JavaScript with built-ins only, until it is known that this Node runs the rest.
 *
 * npx starts commands with whatever Node it was started with itself. Where that one is too old, the Node that came
 * as the npm package `node` takes over, if it is installed nearby.
 *
 * The young generation of the heap is bounded, and glibc told to return what is freed (docs/memory.md): a server that runs for
 * long would let the one grow to 128 MiB, and keep as much of the other.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import module from 'node:module';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const MAJOR_NEEDED = 24;
const FLAGS = ['--max-semi-space-size=8'];
const MALLOC = {
  MALLOC_ARENA_MAX: '2',
  MALLOC_MMAP_THRESHOLD_: '524288',
  MALLOC_TRIM_THRESHOLD_: '1048576',
};
const self = fileURLToPath(import.meta.url);

function findNode() {
  const name = process.platform === 'win32' ? 'node.exe' : 'node';
  for (let folder = dirname(self); ; folder = dirname(folder)) {
    const path = join(folder, 'node_modules', 'node', 'bin', name);
    if (existsSync(path)) return path;
    if (folder === dirname(folder)) return undefined;
  }
}

function handOver(node) {
  const child = spawn(node, [...FLAGS, self, ...process.argv.slice(2)], {
    stdio: 'inherit',
    env: { ...MALLOC, ...process.env, PANDO_NODE: node },
  });
  // A terminal tells both of us; whoever tells only this process means the other one.
  process.on('SIGINT', () => undefined);
  process.on('SIGTERM', () => child.kill('SIGTERM'));
  process.on('SIGHUP', () => child.kill('SIGHUP'));
  child.on('error', (error) => {
    process.stderr.write(`pando: cannot start ${node}: ${error.message}\n`);
    process.exitCode = 1;
  });
  child.on('close', (code, signal) => {
    process.exitCode = code === null ? 128 + (signal === 'SIGINT' ? 2 : 15) : code;
  });
}

if (Number.parseInt(process.versions.node, 10) >= MAJOR_NEEDED) {
  // Compiled code is kept between runs: a command starts in half the time. In the user's own folder, because whoever
  // could write there would decide what runs.
  module.enableCompileCache(
    join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'pando', 'compiled'),
  );
  await import('../src/main.ts');
} else {
  const node = process.env.PANDO_NODE === undefined ? findNode() : undefined;
  if (node === undefined) {
    process.stderr.write(
      `pando: Node ${process.versions.node} is too old: Node ${MAJOR_NEEDED} or newer is needed.\n` +
        `       Install it (https://nodejs.org), or in a checkout run \`npm ci\`, which fetches it.\n`,
    );
    process.exitCode = 1;
  } else {
    handOver(node);
  }
}
