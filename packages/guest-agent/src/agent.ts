/**
 * QEMU's guest agent as a client sees it: JSON lines over a stream, one answer to each request
 * (https://www.qemu.org/docs/master/interop/qemu-ga-ref.html).
 *
 * What comes back is said by the guest, which may be anybody's: lines have a bound, answers a deadline, and every value is
 * checked before it is used. An agent that broke any of that is not spoken to again.
 */
import type { Duplex } from 'node:stream';
import { PandoError, type Clock } from '@pando/common';

/** Longest line that an agent may answer with. */
const LINE_BYTES_MAX = 64 * 1024;
/** What may come before the answer to a synchronisation: left over from whoever spoke to the agent before. */
const STALE_BYTES_MAX = 1024 * 1024;
/** Most of what an agent says that is shown to people. */
const REASON_CHARACTERS_MAX = 200;

/** Ends whatever was being sent or answered before: no JSON holds this byte (`guest-sync-delimited`). */
const DELIMITER = 0xff;
const NEWLINE = 0x0a;

type Answer = Readonly<Record<string, unknown>>;

export class GuestAgent {
  readonly #stream: Duplex;
  readonly #clock: Clock;
  #buffered = Buffer.alloc(0);
  #failure: PandoError | undefined;
  #wake: () => void = () => undefined;

  /** The stream is the agent's from now on; `close` destroys it. */
  constructor(stream: Duplex, clock: Clock) {
    this.#stream = stream;
    this.#clock = clock;
    stream.on('data', (bytes: Buffer) => {
      this.#buffered = Buffer.concat([this.#buffered, bytes]);
      if (this.#buffered.byteLength > STALE_BYTES_MAX) this.#fail('it sends without end');
      this.#wake();
    });
    stream.on('error', (error) => this.#fail(error.message, error));
    stream.on('close', () => this.#fail('the connection ended'));
  }

  /**
   * Finds out that an agent answers, and passes by what is left of earlier conversations. First of all calls.
   * @throws `guest-agent-failed`
   */
  async synchronise(waitMs: number): Promise<void> {
    const id = Math.floor(this.#clock.now()) % 2 ** 31;
    await this.#within(waitMs, 'guest-sync-delimited', async () => {
      this.#stream.write(Buffer.from([DELIMITER]));
      this.#send('guest-sync-delimited', { id });
      for (;;) {
        const at = this.#buffered.indexOf(DELIMITER);
        if (at >= 0) {
          this.#buffered = this.#buffered.subarray(at + 1);
          if ((await this.#line())['return'] === id) return;
          continue;
        }
        this.#buffered = Buffer.alloc(0);
        await this.#more();
      }
    });
  }

  /** Flushes and freezes all file systems of the guest that can be; resolves to how many. @throws `guest-agent-failed` */
  freeze(waitMs: number): Promise<number> {
    return this.#count('guest-fsfreeze-freeze', waitMs);
  }

  /** Resolves to how many were frozen until now. @throws `guest-agent-failed` */
  thaw(waitMs: number): Promise<number> {
    return this.#count('guest-fsfreeze-thaw', waitMs);
  }

  /** @throws `guest-agent-failed` */
  async isFrozen(waitMs: number): Promise<boolean> {
    const status = await this.#ask('guest-fsfreeze-status', waitMs);
    if (status !== 'frozen' && status !== 'thawed') throw this.#fail('its answer is no state');
    return status === 'frozen';
  }

  close(): void {
    this.#fail('the connection was closed');
    this.#stream.destroy();
  }

  async #count(command: string, waitMs: number): Promise<number> {
    const count = await this.#ask(command, waitMs);
    if (typeof count !== 'number' || !Number.isSafeInteger(count) || count < 0) {
      throw this.#fail(`its answer to ${command} is no number`);
    }
    return count;
  }

  #ask(command: string, waitMs: number): Promise<unknown> {
    return this.#within(waitMs, command, async () => {
      this.#send(command);
      const answer = await this.#line();
      if ('return' in answer) return answer['return'];
      const { desc } = (answer['error'] ?? {}) as { desc?: unknown };
      throw new PandoError('guest-agent-failed', `the guest agent refuses ${command}: ${shown(desc)}`);
    });
  }

  #send(execute: string, given?: object): void {
    this.#stream.write(
      `${JSON.stringify({ execute, ...(given === undefined ? {} : { arguments: given }) })}\n`,
    );
  }

  async #line(): Promise<Answer> {
    for (;;) {
      const end = this.#buffered.indexOf(NEWLINE);
      if (end > LINE_BYTES_MAX || (end < 0 && this.#buffered.byteLength > LINE_BYTES_MAX)) {
        throw this.#fail('its answer is too long');
      }
      if (end >= 0) {
        const text = this.#buffered.toString('utf8', 0, end);
        this.#buffered = this.#buffered.subarray(end + 1);
        return this.#parse(text);
      }
      await this.#more();
    }
  }

  #parse(text: string): Answer {
    try {
      const value = JSON.parse(text) as unknown;
      if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Answer;
    } catch {
      // As if it were JSON of something else.
    }
    throw this.#fail(`its answer is no JSON object: ${shown(text)}`);
  }

  async #more(): Promise<void> {
    this.#check();
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
    this.#check();
  }

  /** An agent that did not answer in time may do so later, to the next question: it is not asked again. */
  async #within<T>(waitMs: number, what: string, work: () => Promise<T>): Promise<T> {
    this.#check();
    const answered = new AbortController();
    const late = this.#clock.sleep(waitMs, answered.signal).then(
      () => void this.#fail(`it did not answer ${what} within ${waitMs} ms`),
      () => undefined,
    );
    try {
      return await work();
    } finally {
      answered.abort(new Error('answered'));
      await late;
    }
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  #fail(reason: string, cause?: unknown): PandoError {
    this.#failure ??= new PandoError(
      'guest-agent-failed',
      `the guest agent is of no use: ${reason}`,
      cause === undefined ? undefined : { cause },
    );
    this.#wake();
    return this.#failure;
  }
}

/** What the guest says, for people: no control characters, and not all of it. */
function shown(text: unknown): string {
  return JSON.stringify(String(text).slice(0, REASON_CHARACTERS_MAX));
}
