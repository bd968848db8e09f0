/** For level-catalog.test.ts: a process whose file sizes can be limited, driven by lines of JSON. */
import { createInterface } from 'node:readline';
import { isPandoError } from '@pando/common';
import { openLevelCatalog } from './level-catalog.ts';
import type { CatalogSnapshot } from './types.ts';

interface Command {
  readonly put?: string;
  readonly bytes?: number;
  readonly get?: string;
  readonly snapshot?: 'open' | 'count' | 'close';
}

const catalog = await openLevelCatalog(process.argv[2]!);
let snapshot: CatalogSnapshot | undefined;
let filler = 1;

async function run(command: Command): Promise<unknown> {
  if (command.put !== undefined) {
    // LevelDB's log is not compressed; the content only has to be there.
    const content = new Uint8Array(command.bytes ?? 0).fill(filler++);
    await catalog.commit([{ type: 'put', table: 't', key: command.put, value: { version: 1, content } }]);
    return 'done';
  }
  if (command.get !== undefined) {
    const found = (await catalog.get('t', command.get)) as { content: Uint8Array } | undefined;
    return found?.content.byteLength ?? null;
  }
  if (command.snapshot === 'open') {
    snapshot = catalog.snapshot();
    return 'done';
  }
  if (command.snapshot === 'count') {
    let count = 0;
    for await (const entry of snapshot!.entries('t')) count += entry.key === '' ? 0 : 1;
    return count;
  }
  await snapshot?.close();
  return 'done';
}

for await (const line of createInterface({ input: process.stdin })) {
  const answer = await run(JSON.parse(line) as Command).catch((error: unknown) =>
    isPandoError(error) ? error.code : String(error),
  );
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await catalog.close();
