/**
 * One seed: a few lives of a machine, the next one beginning with a crash somewhere in the one before, and a crash at every
 * storage operation of each of them.
 */
import { createHash } from 'node:crypto';
import { between, seededRandom } from '@pando/common/testing';
import { check } from './check.ts';
import { crashAt, crashed, endingOf, messageOf, type Moment } from './crash.ts';
import { noFigures, type Figures } from './figures.ts';
import { Machine, emptyImage, prepare, type Tuning } from './machine.ts';
import { mix } from './mix.ts';
import { Oracle } from './oracle.ts';
import { Weather, weatherOf, type WeatherKind } from './weather.ts';
import { Workload } from './workload.ts';

export { mix } from './mix.ts';

export interface RunOptions {
  /** Only the crash at this operation. */
  readonly operation?: number;
  /** What goes wrong in every life, instead of what the dice say. */
  readonly weather?: WeatherKind;
  readonly figures?: Figures;
  /** Gets each operation of the run and of the recoveries, and what clients begin and end. */
  readonly print?: (line: string) => void;
}

export class SimulationFailure extends Error {}

/** Seeds with so many between them play a store whose ids are keyed. None of those in fixed-seeds.test.ts that have found something is one. */
const KEYED_EVERY = 5;
const HASH_KEY = new Uint8Array(32).fill(0x3c);
const LIVES = 2;
const STEPS = 9;
/** What may be slow. */
const SLOW = ['segments/', 'log/', 'index', 'catalog'];

/** Plays a seed. Resolves to a hash of all that happened. @throws `SimulationFailure` with what replays it */
export async function simulate(seed: number, options: RunOptions = {}): Promise<string> {
  await prepare();
  const figures = options.figures ?? noFigures();
  const random = seededRandom(seed);
  const tuning = { ...tuningOf(random), hashKey: seed % KEYED_EVERY === 0 ? HASH_KEY : undefined };
  const names = { next: 1 };
  const trace = createHash('sha256');
  let start = { image: emptyImage(), oracle: new Oracle(), isDamaged: false };
  const kindOf = (dice: number): WeatherKind => options.weather ?? weatherOf(dice);
  const replay = `--seed ${seed}${options.weather === undefined ? '' : ` --weather ${options.weather}`}`;
  let operation = 0;
  figures.runs++;
  for (let life = 0; life < LIVES; life++) {
    const moments: Moment[] = [];
    const { oracle } = start;
    const machine = new Machine(start.image, mix(seed, life));
    const { scheduler } = machine;
    scheduler.print = options.print;
    options.print?.(`life ${life}`);
    const weather = new Weather(kindOf(random()), machine.disk, random, start.isDamaged);
    let { isDamaged } = start;
    let isOpen = false;
    let isSyncLost = false;
    const keep = (what: string): void => {
      operation++;
      if (options.operation === undefined || options.operation === operation || life < LIVES - 1)
        moments.push({
          operation,
          what,
          image: machine.image(),
          oracle: oracle.copy(),
          isDamaged,
          isSyncLost,
        });
    };
    scheduler.observer = (next, count) => {
      if (next.isRead !== true) keep(`${next.kind} ${next.path}`);
      const fault = isOpen ? weather.strike(next, count) : undefined;
      isSyncLost ||= weather.kind === 'lostSync' && weather.struck > 0;
      isDamaged ||= weather.kind === 'bitFlips' && weather.struck > 0;
      return fault;
    };
    try {
      const engine = await scheduler.drive(machine.open(tuning));
      await scheduler.drive(check(engine, oracle, { isDamaged }));
      isOpen = true;
      if (weather.kind === 'slow') scheduler.slow = SLOW[Math.floor(random() * SLOW.length)];
      const clients = new Workload(engine, oracle, scheduler, random, names, weather);
      await scheduler.drive(clients.run(between(random, 1, 4), STEPS));
      isOpen = false;
      figures.steps += clients.steps;
      if (weather.kind === 'fullDisk' && !isDamaged) await scheduler.drive(clients.goOn());
      if (weather.kind !== 'calm')
        await scheduler.drive(check(engine, oracle, { isDamaged, isRunning: true }));
      else if (random() < 0.3 && !isDamaged) await scheduler.drive(engine.close());
    } catch (error) {
      throw failed(seed, replay, `life ${life} (${weather.kind}), after operation ${operation}`, error);
    } finally {
      machine.off();
      figures.lives[weather.kind]++;
      figures.faults[weather.kind] += weather.struck;
    }
    keep('the end');
    figures.operations += scheduler.operations;
    trace.update(scheduler.trace());
    for (const moment of moments) {
      if (options.operation !== undefined && options.operation !== moment.operation) continue;
      try {
        trace.update(
          await crashAt(mix(seed, moment.operation), moment, { tuning, figures, print: options.print }),
        );
      } catch (error) {
        const where = `operation ${moment.operation} (${moment.what})`;
        throw failed(seed, `${replay} --operation ${moment.operation}`, where, error);
      }
    }
    if (life === LIVES - 1) break;
    const next = moments[Math.floor(random() * moments.length)]!;
    const after = next.oracle.copy();
    const image = crashed(next.image, after, endingOf(next, random), random);
    start = { image, oracle: after, isDamaged: next.isDamaged };
  }
  return trace.digest('hex').slice(0, 16);
}

function tuningOf(random: () => number): Omit<Tuning, 'hashKey'> {
  const pick = <T>(...items: T[]): T => items[Math.floor(random() * items.length)]!;
  return {
    segmentBytesMax: pick(5_000, 20_000, 100_000),
    logFileBytes: pick(5_000, 30_000, 100_000),
    logBytesMax: pick(150_000, 1_000_000),
    overlayBytesMax: pick(12, 24, 100) * 4096,
    destageAfterMs: pick(0, 200, 3_000, 1e9),
    cacheBytes: pick(20_000, 1_000_000),
    pendingBytesMax: pick(20_000, 1_000_000),
  };
}

function failed(seed: number, replay: string, where: string, error: unknown): SimulationFailure {
  return new SimulationFailure(
    `seed ${seed}, ${where}: ${messageOf(error)}\nreplay: npm run simulate -- ${replay}`,
    { cause: error },
  );
}
