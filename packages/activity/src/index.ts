export { Activity, type ActivityOptions, type ActivityStats, type Tripwire } from './activity.ts';
export { GRAINS, GRAIN_NAMES, type Bucket, type Grain, type History } from './buckets.ts';
export { judge, RULES, type Judgement, type Jump, type Rule } from './detector.ts';
export { SENSITIVITIES, type Sensitivity, type Trip } from './records.ts';
