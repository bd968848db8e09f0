/**
 * Makes a data directory with garbage in it: `node prepare.ts DIRECTORY VMS CHUNKS SEED`. So many disks of so many chunks are imported
 * one after another, no two chunks alike, and every third VM is deleted again. The engine is the server's own.
 */
import { openDataDirectory } from '../../apps/server/src/data-directory.ts';
import { openStore } from '../../apps/server/src/store.ts';
import { CHUNK_BYTES_DEFAULT, systemClock } from '@pando/common';
import { prng } from '../harness/images.ts';

const CHUNK = CHUNK_BYTES_DEFAULT;
const CHUNKS_A_PART = 256;
/** Of each chunk so much is noise, the rest zeros: about as much as is left of real data, compressed. */
const NOISE_BYTES = CHUNK / 4;
const DELETED_EVERY = 3;

const [path, ...numbers] = process.argv.slice(2);
const [count, chunks, seed] = numbers.map(Number) as [number, number, number];
const next = prng(seed);

/** A disk; each chunk of it begins with its number among all. */
async function* parts(first: number): AsyncGenerator<Uint8Array> {
  const part = new Uint32Array((CHUNKS_A_PART * CHUNK) / 4);
  for (let from = 0; from < chunks; from += CHUNKS_A_PART) {
    const inPart = Math.min(CHUNKS_A_PART, chunks - from);
    for (let chunk = 0; chunk < inPart; chunk++) {
      const at = (chunk * CHUNK) / 4;
      part[at] = first + from + chunk;
      for (let word = 1; word < NOISE_BYTES / 4; word++) part[at + word] = next();
    }
    yield new Uint8Array(part.buffer, 0, inPart * CHUNK);
  }
}

const clock = systemClock;
const directory = await openDataDirectory(path!, { clock, create: true });
const { store, mirror, volumes, fleet } = await openStore(directory, clock, { refusal: undefined });
for (let vm = 0; vm < count; vm++) {
  const source = { sizeBytes: chunks * CHUNK, parts: () => parts(vm * chunks) };
  await fleet.importVm({ name: `vm-${vm}`, source });
}
for (let vm = DELETED_EVERY - 1; vm < count; vm += DELETED_EVERY) await fleet.deleteVm(`vm-${vm}`);
for (const part of [fleet, volumes, mirror, store, directory.catalog]) await part.close();
