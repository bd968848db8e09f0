/**
 * Measuring side by side: in each round every side runs once, in the same order (A B A B …, or A B C A B C …), so
 * whatever else the machine does in the meantime hits all of them. A ratio is taken inside a round; what is reported is
 * the median and the spread of these ratios, never the ratio of two medians.
 */
import { spread } from './statistics.ts';
import type { Spread } from './statistics.ts';

/** What one run of one side measured: numbers by name. */
export type Sample = Readonly<Record<string, number>>;

export interface Side {
  readonly name: string;
  /** One run, its preparations outside of what is timed. Leaves nothing at work behind. */
  readonly run: (round: number) => Promise<Sample>;
}

/** Samples of each side, by its name, one a round. */
export type Samples = ReadonlyMap<string, readonly Sample[]>;

export async function alternate(
  sides: readonly Side[],
  rounds: number,
  say: (line: string) => void,
  /** All sides of a round at the same time: for smoke runs, whose numbers nobody reads. */
  atOnce = false,
): Promise<Samples> {
  const samples = new Map<string, Sample[]>(sides.map(({ name }) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    const turn = async ({ name, run }: Side): Promise<void> => {
      const sample = await run(round);
      samples.get(name)!.push(sample);
      say(`  round ${round + 1}/${rounds}  ${name}: ${JSON.stringify(sample, rounded)}`);
    };
    if (atOnce) await Promise.all(sides.map(turn));
    else for (const side of sides) await turn(side);
  }
  return samples;
}

function rounded(_key: string, value: unknown): unknown {
  return typeof value === 'number' ? Number(value.toPrecision(4)) : value;
}

export type Unit = 's' | 'ms' | 'µs' | 'bytes' | '1/s' | 'MiB/s' | 'times';

/** What the table of targets in `bench/README.md` asks of a ratio. */
export interface Target {
  /** Its line there: '2b'. */
  readonly row: string;
  /** The least ratio when more is better, the greatest when less is. */
  readonly ratio: number;
}

/** One line of the table: what was measured, of whom, against whom. */
export interface Row {
  readonly question: string;
  readonly what: string;
  readonly unit: Unit;
  readonly better: 'more' | 'less';
  readonly side: string;
  readonly against: string;
  readonly value: Spread;
  readonly againstValue: Spread;
  /** Value of `side` / value of `against`, round by round. */
  readonly ratio: Spread;
  readonly ratios: readonly number[];
  readonly target?: Target;
}

/** Whether the median is where it should be; undefined where nothing is asked of it. */
export function isMet({ target, better, ratio }: Row): boolean | undefined {
  if (target === undefined) return undefined;
  return better === 'more' ? ratio.median >= target.ratio : ratio.median <= target.ratio;
}

export interface RowRequest {
  readonly question: string;
  readonly what: string;
  readonly unit: Unit;
  readonly better: 'more' | 'less';
  readonly metric: string;
  /** Where the other side calls it differently. */
  readonly againstMetric?: string;
  readonly side: string;
  readonly against: string;
  readonly target?: Target;
}

export function compare(samples: Samples, request: RowRequest): Row {
  const { metric, againstMetric, ...row } = request;
  const values = valuesOf(samples, row.side, metric);
  const againstValues = valuesOf(samples, row.against, againstMetric ?? metric);
  const ratios = values.map((value, round) => value / againstValues[round]!);
  return {
    ...row,
    value: spread(values),
    againstValue: spread(againstValues),
    ratio: spread(ratios),
    ratios,
  };
}

/** A row against each of several sides, with the target of those that have one. */
export function compareEach(
  samples: Samples,
  request: Omit<RowRequest, 'against' | 'againstMetric' | 'target'>,
  sides: readonly string[],
  targets: Readonly<Record<string, Target>> = {},
): Row[] {
  return sides.map((against) => {
    const target = targets[against];
    return compare(samples, { ...request, against, ...(target === undefined ? {} : { target }) });
  });
}

export interface LimitRequest extends Omit<RowRequest, 'against' | 'againstMetric' | 'target'> {
  /** The line in the table of targets. */
  readonly row: string;
  /** In the row's unit; the ratio is the value's to it, and 1 is the target. */
  readonly limit: number;
}

/** A measured value against a number that was set, not against another side. */
export function compareToLimit(samples: Samples, { row, limit, metric, ...shared }: LimitRequest): Row {
  const values = valuesOf(samples, shared.side, metric);
  const ratios = values.map((value) => value / limit);
  return {
    ...shared,
    ...{ against: 'the target itself', value: spread(values), againstValue: spread([limit]) },
    ...{ ratio: spread(ratios), ratios, target: { row, ratio: 1 } },
  };
}

function valuesOf(samples: Samples, side: string, metric: string): number[] {
  return (samples.get(side) ?? []).map((sample) => {
    const value = sample[metric];
    if (value === undefined) throw new Error(`${side} did not measure ${metric}`);
    return value;
  });
}
