/** What a handshake has agreed on, and what the server says about an export because of it. */
import type { MetaContext } from './contexts.ts';
import { HandshakeFlag, PAYLOAD_BYTES_MAX, TransmissionFlag } from './protocol.ts';
import type { ExportHandle } from './types.ts';

/** Grows as options come in; a restart of the handshake (TLS) starts a fresh one. */
export class Negotiation {
  clientFlags = 0;
  structuredReplies = false;
  /** Contexts of the last SET_META_CONTEXT, and the export name that it was for. */
  contexts: readonly MetaContext[] = [];
  contextsFor = '';

  get noZeroes(): boolean {
    return (this.clientFlags & HandshakeFlag.noZeroes) !== 0;
  }

  /** Contexts that hold for an export: those that were set for that very name. */
  contextsOf(name: string): readonly MetaContext[] {
    return name === this.contextsFor ? this.contexts : [];
  }
}

/** What transmission needs to know of it. */
export interface Session {
  readonly structuredReplies: boolean;
  readonly contexts: readonly MetaContext[];
}

/** Transmission flags of an export. */
export function transmissionFlags(device: ExportHandle, negotiation: Negotiation): number {
  const flag = TransmissionFlag;
  let flags = flag.hasFlags | flag.sendFlush | flag.sendFua | flag.canMultiConn | flag.sendCache;
  if (device.readOnly) flags |= flag.readOnly;
  else flags |= flag.sendTrim | flag.sendWriteZeroes | flag.sendFastZero;
  if (negotiation.structuredReplies) flags |= flag.sendDf;
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
