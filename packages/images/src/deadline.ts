/** Deadlines of helpers that may never answer. */
import { systemClock } from '@pando/common';

/** Calls `late` after `ms`, unless the function that it returns is called first. */
export function deadline(ms: number, late: () => void): () => void {
  const cancel = new AbortController();
  systemClock.sleep(ms, cancel.signal).then(late, () => undefined);
  return () => cancel.abort();
}
