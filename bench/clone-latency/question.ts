/** Does a clone take longer when its source is busy, or large, or one of many? */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Question } from '../harness/bench.ts';
import type { Row } from '../harness/rounds.ts';
import { clonesBySize } from './disk-size.ts';
import { clonesAmongMany } from './many-vms.ts';
import { clonesUnderLoad } from './under-load.ts';

const PARTS = { 'under-load': clonesUnderLoad, 'disk-size': clonesBySize, 'many-vms': clonesAmongMany };

export const question: Question = {
  name: 'clone-latency',
  title: 'Latency of a clone: its source written to, or large, or one of many',

  async run(bench) {
    const root = await bench.folder('clone-latency');
    const rows: Row[] = [];
    for (const [name, measure] of Object.entries(PARTS)) {
      bench.say(`  ${name}`);
      await mkdir(join(root, name));
      rows.push(...(await measure(bench, join(root, name))));
    }
    return rows;
  },
};
