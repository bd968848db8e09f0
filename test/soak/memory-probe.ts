/**
 * Loaded into the server, and into each of its threads, by `npm run soak -- --memory`: what that thread's isolate holds, in a file
 * of its own, every few seconds.
 */
import { renameSync, writeFileSync } from 'node:fs';
import { getHeapSpaceStatistics } from 'node:v8';
import { threadId } from 'node:worker_threads';
import { memoryFile, PROBE_FILES, type IsolateMemory } from './memory.ts';

const EVERY_MS = 2_000;

const directory = process.env[PROBE_FILES];
if (directory !== undefined) setInterval(() => write(directory), EVERY_MS).unref();

function write(into: string): void {
  const { heapUsed, heapTotal, external, arrayBuffers } = process.memoryUsage();
  const young = getHeapSpaceStatistics().find(({ space_name }) => space_name === 'new_space');
  const memory: IsolateMemory = {
    ...{ heapUsed, heapTotal, external, arrayBuffers },
    youngResident: young?.physical_space_size ?? 0,
  };
  const path = memoryFile(into, process.pid, threadId);
  writeFileSync(`${path}.new`, JSON.stringify(memory));
  renameSync(`${path}.new`, path);
}
