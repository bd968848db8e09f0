/** `npm run simulate`: see HELP. */
import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { describeFigures, noFigures } from './figures.ts';
import { simulate, SimulationFailure } from './run.ts';
import { WEATHERS, type WeatherKind } from './weather.ts';

const HELP = `npm run simulate -- [--hours N | --minutes N | --runs N] [--seed S] [--weather KIND] [--operation K [--verbose]]

Plays the engine over a simulated machine, one run a seed, crashes it at every storage operation, and looks whether
everything is there that must be: test/simulation/README.md.

--hours, --minutes   go on for so long
--runs               play so many seeds; 1 unless a time is given
--seed               begin with this one; those that follow are counted up from it. Fresh otherwise.
--weather            what goes wrong in every life, instead of what the dice say: ${Object.keys(WEATHERS).join(', ')}
--operation          crash only at this operation of the seed, and only replay that
--verbose            print each storage operation, with --operation
--help               this text

Ends with status 1 when a seed failed; the command that replays it is printed with each failure.`;

const PROGRESS_MS = 60_000;

const { values } = parseArgs({
  options: {
    hours: { type: 'string' },
    minutes: { type: 'string' },
    runs: { type: 'string' },
    seed: { type: 'string' },
    weather: { type: 'string' },
    operation: { type: 'string' },
    verbose: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

function number(name: 'hours' | 'minutes' | 'runs' | 'seed' | 'operation'): number | undefined {
  const text = values[name];
  if (text === undefined) return undefined;
  const value = Number(text);
  if (text.trim() !== '' && Number.isFinite(value) && value >= 0) return value;
  console.error(`--${name} takes a number, not ${JSON.stringify(text)}`);
  process.exit(2);
}

if (values.help) {
  console.log(HELP);
  process.exit(0);
}
function isWeather(kind: string): kind is WeatherKind {
  return Object.hasOwn(WEATHERS, kind);
}
const { weather } = values;
if (weather !== undefined && !isWeather(weather)) {
  console.error(`--weather is one of ${Object.keys(WEATHERS).join(', ')}, not ${JSON.stringify(weather)}`);
  process.exit(2);
}
const minutes = number('minutes') ?? (number('hours') ?? 0) * 60;
const operation = number('operation');
const first = number('seed') ?? randomInt(2 ** 31);
const runsMax = number('runs') ?? (minutes > 0 ? Infinity : 1);
const figures = noFigures();
const begin = performance.now();
const end = minutes > 0 ? begin + minutes * 60_000 : Infinity;
let told = begin;
for (let seed = first; figures.runs < runsMax && performance.now() < end; seed++) {
  try {
    const trace = await simulate(seed, {
      figures,
      ...(weather === undefined ? {} : { weather }),
      ...(operation === undefined ? {} : { operation }),
      ...(values.verbose ? { print: (line: string) => console.log(line) } : {}),
    });
    if (runsMax <= 20) console.log(`seed ${seed}: all well, trace ${trace}`);
  } catch (error) {
    if (!(error instanceof SimulationFailure)) throw error;
    figures.failures++;
    console.error(error.message);
    if (runsMax === 1) console.error(error.cause);
  }
  if (performance.now() - told < PROGRESS_MS) continue;
  told = performance.now();
  console.log(
    `${((told - begin) / 60_000).toFixed(0)} min, next seed ${seed + 1}: ${describeFigures(figures)}`,
  );
}
console.log(`${((performance.now() - begin) / 1000).toFixed(1)} s: ${describeFigures(figures)}`);
process.exit(figures.failures === 0 ? 0 : 1);
