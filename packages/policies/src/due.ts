/** What of a rule is due: pure functions over its state and the clock. */
import { LATE_MS, RECENT_MAX, SET_BACK_MS_MAX } from './limits.ts';
import type { RuleState } from './records.ts';
import { nextRun, previousRun, type Schedule } from './schedule.ts';

type State = Omit<RuleState, 'version'>;

export interface Due {
  /** The state with everything up to now done with, and its next entry in the agenda. */
  readonly state: State;
  /** The run to begin: the latest of those that have come and are not done with. */
  readonly dueAt: number | undefined;
  /** How late the first of them is; 0: not worth a word. */
  readonly lateMs: number;
}

/**
 * Only the latest due time is begun, whatever was missed. None is begun twice, also when the clock is set back; but a backup too many
 * costs little, and none for a year much: what lies further ahead of the clock than SET_BACK_MS_MAX was done by a wrong clock, and
 * holds nothing up.
 */
export function findDue(schedule: Schedule, before: State, now: number): Due {
  const latest = previousRun(schedule, now);
  const recent = before.recent ?? [];
  let { handled } = before;
  if (handled > now + SET_BACK_MS_MAX) handled = latest ?? 0;
  const done = Math.max(handled, ...recent.filter((at) => at <= now));
  const isDue = latest !== undefined && latest > done;
  const first = isDue ? nextRun(schedule, done)! : now;
  const after = isDue ? [...recent, latest].sort((a, b) => a - b) : recent;
  const dropped = after.slice(0, -RECENT_MAX);
  const kept = after.slice(-RECENT_MAX);
  const agendaAt = nextRun(schedule, now);
  const { recent: _, agendaAt: __, ...rest } = before;
  return {
    state: {
      ...rest,
      handled: Math.max(handled, ...dropped),
      ...(kept.length === 0 ? {} : { recent: kept }),
      ...(agendaAt === undefined ? {} : { agendaAt }),
    },
    dueAt: isDue ? latest : undefined,
    lateMs: now - first > LATE_MS ? now - first : 0,
  };
}
