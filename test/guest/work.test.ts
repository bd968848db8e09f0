/**
 * Three guests at work at once, each on two disks: fio with verification in all of them, PostgreSQL under pgbench in one. A
 * backup of each is taken meanwhile. Then they and the server die (kill -9), and everything is looked at twice: as
 * the backups have it, and as the dead guests left it. What a guest has reported as durable must be there.
 */
import { seededRandom, between, runSeed } from '@pando/common/testing';
import { expect } from 'vitest';
import { itWithTools } from '../support/tools.ts';
import type { Guest } from './qemu.ts';
import { Stage, stopwatch, TOOLS } from './stage.ts';

/** On a quiet machine each of these takes less than a tenth of it. */
const WORK_MS_MAX = 300_000;
/** Files that one fio verifies at once. */
const VERIFY_FILES_MAX = 12;

interface Plan {
  readonly vm: string;
  readonly seed: number;
  readonly transport: 'tcp' | 'unix';
  readonly mountOptions: string;
  readonly database: boolean;
}

interface Amount {
  readonly files: number;
  readonly rows: number;
}

/** What a guest has reported as durable. */
interface Promises extends Amount {
  /** SHA-256 of file 1, 2, …: `files` of them. */
  readonly sums: readonly string[];
}

function promisesOf(guest: Guest): Promises {
  const sums = guest.reports.filter((line) => line.startsWith('FILE ')).map((line) => line.split(' ')[2]!);
  return { files: guest.reported('FILE'), sums, rows: guest.reported('ROW') };
}

async function startWork(guest: Guest, plan: Plan): Promise<void> {
  await guest.must(`mkfs.ext4 -q /dev/vdb && mkdir /data && mount -o ${plan.mountOptions} /dev/vdb /data`);
  const inBackground = (line: string): Promise<string> =>
    guest.must(`(sh /run/work/${line} </dev/null >/dev/null 2>&1 &)`);
  if (plan.database) {
    await guest.must('sh /run/work/database.sh move-log && sync');
    await guest.must('sh /run/work/database.sh start', WORK_MS_MAX);
    await inBackground(`database.sh work ${plan.seed}`);
  } else {
    await guest.must(
      'for f in /root/count /data/count; do dd if=/dev/zero of=$f bs=4096 count=1; done 2>&1; sync',
    );
    await inBackground('both-disks.sh');
    await inBackground(`live.sh ${plan.seed}`);
  }
  await inBackground(`files.sh ${plan.seed}`);
}

/** Resolves when the guest has done so much more than it had at `since`. */
async function untilDone(guest: Guest, plan: Plan, since: Amount, more: Amount): Promise<void> {
  await guest.waitForReport('FILE', since.files + more.files, WORK_MS_MAX);
  if (plan.database) await guest.waitForReport('ROW', since.rows + more.rows, WORK_MS_MAX);
  else await guest.waitForReport('PASS', 1, WORK_MS_MAX);
}

function expectNoFailure(guest: Guest): void {
  expect(guest.reports.filter((line) => line.startsWith('FAILED'))).toEqual([]);
}

/** Boots what a guest left, or a restored backup of it, and looks at all that it promised. */
async function check(stage: Stage, plan: Plan, vm: string, promised: Promises): Promise<Guest> {
  // The initrd replays the journal of the system's disk, and then checks all of it.
  const guest = await stage.boot(vm, { transport: plan.transport, kernelArguments: 'fsck.mode=force' });
  const log = await guest.must('cat /run/initramfs/fsck.log');
  expect(mendedBy(log, 'root'), `${vm}: ${log}`).toEqual([]);

  const replay = await guest.run('e2fsck -p /dev/vdb', WORK_MS_MAX);
  expect(replay.status, `${vm}: ${replay.output}`).toBeLessThanOrEqual(1);
  expect(replay.output).toContain('recovering journal');
  expect(mendedBy(replay.output, '/dev/vdb'), `${vm}: ${replay.output}`).toEqual([]);
  const verdict = await guest.run('e2fsck -fn /dev/vdb', WORK_MS_MAX);
  expect(verdict, vm).toMatchObject({ status: 0 });
  await guest.must('mount /dev/vdb /data');

  for (let from = 1; from <= promised.files; from += VERIFY_FILES_MAX) {
    const to = Math.min(promised.files, from + VERIFY_FILES_MAX - 1);
    await guest.must(`sh /run/work/files.sh ${plan.seed} verify ${from} ${to} 2>&1`, WORK_MS_MAX);
    const sums = promised.sums.slice(from - 1, to).map((sum, i) => `${sum}  /data/files/${from + i}`);
    await guest.must(`sha256sum --check --quiet 2>&1 <<'END'\n${sums.join('\n')}\nEND`, WORK_MS_MAX);
  }
  if (plan.database) await checkDatabase(guest, plan, vm, promised.rows);
  else await checkBothDisks(guest, vm);
  return guest;
}

/** Lines in which e2fsck says more than that it replayed the journal, dropped files deleted while open, and counted. */
function mendedBy(output: string, device: string): readonly string[] {
  const expected = [': recovering journal', ': Clearing orphaned inode ', ': clean, '];
  return output
    .split('\n')
    .filter((line) => line.startsWith(`${device}:`) || /[A-Z]{5}|nconsisten/.test(line))
    .filter((line) => !expected.some((text) => line.startsWith(`${device}${text}`)))
    .filter((line) => !/^\S+: \d+\/\d+ files \([\d.]+% non-contiguous\), \d+\/\d+ blocks$/.test(line));
}

async function checkBothDisks(guest: Guest, vm: string): Promise<void> {
  const counts = await guest.must('head -c 16 /root/count; echo; head -c 16 /data/count');
  const [system, data] = counts.split('\n').map(Number) as [number, number];
  expect(data, vm).toBeGreaterThan(0);
  expect([data, data + 1], `${vm}: the two disks are of one instant`).toContain(system);
}

async function checkDatabase(guest: Guest, plan: Plan, vm: string, promisedRows: number): Promise<void> {
  await guest.must('sh /run/work/database.sh start', WORK_MS_MAX);
  expect(await guest.must('cat /tmp/database.log')).toMatch(/automatic recovery in progress/);
  const output = await guest.must(`sh /run/work/database.sh check ${plan.seed} 2>&1`, WORK_MS_MAX);
  const [rows, sums] = output.split('\n').map((line) => line.split(' ').map(Number)) as [number[], number[]];
  const [count, first, last, wrong] = rows as [number, number, number, number];
  expect({ first, missing: last - count, wrong }, `${vm}: ${output}`).toEqual({
    first: 1,
    missing: 0,
    wrong: 0,
  });
  expect(last, `${vm}: last row`).toBeGreaterThanOrEqual(promisedRows);
  // pgbench moves money: whatever it got to, its four sums agree.
  expect(new Set(sums).size, `${vm}: ${output}`).toBe(1);
}

itWithTools(
  TOOLS,
  'three guests at work: their backups and what they leave when they die are whole',
  async () => {
    const seed = runSeed();
    console.log(`PANDO_SEED=${seed}`);
    const random = seededRandom(seed);
    const lap = stopwatch();
    const stage = await Stage.open();
    await stage.pando('vm', 'clone', 'golden', 'web', '--count', '3');
    lap('golden VM and clones');

    const seeds = [1, 2, 3].map(() => between(random, 1, 2 ** 30));
    const plans: readonly Plan[] = [
      { vm: 'web-1', seed: seeds[0]!, transport: 'unix', mountOptions: 'defaults', database: true },
      { vm: 'web-2', seed: seeds[1]!, transport: 'tcp', mountOptions: 'discard', database: false },
      { vm: 'web-3', seed: seeds[2]!, transport: 'unix', mountOptions: 'discard', database: false },
    ];
    const guests = await Promise.all(plans.map(({ vm, transport }) => stage.boot(vm, { transport })));
    lap('boot of three clones');
    const pairs = plans.map((plan, i) => ({ plan, guest: guests[i]! }));

    await Promise.all(pairs.map(({ guest, plan }) => startWork(guest, plan)));
    lap('file systems, and PostgreSQL started');
    const more = { files: between(random, 3, 4), rows: between(random, 40, 80) };
    await Promise.all(pairs.map(({ guest, plan }) => untilDone(guest, plan, { files: 0, rows: 0 }, more)));
    lap(`work: at least ${more.files} files each, and ${more.rows} rows`);

    const promised = guests.map(promisesOf);
    await Promise.all(plans.map(({ vm }) => stage.pando('backup', 'create', vm, '--name', 'live')));
    const during = guests.map(promisesOf);
    await Promise.all(guests.map((guest) => guest.must('echo later >/root/after-backup && sync')));
    lap('a backup of each');
    // The backups stop nobody.
    const again = { files: 2, rows: 30 };
    await Promise.all(pairs.map(({ guest, plan }, i) => untilDone(guest, plan, during[i]!, again)));
    guests.forEach(expectNoFailure);
    lap('work goes on');

    await Promise.all(guests.map((guest) => guest.close()));
    const left = guests.map(promisesOf);
    const amounts = (all: readonly Promises[]): string =>
      all.map(({ files, rows }) => `${files} files, ${rows} rows`).join('; ');
    console.log(`promised before the backups: ${amounts(promised)}; before the end: ${amounts(left)}`);
    console.log(`passes of live.sh: ${guests.map((guest) => guest.reported('PASS')).join(', ')}`);
    await stage.server.kill();
    await stage.server.restart();
    lap('death of all guests and of the server, and its return');

    for (const { vm } of plans) await stage.pando('backup', 'restore', `${vm}@live`, '--as', `${vm}-back`);
    const restored = await Promise.all(
      plans.map((plan, i) => check(stage, plan, `${plan.vm}-back`, promised[i]!)),
    );
    for (const guest of restored) {
      expect(await guest.run('ls /root/after-backup')).toMatchObject({ status: 2 });
      await guest.close();
    }
    lap('boot and checks of the restored backups');

    const returned = await Promise.all(plans.map((plan, i) => check(stage, plan, plan.vm, left[i]!)));
    for (const guest of returned) expect(await guest.must('cat /root/after-backup')).toBe('later');
    lap('boot and checks of what the guests left');
  },
);
