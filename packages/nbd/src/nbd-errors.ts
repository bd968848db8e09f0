/** PandoErrors as NBD errors: the number on the wire and the text that structured errors carry. */
import { ERROR_CODES, PandoError } from '@pando/common';
import { NbdErrno } from './protocol.ts';

/** The NBD error for what a device or the server threw. */
export function errnoOf(error: unknown): number {
  if (!(error instanceof PandoError)) return NbdErrno.io;
  switch (error.code) {
    case 'read-only':
      return NbdErrno.perm;
    case 'store-full':
      return NbdErrno.noSpace;
    case 'shutting-down':
      return NbdErrno.shutdown;
    default:
      return error.kind === 'invalid' ? NbdErrno.invalid : NbdErrno.io;
  }
}

/**
 * What a client may read about an error: the message where it speaks of the client's own request, else
 * the remedy of its code (messages of lower layers name files of the server).
 */
export function textOf(error: unknown): string {
  if (!(error instanceof PandoError)) return 'internal error';
  if (error.kind === 'invalid') return error.message;
  return `${error.code}: ${ERROR_CODES[error.code].remedy}`;
}
