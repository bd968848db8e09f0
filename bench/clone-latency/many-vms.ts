/** The clones before the 100,000th VM of a store, against those after the 10th of another one. */
import { GiB } from '@pando/common';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Bench } from '../harness/bench.ts';
import { Pando } from '../harness/pando.ts';
import { alternate, compare } from '../harness/rounds.ts';
import type { Row } from '../harness/rounds.ts';
import { TimedRequests } from '../harness/timed-requests.ts';
import { byTurns, warmUp } from './sides.ts';

const SIZES = {
  full: { clones: 300, warmUp: 50, few: 10, many: 100_000, atOnce: 1000 },
  smoke: { clones: 3, warmUp: 1, few: 2, many: 20, atOnce: 10 },
} as const;

interface Grown {
  readonly pando: Pando;
  readonly client: TimedRequests;
}

export async function clonesAmongMany(bench: Bench, folder: string): Promise<Row[]> {
  const sizes = SIZES[bench.isSmoke ? 'smoke' : 'full'];
  const running: Grown[] = [];
  /** A server with so many VMs. */
  const grow = async (name: string, vms: number): Promise<TimedRequests> => {
    await mkdir(join(folder, name));
    const pando = await Pando.start(bench, { folder: join(folder, name) });
    const client = new TimedRequests(pando);
    running.push({ pando, client });
    await pando.rest.must('POST', '/vms', { name: 'golden', disks: [{ name: 'disk0', sizeBytes: GiB }] });
    for (let made = 1; made < vms;) {
      const count = Math.min(sizes.atOnce, vms - made);
      await client.post('/vms/golden/clone', { name: `vm-${made}`, count });
      made += count;
    }
    await pando.settle();
    await warmUp(pando, client, 'golden', sizes.warmUp);
    return client;
  };
  try {
    const before = sizes.many - bench.scale.rounds * sizes.clones;
    const [few, many] = await Promise.all([grow('few', sizes.few), grow('many', before)]);
    const after = `${sizes.few} VMs`;
    const until = `${sizes.many} VMs`;
    const sides = byTurns(
      { name: until, clone: (name) => many.clone('golden', name) },
      { name: after, clone: (name) => few.clone('golden', name) },
      sizes.clones,
    );
    const samples = await alternate(sides, bench.scale.rounds, bench.say);
    const shared = { question: 'clone-latency', unit: 'ms', better: 'less' } as const;
    const names = { side: until, against: after } as const;
    return [
      compare(samples, {
        ...{ ...shared, ...names, what: 'clone among many, p99', metric: 'p99' },
        target: { row: '12', ratio: 1.3 },
      }),
      compare(samples, { ...shared, ...names, what: 'clone among many, p50', metric: 'p50' }),
    ];
  } finally {
    for (const { pando, client } of running) {
      client.close();
      await pando.stop();
    }
  }
}
