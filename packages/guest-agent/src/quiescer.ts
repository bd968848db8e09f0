/**
 * Quiescing: the file systems of a guest are frozen, something is done, and they are thawed again, whatever happens.
 *
 * A guest that stays frozen is dead to its users, and no agent thaws by itself. So, in this order:
 *
 *     record durable → freeze → the action, or the limit → thaw → record removed
 *
 * and whoever opens the store after a crash thaws what is still recorded (`recover`). A thaw that fails is tried again, in the background,
 * until the agent confirms it or nobody listens on its socket any more: then QEMU is gone, and the guest with it.
 *
 *     guest-freeze    address of the agent → { version }
 */
import type { Catalog } from '@pando/catalog';
import { isPandoError, PandoError, type Clock } from '@pando/common';
import type { GuestAgent } from './agent.ts';

export interface QuiesceLimits {
  /** For an agent to answer at all. */
  readonly answerMs: number;
  /** For a guest to flush and freeze: it may have gigabytes to write. */
  readonly freezeMs: number;
  /** How long a guest is kept frozen at most, unless a request says less. */
  readonly holdMs: number;
  /** Between two attempts to thaw. */
  readonly againMs: number;
  /** Guests that are frozen at one time. */
  readonly guests: number;
}

export const QUIESCE_LIMITS: QuiesceLimits = {
  answerMs: 5_000,
  freezeMs: 60_000,
  holdMs: 10_000,
  againMs: 2_000,
  guests: 32,
};

export interface QuiescerOptions {
  readonly catalog: Catalog;
  readonly clock: Clock;
  /**
   * Connects to the agent at an address.
   * @throws `guest-agent-gone` when nobody listens there; `guest-agent-failed`, `guest-agent-refused`
   */
  readonly connect: (address: string) => Promise<GuestAgent>;
  /** Told when a guest could not be thawed at once, and with undefined when it is. */
  readonly onFrozen?: (address: string, error: PandoError | undefined) => void;
  readonly limits?: Partial<QuiesceLimits>;
}

const TABLE = 'guest-freeze';

export class Quiescer {
  readonly #options: QuiescerOptions;
  readonly #limits: QuiesceLimits;
  readonly #closing = new AbortController();
  /** Addresses that are frozen, about to be, or not known to be thawed. */
  readonly #held = new Set<string>();
  readonly #thawing = new Set<Promise<void>>();
  readonly #running = new Set<Promise<unknown>>();

  constructor(options: QuiescerOptions) {
    this.#options = options;
    this.#limits = { ...QUIESCE_LIMITS, ...options.limits };
  }

  /** Thaws what an earlier process left frozen; in the background. */
  async recover(): Promise<void> {
    for (const { key } of await this.#options.catalog.list(TABLE, { limit: this.#limits.guests })) {
      this.#held.add(key);
      this.#thawLater(key);
    }
  }

  /**
   * Runs the action while the guest is frozen. Its result is of a guest at rest, or is undone.
   * @param undo takes back what the action has done, when the guest was thawed before the action had ended
   * @throws `guest-agent-failed`, `guest-agent-gone`, `guest-frozen`, `quiesce-timeout`, `too-busy`, `shutting-down`, what the action throws
   */
  quiesced<T>(
    address: string,
    work: {
      readonly holdMs?: number;
      readonly action: () => Promise<T>;
      readonly undo: (result: T) => Promise<void>;
    },
  ): Promise<T> {
    const run = this.#quiesced(address, work);
    this.#running.add(run);
    const done = (): void => void this.#running.delete(run);
    run.then(done, done);
    return run;
  }

  /** Waits for guests that are frozen to be thawed, a bounded time for each; what is left stays recorded. */
  async close(): Promise<void> {
    this.#closing.abort(new PandoError('shutting-down', 'the server is stopping'));
    await Promise.allSettled(this.#running);
    await Promise.allSettled(this.#thawing);
  }

  async #quiesced<T>(
    address: string,
    { holdMs = this.#limits.holdMs, action, undo }: Parameters<typeof this.quiesced<T>>[1],
  ): Promise<T> {
    this.#closing.signal.throwIfAborted();
    if (this.#held.has(address)) {
      throw new PandoError('guest-frozen', `the guest of ${address} is frozen for another backup just now`);
    }
    if (this.#held.size >= this.#limits.guests) {
      throw new PandoError('too-busy', `${this.#limits.guests} guests are frozen at the moment`);
    }
    this.#held.add(address);
    let agent: GuestAgent;
    try {
      agent = await this.#options.connect(address);
      try {
        await agent.synchronise(this.#limits.answerMs);
        await this.#options.catalog.commit([
          { type: 'put', table: TABLE, key: address, value: { version: 1 } },
        ]);
      } catch (error) {
        agent.close();
        throw error;
      }
    } catch (error) {
      this.#held.delete(address);
      throw error;
    }
    return this.#frozen(address, agent, Math.min(holdMs, this.#limits.holdMs), { action, undo });
  }

  /** From the record on: it is removed only when the agent has said that the guest is thawed. */
  async #frozen<T>(
    address: string,
    agent: GuestAgent,
    holdMs: number,
    { action, undo }: { readonly action: () => Promise<T>; readonly undo: (result: T) => Promise<void> },
  ): Promise<T> {
    let thawed: Promise<number | undefined> | undefined;
    const thaw = (): Promise<number | undefined> => (thawed ??= this.#thaw(address, agent));
    const ended = new AbortController();
    let result: T;
    const limit = { reached: false };
    try {
      if ((await agent.freeze(this.#limits.freezeMs)) === 0) {
        throw new PandoError('guest-agent-failed', 'the guest agent froze no file system');
      }
      const reached = this.#options.clock.sleep(holdMs, ended.signal).then(
        () => {
          limit.reached = true;
          return thaw();
        },
        () => undefined,
      );
      try {
        result = await action();
      } finally {
        ended.abort(new Error('done'));
        await reached;
      }
    } catch (error) {
      await thaw();
      throw error;
    }
    // Some guests thaw themselves after a while (Windows after ten seconds): then there was nothing left to thaw.
    const count = await thaw();
    if (limit.reached || count === 0) {
      await undo(result);
      throw new PandoError(
        'quiesce-timeout',
        limit.reached
          ? `the guest was kept frozen for ${holdMs} ms, and the backup was not done`
          : 'the guest had thawed itself before the backup was done',
      );
    }
    return result;
  }

  /** How many file systems were frozen; undefined when that is not known, and the thaw is tried again. */
  async #thaw(address: string, agent: GuestAgent): Promise<number | undefined> {
    try {
      const count = await agent.thaw(this.#limits.answerMs);
      await this.#forget(address);
      return count;
    } catch (error) {
      this.#tell(address, error);
      this.#thawLater(address);
      return undefined;
    } finally {
      agent.close();
    }
  }

  #thawLater(address: string): void {
    const work = this.#thawUntilDone(address).catch((error: unknown) => this.#tell(address, error));
    this.#thawing.add(work);
    void work.finally(() => this.#thawing.delete(work));
  }

  async #thawUntilDone(address: string): Promise<void> {
    for (;;) {
      try {
        const agent = await this.#options.connect(address);
        try {
          await agent.synchronise(this.#limits.answerMs);
          await agent.thaw(this.#limits.answerMs);
          if (await agent.isFrozen(this.#limits.answerMs)) {
            throw new PandoError('guest-agent-failed', 'the guest is still frozen');
          }
        } finally {
          agent.close();
        }
        break;
      } catch (error) {
        if (isPandoError(error, 'guest-agent-gone')) break;
        this.#tell(address, error);
      }
      if (this.#closing.signal.aborted) return; // the record stays for the next start
      await this.#options.clock.sleep(this.#limits.againMs, this.#closing.signal).catch(() => undefined);
    }
    await this.#forget(address);
    this.#options.onFrozen?.(address, undefined);
  }

  async #forget(address: string): Promise<void> {
    await this.#options.catalog.commit([{ type: 'delete', table: TABLE, key: address }]);
    this.#held.delete(address);
  }

  #tell(address: string, error: unknown): void {
    const known = isPandoError(error)
      ? error
      : new PandoError('guest-agent-failed', 'the guest could not be thawed', { cause: error });
    this.#options.onFrozen?.(address, known);
  }
}
