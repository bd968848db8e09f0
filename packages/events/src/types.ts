/**
 * Events: what happened that somebody who is not looking wants to be told. Whoever notices one says so through an `OnEvent`;
 * it neither waits nor fails.
 */
export type Severity = 'info' | 'warning' | 'error';

/** From the least to the worst. */
export const SEVERITIES: readonly Severity[] = ['info', 'warning', 'error'];

/** Every kind, with how bad it is and what it means. */
export const EVENT_KINDS = {
  'policy-run-failed': {
    severity: 'error',
    meaning: 'A backup that a policy asks for could not be taken.',
  },
  'policy-not-quiesced': {
    severity: 'warning',
    meaning:
      'A guest could not be brought to rest, and its backup is as after a crash: look at its agent, or at who else uses the socket.',
  },
  'guest-frozen': {
    severity: 'error',
    meaning:
      'A guest whose file systems were frozen for a backup cannot be thawed: nothing in it can write. It is tried again and again.',
  },
  'guest-thawed': { severity: 'info', meaning: 'The guest is thawed, or is gone.' },
  'policy-run-late': {
    severity: 'warning',
    meaning: 'A policy was due while the server was down; one backup was taken for all that were missed.',
  },
  'encryption-suspected': {
    severity: 'error',
    meaning:
      'A VM writes as if its disk were being encrypted; the last backup from before is locked (docs/tripwire.md).',
  },
  'clock-set-back': {
    severity: 'error',
    meaning:
      'The clock of this machine is behind what it was before; locks and retention wait until it is not.',
  },
  'server-started': { severity: 'info', meaning: 'The server has opened its store and serves.' },
  'store-full': {
    severity: 'error',
    meaning: 'The disk under the store is full: guests that write get ENOSPC, reads go on.',
  },
  'store-ready': { severity: 'info', meaning: 'The store takes writes again.' },
  'store-failed': {
    severity: 'error',
    meaning:
      'A write or sync of the data directory failed: the store takes no more writes until the server is started again.',
  },
  'log-loss': {
    severity: 'error',
    meaning:
      'The write log was damaged, the server was told to go on without what is lost, and this is lost.',
  },
  'index-rebuilt': {
    severity: 'warning',
    meaning: 'The index was damaged, and was made anew from the segments.',
  },
  'damage-found': {
    severity: 'error',
    meaning: 'A verification found stored bytes that are wrong or gone.',
  },
  'mirror-behind': {
    severity: 'warning',
    meaning: 'The catalog could not be mirrored into the segments; it is tried again.',
  },
  'mirror-restored': { severity: 'info', meaning: 'The catalog is mirrored again.' },
  'gc-failed': { severity: 'error', meaning: 'A garbage collection failed: nothing is freed meanwhile.' },
  'job-failed': {
    severity: 'warning',
    meaning: 'A job other than a collection failed, and not because of what was asked for.',
  },
  'audit-cut': {
    severity: 'error',
    meaning:
      'Lines at the end of the audit trail that had been written are missing, or are others: somebody or something has changed its files.',
  },
  'wrong-tokens': {
    severity: 'warning',
    meaning:
      'Requests come from one address with wrong tokens, again and again: a token was revoked or has expired, or somebody tries some.',
  },
  'requests-limited': {
    severity: 'warning',
    meaning: 'More requests come with one token than the server lets through; it is told to wait.',
  },
  'certificate-expiring': {
    severity: 'warning',
    meaning: 'A certificate of the server ends within two weeks, or has ended.',
  },
  'webhook-failed': {
    severity: 'warning',
    meaning: 'A webhook did not take an event however often it was tried: the event is passed over there.',
  },
  'webhook-test': { severity: 'info', meaning: 'Somebody tries whether a webhook works.' },
} as const satisfies Record<string, { severity: Severity; meaning: string }>;

export type EventKind = keyof typeof EVENT_KINDS;

export interface ServiceEvent {
  readonly kind: EventKind;
  /** One sentence for people. */
  readonly text: string;
  /** What it is about: the name of a VM, `vm@backup`, a policy. */
  readonly subject?: string;
  readonly data?: Readonly<Record<string, string | number | boolean>>;
}

export type OnEvent = (event: ServiceEvent) => void;

/** An event as it is kept. */
export interface KeptEvent extends ServiceEvent {
  /** Ascends, over restarts too; about the milliseconds since 1970. */
  readonly id: number;
  /** Milliseconds since 1970, by the clock of the machine at that time. */
  readonly at: number;
  readonly severity: Severity;
}
