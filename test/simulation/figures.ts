/** What a simulation counts. */
export interface Figures {
  runs: number;
  /** Steps of clients. */
  steps: number;
  /** Storage operations of the runs themselves; each is a crash point. */
  operations: number;
  /** Crashes tried, by how deep: of the running engine, of the recovery from it, of the recovery from that. */
  readonly crashes: [number, number, number];
  /** Collections after a recovery. */
  collections: number;
  failures: number;
}

export function noFigures(): Figures {
  return { runs: 0, steps: 0, operations: 0, crashes: [0, 0, 0], collections: 0, failures: 0 };
}

export function describeFigures({
  runs,
  steps,
  operations,
  crashes,
  collections,
  failures,
}: Figures): string {
  const [first, second, third] = crashes;
  return `${runs} runs, ${steps} steps, ${operations} operations, ${first + second + third} crashes (${second} of a recovery, ${third} of a recovery from that), ${collections} collections after one, ${failures} failures`;
}
