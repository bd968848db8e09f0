/**
 * Makes a data directory as a killed server leaves it, and is killed: `node prepare.ts DIRECTORY VMS WRITTEN LOG-BYTES SEED`. There are `VMS`
 * VMs of one disk, and so many bytes in the log, of writes of 4 KiB to `WRITTEN` of the disks in turn; the first one is `golden`. The
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
const [count, written, logBytes, seed] = numbers.map(Number) as [number, number, number, number];
const clock = { ...systemClock, monotonic: () => 0 };
const directory = await openDataDirectory(path!, { clock, create: true });
const { fleet, volumes } = await openStore(directory, clock, { refusal: undefined });
await fleet.createVm({ name: 'golden', disks: [{ name: 'disk0', sizeBytes: DISK_BYTES }] });
const names = ['golden'];
while (names.length < count) {
  const clones = Math.min(CLONES_A_REQUEST, count - names.length);
  const vms = await fleet.cloneVm('golden', { name: `vm-${names.length}`, count: clones });
  names.push(...vms.map(({ name }) => name));
}
const chunks = Math.floor(Math.min(OVERLAY_BYTES, logBytes / 2) / CHUNK);
// Nobody closes them: this ends with a kill.
const disks = await Promise.all(
  names.slice(0, Math.min(written, chunks)).map((name) => fleet.attach(`${name}/disk0`)),
);
const next = prng(seed);
const waiting: Promise<void>[] = [];
for (let write = 0; write * CHUNK < logBytes; write++) {
  const data = Buffer.alloc(CHUNK);
  for (let word = 0; word < CHUNK; word += 4) data.writeUInt32LE(next(), word);
  const chunk = write % chunks;
  const offset = (Math.floor(chunk / disks.length) * STRIDE_BYTES) % DISK_BYTES;
  const done = disks[chunk % disks.length]!.write(offset, data);
  if (done !== undefined) waiting.push(done);
  if (waiting.length >= WRITES_AT_ONCE) await Promise.all(waiting.splice(0));
}
await Promise.all(waiting);
const { logBytes: bytes, overlays } = volumes.stats;
if (bytes < logBytes || overlays < disks.length)
  throw new Error(`the log has only ${bytes} bytes, in ${overlays} overlays`);
process.kill(process.pid, 'SIGKILL');
