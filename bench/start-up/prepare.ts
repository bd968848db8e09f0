/**
 * Makes a data directory as a killed server leaves it, and is killed: `node prepare.ts DIRECTORY VOLUMES LOG-BYTES SEED`. The
 * engine is the server's own, over a clock that stands still, so that nothing is destaged because it has become old.
 */
import { openDataDirectory } from '../../apps/server/src/data-directory.ts';
import { openStore } from '../../apps/server/src/store.ts';
import { CHUNK_BYTES_DEFAULT, MiB, systemClock } from '@pando/common';
import { prng } from '../harness/images.ts';

const CHUNK = CHUNK_BYTES_DEFAULT;
const DISK_BYTES = 10 * 1024 * MiB;
/** Of what is in the log, so much is not written over again: past half of the memory for overlays a server destages. */
const OVERLAY_BYTES = 112 * MiB;
/** Writes of one disk are so far apart. */
const STRIDE_BYTES = 1 * MiB;
const WRITES_AT_ONCE = 64;
const CLONES_A_REQUEST = 1000;

const [path, ...numbers] = process.argv.slice(2);
const [count, logBytes, seed] = numbers.map(Number) as [number, number, number];
const clock = { ...systemClock, monotonic: () => 0 };
const directory = await openDataDirectory(path!, { clock, create: true });
const { fleet, volumes } = await openStore(directory, clock, { refusal: undefined });
const names: string[] = [];
if (count > 0) {
  await fleet.createVm({ name: 'golden', disks: [{ name: 'disk0', sizeBytes: DISK_BYTES }] });
  names.push('golden');
}
while (names.length < count) {
  const clones = Math.min(CLONES_A_REQUEST, count - names.length);
  const vms = await fleet.cloneVm('golden', { name: `vm-${names.length}`, count: clones });
  names.push(...vms.map(({ name }) => name));
}
const chunks = Math.floor(Math.min(OVERLAY_BYTES, logBytes / 2) / CHUNK);
const next = prng(seed);
const data = Buffer.alloc(CHUNK);
for (let written = 0; written < logBytes;) {
  for (const [at, name] of names.entries()) {
    const disk = await fleet.attach(`${name}/disk0`);
    const waiting: Promise<void>[] = [];
    for (let chunk = at; chunk < chunks && written < logBytes; chunk += count) {
      for (let word = 0; word < CHUNK; word += 4) data.writeUInt32LE(next(), word);
      const offset = (Math.floor(chunk / count) * STRIDE_BYTES) % DISK_BYTES;
      const done = disk.write(offset, data);
      if (done !== undefined) waiting.push(done);
      written += CHUNK;
      if (waiting.length >= WRITES_AT_ONCE) await Promise.all(waiting.splice(0));
    }
    await Promise.all(waiting);
    await disk.close();
  }
}
const { logBytes: bytes, overlays } = volumes.stats;
if (bytes < logBytes) throw new Error(`the log has only ${bytes} bytes, in ${overlays} overlays`);
process.kill(process.pid, 'SIGKILL');
