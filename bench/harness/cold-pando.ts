/** Servers that have just been started on what another one left, with nothing of its files in the page cache. */
import type { Bench } from './bench.ts';
import { dropAll, syncDisk } from './page-cache.ts';
import { Pando } from './pando.ts';

export interface ColdPando extends AsyncDisposable {
  /** Starts one for this piece of work and stops it after it; in a smoke run there is one for all, and nothing is cold. */
  readonly run: <T>(work: (pando: Pando) => Promise<T>) => Promise<T>;
}

/** `prepare` gets the server that leaves its data directory, in an existing empty folder. */
export async function coldPando(
  bench: Bench,
  folder: string,
  prepare: (pando: Pando) => Promise<void>,
): Promise<ColdPando> {
  const first = await Pando.start(bench, { folder });
  try {
    await prepare(first);
    await first.settle();
  } catch (error) {
    await first.stop();
    throw error;
  }
  if (bench.isSmoke) return { run: (work) => work(first), [Symbol.asyncDispose]: () => first.stop() };
  await first.stop();
  return {
    run: async (work) => {
      await dropAll(first.dataDirectory);
      const pando = await Pando.start(bench, { folder });
      try {
        return await work(pando);
      } finally {
        await pando.stop();
        await syncDisk(folder);
      }
    },
    [Symbol.asyncDispose]: async () => undefined,
  };
}
