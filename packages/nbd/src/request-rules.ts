/** Which requests are refused before they reach the device, and with what: pure rules of the protocol. */
import type { BlockDevice } from '@pando/block-device';
import type { Session } from './negotiation.ts';
import { Command, CommandFlag, NbdErrno, PAYLOAD_BYTES_MAX } from './protocol.ts';
import type { Request } from './request-parser.ts';

/** Flags that each command takes, by command number; FUA is taken, and means nothing, where nothing is written. */
const COMMAND_FLAGS: readonly number[] = [
  CommandFlag.fua | CommandFlag.df,
  CommandFlag.fua,
  CommandFlag.fua,
  CommandFlag.fua,
  CommandFlag.fua,
  CommandFlag.fua,
  CommandFlag.fua | CommandFlag.noHole | CommandFlag.fastZero,
  CommandFlag.fua | CommandFlag.reqOne,
];

export interface Refusal {
  readonly errno: number;
  readonly text: string;
}

const refusal = (errno: number, text: string): Refusal => ({ errno, text });

const UNKNOWN_COMMAND = refusal(NbdErrno.invalid, 'unknown command');
const BAD_FLAGS = refusal(NbdErrno.invalid, 'a flag that this command does not take');
const DF_NOT_OFFERED = refusal(NbdErrno.invalid, 'DF needs structured replies');
const READ_ONLY = refusal(NbdErrno.perm, 'the export is read-only');
const PAYLOAD_TOO_LONG = refusal(
  NbdErrno.invalid,
  `reads and writes have at most ${PAYLOAD_BYTES_MAX} bytes`,
);
const OUT_OF_RANGE = refusal(NbdErrno.invalid, 'the range leaves the export');
const WRITE_PAST_END = refusal(NbdErrno.noSpace, 'the range leaves the export');
const NO_CONTEXT = refusal(NbdErrno.invalid, 'block status needs a context that was set for this export');
const EMPTY_STATUS = refusal(NbdErrno.invalid, 'block status of no bytes');
export const SHUTTING_DOWN = refusal(NbdErrno.shutdown, 'the server is closing this connection');

/** Why the request is refused, or undefined. DISC is never refused. */
export function refusalOf(request: Request, device: BlockDevice, session: Session): Refusal | undefined {
  const { type, flags, offset, length } = request;
  const allowed = COMMAND_FLAGS[type];
  if (allowed === undefined) return UNKNOWN_COMMAND;
  if ((flags & ~allowed) !== 0) return BAD_FLAGS;
  // By subtraction: offset + length can leave 64 bits. Offsets past 2^53 are inexact, and past every device.
  const outside = offset > device.size || length > device.size - offset;
  switch (type) {
    case Command.read:
      if ((flags & CommandFlag.df) !== 0 && session.replies === 'simple') return DF_NOT_OFFERED;
      if (length > PAYLOAD_BYTES_MAX) return PAYLOAD_TOO_LONG;
      return outside ? OUT_OF_RANGE : undefined;
    case Command.write:
      if (device.readOnly) return READ_ONLY;
      if (length > PAYLOAD_BYTES_MAX) return PAYLOAD_TOO_LONG;
      return outside ? WRITE_PAST_END : undefined;
    case Command.writeZeroes:
      if (device.readOnly) return READ_ONLY;
      return outside ? WRITE_PAST_END : undefined;
    case Command.trim:
      if (device.readOnly) return READ_ONLY;
      return outside ? OUT_OF_RANGE : undefined;
    case Command.cache:
      return outside ? OUT_OF_RANGE : undefined;
    case Command.blockStatus:
      if (session.opened.contexts.length === 0) return NO_CONTEXT;
      if (length === 0) return EMPTY_STATUS;
      return outside ? OUT_OF_RANGE : undefined;
    default:
      return undefined;
  }
}
