/** What the requests of all connections came to, by command. */
import { DurationHistogram, type Durations } from '@pando/common';
import { Command } from './protocol.ts';

const COMMANDS = [
  ['read', Command.read],
  ['write', Command.write],
  ['flush', Command.flush],
  ['trim', Command.trim],
  ['cache', Command.cache],
  ['write_zeroes', Command.writeZeroes],
  ['block_status', Command.blockStatus],
] as const;
const TYPES = 8;

export interface CommandCounts {
  readonly command: (typeof COMMANDS)[number][0];
  /** Requests that were carried out or failed; those that were refused for what they said are not among them. */
  readonly requests: number;
  /** Bytes that they were about. */
  readonly bytes: number;
  readonly failed: number;
  /** Of those that were not answered in the turn in which they came: from then until the answer. */
  readonly waited: Durations;
}

export class RequestCounters {
  readonly #requests = new Float64Array(TYPES);
  readonly #bytes = new Float64Array(TYPES);
  readonly #failed = new Float64Array(TYPES);
  readonly #waited = Array.from({ length: TYPES }, () => new DurationHistogram());

  /** A request is carried out. */
  begun(type: number, bytes: number): void {
    this.#requests[type]!++;
    this.#bytes[type]! += bytes;
  }

  failed(type: number): void {
    this.#failed[type]!++;
  }

  /** It was answered, `ms` after it came. */
  waited(type: number, ms: number): void {
    this.#waited[type]!.record(ms);
  }

  get counts(): readonly CommandCounts[] {
    return COMMANDS.map(([command, type]) => ({
      command,
      requests: this.#requests[type]!,
      bytes: this.#bytes[type]!,
      failed: this.#failed[type]!,
      waited: this.#waited[type]!,
    }));
  }
}
