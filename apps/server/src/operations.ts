/**
 * What stands beside the work: the event log and webhooks, and what is looked at now and then to raise events from. It is there before
 * the store is open, because opening may raise some already: they wait until there is a log.
 */
import { readFile } from 'node:fs/promises';
import { X509Certificate } from 'node:crypto';
import type { AuditCut, Audited, AuditTrail } from '@pando/access';
import type { Catalog } from '@pando/catalog';
import { ERROR_CODES, systemRandom, type Clock, type PandoError } from '@pando/common';
import { EventLog, Webhooks, type OnEvent, type Send, type ServiceEvent } from '@pando/events';
import type { Backup } from '@pando/fleet';
import type { Job } from '@pando/api';
import type { Logger } from 'pino';

const STATE_LOOK_MS = 1000;
const CERTIFICATES_LOOK_MS = 24 * 60 * 60_000;
/** A certificate that ends sooner is worth an event. */
const EXPIRES_SOON_MS = 14 * 24 * 60 * 60_000;
/** Events that wait for the log to be open. */
const EARLY_MAX = 1000;

type StoreState = 'ready' | 'full' | 'failed';

export interface OperationsOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  /** Paths of the server's certificates. */
  readonly certificates: readonly string[];
  readonly send?: Send;
}

export class Operations {
  readonly #options: OperationsOptions;
  readonly #stop = new AbortController();
  readonly #early: ServiceEvent[] = [];
  #loops: Promise<void>[] = [];
  #events: EventLog | undefined;
  #webhooks: Webhooks | undefined;
  #trail: Pick<AuditTrail, 'end'> | undefined;
  #isMirrorBehind = false;
  /** What was told of certificates when they were looked at last. */
  #expiring: readonly string[] = [];

  constructor(options: OperationsOptions) {
    this.#options = options;
  }

  readonly raise: OnEvent = (event) => {
    if (this.#events !== undefined) this.#events.raise(event);
    else if (this.#early.length < EARLY_MAX) this.#early.push(event);
  };

  /** From now on what the server does by itself is written into the trail. */
  writeTo(trail: Pick<AuditTrail, 'end'>): void {
    this.#trail = trail;
  }

  /** Nobody asked for it in a request, and nothing else is left of the backup. */
  readonly noteExpiry = (backup: Backup): void => this.#trail?.end(auditedExpiry(backup), { status: 204 });

  /** Whether the catalog has a mirror that may be older than it ought to be. */
  get isMirrorBehind(): boolean {
    return this.#isMirrorBehind;
  }

  get expiringCertificates(): readonly string[] {
    return this.#expiring;
  }

  get events(): EventLog {
    return this.#events!;
  }

  get webhooks(): Webhooks {
    return this.#webhooks!;
  }

  async open(catalog: Catalog, state: () => StoreState): Promise<void> {
    const { clock, logger, send = sendByFetch } = this.#options;
    this.#events = await EventLog.open({
      ...{ catalog, clock },
      onTrouble: (error, waiting) => logger.warn({ err: error, waiting }, 'events could not be kept'),
    });
    this.#webhooks = await Webhooks.open({
      ...{ catalog, clock, random: systemRandom, send, log: this.#events, onEvent: this.raise },
      onTrouble: (webhook, error) =>
        logger.warn({ err: error, webhook }, 'a webhook could not go on as it should'),
    });
    for (const event of this.#early.splice(0)) this.raise(event);
    let before: StoreState = 'ready';
    this.#every(STATE_LOOK_MS, () => {
      const now = state();
      if (now !== before) this.raise(eventOfState(now));
      before = now;
    });
    this.#every(CERTIFICATES_LOOK_MS, () => this.lookAtCertificates());
  }

  /** Once a day by itself, and to be called when they may be others. Tells of what it has not told before. */
  async lookAtCertificates(): Promise<void> {
    const { clock, certificates } = this.#options;
    const events = await Promise.all(certificates.map((path) => eventOfCertificate(path, clock.now())));
    const found = events.filter((event) => event !== undefined);
    const told = this.#expiring;
    this.#expiring = found.map(({ text }) => text);
    for (const event of found) if (!told.includes(event.text)) this.raise(event);
  }

  /** The catalog could not be mirrored, each time; or could again. */
  mirrorTrouble(error: PandoError | undefined): void {
    const wasBehind = this.#isMirrorBehind;
    this.#isMirrorBehind = error !== undefined;
    if (error === undefined) {
      if (wasBehind) this.raise({ kind: 'mirror-restored', text: 'The catalog is mirrored again.' });
    } else if (!wasBehind) {
      this.raise({
        kind: 'mirror-behind',
        text: `The catalog could not be mirrored; it is tried again: ${error.message}.`,
        data: { code: error.code },
      });
    }
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#loops);
    await this.#webhooks?.close();
    await this.#events?.close();
  }

  /** Now, and then again and again until `close`. */
  #every(ms: number, look: () => void | Promise<void>): void {
    const { clock } = this.#options;
    const { signal } = this.#stop;
    const loop = async (): Promise<void> => {
      while (!signal.aborted) {
        await look();
        await clock.sleep(ms, signal).catch(() => undefined);
      }
    };
    this.#loops.push(loop());
  }
}

function eventOfState(state: StoreState): ServiceEvent {
  if (state === 'failed')
    return {
      kind: 'store-failed',
      text: 'A write or sync failed, and the store takes no more writes: check the disk, then restart the server.',
    };
  return state === 'full'
    ? { kind: 'store-full', text: 'The disk under the store is full: guests that write are told so.' }
    : { kind: 'store-ready', text: 'The store takes writes again.' };
}

/** A backup whose time had come, as it is written into the audit trail: by whose rule, and what it was. */
function auditedExpiry({ id, name, vmName, policy }: Backup): Audited {
  return {
    ...{ request: '', operation: 'expireBackup' },
    actor: { name: policy === undefined ? 'expiry' : `policy ${policy.name}` },
    subjects: [`${vmName}@${name}`, vmName, id],
  };
}

export function eventOfAuditCut({ after, until }: AuditCut): ServiceEvent {
  return {
    kind: 'audit-cut',
    text: `The audit trail was known up to line ${until}; what was written after line ${after} is missing or was changed.`,
    data: { after, until },
  };
}

/** What the end of a job is worth telling; not what was asked for wrongly, whoever asked was told. */
export function eventOfJob(job: Job): ServiceEvent | undefined {
  const { kind, subject, id, error, result } = job;
  const about = { ...(subject === undefined ? {} : { subject }), data: { job: id, kind } };
  if (job.state === 'done' && result !== undefined && 'damaged' in result) {
    const { damaged, moreDamaged, disks, moreDisks, missingChunks } = result;
    if (damaged.length === 0 && disks.length === 0 && missingChunks === 0) return undefined;
    const places = damaged.length + moreDamaged;
    return {
      kind: 'damage-found',
      text: `A verification found ${places} damaged places, which affect ${disks.length + moreDisks} disks: see pando verify --last.`,
      data: { ...about.data, places, missingChunks, disks: disks.length + moreDisks },
    };
  }
  if (job.state !== 'failed' || error === undefined) return undefined;
  const { code, detail } = error;
  if (code in ERROR_CODES && ERROR_CODES[code as keyof typeof ERROR_CODES].kind === 'invalid')
    return undefined;
  return {
    kind: kind === 'gc' ? 'gc-failed' : 'job-failed',
    text: `${kind === 'gc' ? 'A garbage collection' : `A job (${kind})`} failed: ${detail} (${code}).`,
    ...about,
  };
}

/** Undefined also when the file cannot be read or is no certificate: whoever serves with it says so. */
export async function eventOfCertificate(path: string, now: number): Promise<ServiceEvent | undefined> {
  try {
    const { validTo } = new X509Certificate(await readFile(path));
    const endsAt = Date.parse(validTo);
    if (!(endsAt - now < EXPIRES_SOON_MS)) return undefined;
    const verb = endsAt < now ? 'ended' : 'ends';
    return {
      kind: 'certificate-expiring',
      text: `The certificate ${path} ${verb} at ${new Date(endsAt).toISOString()}.`,
      subject: path,
      data: { endsAt: new Date(endsAt).toISOString() },
    };
  } catch {
    return undefined;
  }
}

const sendByFetch: Send = async ({ url, headers, body, signal }) => {
  const response = await fetch(url, { method: 'POST', headers, body, signal, redirect: 'manual' });
  // Nothing of it is wanted, however long it is.
  await response.body?.cancel();
  return { status: response.status };
};
