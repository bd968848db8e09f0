/**
 * Many connections at once, each with a plan of its own, until so many messages have been sent. Now and then
 * everything stops, and nothing may be left over; at the end nothing may have grown.
 */
import { SeededRandom } from '@pando/block-device/testing';
import { NbdClient } from '@pando/nbd/client';
import * as net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { makePlan, planSeed } from './plan.ts';
import type { Message, Plan, PlanKind } from './plan.ts';
import { Session } from './session.ts';
import type { Endpoint, Health, Target } from './targets.ts';
import { Witness } from './witness.ts';

export interface FuzzOptions {
  readonly seed: number;
  readonly messages: number;
  /** Makes a target for the seed; a second one when a failure is made smaller. */
  readonly start: (seed: number) => Promise<Target>;
  readonly report?: (line: string) => void;
  /** Slack of memory that may be in use at the end beyond what was at a fifth of the run. */
  readonly heapSlackBytes?: number;
  readonly rssSlackBytes?: number;
}

export interface FuzzSummary {
  messages: number;
  connections: number;
  readonly kinds: Partial<Record<PlanKind, number>>;
  optionsAnswered: number;
  requestsSeen: number;
  requestsAnswered: number;
  requestsSucceeded: number;
  /** Connections that the server had to cut off. */
  cutOff: number;
  comparedBytes: number;
  calmOperations: number;
  seconds: number;
  first: Health | undefined;
  last: Health | undefined;
}

/** Times that everything stops and is counted. */
const CHECKS = 20;
/** The check that later memory is compared with: caches are warm by then. */
const FIRST_CHECK = 4;
const HEAP_SLACK_BYTES = 12 * 2 ** 20;
const RSS_SLACK_BYTES = 96 * 2 ** 20;
const CROWD = 150;
const CLOSE_MS_MAX = 20_000;
const SHRINK_TRIES_MAX = 250;
/** A failure that shows only after a long wait is left as large as it is by then. */
const SHRINK_MS_MAX = 90_000;

/** A plan that went wrong, and why. */
export class FuzzFailure extends Error {
  readonly plan: Plan;
  readonly index: number;

  constructor(plan: Plan, index: number, cause: unknown) {
    super(`connection ${index} (${plan.kind}): ${cause instanceof Error ? cause.message : String(cause)}`, {
      cause,
    });
    this.plan = plan;
    this.index = index;
  }
}

/** The address that a connection goes to. */
export function endpointOf(target: Target, index: number): Endpoint {
  return target.endpoints[Math.floor(index / target.exports.length) % target.endpoints.length]!;
}

export function planOf(target: Target, seed: number, index: number): Plan {
  const facts = target.exports[index % target.exports.length]!;
  const { world } = endpointOf(target, index);
  return makePlan(planSeed(seed, index), {
    target: facts,
    names: [...world.exports.keys()],
    tls: world.tls,
    // Whoever shares it would be thrown out too.
    canRevoke: target.canRevoke && facts.model !== undefined,
  });
}

/** @throws FuzzFailure, or Error for what is nobody's in particular */
export async function fuzz(options: FuzzOptions): Promise<FuzzSummary> {
  const { seed, messages, report = () => undefined } = options;
  const summary: FuzzSummary = {
    ...{ messages: 0, connections: 0, kinds: {}, optionsAnswered: 0 },
    ...{ requestsSeen: 0, requestsAnswered: 0, requestsSucceeded: 0, cutOff: 0, comparedBytes: 0 },
    ...{ calmOperations: 0, seconds: 0, first: undefined, last: undefined },
  };
  const rejections: unknown[] = [];
  const onRejection = (reason: unknown): void => {
    rejections.push(reason);
  };
  process.on('unhandledRejection', onRejection);
  const started = performance.now();
  const target = await options.start(seed);
  const calm = new CalmClient(seed);
  try {
    await calm.start(target);
    let start: Health | undefined;
    let next = 0;
    for (let check = 1; check <= CHECKS; check++) {
      const goal = Math.ceil((messages * check) / CHECKS);
      const lanes = target.exports.map(async (_, lane) => {
        // Each lane has the connections of one export, in order: their numbers are the lane's, whatever the others do.
        for (let n = lane + next; summary.messages < goal; n += target.exports.length) {
          await connection(target, seed, n, summary);
          lanesAt[lane] = n;
        }
      });
      const lanesAt: number[] = [];
      await Promise.all(lanes);
      const ahead = Math.max(...lanesAt, next);
      next = ahead - (ahead % target.exports.length) + target.exports.length;
      await crowd(target);
      await calm.rest();
      // A rejection explains what is left over, so it goes first.
      const left = await target.expectQuiet().catch((error: unknown) => error);
      if (rejections.length > 0)
        throw new Error('a promise was rejected and nobody cared', { cause: rejections[0] });
      if (left !== undefined) throw left as Error;
      const health = await target.health();
      start ??= health;
      if (check === FIRST_CHECK) summary.first = health;
      if (health.descriptors > start.descriptors + target.descriptorSlack)
        throw new Error(`${health.descriptors} descriptors are open, and ${start.descriptors} were`);
      summary.last = health;
      summary.calmOperations = calm.operations;
      summary.seconds = (performance.now() - started) / 1000;
      report(progress(summary, messages));
      calm.resume();
    }
    summary.comparedBytes = target.exports.reduce((sum, { model }) => sum + (model?.comparedBytes ?? 0), 0);
    expectNoGrowth(summary, options);
    return summary;
  } catch (error) {
    // At once: what comes next may hang for the same reason.
    report(
      `failed after ${summary.messages} messages: ${error instanceof Error ? error.message : String(error)}`,
    );
    throw error;
  } finally {
    process.off('unhandledRejection', onRejection);
    await within(CLOSE_MS_MAX, calm.stop());
    await within(CLOSE_MS_MAX, target.close());
  }
}

/** Waits so long at most: after a failure a server may not be able to close. */
async function within(ms: number, work: Promise<void>): Promise<void> {
  const enough = new AbortController();
  await Promise.race([work, sleep(ms, undefined, { signal: enough.signal }).catch(() => undefined)]);
  enough.abort();
}

function progress(summary: FuzzSummary, messages: number): string {
  const { last } = summary;
  const percent = ((summary.messages / messages) * 100).toFixed(0).padStart(3);
  const rate = (summary.messages / summary.seconds).toFixed(0);
  const MiB = 2 ** 20;
  return (
    `${percent} %  ${summary.messages} messages, ${summary.connections} connections, ${rate}/s, ` +
    `heap ${((last?.heapBytes ?? 0) / MiB).toFixed(1)} MiB, rss ${((last?.rssBytes ?? 0) / MiB).toFixed(0)} MiB, ` +
    `${last?.descriptors} descriptors`
  );
}

function expectNoGrowth(summary: FuzzSummary, options: FuzzOptions): void {
  const { first, last } = summary;
  if (first === undefined || last === undefined) return;
  const heap = last.heapBytes - first.heapBytes;
  if (heap > (options.heapSlackBytes ?? HEAP_SLACK_BYTES))
    throw new Error(`the heap grew by ${heap} bytes between ${FIRST_CHECK}/${CHECKS} of the run and its end`);
  const rss = last.rssBytes - first.rssBytes;
  if (rss > (options.rssSlackBytes ?? RSS_SLACK_BYTES))
    throw new Error(`memory grew by ${rss} bytes between ${FIRST_CHECK}/${CHECKS} of the run and its end`);
}

async function connection(target: Target, seed: number, index: number, summary: FuzzSummary): Promise<void> {
  const plan = planOf(target, seed, index);
  const { messagesSent, witness } = await playPlan(target, plan, index);
  summary.messages += messagesSent;
  summary.connections++;
  summary.kinds[plan.kind] = (summary.kinds[plan.kind] ?? 0) + 1;
  summary.optionsAnswered += witness.optionsAnswered;
  summary.requestsSeen += witness.requestsSeen;
  summary.requestsAnswered += witness.requestsAnswered;
  summary.requestsSucceeded += witness.requestsSucceeded;
  if (witness.fate === 'cut') summary.cutOff++;
}

/** Those under way: what one of them does to an export may concern others. */
const sessions = new Set<Session>();

/** @throws FuzzFailure */
export async function playPlan(
  target: Target,
  plan: Plan,
  index: number,
): Promise<{ messagesSent: number; witness: Witness }> {
  const facts = target.exports[index % target.exports.length]!;
  const { address, world, authority } = endpointOf(target, index);
  const witness = new Witness(world);
  const session = new Session(plan, address, witness, authority, () => {
    for (const other of sessions) other.taken(facts.name);
    target.revoke(facts.name);
  });
  sessions.add(session);
  try {
    await session.play().finally(() => sessions.delete(session));
    // What is under way at the server when a connection is lost still happens.
    await target.idle(facts);
    witness.settle();
  } catch (error) {
    throw new FuzzFailure(plan, index, error);
  }
  return { messagesSent: session.messagesSent, witness };
}

/** Connects and says nothing, more often than the server bears, and leaves again. */
async function crowd(target: Target): Promise<void> {
  const sockets: net.Socket[] = [];
  for (let i = 0; i < CROWD; i++) {
    const { address } = target.endpoints[i % target.endpoints.length]!;
    const socket = net.connect(
      'path' in address ? { path: address.path } : { host: address.host, port: address.port },
    );
    socket.on('error', () => undefined);
    socket.resume();
    sockets.push(socket);
  }
  await sleep(5);
  for (const socket of sockets) {
    const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
    socket.destroy();
    if (!socket.closed) await closed;
  }
}

/** A client that does nothing wrong, attached all the time: the server has to serve it whatever the others do. */
class CalmClient {
  readonly #random: SeededRandom;
  #client: NbdClient | undefined;
  #running: Promise<void> | undefined;
  #stop = false;
  operations = 0;

  constructor(seed: number) {
    this.#random = new SeededRandom(seed ^ 0x6361_6c6d);
  }

  async start(target: Target): Promise<void> {
    this.#client = await NbdClient.connect(target.endpoints[0]!.address, {
      exportName: target.calm.exportName,
    });
    this.resume();
  }

  resume(): void {
    this.#stop = false;
    this.#running = this.#run();
    // Whoever rests sees the failure.
    this.#running.catch(() => undefined);
  }

  /** @throws what went wrong */
  async rest(): Promise<void> {
    this.#stop = true;
    await this.#running;
  }

  async stop(): Promise<void> {
    this.#stop = true;
    await this.#running?.catch(() => undefined);
    await this.#client?.close();
  }

  async #run(): Promise<void> {
    const client = this.#client!;
    do {
      const data = this.#random.bytes(1 + this.#random.below(5000));
      const offset = this.#random.below(client.size - data.length);
      await client.write(offset, data);
      if (this.#random.below(10) === 0) await client.flush();
      const back = Buffer.alloc(data.length);
      await client.read(offset, data.length, back, 0);
      if (!back.equals(data))
        throw new Error(`a client that did nothing wrong reads wrong data at ${offset}`);
      this.operations++;
      await sleep(2);
    } while (!this.#stop);
  }
}

// Making a failure smaller.

/** Plays a plan alone, on a fresh target. Undefined: nothing went wrong. */
async function failureOf(
  start: () => Promise<Target>,
  plan: Plan,
  index: number,
): Promise<FuzzFailure | undefined> {
  const target = await start();
  try {
    await playPlan(target, plan, index);
    await sleep(0);
    return undefined;
  } catch (error) {
    return error as FuzzFailure;
  } finally {
    await target.close();
  }
}

/** Leaves out messages for as long as it still goes wrong; undefined when it does not go wrong alone. */
export async function shrink(
  start: () => Promise<Target>,
  failure: FuzzFailure,
): Promise<FuzzFailure | undefined> {
  let best = await failureOf(start, failure.plan, failure.index);
  if (best === undefined) return undefined;
  let tries = 1;
  const deadline = performance.now() + SHRINK_MS_MAX;
  for (let part = Math.ceil(count(best.plan) / 2); part >= 1; part = part === 1 ? 0 : Math.ceil(part / 2)) {
    for (let from = 0; from < count(best.plan) && tries < SHRINK_TRIES_MAX && performance.now() < deadline;) {
      tries++;
      const smaller = await failureOf(start, leaveOut(best.plan, from, part), failure.index);
      if (smaller === undefined) from += part;
      else best = smaller;
    }
  }
  return best;
}

function count(plan: Plan): number {
  return plan.steps.reduce((sum, step) => sum + step.messages.length, 0);
}

function leaveOut(plan: Plan, from: number, messages: number): Plan {
  let at = 0;
  const steps = plan.steps.map((step) => {
    const kept = step.messages.filter(() => {
      const position = at++;
      return position < from || position >= from + messages;
    });
    return { ...step, messages: kept };
  });
  return { ...plan, steps };
}

const HEX_BYTES_MAX = 80;

function line(message: Message): string {
  const { bytes, what } = message;
  const more = bytes.length > HEX_BYTES_MAX ? `… (${bytes.length} bytes)` : '';
  return `    ${what}\n      ${bytes.subarray(0, HEX_BYTES_MAX).toString('hex')}${more}`;
}

/** A plan for people. */
export function describePlan(plan: Plan): string {
  const steps = plan.steps
    .filter((step) => step.messages.length > 0)
    .map(
      (step) => `  ${step.delivery}${step.wait ? ', then wait' : ''}:\n${step.messages.map(line).join('\n')}`,
    );
  return `${plan.kind}${plan.deaf ? ', deaf' : ''}${plan.tls === 'no' ? '' : `, TLS: ${plan.tls}`}, ends with ${plan.ending}\n${steps.join('\n')}`;
}
