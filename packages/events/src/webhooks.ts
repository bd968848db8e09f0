/**
 * Webhooks: where events are sent on to. Each has its own place in the event log, which is kept, so that a restart neither sends twice what was
 * taken nor leaves anything out that the log still has.
 *
 *     webhook         id    → WebhookRecord
 *     webhook-place   id    → PlaceRecord      the last event that was taken or passed over
 *
 * The order: an event is sent, its answer has come, the place is committed. A crash in between sends it once more, with the same
 * `webhook-id`, by which receivers tell. Requests are those of the Standard Webhooks specification (standardwebhooks.com).
 */
import { checkRecord, type Catalog } from '@pando/catalog';
import { PandoError, type Clock, type Random } from '@pando/common';
import { Webhook as Signer } from 'standardwebhooks';
import { matches, type EventFilter, type EventLog } from './log.ts';
import type { KeptEvent, OnEvent, Severity } from './types.ts';

const TABLE = 'webhook';
const PLACE_TABLE = 'webhook-place';
const VERSION = 1;
const SECRET_BYTES = 32;
const ID_BYTES = 8;
const HTTP_GONE = 410;

export interface WebhookLimits {
  readonly webhooks: number;
  readonly urlCharacters: number;
  readonly kinds: number;
  /** How long a receiver may take to answer. */
  readonly answerMs: number;
  /** Pauses before the second, third, … try; after the last one the event is passed over. */
  readonly retryMs: readonly number[];
  /** After so many events that were not for it, its place is kept all the same. */
  readonly passedOver: number;
  readonly quietMs: number;
}

const MINUTE_MS = 60_000;
export const WEBHOOK_LIMITS: WebhookLimits = {
  webhooks: 32,
  urlCharacters: 2000,
  kinds: 64,
  answerMs: 15_000,
  retryMs: [5000, ...[0.5, 2, 10, 30, 60, 180, 360, 720].map((minutes) => minutes * MINUTE_MS)],
  passedOver: 100,
  quietMs: 60_000,
};

export interface WebhookRequest {
  readonly url: string;
  /** Only these; absent: all. */
  readonly kinds?: readonly string[];
  /** This bad or worse; absent: all. */
  readonly severity?: Severity;
  /** Let it be http. */
  readonly insecure?: boolean;
}

export interface Webhook {
  readonly id: string;
  readonly url: string;
  readonly kinds?: readonly string[];
  readonly severity?: Severity;
  readonly createdAt: number;
  /** Said 410 Gone: nothing is sent there any more. */
  readonly isGone: boolean;
  /** Since the server was started: when an event was taken last. */
  readonly deliveredAt?: number;
  /** The event that is tried again and again now, and why. */
  readonly failing?: { readonly since: number; readonly tries: number; readonly problem: string };
}

export interface CreatedWebhook {
  readonly webhook: Webhook;
  /** What signatures are made with. Nobody is told it again. */
  readonly secret: string;
}

export interface WebhookTest {
  readonly taken: boolean;
  readonly status?: number;
  readonly problem?: string;
}

/** Sends one request; follows no redirect, and reads nothing of the answer but its status. */
export type Send = (request: {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  readonly signal: AbortSignal;
}) => Promise<{ readonly status: number }>;

interface WebhookRecord {
  readonly version: 1;
  readonly url: string;
  readonly kinds?: readonly string[];
  readonly severity?: Severity;
  readonly createdAt: number;
  readonly secret: string;
  readonly isGone?: boolean;
}

interface Entry {
  record: WebhookRecord;
  readonly stop: AbortController;
  loop: Promise<void>;
  /** Events up to this one are done with. */
  after: number;
  deliveredAt?: number;
  failing?: Webhook['failing'];
}

export interface WebhooksOptions {
  readonly catalog: Catalog;
  readonly log: EventLog;
  readonly clock: Clock;
  readonly random: Random;
  readonly send: Send;
  readonly onEvent: OnEvent;
  /** The place of a webhook could not be kept, or events could not be read. */
  readonly onTrouble?: (id: string, error: unknown) => void;
  readonly limits?: Partial<WebhookLimits>;
}

export class Webhooks {
  readonly #options: WebhooksOptions;
  readonly #limits: WebhookLimits;
  readonly #entries = new Map<string, Entry>();
  #making: Promise<unknown> = Promise.resolve();

  private constructor(options: WebhooksOptions) {
    this.#options = options;
    this.#limits = { ...WEBHOOK_LIMITS, ...options.limits };
  }

  /** Begins to send at once what came since the places that are kept. */
  static async open(options: WebhooksOptions): Promise<Webhooks> {
    const webhooks = new Webhooks(options);
    const { catalog } = options;
    for (const { key, value } of await catalog.list(TABLE, { limit: webhooks.#limits.webhooks })) {
      checkRecord(TABLE, key, value, VERSION);
      const place = await catalog.get(PLACE_TABLE, key);
      if (place !== undefined) checkRecord(PLACE_TABLE, key, place, VERSION);
      const after = (place as { after: number } | undefined)?.after ?? 0;
      webhooks.#start(key, value as WebhookRecord, after);
    }
    return webhooks;
  }

  list(): readonly Webhook[] {
    return [...this.#entries].map(([id, entry]) => viewOf(id, entry));
  }

  /** @throws `webhook-missing` */
  get(id: string): Webhook {
    return viewOf(id, this.#entry(id));
  }

  /** Events from now on are sent there. @throws `webhook-invalid`, `too-busy` */
  async create(request: WebhookRequest): Promise<CreatedWebhook> {
    const url = checkUrl(request, this.#limits.urlCharacters);
    const made = this.#making.then(() => this.#create(url, request));
    this.#making = made.catch(() => undefined);
    return made;
  }

  /** Not removed when it throws: it goes on where it was. @throws `webhook-missing` */
  async remove(id: string): Promise<void> {
    const entry = this.#entry(id);
    this.#entries.delete(id);
    entry.stop.abort();
    // Its loop may be about to keep its place.
    await entry.loop;
    try {
      await this.#options.catalog.commit([
        { type: 'delete', table: TABLE, key: id },
        { type: 'delete', table: PLACE_TABLE, key: id },
      ]);
    } catch (error) {
      // It would be back with the next start, when everybody believes it gone.
      this.#start(id, entry.record, entry.after);
      throw error;
    }
  }

  /** Sends an event of kind `webhook-test` there, once, now. @throws `webhook-missing` */
  async test(id: string): Promise<WebhookTest> {
    const { record, stop } = this.#entry(id);
    const now = this.#options.clock.now();
    const text = 'This is a test: nothing has happened.';
    try {
      const status = await this.#send(
        record,
        { id: now, at: now, kind: 'webhook-test', severity: 'info', text, subject: id },
        stop.signal,
      );
      return isTaken(status)
        ? { taken: true, status }
        : { taken: false, status, problem: `it answered ${status}` };
    } catch (error) {
      return { taken: false, problem: reasonOf(error) };
    }
  }

  /** Ends what is being sent. Idempotent. */
  async close(): Promise<void> {
    for (const { stop } of this.#entries.values()) stop.abort();
    await Promise.all([...this.#entries.values()].map(({ loop }) => loop));
  }

  async #create(url: string, { kinds, severity }: WebhookRequest): Promise<CreatedWebhook> {
    if (this.#entries.size >= this.#limits.webhooks)
      throw new PandoError('too-busy', `there are ${this.#limits.webhooks} webhooks`);
    const { catalog, clock, log, random } = this.#options;
    const id = bytesOf(random, ID_BYTES).toString('hex');
    const secret = `whsec_${bytesOf(random, SECRET_BYTES).toString('base64')}`;
    const record: WebhookRecord = {
      ...{ version: VERSION, url, createdAt: clock.now(), secret },
      ...(kinds === undefined ? {} : { kinds: [...kinds] }),
      ...(severity === undefined ? {} : { severity }),
    };
    const after = log.newestId;
    await catalog.commit([
      { type: 'put', table: TABLE, key: id, value: record },
      { type: 'put', table: PLACE_TABLE, key: id, value: { version: VERSION, after } },
    ]);
    const entry = this.#start(id, record, after);
    return { webhook: viewOf(id, entry), secret };
  }

  #start(id: string, record: WebhookRecord, after: number): Entry {
    const entry: Entry = { record, stop: new AbortController(), loop: Promise.resolve(), after };
    this.#entries.set(id, entry);
    if (record.isGone !== true) {
      entry.loop = this.#deliver(id, entry).catch((error: unknown) => {
        if (!entry.stop.signal.aborted) this.#options.onTrouble?.(id, error);
      });
    }
    return entry;
  }

  async #deliver(id: string, entry: Entry): Promise<void> {
    const { log } = this.#options;
    const { signal } = entry.stop;
    let passedOver = 0;
    for await (const event of log.follow(entry.after, {}, signal, this.#limits.quietMs)) {
      if (event === undefined) continue;
      // One about its own failures would follow upon itself.
      const isWanted = matches(event, filterOf(entry.record)) && event.subject !== id;
      if (isWanted) await this.#insist(id, entry, event);
      if (signal.aborted || entry.record.isGone === true) return;
      entry.after = event.id;
      if (!isWanted && ++passedOver < this.#limits.passedOver) continue;
      passedOver = 0;
      await this.#keepPlace(id, event.id);
    }
  }

  /** A place that cannot be kept is kept with the next one: what is lost with it is sent twice. */
  async #keepPlace(id: string, after: number): Promise<void> {
    try {
      await this.#options.catalog.commit([
        { type: 'put', table: PLACE_TABLE, key: id, value: { version: VERSION, after } },
      ]);
    } catch (error) {
      this.#options.onTrouble?.(id, error);
    }
  }

  /** Sends an event until it is taken, or was tried often enough. */
  async #insist(id: string, entry: Entry, event: KeptEvent): Promise<void> {
    const { clock, onEvent } = this.#options;
    const { retryMs } = this.#limits;
    const { signal } = entry.stop;
    const since = clock.now();
    const isStopped = (): boolean => signal.aborted;
    for (let tries = 1; !isStopped(); tries++) {
      const answer = await this.#send(entry.record, event, signal).catch((error: unknown) => reasonOf(error));
      if (isStopped()) return;
      if (answer === HTTP_GONE) return this.#markGone(id, entry);
      if (typeof answer === 'number' && isTaken(answer)) {
        delete entry.failing;
        entry.deliveredAt = clock.now();
        return;
      }
      const problem = typeof answer === 'number' ? `it answered ${answer}` : answer;
      entry.failing = { since, tries, problem };
      const pause = retryMs[tries - 1];
      if (pause === undefined) {
        const text = `Event ${event.id} (${event.kind}) was tried ${tries} times at ${hostOf(entry.record.url)}: ${problem}.`;
        onEvent({ kind: 'webhook-failed', text, subject: id, data: { event: event.id } });
        return;
      }
      await clock.sleep(pause, signal).catch(() => undefined);
    }
  }

  async #markGone(id: string, entry: Entry): Promise<void> {
    entry.record = { ...entry.record, isGone: true };
    const { catalog, onEvent } = this.#options;
    await catalog.commit([{ type: 'put', table: TABLE, key: id, value: entry.record }]);
    const text = `${hostOf(entry.record.url)} answered 410 (gone): nothing is sent there any more.`;
    onEvent({ kind: 'webhook-failed', text, subject: id });
  }

  async #send(record: WebhookRecord, event: KeptEvent, signal: AbortSignal): Promise<number> {
    const now = new Date(this.#options.clock.now());
    const { kind, at, ...data } = event;
    const body = JSON.stringify({ type: kind, timestamp: new Date(at).toISOString(), data });
    const messageId = `pando_${event.id}`;
    const headers = {
      'content-type': 'application/json',
      'user-agent': 'pando',
      'webhook-id': messageId,
      'webhook-timestamp': String(Math.floor(now.getTime() / 1000)),
      'webhook-signature': new Signer(record.secret).sign(messageId, now, body),
    };
    const late = AbortSignal.timeout(this.#limits.answerMs);
    const { status } = await this.#options.send({
      ...{ url: record.url, headers, body },
      signal: AbortSignal.any([signal, late]),
    });
    return status;
  }

  #entry(id: string): Entry {
    const entry = this.#entries.get(id);
    if (entry === undefined) throw new PandoError('webhook-missing', `no webhook ${JSON.stringify(id)}`);
    return entry;
  }
}

function checkUrl({ url, insecure }: WebhookRequest, charactersMax: number): string {
  const refuse = (why: string): never => {
    throw new PandoError('webhook-invalid', `the URL of a webhook ${why}`);
  };
  const parsed = url.length <= charactersMax ? URL.parse(url) : null;
  if (parsed === null) return refuse(`is a URL of at most ${charactersMax} characters`);
  const isAllowed = parsed.protocol === 'https:' || (parsed.protocol === 'http:' && insecure === true);
  if (!isAllowed) return refuse('is of https, or of http where that is said to be meant');
  if (parsed.username !== '' || parsed.password !== '') return refuse('holds no name and no password');
  parsed.hash = '';
  return parsed.href;
}

function viewOf(id: string, { record, deliveredAt, failing }: Entry): Webhook {
  const { url, kinds, severity, createdAt, isGone = false } = record;
  return {
    ...{ id, url, createdAt, isGone },
    ...(kinds === undefined ? {} : { kinds }),
    ...(severity === undefined ? {} : { severity }),
    ...(deliveredAt === undefined ? {} : { deliveredAt }),
    ...(failing === undefined ? {} : { failing }),
  };
}

function filterOf({ kinds, severity }: WebhookRecord): EventFilter {
  return { ...(kinds === undefined ? {} : { kinds }), ...(severity === undefined ? {} : { severity }) };
}

function isTaken(status: number): boolean {
  return status >= 200 && status < 300;
}

/** The rest of a URL may be a secret of the receiver. */
function hostOf(url: string): string {
  return new URL(url).host;
}

/** Of an error of `fetch` the reason lies underneath. */
function reasonOf(error: unknown): string {
  const { name, message, cause } = error as Error;
  if (name === 'TimeoutError') return 'it did not answer in time';
  return cause instanceof Error ? cause.message : message;
}

function bytesOf(random: Random, count: number): Buffer {
  const bytes = Buffer.alloc(count);
  random.fill(bytes);
  return bytes;
}
