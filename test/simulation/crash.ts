/** A crash at one moment of a run, the recovery from it, and crashes of that recovery. */
import { isPandoError } from '@pando/common';
import { between, seededRandom, type DiskFault } from '@pando/common/testing';
import { Wrong, check, verify } from './check.ts';
import type { Figures } from './figures.ts';
import { Machine, copyOf, ended, type Ending, type Engine, type Image, type Tuning } from './machine.ts';
import type { Oracle } from './oracle.ts';
import type { Operation } from './scheduler.ts';
import { mix } from './mix.ts';

/** A moment right before a storage operation. */
export interface Moment {
  /** Its number. */
  readonly operation: number;
  readonly what: string;
  readonly image: Image;
  readonly oracle: Oracle;
  /** Bits have flipped in what is stored. */
  readonly isDamaged: boolean;
  /** A sync has failed: what it should have covered is in the page cache, and no later sync writes it. */
  readonly isSyncLost: boolean;
}

/** Shares of crashes whose recovery is crashed at each of its operations, and at one of them; and of those, at one more. */
const DEEP_ALL = 0.02;
const DEEP_ONE = 0.2;
const DEEPER_ONE = 0.3;
const DEPTH_MAX = 2;
/** Shares of crashes that kill the process, and of recoveries that are closed in order, before the power goes: after a failed sync. */
const KILLS = { usually: 0.25, syncLost: 0.6 };
const CLOSED = { usually: 0.1, syncLost: 0.5 };
/** Share of recoveries that meet a fault, and are tried again. */
const FAULTY = 0.1;
/** Storage operations of a recovery, reads included, roughly: a fault strikes one of them. */
const RECOVERY_OPERATIONS = 40;

export interface CrashContext {
  readonly tuning: Tuning;
  readonly figures: Figures;
  readonly print?: ((line: string) => void) | undefined;
}

/** Crashes there, recovers, and looks whether all is as it must be; goes on to crash that. Resolves to a hash of what happened. */
export async function crashAt(
  seed: number,
  moment: Moment,
  context: CrashContext,
  depth = 0,
): Promise<string> {
  const { tuning, figures, print } = context;
  const random = seededRandom(seed);
  const ending = endingOf(moment, random);
  const { isDamaged } = moment;
  const oracle = moment.oracle.copy();
  const machine = new Machine(crashed(moment.image, oracle, ending, random), mix(seed, 1));
  const { scheduler } = machine;
  const moments = new Moments(depth, random);
  scheduler.print = print;
  print?.(`${nameOf(ending)} before operation ${moment.operation} (${moment.what})`);
  figures.crashes[depth]!++;
  let fault = random() < FAULTY ? between(random, 1, RECOVERY_OPERATIONS) : 0;
  let trace = '';
  scheduler.observer = (operation, count) => {
    if (operation.isRead !== true)
      moments.offer(() => ({
        operation: count,
        what: `${operation.kind} ${operation.path}`,
        image: machine.image(),
        oracle: oracle.copy(),
        isDamaged,
        isSyncLost: moment.isSyncLost,
      }));
    return fault > 0 && --fault === 0 ? faultOf(operation, random) : undefined;
  };
  /** What is closed in order needs no luck: all that was acknowledged is there after a power cut. */
  const closedAndCut = async (closing: Machine, engine: Engine, then: Oracle): Promise<void> => {
    await closing.scheduler.drive(engine.close());
    const again = new Machine(ended(closing.image(), 'powerCut', random), mix(seed, 2));
    const reopened = await recovered(again, then, tuning, isDamaged);
    if (!isDamaged) await again.scheduler.drive(verify(reopened));
    again.off();
  };
  try {
    const isFaulty = fault > 0;
    const checked = recovered(machine, oracle, tuning, isDamaged);
    if (isFaulty) {
      figures.faultyRecoveries++;
      // Whatever it met, trying again finds everything.
      await checked.catch((error: unknown) => {
        if (!isPandoError(error)) throw error;
      });
      moments.clear();
      machine.off();
      const oracleThen = moment.oracle.copy();
      if (ending === 'powerCut') oracleThen.powerCut();
      const again = new Machine(ended(machine.image(), 'kill', random), mix(seed, 3));
      const engine = await recovered(again, oracleThen, tuning, isDamaged);
      // The fault may have been a sync.
      if (random() < CLOSED.syncLost) await closedAndCut(again, engine, oracleThen);
      again.off();
      return scheduler.trace() + again.scheduler.trace();
    }
    const engine = await checked;
    if (random() < 0.5) {
      if (!isDamaged) await scheduler.drive(verify(engine));
      await scheduler.drive(collected(engine, random() < 0.7, isDamaged));
      figures.collections++;
      await scheduler.drive(check(engine, oracle, { isDamaged }));
    }
    if (random() < (moment.isSyncLost ? CLOSED.syncLost : CLOSED.usually))
      await closedAndCut(machine, engine, oracle);
    trace = scheduler.trace();
  } catch (error) {
    throw new Wrong(`after a ${nameOf(ending)}: ${messageOf(error)}`, { cause: error });
  } finally {
    machine.off();
  }
  for (const next of moments.chosen) {
    try {
      trace += await crashAt(mix(seed, next.operation + 10), next, context, depth + 1);
    } catch (error) {
      const where = `in the recovery from it, at operation ${next.operation} (${next.what})`;
      throw new Wrong(`after a ${nameOf(ending)}, and ${where}: ${messageOf(error)}`, { cause: error });
    }
  }
  return trace;
}

/** How a life ends at a moment. */
export function endingOf({ isSyncLost }: Moment, random: () => number): Ending {
  return random() < (isSyncLost ? KILLS.syncLost : KILLS.usually) ? 'kill' : 'powerCut';
}

/** What the next boot finds, and what the oracle then knows. */
export function crashed(image: Image, oracle: Oracle, ending: Ending, random: () => number): Image {
  if (ending === 'powerCut') oracle.powerCut();
  return ended(copyOf(image), ending, random);
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Moments of a recovery that are crashed in turn: all, one of them by dice, or none. */
class Moments {
  readonly #random: () => number;
  readonly #which: 'all' | 'one' | 'none';
  #offered = 0;
  #chosen: Moment[] = [];

  constructor(depth: number, random: () => number) {
    const dice = random();
    const all = depth === 0 ? DEEP_ALL : 0;
    const one = all + (depth === 0 ? DEEP_ONE : depth < DEPTH_MAX ? DEEPER_ONE : 0);
    this.#which = dice < all ? 'all' : dice < one ? 'one' : 'none';
    this.#random = random;
  }

  get chosen(): readonly Moment[] {
    return this.#chosen;
  }

  offer(make: () => Moment): void {
    if (this.#which === 'none') return;
    if (this.#which === 'all') this.#chosen.push(make());
    // Each of those offered so far is the one with the same chance.
    else if (this.#random() * ++this.#offered < 1) this.#chosen = [make()];
  }

  clear(): void {
    this.#chosen = [];
  }
}

async function recovered(
  machine: Machine,
  oracle: Oracle,
  tuning: Tuning,
  isDamaged: boolean,
): Promise<Engine> {
  const engine = await machine.scheduler.drive(machine.open(tuning));
  await machine.scheduler.drive(check(engine, oracle, { isDamaged }));
  return engine;
}

function faultOf({ kind }: Operation, random: () => number): DiskFault {
  const isFull = /write|create|commit|mark/.test(kind) && random() < 0.5;
  return { code: isFull ? 'ENOSPC' : 'EIO', bytes: Math.floor(random() * 3000) };
}

/** A collection; one that finds damage says so and removes nothing that it cannot judge. */
async function collected(engine: Engine, thorough: boolean, isDamaged: boolean): Promise<void> {
  try {
    await engine.collect(thorough);
  } catch (error) {
    if (!isDamaged || !isPandoError(error) || error.kind !== 'data') throw error;
  }
}

function nameOf(ending: Ending): string {
  return ending === 'kill' ? 'kill' : 'power cut';
}
