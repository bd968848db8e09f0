/**
 * `npm run bench [-- QUESTION…]`: answers the questions, each in a folder of its own, prints a table of ratios and writes all
 * numbers with machine, versions and seed to `bench/results/`. `--smoke` asks everything on a tiny scale, so that the
 * bench itself does not rot.
 */
import { rmSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { loadavg, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { question as bootStorm } from './boot-storm/question.ts';
import { question as cachedReads } from './cached-reads/question.ts';
import { question as cloneChain } from './clone-chain/question.ts';
import { question as cloneLatency } from './clone-latency/question.ts';
import { question as coldReads } from './cold-reads/question.ts';
import { question as depthOne } from './depth-one/question.ts';
import { question as exportQuestion } from './export/question.ts';
import { question as groupCommit } from './group-commit/question.ts';
import { question as guestBoot } from './guest-boot/question.ts';
import { FULL, makeBench, SMOKE } from './harness/bench.ts';
import type { Question } from './harness/bench.ts';
import { debianImages } from './harness/debian-images.ts';
import { debianImage, namedImage, smokeImage } from './harness/images.ts';
import type { DiskImage } from './harness/images.ts';
import { describeMachine } from './harness/machine.ts';
import { pinItself, pinning } from './harness/processes.ts';
import { compareToLimit } from './harness/rounds.ts';
import type { Row } from './harness/rounds.ts';
import { formatTable } from './harness/table.ts';
import { question as gc } from './gc/question.ts';
import { question as hotRewrites } from './hot-rewrites/question.ts';
import { question as importQuestion } from './import/question.ts';
import { question as randomWrites } from './random-writes/question.ts';
import { question as sequential } from './sequential/question.ts';
import { question as serviceScale } from './service-scale/question.ts';
import { question as startUp } from './start-up/question.ts';
import { question as sustainedWrites } from './sustained-writes/question.ts';
import { question as trim } from './trim/question.ts';
import { question as thousandClones } from './thousand-clones/question.ts';

const QUESTIONS: readonly Question[] = [
  importQuestion,
  exportQuestion,
  cachedReads,
  coldReads,
  randomWrites,
  depthOne,
  groupCommit,
  sequential,
  thousandClones,
  cloneLatency,
  cloneChain,
  bootStorm,
  guestBoot,
  startUp,
  serviceScale,
  sustainedWrites,
  hotRewrites,
  gc,
  trim,
];
const SEED_DEFAULT = 20_240_601;
const SMOKE_IMAGES = [1, 2, 3];
const MEMORY_BYTES_MAX = 512 * 1024 * 1024;

const HELP = `Usage: npm run bench -- [flags] [QUESTION…]

Questions: ${QUESTIONS.map(({ name }) => name).join(', ')} (all)

  --smoke         everything tiny, in seconds; its numbers mean nothing
  --rounds N      how often each side runs (${FULL.rounds})
  --seconds N     how long fio runs each time (${FULL.fioSeconds})
  --image FILE    a raw image instead of the Debian guest of test/guest; for questions about several, repeated
  --dir DIR       where all sides put their files (the system's folder for temporary files)
  --out FILE      where the numbers go, as JSON (bench/results/TIME.json)
  --profile DIR   where Pando's servers put CPU profiles; they cost some speed
  --seed N        for data and access patterns (${SEED_DEFAULT})
`;

class UsageError extends Error {}

function readArguments() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      smoke: { type: 'boolean', default: false },
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      image: { type: 'string', multiple: true, default: [] },
      dir: { type: 'string' },
      out: { type: 'string' },
      profile: { type: 'string' },
      seed: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  const questions = positionals.map((name) => {
    const found = QUESTIONS.find((question) => question.name === name);
    if (found === undefined) throw new UsageError(`there is no question "${name}"`);
    return found;
  });
  const scale = values.smoke ? SMOKE : FULL;
  return {
    ...values,
    questions: questions.length === 0 ? QUESTIONS : questions,
    seed: positive('--seed', values.seed, SEED_DEFAULT, true),
    scale: {
      ...scale,
      rounds: positive('--rounds', values.rounds, scale.rounds, true),
      fioSeconds: positive('--seconds', values.seconds, scale.fioSeconds, false),
    },
  };
}

function positive(flag: string, text: string | undefined, fallback: number, whole: boolean): number {
  const value = text === undefined ? fallback : Number(text);
  if (value > 0 && value < 2 ** 31 && (!whole || Number.isInteger(value))) return value;
  throw new UsageError(`${flag} is a positive number`);
}

async function main(args: ReturnType<typeof readArguments>): Promise<void> {
  const say = (line: string): void => console.log(line);
  const root = await mkdtemp(join(args.dir ?? tmpdir(), 'pando-bench-'));
  // However this ends, processes and files end with it.
  process.on('exit', () => rmSync(root, { recursive: true, force: true }));
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130));
  // Half of a smoke run is servers and commands that start.
  if (args.smoke) process.env['NODE_COMPILE_CACHE'] = join(root, 'compiled');
  try {
    let image: Promise<DiskImage> | undefined;
    let images: Promise<readonly DiskImage[]> | undefined;
    const openImage = (): Promise<DiskImage> => {
      const [named] = args.image;
      if (named !== undefined) return namedImage(resolve(named));
      return args.smoke ? smokeImage(join(root, 'image.raw'), args.seed) : debianImage();
    };
    const openImages = (): Promise<readonly DiskImage[]> => {
      if (args.image.length > 0) return Promise.all(args.image.map((path) => namedImage(resolve(path))));
      if (!args.smoke) return debianImages();
      return Promise.all(
        SMOKE_IMAGES.map((number) => smokeImage(join(root, `image-${number}.raw`), args.seed, number)),
      );
    };
    if (args.profile !== undefined) await mkdir(args.profile, { recursive: true });
    const pin = pinning();
    await pinItself(pin);
    const bench = makeBench(root, {
      scale: args.scale,
      pin,
      isSmoke: args.smoke,
      seed: args.seed,
      profileDirectory: args.profile === undefined ? undefined : resolve(args.profile),
      image: () => (image ??= openImage()),
      images: () => (images ??= openImages()),
      say,
    });
    const machine = await describeMachine();
    // Built before anything is measured, if it has to be.
    await bench.image();
    const startedAt = new Date().toISOString();
    const rows: Row[] = [];
    for (const question of args.questions) {
      say(`\n${question.name}: ${question.title}`);
      rows.push(...(await question.run(bench)), ...memoryRows(question.name, bench.takePeaks()));
      await rm(join(root, question.name), { recursive: true, force: true });
    }
    say(`\n${formatTable(rows)}\n`);
    const result = {
      ...{
        startedAt,
        endedAt: new Date().toISOString(),
        machine,
        loadAfter: loadavg()[0],
        pinning: bench.pin.words,
      },
      ...{ smoke: args.smoke, seed: args.seed, scale: args.scale },
      ...{ image: describe(await bench.image()), images: (await images)?.map(describe) },
      ...{ missing: [...bench.missing], rows },
    };
    const results = fileURLToPath(new URL('results', import.meta.url));
    const out = args.out ?? join(results, `${startedAt.replaceAll(/[:.]/g, '-')}.json`);
    await writeFile(out, `${JSON.stringify(result, undefined, 2)}\n`);
    say(`${bench.pin.words}; all numbers: ${out}`);
    if (args.smoke) say('A smoke run: the numbers mean nothing.');
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

function describe({ words, sizeBytes, dataBytes }: DiskImage): object {
  return { words, sizeBytes, dataBytes };
}

/** Of all servers that answered a question the one that needed most. */
/** Of all servers that answered a question the one that needed most. */
function memoryRows(question: string, peaks: readonly number[]): Row[] {
  if (peaks.length === 0) return [];
  return [
    compareToLimit(new Map([['pando', [{ bytes: Math.max(...peaks) }]]]), {
      ...{ question, what: 'peak resident memory', unit: 'bytes', better: 'less', metric: 'bytes' },
      ...{ side: 'pando', row: '15', limit: MEMORY_BYTES_MAX },
    }),
  ];
}

try {
  const args = readArguments();
  if (args.help) console.log(HELP);
  else await main(args);
} catch (error) {
  const isUsage =
    error instanceof UsageError || (error as { code?: string }).code?.startsWith('ERR_PARSE_ARGS') === true;
  if (!isUsage) throw error;
  console.error(`${(error as Error).message}\n\n${HELP}`);
  process.exitCode = 2;
}
