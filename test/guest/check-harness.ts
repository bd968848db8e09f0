/**
 * `node test/guest/check-harness.ts`: boots the image through qemu-nbd instead of Pando, to tell a fault of the harness
 * from one of the server. Prints how long image, boot and power-off take.
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { guestImage } from './build-image.ts';
import { Guest } from './qemu.ts';

const SOCKET_MS_MAX = 10_000;

let started = performance.now();
function lap(what: string): void {
  const now = performance.now();
  console.log(`${what.padEnd(10)} ${((now - started) / 1000).toFixed(1)} s`);
  started = now;
}

const image = await guestImage();
lap('image');
const folder = await mkdtemp(join(tmpdir(), 'pando-guest-'));
const overlay = join(folder, 'overlay.qcow2');
const socket = join(folder, 'nbd.sock');
execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', image.disk, '-F', 'raw', overlay]);
const nbd = spawn('qemu-nbd', ['-k', socket, '-f', 'qcow2', '-x', 'guest/disk0', overlay], {
  stdio: 'inherit',
});
try {
  for (let waited = 0; !existsSync(socket); waited += 50) {
    if (waited > SOCKET_MS_MAX) throw new Error('qemu-nbd does not start');
    await sleep(50);
  }
  const guest = await Guest.boot({
    image,
    drives: [`nbd+unix:///guest/disk0?socket=${encodeURIComponent(socket)}`],
  });
  try {
    lap('boot');
    const output = await guest.must(
      'dd if=/dev/urandom of=/root/file bs=1M count=16 conv=fsync 2>&1 && sha256sum /root/file',
    );
    console.log(output);
    if ((await guest.run('(exit 7)')).status !== 7) throw new Error('a command’s status got lost');
    lap('commands');
    await guest.powerOff();
    lap('power off');
  } finally {
    await guest.close();
  }
} finally {
  if (nbd.exitCode === null && nbd.kill()) await once(nbd, 'close');
  await rm(folder, { recursive: true, force: true });
}
