/** How far long work is: a bar on a terminal, a line now and then elsewhere, nothing with --json. */
import { formatSize } from '@pando/common';
import cliProgress from 'cli-progress';

/** Lines where there is no terminal come at most so often. */
const LINE_MS = 10_000;
/** The rate is that of the last so many milliseconds. */
const RATE_MS = 5_000;

export interface Progress {
  /** `all` where it is known by now. */
  update(done: number, all?: number): void;
  stop(): void;
}

const NOTHING: Progress = { update: () => undefined, stop: () => undefined };

export function startProgress(
  label: string,
  options: { json?: boolean | undefined; unit: 'bytes' | 'count' },
): Progress {
  if (options.json === true) return NOTHING;
  const print = options.unit === 'bytes' ? formatSize : (count: number) => count.toLocaleString('en-US');
  return process.stderr.isTTY ? bar(label, print) : lines(label, print);
}

function bar(label: string, print: (amount: number) => string): Progress {
  const rate = new Rate();
  const bar = new cliProgress.SingleBar({
    stream: process.stderr,
    hideCursor: true,
    clearOnComplete: true,
    fps: 10,
    barsize: 30,
    format: (options, { progress, value, total }) => {
      const full = Math.round(progress * (options.barsize ?? 30));
      const known = total > 0;
      const drawn = known
        ? `[${'='.repeat(full)}${' '.repeat((options.barsize ?? 30) - full)}] ${Math.floor(progress * 100)} %  `
        : '';
      const amount = known ? `${print(value)} of ${print(total)}` : print(value);
      const left =
        known && rate.perSecond > 0 ? `  ${formatSeconds((total - value) / rate.perSecond)} left` : '';
      return `${label} ${drawn}${amount}  ${print(Math.round(rate.perSecond))}/s${left}`;
    },
  });
  bar.start(0, 0);
  return {
    update: (done, all) => {
      rate.add(done);
      if (all !== undefined && bar.getTotal() !== all) bar.setTotal(all);
      bar.update(done);
    },
    stop: () => bar.stop(),
  };
}

function lines(label: string, print: (amount: number) => string): Progress {
  let told = performance.now();
  return {
    update: (done, all) => {
      const now = performance.now();
      if (now - told < LINE_MS) return;
      told = now;
      const share =
        all === undefined || all === 0 ? '' : ` of ${print(all)} (${Math.floor((done / all) * 100)} %)`;
      process.stderr.write(`${label}: ${print(done)}${share}\n`);
    },
    stop: () => undefined,
  };
}

/** Amounts a second, over a window that slides. */
class Rate {
  readonly #points: [number, number][] = [];

  add(done: number): void {
    const now = performance.now();
    const last = this.#points.at(-1);
    if (last !== undefined && now - last[0] < 100) last[1] = done;
    else this.#points.push([now, done]);
    while (this.#points.length > 2 && now - this.#points[0]![0] > RATE_MS) this.#points.shift();
  }

  get perSecond(): number {
    const [first, last] = [this.#points[0], this.#points.at(-1)];
    if (first === undefined || last === undefined || last[0] <= first[0]) return 0;
    return ((last[1] - first[1]) * 1000) / (last[0] - first[0]);
  }
}

function formatSeconds(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  if (h > 0) return `${h} h ${m} min`;
  return m > 0 ? `${m} min ${s} s` : `${s} s`;
}
