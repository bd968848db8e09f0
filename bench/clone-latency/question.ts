/** Does a clone take longer when its source is busy, or large, or one of many? */
import type { Question } from '../harness/bench.ts';
import { Pando } from '../harness/pando.ts';
import type { Row } from '../harness/rounds.ts';
import { TimedRequests } from '../harness/timed-requests.ts';
import { clonesBySize } from './disk-size.ts';
import { clonesAmongMany } from './many-vms.ts';
import { clonesUnderLoad } from './under-load.ts';

export const question: Question = {
  name: 'clone-latency',
  title: 'Latency of a clone: its source written to, or large, or one of many',

  async run(bench) {
    const folder = await bench.folder('clone-latency');
    const rows: Row[] = [];
    const pando = await Pando.start(bench, { folder });
    const client = new TimedRequests(pando);
    try {
      bench.say('  by size of the disk');
      const bySize = await clonesBySize(bench, pando, client);
      bench.say('  under load');
      rows.push(...(await clonesUnderLoad(bench, folder, pando, client)), ...bySize);
    } finally {
      client.close();
      await pando.stop();
    }
    bench.say('  among many');
    return [...rows, ...(await clonesAmongMany(bench, folder))];
  },
};
