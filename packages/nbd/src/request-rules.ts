/** Which requests are refused before they reach the device, and with what: pure rules of the protocol. */
import type { BlockDevice } from '@pando/block-device';
import type { Session } from './negotiation.ts';
import { Command, CommandFlag, NbdErrno, PAYLOAD_BYTES_MAX } from './protocol.ts';
import { isStatusPayload } from './status.ts';
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
const LONG_READ = `reads have at most ${PAYLOAD_BYTES_MAX} bytes`;
const READ_TOO_LONG = refusal(NbdErrno.overflow, LONG_READ);
const SIMPLE_READ_TOO_LONG = refusal(NbdErrno.invalid, LONG_READ);
const WRITE_TOO_LONG = refusal(NbdErrno.invalid, `writes have at most ${PAYLOAD_BYTES_MAX} bytes`);
const UNEXPECTED_PAYLOAD = refusal(NbdErrno.invalid, 'a payload that this command does not take');
const OUT_OF_RANGE = refusal(NbdErrno.invalid, 'the range leaves the export');
const WRITE_PAST_END = refusal(NbdErrno.noSpace, 'the range leaves the export');
const NO_CONTEXT = refusal(NbdErrno.invalid, 'block status needs a context that was set for this export');
const EMPTY_STATUS = refusal(NbdErrno.invalid, 'block status of no bytes');
/** The payload of BLOCK_STATUS is not 8 + 4 × n bytes, or names contexts that were not selected, or one twice. */
export const BAD_STATUS_PAYLOAD = refusal(
  NbdErrno.invalid,
  'the payload of block status must be a length and ids of selected contexts, each once',
);
export const SHUTTING_DOWN = refusal(NbdErrno.shutdown, 'the server is closing this connection');

/** Whether the range leaves the device. */
function isOutside(offset: number, length: number, device: BlockDevice): boolean {
  // By subtraction: offset + length can leave 64 bits. Offsets past 2^53 are inexact, and past every device.
  return offset > device.size || length > device.size - offset;
}

/** Why block status of a range is refused, or undefined. */
export function statusRefusalOf(offset: number, length: number, device: BlockDevice): Refusal | undefined {
  if (length === 0) return EMPTY_STATUS;
  return isOutside(offset, length, device) ? OUT_OF_RANGE : undefined;
}

/**
 * Why the request is refused, or undefined. DISC is never refused. What the payload of a BLOCK_STATUS says is looked at
 * when it is there.
 */
export function refusalOf(request: Request, device: BlockDevice, session: Session): Refusal | undefined {
  const { type, offset, length } = request;
  const extended = session.replies === 'extended';
  // Without extended headers the bit is one that no command takes.
  const flags = extended ? request.flags & ~CommandFlag.payloadLen : request.flags;
  const hasPayload = flags !== request.flags;
  const allowed = COMMAND_FLAGS[type];
  if (allowed === undefined) return UNKNOWN_COMMAND;
  if ((flags & ~allowed) !== 0) return BAD_FLAGS;
  if (hasPayload && type !== Command.write && type !== Command.blockStatus) return UNEXPECTED_PAYLOAD;
  const outside = isOutside(offset, length, device);
  switch (type) {
    case Command.read:
      if ((flags & CommandFlag.df) !== 0 && session.replies === 'simple') return DF_NOT_OFFERED;
      if (outside) return OUT_OF_RANGE;
      if (length <= PAYLOAD_BYTES_MAX) return undefined;
      // The protocol keeps EOVERFLOW for servers that support DF.
      return session.replies === 'simple' ? SIMPLE_READ_TOO_LONG : READ_TOO_LONG;
    case Command.write:
      if (device.readOnly) return READ_ONLY;
      if (length > PAYLOAD_BYTES_MAX) return WRITE_TOO_LONG;
      return outside ? WRITE_PAST_END : undefined;
    case Command.writeZeroes:
      if (device.readOnly) return READ_ONLY;
      return outside ? WRITE_PAST_END : undefined;
    case Command.trim:
      if (device.readOnly) return READ_ONLY;
      return outside ? OUT_OF_RANGE : undefined;
    case Command.cache:
      return outside ? OUT_OF_RANGE : undefined;
    case Command.blockStatus: {
      const contexts = session.opened.contexts.length;
      if (contexts === 0) return NO_CONTEXT;
      if (hasPayload) return isStatusPayload(length, contexts) ? undefined : BAD_STATUS_PAYLOAD;
      return statusRefusalOf(offset, length, device);
    }
    default:
      return undefined;
  }
}
