/** A clock for tests of what takes its time. */
import type { Clock } from '@pando/common';

/** Time that goes by only in sleep; the wall clock can be set apart from it. */
export class TestClock implements Clock {
  wall = 1_000_000;
  ms = 0;
  slept: number[] = [];
  now = (): number => this.wall + this.ms;
  monotonic = (): number => this.ms;
  sleep = (ms: number): Promise<void> => {
    this.ms += ms;
    this.slept.push(ms);
    return Promise.resolve();
  };
}
