/**
 * A logger for what strangers can cause as often as they like: of each message only so many lines get through in a
 * while, and the first line after that says how many did not. Warnings and errors always get through.
 */
import type { Clock } from '@pando/common';
import type { Logger } from './types.ts';

const WINDOW_MS = 10_000;
const LINES_MAX = 10;

interface Window {
  beganAt: number;
  lines: number;
  suppressed: number;
}

export class EventLog implements Logger {
  readonly #logger: Logger;
  readonly #clock: Clock;
  /** By message: messages are constants of this program. */
  readonly #windows = new Map<string, Window>();

  constructor(logger: Logger, clock: Clock) {
    this.#logger = logger;
    this.#clock = clock;
  }

  info(fields: object, message: string): void {
    const now = this.#clock.monotonic();
    let window = this.#windows.get(message);
    if (window === undefined) {
      window = { beganAt: now, lines: 0, suppressed: 0 };
      this.#windows.set(message, window);
    }
    if (now - window.beganAt >= WINDOW_MS) {
      window.beganAt = now;
      window.lines = 0;
    }
    if (window.lines >= LINES_MAX) {
      window.suppressed++;
      return;
    }
    window.lines++;
    const { suppressed } = window;
    window.suppressed = 0;
    this.#logger.info(suppressed === 0 ? fields : { ...fields, suppressed }, message);
  }

  debug(fields: object, message: string): void {
    this.#logger.debug(fields, message);
  }

  warn(fields: object, message: string): void {
    this.#logger.warn(fields, message);
  }

  error(fields: object, message: string): void {
    this.#logger.error(fields, message);
  }
}
