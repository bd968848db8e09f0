/** What a simulation counts. */
import { WEATHERS, type WeatherKind } from './weather.ts';

export interface Figures {
  runs: number;
  /** Steps of clients. */
  steps: number;
  /** Storage operations of the runs themselves; each is a crash point. */
  operations: number;
  /** Crashes tried, by how deep: of the running engine, of the recovery from it, of the recovery from that. */
  readonly crashes: [number, number, number];
  /** Recoveries that met an error, and were tried again. */
  faultyRecoveries: number;
  /** Collections after a recovery. */
  collections: number;
  failures: number;
  /** Lives by their weather, and operations that failed, or bits that flipped, in them. */
  readonly lives: Record<WeatherKind, number>;
  readonly faults: Record<WeatherKind, number>;
}

export function noFigures(): Figures {
  return {
    runs: 0,
    steps: 0,
    operations: 0,
    crashes: [0, 0, 0],
    faultyRecoveries: 0,
    collections: 0,
    failures: 0,
    lives: none(),
    faults: none(),
  };
}

function none(): Record<WeatherKind, number> {
  return Object.fromEntries(Object.keys(WEATHERS).map((kind) => [kind, 0])) as Record<WeatherKind, number>;
}

export function describeFigures(figures: Figures): string {
  const { runs, steps, operations, crashes, faultyRecoveries, collections, failures, lives, faults } =
    figures;
  const [first, second, third] = crashes;
  const weathers = Object.entries(lives)
    .map(([kind, count]) => {
      const struck = faults[kind as WeatherKind];
      return struck === 0 ? `${kind} ${count}` : `${kind} ${count} (${struck} struck)`;
    })
    .join(', ');
  return `${runs} runs, ${steps} steps, ${operations} operations, ${first + second + third} crashes \
(${second} of a recovery, ${third} of the recovery from that), ${faultyRecoveries} recoveries with a fault, \
${collections} collections after one; lives: ${weathers}; ${failures} failures`;
}
