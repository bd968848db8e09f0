/**
 * Events: what happened that somebody who is not looking wants to be told. Whoever notices one says so through an `OnEvent`;
 * it neither waits nor fails.
 */
export type Severity = 'info' | 'warning' | 'error';

/** Every kind, with how bad it is and what it means. */
export const EVENT_KINDS = {
  'policy-run-failed': {
    severity: 'error',
    meaning: 'A backup that a policy asks for could not be taken.',
  },
  'policy-run-late': {
    severity: 'warning',
    meaning: 'A policy was due while the server was down; one backup was taken for all that were missed.',
  },
  'clock-set-back': {
    severity: 'error',
    meaning:
      'The clock of this machine is behind what it was before; locks and retention wait until it is not.',
  },
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
