/**
 * The story that Pando is for, with a real guest: import, clone, boot over NBD, back up while it writes, delete
 * what the backup came from, restore, boot again. Only REST and NBD are used, as any user would.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { expect, onTestFailed } from 'vitest';
import { TestServer } from '../support/server.ts';
import { itWithTools, mustRun } from '../support/tools.ts';
import { guestImage } from './build-image.ts';
import { Guest } from './qemu.ts';

/** Writes files of growing odd sizes, and says on the console which of them are on the disk for sure. */
const WRITER = `
mkdir /root/live
i=0
while [ ! -e /run/stop ]; do
  i=$((i + 1))
  dd if=/dev/urandom of=/root/live/$i bs=4099 count=$((1 + i % 97)) 2>/dev/null
  sum=$(sha256sum </root/live/$i)
  sync
  printf '@@SYNCED %s %s@@\\n' $i "\${sum%% *}"
done
`;

/** File number → SHA-256, of all that the guest has reported as synced so far. */
function syncedFiles(guest: Guest): Map<number, string> {
  const reports = guest.console.matchAll(/@@SYNCED (\d+) ([0-9a-f]{64})@@/g);
  return new Map([...reports].map(([, number, sum]) => [Number(number), sum!]));
}

/** Prints how long each part took: for people who wonder where the time goes. */
function stopwatch(): (what: string) => void {
  let since = performance.now();
  return (what) => {
    const now = performance.now();
    console.log(`${what}: ${((now - since) / 1000).toFixed(1)} s`);
    since = now;
  };
}

const TOOLS = [
  'qemu-system-x86_64',
  'qemu-img',
  'setpriv',
  'mmdebstrap',
  'mke2fs',
  'e2fsck',
  'debugfs',
  'nbdcopy',
  'flock',
];

itWithTools(
  TOOLS,
  'a guest boots from a clone, is backed up while it writes, and comes back from the backup whole',
  async () => {
    await using cleanup = new AsyncDisposableStack();
    const lap = stopwatch();
    const image = await guestImage();
    lap('the image');
    const scratch = await mkdtemp(join(tmpdir(), 'pando-guest-'));
    cleanup.defer(() => rm(scratch, { recursive: true, force: true }));
    const server = await TestServer.start({
      args: ['--import-dir', dirname(image.disk), '--guest-agent-dir', scratch],
    });
    cleanup.defer(() => server.close());
    onTestFailed(() => {
      console.error(`the server said:\n${server.log.slice(-5000)}`);
    });
    const { rest } = server;

    async function boot(vm: string): Promise<Guest> {
      const guest = await Guest.boot({
        image,
        drives: [server.nbdUri(`${vm}/disk0`)],
        agentSocket: join(scratch, `${vm}.sock`),
      });
      cleanup.defer(() => guest.close());
      return guest;
    }

    await rest.job('/imports', { name: 'golden', path: image.disk });
    await rest.must('POST', '/vms/golden/clone', { name: 'web', count: 3 });
    lap('import and clone');

    const guest = await boot('web-1');
    lap('boot of a clone');
    await guest.must('mkdir /root/before');
    await guest.must(
      'for i in 1 2 3 4 5 6 7 8; do dd if=/dev/urandom of=/root/before/$i bs=65537 count=$((i * i)) 2>/dev/null; done',
    );
    const before = await guest.must('cd /root/before && sha256sum * && cd / && sync');

    await guest.must(`cat >/root/writer <<'END'\n${WRITER}\nEND\n{ sh /root/writer & }`);
    // To the end of the line: the console brings it in pieces.
    await guest.waitFor(/@@SYNCED 7 [0-9a-f]{64}@@/);
    const promised = syncedFiles(guest);
    await rest.must('POST', '/vms/web-1/backups', { name: 'live' });
    const during = Math.max(...syncedFiles(guest).keys());
    await guest.must('echo later >/root/after-backup; sync');
    // The backup did not stop the guest: it goes on writing.
    await guest.waitFor(new RegExp(`@@SYNCED ${during + 5} `));
    await guest.must('touch /run/stop; wait');
    await guest.powerOff();
    lap('writes, a backup, power-off');

    // The golden image is what it was, whatever its clone did.
    await mustRun('qemu-img', [
      'compare',
      '-f',
      'raw',
      '-F',
      'raw',
      image.disk,
      server.nbdUri('golden/disk0'),
    ]);
    lap('compare of the golden image');

    // The backup depends on nothing: neither on the VM, nor on the image that the VM came from.
    await rest.must('POST', '/backups/web-1@live/restore', { as: 'back' });
    await rest.must('DELETE', '/vms/golden');
    await rest.must('DELETE', '/backups/web-1@live');
    await rest.must('DELETE', '/vms/web-1');
    await rest.job('/gc');
    lap('restore, deletes, gc');

    const restored = await boot('back');
    lap('boot of the restored VM');
    // It was taken under way, so there is a journal to replay; after that there is nothing to repair.
    expect(await restored.must('cat /run/initramfs/fsck.log')).toMatch(/recovering journal\n+root: clean,/);
    expect(await restored.must('cd /root/before && sha256sum *')).toBe(before);
    const live = new Map(
      (await restored.must('cd /root/live && sha256sum *'))
        .split('\n')
        .map((line) => [Number(line.slice(66)), line.slice(0, 64)]),
    );
    expect(promised.size).toBeGreaterThanOrEqual(7);
    for (const [number, sum] of promised) expect(live.get(number), `file ${number}`).toBe(sum);
    expect(await restored.run('ls /root/after-backup')).toMatchObject({ status: 2 });
    await restored.must(
      'cd / && cat /var/lib/dpkg/info/coreutils.md5sums /var/lib/dpkg/info/e2fsprogs.md5sums | grep -v usr/share | md5sum -c --quiet',
    );
    await restored.powerOff();
    lap('checks inside, power-off');

    const exported = join(scratch, 'back.raw');
    await mustRun('nbdcopy', [server.nbdUri('back/disk0'), exported]);
    const verdict = await mustRun('e2fsck', ['-fn', exported]);
    expect(verdict).not.toMatch(/recovering|not cleanly unmounted|FIXED/i);
    lap('export and e2fsck');

    // The other clones never noticed: still bootable after everything around them is gone.
    const neighbour = await boot('web-2');
    expect(await neighbour.run('ls /root/before')).toMatchObject({ status: 2 });
    lap('boot of a neighbour');

    // A backup of a guest at rest: what it has written and not synced is there, and there is no journal to replay.
    const agent =
      'qemu-ga --method=virtio-serial --path=/dev/vport0p2 --statedir=/run --pidfile=/run/agent.pid';
    await neighbour.must(`(${agent} </dev/null >/dev/null 2>&1 &)`);
    await neighbour.must('head -c 300000 /dev/urandom >/root/unsynced');
    const unsynced = await neighbour.must('sha256sum </root/unsynced');
    const quiesce = `qemu-ga:${scratch}/{vm}.sock`;
    expect(await rest.must('POST', '/vms/web-2/backups', { name: 'rest', quiesce })).toMatchObject({
      consistency: 'application',
    });
    await neighbour.must('echo more >/root/unsynced && sync');
    await neighbour.powerOff();
    const atRest = join(scratch, 'rest.raw');
    await mustRun('nbdcopy', [server.nbdUri('web-2@rest/disk0'), atRest]);
    expect(await mustRun('e2fsck', ['-fn', atRest])).not.toMatch(/recovering|not cleanly unmounted|FIXED/i);
    await mustRun('debugfs', ['-R', `dump /root/unsynced ${scratch}/unsynced`, atRest]);
    const dumped = await mustRun('sha256sum', [join(scratch, 'unsynced')]);
    expect(dumped.slice(0, 64)).toBe(unsynced.slice(0, 64));
    // Nobody listens any more; nothing is taken.
    expect(await rest.call('POST', '/vms/web-2/backups', { name: 'gone', quiesce })).toMatchObject({
      status: 503,
      body: { code: 'guest-agent-gone' },
    });
    expect((await rest.call('GET', '/backups/web-2@gone')).status).toBe(404);
    lap('a backup of a guest at rest');
  },
);
