export { retain, type Retention } from './retention.ts';
export { nextRun, previousRun, runsBetween, WEEKDAYS, type Schedule, type Weekday } from './schedule.ts';
