/** What a handshake agrees on, and what the server says about an export because of it. */
import type { OpenExport } from './contexts.ts';
import { PAYLOAD_BYTES_MAX, TransmissionFlag } from './protocol.ts';
import type { ExportHandle } from './types.ts';

/** Which headers replies have; extended is for requests as well. */
export type ReplyStyle = 'simple' | 'structured' | 'extended';

/** What transmission needs to know of it. */
export interface Session {
  readonly opened: OpenExport;
  readonly replies: ReplyStyle;
}

/** Transmission flags of an export for a client that would start with `contexts` selected contexts. */
export function transmissionFlags(
  device: ExportHandle,
  replies: ReplyStyle,
  contexts: number,
  rotational: boolean,
): number {
  const flag = TransmissionFlag;
  let flags = flag.hasFlags | flag.sendFlush | flag.sendFua | flag.canMultiConn | flag.sendCache;
  if (device.readOnly) flags |= flag.readOnly;
  else flags |= flag.sendTrim | flag.sendWriteZeroes | flag.sendFastZero;
  if (rotational) flags |= flag.rotational;
  if (replies !== 'simple') flags |= flag.sendDf;
  if (replies === 'extended' && contexts > 0) flags |= flag.blockStatusPayload;
  return flags;
}

/** Block sizes for INFO_BLOCK_SIZE: any alignment is taken, the device's grain is preferred. */
export function blockSizes(device: ExportHandle): { minimum: number; preferred: number; payloadMax: number } {
  const preferred = Math.min(Math.max(device.blockBytes, 512), PAYLOAD_BYTES_MAX);
  return { minimum: 1, preferred, payloadMax: PAYLOAD_BYTES_MAX };
}

/** Text for INFO_DESCRIPTION. */
export function describeExport(device: ExportHandle): string {
  return `Pando disk, ${device.size} bytes, ${device.readOnly ? 'read-only' : 'read-write'}`;
}
