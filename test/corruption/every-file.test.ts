/**
 * Damage to every kind of file of a store: found, named, never served as data, and nothing else stops for it.
 *
 * In this process, over a directory as a killed server leaves it; then a few of the same with the real server.
 * `PANDO_FLIPS=1000 vitest run test/corruption/every-file.test.ts` flips more bits.
 */
import { open as openFile, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { between, runSeed, seededRandom } from '@pando/common/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { pando } from '../cli/pando.ts';
import { connect } from '../support/disks.ts';
import { TestServer } from '../support/server.ts';
import {
  CHUNK,
  copyOf,
  filesOf,
  makeStore,
  outcomeOf,
  type Outcome,
  type Pristine,
  type Ranges,
} from './damaged-store.ts';

const FLIPS = Number(process.env['PANDO_FLIPS'] ?? 24);
const FLIPS_MS_MAX = 120_000 + FLIPS * 3_000;

type Kind = 'store.json' | 'catalog' | 'index' | 'segments' | 'log' | 'witness';

function kindOf(file: string): Kind {
  if (file === 'store.json') return 'store.json';
  const [first] = file.split('/');
  return first === 'catalog' || first === 'index' || first === 'segments' || first === 'log'
    ? first
    : 'witness';
}

/** What may be said of damage to each kind of file before anything is opened. */
const REFUSALS: Readonly<Record<Kind, readonly string[]>> = {
  'store.json': ['store-foreign'],
  'catalog': ['catalog-corrupt'],
  'index': [],
  'segments': [],
  'log': ['log-corrupt', 'store-foreign'],
  // One of another store may say too much.
  'witness': ['catalog-corrupt', 'log-corrupt'],
};

/** Kinds of which some damage may go unnoticed, because nothing follows from it. */
const HARMLESS: Readonly<Record<Kind, boolean>> = {
  'store.json': false,
  'catalog': false,
  // The end of its log: what stood there is in the segments, and is put there again.
  'index': true,
  // A run that nobody needs, in a segment that was open: recovery leaves it out.
  'segments': true,
  // What was written since the last flush; here nothing, but a `synced` record is such.
  'log': true,
  'witness': true,
};

const seed = runSeed();

describe(`damage to every kind of file (seed ${seed})`, () => {
  let pristine: Pristine;
  /** Of another store, for files in the place of others. */
  let foreign: Pristine;
  /** Whatever is served wrong fails its test. */
  const counts = new Map<string, { tried: number; found: number; harmless: number }>();

  beforeAll(async () => {
    [pristine, foreign] = [await makeStore(seed), await makeStore(seed + 1)];
  });
  afterAll(async () => {
    for (const { path } of [pristine, foreign]) await rm(path, { recursive: true });
    console.table(Object.fromEntries(counts));
  });

  /** Damages a copy, opens it, and holds everything that came of it against the promises. */
  async function damage(
    file: string,
    what: string,
    change: (path: string) => Promise<void>,
    where: string,
  ): Promise<void> {
    const kind = kindOf(file);
    const directory = await copyOf(pristine);
    try {
      await change(join(directory, file));
      const outcome = await outcomeOf(directory, pristine.disks);
      if (outcome.refused === undefined) expectNothingWrong(outcome, where);
      else {
        const { code, message } = outcome.refused;
        expect(REFUSALS[kind], `${where}: ${message}`).toContain(code);
        expect(message, where).toContain(kind === 'witness' ? file.split('.')[0] : kind);
        if (code === 'log-corrupt') await acceptLog(directory, where);
      }
      const count = counts.get(`${kind}: ${what}`) ?? { tried: 0, found: 0, harmless: 0 };
      count.tried++;
      if (isFound(outcome)) count.found++;
      else {
        count.harmless++;
        expect(HARMLESS[kind], `${where} was not found`).toBe(true);
      }
      counts.set(`${kind}: ${what}`, count);
    } finally {
      await rm(directory, { recursive: true });
    }
  }

  const isFound = ({ refused, mended, unreadable, report }: Outcome): boolean =>
    refused !== undefined ||
    mended.length > 0 ||
    unreadable.size > 0 ||
    report!.damaged.length + report!.disks.length > 0;

  function expectNothingWrong(outcome: Outcome, where: string): void {
    expect(
      [...outcome.wrong].filter(
        ([name]) => !outcome.maybe.includes(name) && outcome.logLoss?.isAnyDisk !== true,
      ),
      where,
    ).toEqual([]);
    for (const [name, ranges] of outcome.unreadable) {
      for (const { offset, bytes } of ranges) {
        for (let at = offset; at < offset + bytes; at += CHUNK)
          expect(covers(outcome.named, name, at), `${where}: ${name} at ${at} is not named`).toBe(true);
      }
    }
  }

  const covers = (named: Ranges, name: string, at: number): boolean =>
    named.get(name)?.some(({ offset, bytes }) => at >= offset && at < offset + bytes) === true;

  /** The way on that an operator has. */
  async function acceptLog(directory: string, where: string): Promise<void> {
    const accepted = await outcomeOf(directory, pristine.disks, { log: true });
    expect(accepted.refused, where).toBeUndefined();
    expect(accepted.logLoss, where).toBeDefined();
    expectNothingWrong(accepted, where);
    // Those that were not written to since they were settled cannot have lost anything.
    for (const name of ['spare/disk0', 'web@monday/disk0']) {
      expect(
        accepted.unreadable.has(name) || accepted.wrong.has(name) || accepted.maybe.includes(name),
        where,
      ).toBe(false);
    }
    // It has all gone into the tree, or stays lost there: the next start asks nobody.
    const again = await outcomeOf(directory, pristine.disks);
    expect(again.refused, where).toBeUndefined();
    for (const [name, ranges] of accepted.unreadable) {
      for (const { offset } of ranges) expect(covers(again.unreadable, name, offset), where).toBe(true);
    }
  }

  it('an undamaged one is found whole', async () => {
    const directory = await copyOf(pristine);
    const outcome = await outcomeOf(directory, pristine.disks);
    await rm(directory, { recursive: true });
    expect(outcome).toMatchObject({
      mended: [],
      maybe: [],
      report: { damaged: [], disks: [], isComplete: true },
    });
    expect([...outcome.unreadable, ...outcome.wrong]).toEqual([]);
  });

  it(
    'flipped bits',
    async () => {
      const files = await filesOf(pristine);
      expect(new Set(files.map(({ file }) => kindOf(file))).size).toBe(6);
      for (let flip = 0; flip < FLIPS; flip++) {
        const random = seededRandom(seed + flip);
        // Every kind of file comes as often, however many there are of it or large.
        const kinds = [...new Set(files.map(({ file }) => kindOf(file)))].filter(
          (kind) => flip % 20 === 0 || kind !== 'witness',
        );
        const kind = kinds[flip % kinds.length]!;
        const of = files.filter(({ file }) => kindOf(file) === kind);
        const { file, size } = of[between(random, 0, of.length - 1)]!;
        // Headers and footers as often as what is between them.
        const at = [
          between(random, 0, size - 1),
          between(random, 0, Math.min(size, 120) - 1),
          size - between(random, 1, Math.min(size, 300)),
        ][flip % 3]!;
        const bit = between(random, 0, 7);
        await damage(
          file,
          'bit flip',
          (path) => flipBit(path, at, bit),
          `seed ${seed}, flip ${flip}: bit ${bit} of byte ${at} of ${file}`,
        );
      }
    },
    FLIPS_MS_MAX,
  );

  it('files that are cut, gone, overwritten with zeros, or those of another store', async () => {
    const files = await filesOf(pristine);
    const others = await filesOf(foreign);
    const random = seededRandom(seed);
    for (const { file, size } of files) {
      const where = `seed ${seed}: ${file}`;
      // The last byte of store.json is the end of its line.
      const cut = between(random, 1, file === 'store.json' ? size - 2 : size - 1);
      await damage(file, 'cut', (path) => truncate(path, cut), `${where} cut to ${cut} of ${size}`);
      await damage(file, 'gone', (path) => rm(path), `${where} gone`);
      if (size > 100) {
        const at = between(random, 0, Math.floor((size - 1) / 512)) * 512;
        await damage(
          file,
          'zeros',
          (path) => zero(path, at, Math.min(CHUNK, size - at)),
          `${where}, zeros at ${at}`,
        );
      }
      const other =
        others.find((each) => each.file === file) ??
        others.find((each) => kindOf(each.file) === kindOf(file))!;
      const bytes = await readFile(join(foreign.path, 'data', other.file));
      // CURRENT is the same in both.
      if (bytes.equals(await readFile(join(pristine.path, 'data', file)))) continue;
      await damage(file, 'replaced', (path) => writeFile(path, bytes), `${where} replaced`);
    }
  });

  it('directories that are gone', async () => {
    for (const name of ['catalog', 'index', 'segments', 'log']) {
      await damage(`${name}/`, 'directory gone', (path) => rm(path, { recursive: true }), `${name} gone`);
    }
  });

  describe('the real server', () => {
    it('refuses a damaged log with file, disk and range; goes on when told to, with EIO there and nowhere else', async () => {
      const directory = await copyOf(pristine);
      let server: TestServer | undefined;
      try {
        const name = (await readdir(join(directory, 'log'))).sort().at(-1)!;
        const log = await readFile(join(directory, 'log', name));
        const hit = lastWriteIn(log);
        await flipBit(join(directory, 'log', name), hit.at + 45, 3);
        const refused = await TestServer.start({ dataDirectory: directory }).then(
          () => 'it started',
          (error: unknown) => String(error),
        );
        expect(refused).toContain(`log/${name} at byte ${hit.at}: `);
        expect(refused).toMatch(/lost are writes to VM (web|clone|other), disk0: bytes \d+ to \d+/);
        const [, vm, from, to] = /VM (\w+), disk0: bytes (\d+) to (\d+)/.exec(refused)!;
        expect(Number(to) - Number(from) + 1).toBe(hit.bytes);
        expect(refused).toContain('--accept-damage log');

        server = await TestServer.start({ dataDirectory: directory, args: ['--accept-damage', 'log'] });
        for (const [exportName, expected] of pristine.disks) {
          const client = await connect(server, exportName);
          const bytes = Buffer.alloc(CHUNK);
          for (let offset = 0; offset < client.size; offset += CHUNK) {
            const length = Math.min(CHUNK, client.size - offset);
            const isLost =
              exportName === `${vm!}/disk0` && offset + length > Number(from) && offset <= Number(to);
            const read = client.read(offset, length, bytes, 0);
            if (isLost) await expect(read).rejects.toThrow(/EIO|input\/output/i);
            else {
              await read;
              expect(bytes.subarray(0, length).equals(expected.subarray(offset, offset + length))).toBe(true);
            }
          }
          await client.close();
        }
        expect(await server.stop()).toBe(0);
        await server.restart();
        const verified = await pando(['verify'], { url: server.url });
        expect(verified.status).toBe(1);
        expect(verified.stdout).toMatch(new RegExp(`VM ${vm!}, disk0: .*bytes \\d+ to \\d+`));
        // Written anew, it is there again.
        const client = await connect(server, `${vm!}/disk0`);
        const first = Math.floor(Number(from) / CHUNK) * CHUNK;
        const end = Math.min(client.size, Math.ceil((Number(to) + 1) / CHUNK) * CHUNK);
        await client.write(first, pristine.disks.get(`${vm!}/disk0`)!.subarray(first, end));
        await client.flush();
        await client.close();
      } finally {
        await server?.close();
        await rm(directory, { recursive: true });
      }
    });

    it('makes index and store.json again by itself, and refuses a damaged catalog with the file', async () => {
      const directory = await copyOf(pristine);
      let server: TestServer | undefined;
      try {
        const table = (await readdir(join(directory, 'index'))).find((name) => name.endsWith('.ldb'))!;
        await flipBit(join(directory, 'index', table), 700, 1);
        await truncate(join(directory, 'store.json'), 20);
        server = await TestServer.start({ dataDirectory: directory });
        expect(server.log).toContain('the index is made anew from the segments');
        expect(server.log).toContain('store.json was made again from the segments');
        const verified = await pando(['verify'], { url: server.url });
        expect(verified).toMatchObject({ status: 0 });
        expect(await server.stop()).toBe(0);
        const damaged = (await readdir(join(directory, 'catalog'))).find((name) => name.endsWith('.ldb'))!;
        await flipBit(join(directory, 'catalog', damaged), 50, 1);
        await expect(server.restart()).rejects.toThrow(
          `catalog/${damaged} at byte 0: the checksum of a block`,
        );
      } finally {
        await server?.close();
        await rm(directory, { recursive: true });
      }
    });
  });
});

/** In place: somebody may have the file mapped. */
async function flipBit(path: string, at: number, bit: number): Promise<void> {
  const file = await openFile(path, 'r+');
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, at);
  byte[0]! ^= 1 << bit;
  await file.write(byte, 0, 1, at);
  await file.close();
}

async function zero(path: string, at: number, count: number): Promise<void> {
  const { size } = await stat(path);
  const file = await openFile(path, 'r+');
  await file.write(Buffer.alloc(Math.min(count, size - at)), 0, Math.min(count, size - at), at);
  await file.close();
}

/** Where the last record of a write begins in a log file (docs/format.md), and how much it wrote. */
function lastWriteIn(log: Buffer): { at: number; bytes: number } {
  let last = { at: 0, bytes: 0 };
  for (let at = 64; at < log.length;) {
    const bytes = log[at + 4] === 2 ? log.readUInt32LE(at + 32) : 0;
    if (log[at + 4] === 2) last = { at, bytes };
    at += 40 + bytes;
  }
  return last;
}
