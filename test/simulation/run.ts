/**
 * One seed: a few lives of a machine, each ended somewhere in its middle, and a crash at every storage operation of each of
 * them; at some of these, crashes of the recovery, and of the recovery from that.
 */
import { between, seededRandom } from '@pando/common/testing';
import { noFigures, type Figures } from './figures.ts';
import { Wrong, check, verify } from './check.ts';
import {
  Machine,
  copyOf,
  emptyImage,
  ended,
  prepare,
  type Ending,
  type Image,
  type Tuning,
} from './machine.ts';
import { Oracle } from './oracle.ts';
import { Workload } from './workload.ts';

/** A moment right before a storage operation. */
interface Moment {
  readonly operation: number;
  readonly what: string;
  readonly image: Image;
  readonly oracle: Oracle;
}

export interface RunOptions {
  /** Only the crash at this operation. */
  readonly operation?: number;
  readonly steps?: number;
  readonly figures?: Figures;
}

export class SimulationFailure extends Error {}

const LIVES = 2;
const STEPS = 18;
/** Share of crashes whose recovery is crashed at each of its operations, and at one of them. */
const DEEP_ALL = 0.04;
const DEEP_ONE = 0.3;
const DEEPER_ONE = 0.2;

/** Plays a seed. Resolves to the hash of all that happened. @throws `SimulationFailure` with what replays it */
export async function simulate(seed: number, options: RunOptions = {}): Promise<string> {
  await prepare();
  const figures = options.figures ?? noFigures();
  const random = seededRandom(seed);
  const tuning = tuningOf(random);
  const names = { next: 1 };
  let image = emptyImage();
  let oracle = new Oracle();
  let operation = 0;
  let trace = '';
  figures.runs++;
  for (let life = 0; life < LIVES; life++) {
    const moments: Moment[] = [];
    const machine = new Machine(image, mix(seed, life));
    const { scheduler } = machine;
    const workload = { steps: 0 };
    try {
      scheduler.observer = ({ kind, path, isRead }) => {
        if (isRead === true) return undefined;
        operation++;
        if (options.operation === undefined || options.operation === operation || life < LIVES - 1)
          moments.push({ operation, what: `${kind} ${path}`, image: machine.image(), oracle: oracle.copy() });
        return undefined;
      };
      const engine = await scheduler.drive(machine.open(tuning));
      await scheduler.drive(check(engine, oracle));
      const clients = new Workload(engine, oracle, scheduler, random, names);
      await scheduler.drive(clients.run(between(random, 1, 4), options.steps ?? STEPS));
      workload.steps = clients.steps;
      if (random() < 0.3) await scheduler.drive(engine.close());
    } catch (error) {
      throw failed(seed, undefined, `life ${life}, after operation ${operation}`, error);
    } finally {
      machine.off();
    }
    moments.push({ operation: ++operation, what: 'the end', image: machine.image(), oracle: oracle.copy() });
    figures.steps += workload.steps;
    figures.operations += scheduler.operations;
    trace += scheduler.trace();
    for (const moment of moments) {
      if (options.operation !== undefined && options.operation !== moment.operation) continue;
      const at = `operation ${moment.operation} (${moment.what})`;
      try {
        trace += await crashAt(mix(seed, moment.operation), moment, tuning, 0, figures);
      } catch (error) {
        throw failed(seed, moment.operation, at, error);
      }
    }
    const next = moments[Math.floor(random() * moments.length)]!;
    oracle = next.oracle.copy();
    image = crashed(next.image, oracle, random() < 0.3 ? 'kill' : 'powerCut', random);
  }
  return hashOf(trace);
}

/** Crashes there, recovers, and looks whether all is as it must be; goes on to crash that. */
async function crashAt(
  seed: number,
  moment: Moment,
  tuning: Tuning,
  depth: number,
  figures: Figures,
): Promise<string> {
  const random = seededRandom(seed);
  const ending: Ending = random() < 0.25 ? 'kill' : 'powerCut';
  const oracle = moment.oracle.copy();
  const machine = new Machine(crashed(moment.image, oracle, ending, random), mix(seed, 1));
  const { scheduler } = machine;
  const moments: Moment[] = [];
  figures.crashes[depth]!++;
  const dice = random();
  const deeper =
    depth === 0
      ? dice < DEEP_ALL
        ? 'all'
        : dice < DEEP_ALL + DEEP_ONE
          ? 'one'
          : 'none'
      : depth === 1 && dice < DEEPER_ONE
        ? 'one'
        : 'none';
  scheduler.observer = ({ kind, path, isRead }, count) => {
    if (deeper !== 'none' && isRead !== true)
      moments.push({
        operation: count,
        what: `${kind} ${path}`,
        image: machine.image(),
        oracle: oracle.copy(),
      });
    return undefined;
  };
  try {
    const engine = await scheduler.drive(machine.open(tuning));
    await scheduler.drive(check(engine, oracle));
    if (random() < 0.5) {
      await scheduler.drive(verify(engine));
      await scheduler.drive(engine.collect(random() < 0.7));
      figures.collections++;
      await scheduler.drive(check(engine, oracle));
    }
    if (random() < 0.1) {
      await scheduler.drive(engine.close());
      const again = new Machine(ended(machine.image(), 'powerCut', random), mix(seed, 2));
      const reopened = await again.scheduler.drive(again.open(tuning));
      await again.scheduler.drive(check(reopened, oracle));
      await again.scheduler.drive(verify(reopened));
      again.off();
    }
  } catch (error) {
    throw new Wrong(`after a ${ending === 'kill' ? 'kill' : 'power cut'}: ${messageOf(error)}`, {
      cause: error,
    });
  } finally {
    machine.off();
  }
  let trace = scheduler.trace();
  if (moments.length === 0) return trace;
  const chosen = deeper === 'all' ? moments : [moments[Math.floor(random() * moments.length)]!];
  for (const next of chosen) {
    try {
      trace += await crashAt(mix(seed, next.operation + 10), next, tuning, depth + 1, figures);
    } catch (error) {
      throw new Wrong(
        `after a ${ending === 'kill' ? 'kill' : 'power cut'}, and in the recovery from it, at operation ${next.operation} (${next.what}): ${messageOf(error)}`,
        { cause: error },
      );
    }
  }
  return trace;
}

/** What the next boot finds, and what the oracle then knows. */
function crashed(image: Image, oracle: Oracle, ending: Ending, random: () => number): Image {
  if (ending === 'powerCut') oracle.powerCut();
  return ended(copyOf(image), ending, random);
}

function tuningOf(random: () => number): Tuning {
  const pick = <T>(...items: T[]): T => items[Math.floor(random() * items.length)]!;
  return {
    segmentBytesMax: pick(20_000, 60_000, 200_000),
    logFileBytes: pick(5_000, 30_000, 100_000),
    logBytesMax: pick(150_000, 1_000_000),
    overlayBytesMax: pick(12, 24, 100) * 4096,
    destageAfterMs: pick(0, 200, 3_000, 1e9),
    cacheBytes: pick(20_000, 1_000_000),
    pendingBytesMax: pick(20_000, 1_000_000),
  };
}

function failed(
  seed: number,
  operation: number | undefined,
  where: string,
  error: unknown,
): SimulationFailure {
  const only = operation === undefined ? '' : ` --operation ${operation}`;
  return new SimulationFailure(
    `seed ${seed}, ${where}: ${messageOf(error)}\nreplay: npm run simulate -- --seed ${seed}${only}`,
    { cause: error },
  );
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** A seed from others. */
export function mix(...numbers: number[]): number {
  let hash = 0x811c9dc5;
  for (const number of numbers) {
    hash = Math.imul(hash ^ number, 0x01000193);
    hash ^= hash >>> 15;
    hash = Math.imul(hash, 0x2c1b3c6d);
    hash ^= hash >>> 12;
  }
  return hash >>> 0;
}

function hashOf(text: string): string {
  return String(mix(...Buffer.from(text))).padStart(10, '0');
}
