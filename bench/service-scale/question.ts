/** Does the service get slower with the number of VMs and backups? */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Question } from '../harness/bench.ts';
import { Pando } from '../harness/pando.ts';
import { run } from '../harness/processes.ts';
import { alternate, compare } from '../harness/rounds.ts';
import type { Row, Sample, Side } from '../harness/rounds.ts';
import { percentile } from '../harness/statistics.ts';
import { TimedRequests } from '../harness/timed-requests.ts';

const PREPARE = fileURLToPath(new URL('prepare.ts', import.meta.url));
const SIZES = {
  full: { few: 100, many: 100_000, backupsEach: 10, requests: 300, warmUp: 100 },
  smoke: { few: 2, many: 5, backupsEach: 2, requests: 3, warmUp: 1 },
} as const;
const SLOWER_MAX = 3;

/** What is asked, by its name in the table: how to ask it for the n-th time. */
type Ask = (client: TimedRequests, vms: number, n: number) => Promise<number>;

/** A VM that differs from time to time; the first one is `golden`. */
const vmName = (vms: number, n: number): string => `vm-1-${1 + ((n * 7919) % Math.min(vms - 1, 999))}`;

const QUESTIONS: Readonly<Record<string, Ask>> = {
  'list VMs, a page': (client) => client.send('GET', '/vms?limit=100'),
  'list backups, a page': (client) => client.send('GET', '/backups?limit=100'),
  'list backups of a VM': (client, vms, n) => client.send('GET', `/backups?vm=${vmName(vms, n)}`),
  'VM by name': (client, vms, n) => client.send('GET', `/vms/${vmName(vms, n)}`),
  'backup by name': (client, vms, n) => client.send('GET', `/backups/${vmName(vms, n)}@hour-1`),
  'clone': (client, vms, n) => client.send('POST', `/vms/${vmName(vms, n)}/clone`, { name: `made-${n}` }),
  'back up': (client, _vms, n) => client.send('POST', `/vms/made-${n}/backups`, { name: 'b' }),
  'delete a backup': (client, _vms, n) => client.send('DELETE', `/backups/made-${n}@b`),
  'delete a VM': (client, _vms, n) => client.send('DELETE', `/vms/made-${n}`),
};

/** Of both sides the same number of VMs: what a run costs each of them must not depend on how many others there are. */
const FEW_POLICY = 'some-vms';
/** All VMs, by a tag that they have. */
const ALL_POLICY = 'all-vms';
const LOOK_EVERY_MS = 25;
const RUN = 'a policy run, a VM of 99';
const RUN_OF_ALL = 'a policy run, a VM of all';

interface PolicyView {
  readonly rules: readonly {
    readonly running?: object;
    readonly lastRun?: { readonly startedAt: string; readonly backups: number };
  }[];
}

/** Rules that are due at no time at which this may run, but for being told to. */
async function createPolicies(pando: Pando, vms: number): Promise<void> {
  const rules = [
    { schedule: { timeZone: 'UTC', monthDays: [31], at: ['23:59'] }, retention: { keepLast: 1 } },
  ];
  for (const name of [FEW_POLICY, ALL_POLICY]) await pando.rest.must('POST', '/policies', { name, rules });
  const some = Array.from({ length: Math.min(vms - 1, 99) }, (_, i) => `vm-1-${i + 1}`);
  await pando.rest.must('POST', `/policies/${FEW_POLICY}/assign`, { vms: some });
  await pando.rest.must('POST', `/policies/${ALL_POLICY}/assign`, { tags: ['all'] });
}

/** Milliseconds a VM of a run of the policy, from the request until the run has ended. */
async function runPolicy(pando: Pando, policy: string): Promise<number> {
  const look = async (): Promise<PolicyView['rules'][number]> =>
    ((await pando.rest.must('GET', `/policies/${policy}`)) as PolicyView).rules[0]!;
  const before = (await look()).lastRun?.startedAt;
  const started = performance.now();
  await pando.rest.must('POST', `/policies/${policy}/run`, {});
  for (;;) {
    const { running, lastRun } = await look();
    if (running === undefined && lastRun !== undefined && lastRun.startedAt !== before)
      return (performance.now() - started) / lastRun.backups;
    await sleep(LOOK_EVERY_MS);
  }
}

export const question: Question = {
  name: 'service-scale',
  title: 'The service with 100,000 VMs and 1,000,000 backups',

  async run(bench) {
    const sizes = SIZES[bench.isSmoke ? 'smoke' : 'full'];
    const folder = await bench.folder('service-scale');
    const running: { pando: Pando; client: TimedRequests }[] = [];
    const side = async (vms: number): Promise<Side> => {
      const backups = vms * sizes.backupsEach;
      const name = `${vms.toLocaleString('en')} VMs, ${backups.toLocaleString('en')} backups`;
      const own = join(folder, String(vms));
      await mkdir(own);
      await run(process.execPath, [PREPARE, join(own, 'data'), String(vms), String(sizes.backupsEach)]);
      const pando = await Pando.start(bench, { folder: own });
      const client = new TimedRequests(pando);
      running.push({ pando, client });
      await createPolicies(pando, vms);
      await pando.settle();
      await askAll(client, vms, sizes.warmUp);
      const ask = async (): Promise<Sample> => ({
        ...(await askAll(client, vms, sizes.requests)),
        [RUN]: await runPolicy(pando, FEW_POLICY),
      });
      return { name, run: ask };
    };
    try {
      const sides = [await side(sizes.many), await side(sizes.few)];
      const samples = await alternate(sides, bench.scale.rounds, bench.say);
      const [many, few] = sides.map(({ name }) => name) as [string, string];
      const ofAll = sides.map(({ name }, i) => {
        const run = async (): Promise<Sample> => ({
          [RUN_OF_ALL]: await runPolicy(running[i]!.pando, ALL_POLICY),
        });
        return { name, run };
      });
      const once = await alternate(ofAll, 1, bench.say);
      return [
        ...Object.keys(QUESTIONS).flatMap((what) => rowsOf(samples, what, many, few)),
        rowOf(samples, RUN, many, few),
        rowOf(once, RUN_OF_ALL, many, few),
      ];
    } finally {
      for (const { pando, client } of running) {
        client.close();
        await pando.stop();
      }
    }
  },
};

/** Everything that clones are needed for leaves none behind. */
async function askAll(client: TimedRequests, vms: number, requests: number): Promise<Sample> {
  const sample: Record<string, number> = {};
  for (const [what, ask] of Object.entries(QUESTIONS)) {
    const times: number[] = [];
    for (let n = 0; n < requests; n++) times.push(await ask(client, vms, n));
    sample[`${what}, p50`] = percentile(times, 0.5);
    sample[`${what}, p99`] = percentile(times, 0.99);
  }
  return sample;
}

type Samples = Parameters<typeof compare>[0];

function rowOf(samples: Samples, metric: string, many: string, few: string): Row {
  const shared = { question: 'service-scale', unit: 'ms', better: 'less', side: many, against: few } as const;
  return compare(samples, { ...shared, what: metric, metric, target: { row: 'scale', ratio: SLOWER_MAX } });
}

function rowsOf(samples: Samples, what: string, many: string, few: string): Row[] {
  return ['p50', 'p99'].map((which) => rowOf(samples, `${what}, ${which}`, many, few));
}
