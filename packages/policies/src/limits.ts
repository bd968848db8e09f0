/** Bounds of the policies. */
export const POLICIES_MAX = 1_000;
export const RULES_MAX = 16;
export const POLICY_TAGS_MAX = 32;
export const POLICY_NOTE_BYTES_MAX = 4096;
export const QUIESCE_CHARACTERS_MAX = 1024;
/** VMs that one request names. */
export const TARGETS_MAX = 1_000;

/** VMs of one page of a run: after each, how far it got is recorded. */
export const RUN_PAGE_VMS = 64;
/** VMs of it that are backed up at one time. */
export const RUN_PARALLEL_MAX = 4;
/** How often a run goes through the VMs when some could not be backed up for now, and how long it waits before. */
export const PASSES_MAX = 8;
export const BACKOFF_MS_MIN = 60_000;
export const BACKOFF_MS_MAX = 30 * 60_000;
/** VMs of one pass that events name one by one. */
export const FAILURE_EVENTS_MAX = 10;
/** A run that begins later than this is late. */
export const LATE_MS = 5 * 60_000;
/** Due times that a rule remembers one by one; all before them are done with. */
export const RECENT_MAX = 32;
/** What was done so far ahead of the clock was done by a clock that was wrong. */
export const SET_BACK_MS_MAX = 2 * 24 * 60 * 60_000;

/** VMs of one page of an impact report, how far ahead it looks, and runs and kept backups of a rule that it counts. */
export const IMPACT_VMS_MAX = 100;
export const IMPACT_DAYS_MAX = 3660;
export const IMPACT_RUNS_MAX = 50_000;
export const STEADY_MAX = 50_000;

/** Entries of the agenda, and looks at backups for expiry, of one tick. */
export const TICK_RUNS_MAX = 16;
export const TICK_EXPIRIES_MAX = 64;
/** Longest time between two ticks: the clock may jump. */
export const TICK_MS_MAX = 15_000;
/** Backups of one VM and rule that a look at them lets go of. */
export const EXPIRED_MAX = 100;
/** When a backup that should go is being read, it is tried again after this. */
export const EXPIRE_AGAIN_MS = 10 * 60_000;
