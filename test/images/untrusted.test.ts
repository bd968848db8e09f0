/** Hostile images: what they name is not opened, what is wrong with them is said, and nothing stays of it. */
import { fillRandom, runSeed, seededRandom } from '@pando/common/testing';
import { IMAGE_FORMATS, openImage, type ImageFormat, type OpenImageOptions } from '@pando/images';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  copyFile,
  link,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { itWithTools, mustRun } from '../support/tools.ts';
import { descendant, MiB, readImage, readParts, sha256OfFile, writeSample } from './support.ts';

const TOOLS = ['qemu-img', 'qemu-nbd', 'bwrap', 'prlimit'];
const seed = runSeed();
/** What must never come out of an image. */
const SECRET = Buffer.from('the secret of somebody else, repeated. '.repeat(40)).subarray(0, 1024);

let folder: string;
/** Where images may name others; the secret lies outside. */
let images: string;
const at = (name: string): string => join(images, name);

beforeAll(async () => {
  console.log(`PANDO_SEED=${seed}`);
  folder = await mkdtemp(join(tmpdir(), 'pando-untrusted-'));
  images = join(folder, 'images');
  await mkdir(images);
  await mkdir(join(folder, 'tmp'));
  process.env['TMPDIR'] = join(folder, 'tmp');
  await writeFile(join(folder, 'secret'), SECRET);
  await writeFile(at('inside.img'), SECRET);
  await symlink('../secret', at('link'));
  await symlink('..', at('up'));
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

/** Processes that we started and that are still there. */
async function children(): Promise<string[]> {
  const tasks = await readdir('/proc/self/task');
  const pids = await Promise.all(
    tasks.map((task) => readFile(`/proc/self/task/${task}/children`, 'utf8').catch(() => '')),
  );
  const names: string[] = [];
  for (const pid of pids.join(' ').split(' ').filter(Boolean)) {
    const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '');
    if (/qemu|bwrap|prlimit/.test(name)) names.push(name.trim());
  }
  return names;
}

async function nothingLeft(): Promise<void> {
  expect(await readdir(join(folder, 'tmp'))).toEqual([]);
  expect(await children()).toEqual([]);
}

async function openDescriptors(): Promise<number> {
  return (await readdir('/proc/self/fd')).length;
}

async function refused(path: string, options: OpenImageOptions, code: string | RegExp): Promise<void> {
  const before = await openDescriptors();
  await expect(readImage(path, options)).rejects.toMatchObject({
    name: 'PandoError',
    code: expect.stringMatching(code) as string,
  });
  expect(await openDescriptors()).toBeLessThanOrEqual(before);
  await nothingLeft();
}

/** A qcow2 that names a backing file, whatever it is. */
async function backedBy(name: string, backing: string, format = 'raw'): Promise<string> {
  await mustRun(
    'qemu-img',
    ['create', '-q', '-u', '-f', 'qcow2', '-b', backing, '-F', format, at(name), '1M'],
    {
      cwd: images,
    },
  );
  return at(name);
}

describe('the backing file of a qcow2 image', () => {
  itWithTools(TOOLS, 'is not followed when nobody allowed it', async () => {
    await writeFile(at('base.img'), SECRET);
    await refused(await backedBy('plain.qcow2', 'base.img'), {}, 'image-refused');
  });

  itWithTools(TOOLS, 'is not followed out of the directory, however it is named', async () => {
    await mkdir(join(folder, 'images-2'));
    await copyFile(join(folder, 'secret'), join(folder, 'images-2', 'disk'));
    for (const [index, backing] of [
      '/etc/passwd',
      join(folder, 'secret'),
      '../secret',
      'link',
      'up/secret',
      './../secret',
      '../images-2/disk',
      '/proc/self/environ',
      '/dev/fd/4',
      '/dev/stdin',
      'json:{"driver":"file","filename":"/etc/passwd"}',
      'json:{"driver":"raw","file":{"driver":"nbd","host":"127.0.0.1","port":"1"}}',
      'nbd://127.0.0.1:1/x',
      'nbd+unix:///x?socket=/run/docker.sock',
      'file:base.img',
      'file:///etc/passwd',
      'http://127.0.0.1:1/',
      'fat:/etc',
      'host_device:/dev/sda',
      'blkdebug::base.img',
    ].entries()) {
      await refused(await backedBy(`out${index}.qcow2`, backing), { backingWithin: images }, 'image-refused');
    }
    await refused(await backedBy('missing.qcow2', 'missing'), { backingWithin: images }, 'import-not-a-file');
  });

  itWithTools([...TOOLS, 'mkfifo'], 'is never a pipe or a device: a reader of one would hang', async () => {
    execFileSync('mkfifo', [at('pipe')]);
    await refused(await backedBy('piped.qcow2', 'pipe'), { backingWithin: images }, 'import-not-a-file');
    await symlink('/dev/zero', at('zero'));
    await refused(await backedBy('device.qcow2', 'zero'), { backingWithin: '/' }, 'import-not-a-file');
  });

  itWithTools(TOOLS, 'is followed inside the directory, by a relative and by an absolute name', async () => {
    await writeFile(at('inside.img'), SECRET);
    for (const [name, backing] of [
      ['relative.qcow2', 'inside.img'],
      ['absolute.qcow2', at('inside.img')],
    ] as const) {
      const source = await openImage(await backedBy(name, backing), { backingWithin: images });
      const parts: Buffer[] = [];
      for await (const part of source.parts(new AbortController().signal))
        if (part instanceof Uint8Array) parts.push(Buffer.from(part));
      await source.close();
      expect(Buffer.concat(parts).subarray(0, SECRET.length).equals(SECRET)).toBe(true);
    }
    await nothingLeft();
  });

  itWithTools(
    TOOLS,
    'is not followed in a disk that only looks like qcow2: a guest can write that',
    async () => {
      const disguised = at('guest-disk.img');
      await copyFile(await backedBy('disguise.qcow2', 'inside.img'), disguised);
      await refused(disguised, { backingWithin: images }, 'image-refused');
      // Neither one step further down, where the format is not stated either.
      await mustRun('qemu-img', ['create', '-q', '-u', '-f', 'qcow2', at('above.qcow2'), '1M']);
      await setBacking(at('above.qcow2'), 'guest-disk.img');
      await refused(at('above.qcow2'), { backingWithin: images }, 'image-refused');
    },
  );

  itWithTools(TOOLS, 'in a loop ends', async () => {
    await backedBy('loop1.qcow2', 'loop2.qcow2', 'qcow2');
    await backedBy('loop2.qcow2', 'loop1.qcow2', 'qcow2');
    await refused(at('loop1.qcow2'), { backingWithin: images }, 'image-refused');
    await refused(
      await backedBy('self.qcow2', 'self.qcow2', 'qcow2'),
      { backingWithin: images },
      'image-refused',
    );
    await backedBy('hard.qcow2', 'hard-link.qcow2', 'qcow2');
    await link(at('hard.qcow2'), at('hard-link.qcow2'));
    await refused(at('hard.qcow2'), { backingWithin: images }, 'image-refused');
  });

  itWithTools(TOOLS, 'in a chain without end ends', async () => {
    for (let i = 0; i < 66; i++) {
      await copyFile(at('self.qcow2'), at(`chain${i}.qcow2`));
      await setBacking(at(`chain${i}.qcow2`), `chain${i + 1}.qcow2`);
    }
    await refused(at('chain0.qcow2'), { backingWithin: images }, 'image-refused');
  });

  itWithTools(TOOLS, 'of a format that its header states wrongly is refused', async () => {
    await refused(
      await backedBy('wrong.qcow2', 'inside.img', 'qcow2'),
      { backingWithin: images },
      'image-format-mismatch',
    );
    await refused(
      await backedBy('strange.qcow2', 'inside.img', 'luks'),
      { backingWithin: images },
      'image-unsupported',
    );
  });
});

/** Overwrites the name of the backing file in a header, without a word about its format. */
async function setBacking(path: string, name: string): Promise<void> {
  const file = await open(path, 'r+');
  const header = Buffer.alloc(20);
  await file.read(header, 0, 20, 0);
  header.writeBigUInt64BE(4096n, 8);
  header.writeUInt32BE(name.length, 16);
  await file.write(header, 0, 20, 0);
  await file.write(Buffer.from(name), 0, name.length, 4096);
  await file.close();
}

itWithTools(TOOLS, 'a qcow2 image that keeps its data in another file is refused', async () => {
  const options = `data_file=${join(folder, 'data')},data_file_raw=on`;
  await mustRun('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', options, at('data.qcow2'), '1M']);
  await refused(at('data.qcow2'), { backingWithin: folder }, 'image-unsupported');
});

itWithTools(TOOLS, 'encrypted images and other formats are named', async () => {
  const secret = ['--object', 'secret,id=s,data=x'];
  const luks = 'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10';
  await mustRun('qemu-img', ['create', '-q', ...secret, '-f', 'qcow2', '-o', luks, at('luks.qcow2'), '1M']);
  await mustRun('qemu-img', ['create', '-q', '-f', 'qcow', at('one.qcow'), '1M']);
  await mustRun('qemu-img', ['create', '-q', '-f', 'qed', at('image.qed'), '1M']);
  await mustRun('qemu-img', ['create', '-q', '-f', 'parallels', at('image.hds'), '1M']);
  await writeFile(at('archive.gz'), Buffer.from('1f8b0800', 'hex'));
  for (const [name, what] of [
    ['luks.qcow2', 'encrypted'],
    ['one.qcow', 'version 1'],
    ['image.qed', 'QED'],
    ['image.hds', 'Parallels'],
    ['archive.gz', 'gzip'],
  ] as const) {
    await expect(openImage(at(name))).rejects.toMatchObject({
      code: 'image-unsupported',
      message: expect.stringContaining(what) as string,
    });
  }
});

describe('a VMDK', () => {
  const descriptor = (extent: string, more = 'parentCID=ffffffff'): string =>
    `# Disk DescriptorFile\nversion=1\nCID=1\n${more}\ncreateType="monolithicFlat"\n${extent}\n`;

  test.each([
    ['/etc/passwd'],
    ['../secret'],
    ['link'],
    ['..'],
    ['up/secret'],
    ['json:{"driver":"file","filename":"/etc/passwd"}'],
    ['nbd://127.0.0.1:1/x'],
    [''],
  ])('whose extent is %s is refused', async (name) => {
    for (const kind of ['FLAT', 'SPARSE', 'VMFS']) {
      await writeFile(at('list.vmdk'), descriptor(`RW 2 ${kind} "${name}" 0`));
      await refused(at('list.vmdk'), { backingWithin: images }, /^image-(refused|damaged)$/);
    }
  });

  test('that lists other files is refused where none are allowed, and a disk that looks so', async () => {
    await writeFile(at('list.vmdk'), descriptor('RW 2 FLAT "inside.img" 0'));
    await refused(at('list.vmdk'), {}, 'image-refused');
    await copyFile(at('list.vmdk'), at('list.img'));
    await refused(at('list.img'), { backingWithin: images }, 'image-refused');
    expect((await readImage(at('list.img'), { format: 'raw' })).sizeBytes).toBe(
      (await stat(at('list.img'))).size,
    );
  });

  test('with a nonsensical list is refused', async () => {
    for (const [extent, code] of [
      ['', 'image-damaged'],
      ['RW 2 FLAT', 'image-refused'],
      ['RW x FLAT "inside.img" 0', 'image-damaged'],
      ['RW 2 VMFSRDM "inside.img" 0', 'image-unsupported'],
      ['RW 999999999999999 FLAT "inside.img" 0', 'size-invalid'],
      ['RW 4 FLAT "inside.img" 0', 'image-damaged'],
      ['RW 2 FLAT "inside.img" 1', 'image-damaged'],
      ['RW 2 FLAT "missing" 0', 'import-not-a-file'],
      ['RW 2 SPARSE "inside.img"', 'image-format-mismatch'],
      ['RW 2 SPARSE "list.vmdk"', 'image-refused'],
      ['RW 2 ZERO', 'image-unsupported'],
    ] as const) {
      await writeFile(at('list.vmdk'), descriptor(extent));
      await writeFile(at('inside.img'), SECRET);
      await refused(at('list.vmdk'), { backingWithin: images }, code);
    }
    await writeFile(at('list.vmdk'), descriptor('RW 2 FLAT "inside.img" 0', 'parentCID=12345678'));
    await refused(at('list.vmdk'), { backingWithin: images }, 'image-unsupported');
  });

  itWithTools(TOOLS, 'whose header hides a list of other files is refused', async () => {
    await mustRun('qemu-img', ['create', '-q', '-f', 'vmdk', at('hidden.vmdk'), '1M']);
    const file = await open(at('hidden.vmdk'), 'r+');
    await file.write(Buffer.alloc(8), 0, 8, 12);
    const text = Buffer.alloc(10_240);
    text.write(descriptor(`RW 2 FLAT "${join(folder, 'secret')}" 0`));
    await file.write(text, 0, text.length, 512);
    await file.close();
    // It is what QEMU itself would follow.
    const raw = at('hidden.raw');
    await mustRun('qemu-img', ['convert', '-f', 'vmdk', '-O', 'raw', at('hidden.vmdk'), raw]);
    expect((await readFile(raw)).subarray(0, SECRET.length).equals(SECRET)).toBe(true);
    await refused(at('hidden.vmdk'), { backingWithin: images }, 'image-refused');
  });
});

describe('a disk that begins with a qcow2 header', () => {
  itWithTools(TOOLS, 'is taken byte for byte when it is said to be raw', async () => {
    const disk = at('disk-with-header.img');
    await writeSample(disk, 4 * MiB, seed);
    const header = await readFile(await backedBy('header.qcow2', join(folder, 'secret')));
    const file = await open(disk, 'r+');
    await file.write(header, 0, header.length, 0);
    await file.close();
    expect(await readImage(disk, { format: 'raw' })).toMatchObject({
      sizeBytes: 4 * MiB,
      sha256: await sha256OfFile(disk),
    });
  });
});

itWithTools(
  [...TOOLS, 'strace'],
  'reading opens the images and the libraries, and nothing else',
  async () => {
    const chain = await backedBy('traced.qcow2', 'inside.img');
    await writeFile(at('inside.img'), Buffer.alloc(MiB, 1));
    const trace = join(folder, 'trace');
    const program = `
    import { openImage } from '@pando/images';
    const source = await openImage(process.argv[1], { backingWithin: process.argv[2] });
    for await (const part of source.parts(new AbortController().signal)) void part;
    await source.close();`;
    const calls = 'trace=open,openat,openat2,connect,socket,execve,bind';
    const args = [
      '-f',
      '-qq',
      '-e',
      calls,
      '-o',
      trace,
      process.execPath,
      '--input-type=module',
      '-e',
      program,
      chain,
      images,
    ];
    await mustRun('strace', args, { cwd: join(import.meta.dirname, '../../apps/cli') });
    const lines = wholeCalls((await readFile(trace, 'utf8')).split('\n'));
    const start = lines.findIndex((line) => /execve\("[^"]*\/qemu-nbd".* = 0$/.test(line));
    const pid = /^\d+/.exec(lines[start]!)![0];
    const opened: string[] = [];
    for (const line of lines.slice(start + 1)) {
      // Threads of the helper come later than it; ours came before.
      const [, thread, call, rest] = /^(\d+) +(\w+)\((.*)$/.exec(line) ?? [];
      if (thread === undefined || Number(thread) < Number(pid)) continue;
      expect(call, line).not.toMatch(/connect|execve/);
      // It listens on the socket that we connect to.
      if (call === 'socket' || call === 'bind') {
        expect(rest, line).toMatch(/^AF_UNIX|^\d+, \{sa_family=AF_UNIX, sun_path="\/socket\/s"\}/);
        continue;
      }
      const name = /"([^"]*)"/.exec(rest!)?.[1] ?? '';
      if (!/= -1 /.test(rest!)) opened.push(name);
    }
    expect(opened.filter((name) => !/^\/(usr|lib|lib64|sys\/devices\/system)\//.test(name)).sort()).toEqual(
      expect.arrayContaining(['/dev/fd/4', '/dev/fd/5', '/etc/ld.so.cache']),
    );
    expect(
      opened.filter(
        (name) =>
          !/^\/(usr|lib|lib64|sys\/devices\/system)\/|^\/dev\/(fd\/[45]|null|urandom)$|^\/etc\/ld\.so\.cache$/.test(
            name,
          ),
      ),
    ).toEqual([]);
  },
);

/** A call that another thread's came in the way of stands on two lines of a trace: made one. */
function wholeCalls(lines: readonly string[]): string[] {
  const begun = new Map<string, string>();
  const whole: string[] = [];
  for (const line of lines) {
    const [, thread = ''] = /^(\d+) /.exec(line) ?? [];
    if (line.endsWith(' <unfinished ...>')) {
      begun.set(thread, line.slice(0, -' <unfinished ...>'.length));
      continue;
    }
    const resumed = /^\d+ +<\.\.\. \w+ resumed>(.*)$/.exec(line);
    whole.push(resumed === null ? line : (begun.get(thread) ?? '') + resumed[1]!);
  }
  return whole;
}

/** Disks of more are not read to the end. */
const HUGE_BYTES = 16 * 1024 * MiB;
const HUGE_MS = 3_000;

describe('images that are cut or damaged', () => {
  const rounds = 25;
  for (const format of IMAGE_FORMATS.filter((name): name is Exclude<ImageFormat, 'raw'> => name !== 'raw')) {
    itWithTools(TOOLS, `${format}: an error or some bytes, and nothing left`, async () => {
      const random = seededRandom(seed + IMAGE_FORMATS.indexOf(format));
      const whole = at(`whole.${format}`);
      await writeSample(at(`sample-${format}`), 2 * MiB, seed);
      await mustRun('qemu-img', ['convert', '-f', 'raw', '-O', format, at(`sample-${format}`), whole]);
      const bytes = await readFile(whole);
      const metadata = Math.min(bytes.length, format === 'vhdx' ? 3 * MiB : 256 * 1024);
      let failures = 0;
      for (let round = 0; round < rounds; round++) {
        const path = at(`damaged.${format}`);
        let damaged = Buffer.from(bytes);
        const kind = random();
        // One that must fail, whatever the dice say.
        if (round === 0) damaged = damaged.subarray(0, 40);
        else if (kind < 0.3) damaged = damaged.subarray(0, Math.floor(random() * random() * bytes.length));
        else if (kind < 0.8) {
          // Near the start, where headers are; and sometimes anywhere in the tables.
          const range = random() < 0.6 ? 512 : metadata;
          for (let i = 0; i < 1 + 4 * random(); i++)
            damaged[Math.floor(random() * range)]! ^= 1 << Math.floor(random() * 8);
        } else {
          const from = Math.floor(random() * Math.min(metadata, 4096));
          fillRandom(random, damaged.subarray(from, from + 64));
        }
        await writeFile(path, damaged);
        const note = `seed ${seed}, ${format}, round ${round}`;
        try {
          const source = await openImage(path, { format, backingWithin: images });
          try {
            // A size that was damaged upwards is all holes, or an error; asking for the holes of terabytes takes minutes.
            const isHuge = source.sizeBytes > HUGE_BYTES;
            const enough = isHuge ? AbortSignal.timeout(HUGE_MS) : new AbortController().signal;
            try {
              const read = await readParts(source.parts(enough));
              expect(read.bytes, note).toBe(source.sizeBytes);
            } catch (error) {
              if (!enough.aborted) throw error;
            }
          } finally {
            await source.close();
          }
        } catch (error) {
          failures++;
          expect((error as { code?: string }).code, `${note}: ${String(error)}`).toMatch(
            /^(image-|size-invalid)/,
          );
        }
      }
      expect(failures).toBeGreaterThan(0);
      await nothingLeft();
    });
  }

  itWithTools(TOOLS, 'a qcow2 image whose end is missing is refused, whatever is missing', async () => {
    for (const more of [[], ['-c']]) {
      await writeSample(at('to-cut.img'), 4 * MiB, seed);
      await mustRun('qemu-img', [
        'convert',
        '-f',
        'raw',
        '-O',
        'qcow2',
        ...more,
        at('to-cut.img'),
        at('cut.qcow2'),
      ]);
      const whole = await stat(at('cut.qcow2'));
      await truncate(at('cut.qcow2'), Math.floor(whole.size / 2));
      await refused(at('cut.qcow2'), {}, 'image-damaged');
      await mustRun('qemu-img', [
        'create',
        '-q',
        '-u',
        '-f',
        'qcow2',
        '-b',
        'cut.qcow2',
        '-F',
        'qcow2',
        at('on-cut.qcow2'),
        '4M',
      ]);
      await refused(at('on-cut.qcow2'), { backingWithin: images }, 'image-damaged');
      await rm(at('cut.qcow2'));
      await rm(at('to-cut.img'));
    }
  });

  test('an empty file and files of a few bytes are no images', async () => {
    for (const length of [0, 1, 3, 4, 8, 68, 71, 100, 511, 512]) {
      const head = Buffer.alloc(512, 0xff);
      for (const [format, magic, where] of [
        ['qcow2', 'QFI\xfb\0\0\0\x03', 0],
        ['vmdk', 'KDMV', 0],
        ['vdi', '\x7f\x10\xda\xbe', 64],
        ['vhdx', 'vhdxfile', 0],
        ['vpc', 'conectix', 0],
      ] as const) {
        head.fill(0xff).write(magic, where, 'latin1');
        await writeFile(at('short'), head.subarray(0, length));
        await expect(readImage(at('short'), { format }), `${format} ${length}`).rejects.toMatchObject({
          code: expect.stringMatching(
            /^(image-(damaged|format-mismatch|unsupported|refused)|size-invalid)$/,
          ) as string,
        });
      }
    }
    await nothingLeft();
  });
});

describe('the helper', () => {
  itWithTools(TOOLS, 'dies with its parent, also when that is killed at once', async () => {
    await mustRun('qemu-img', ['create', '-q', '-f', 'qcow2', at('killed.qcow2'), '1M']);
    const program = `
      import { openImage } from '@pando/images';
      import { readFileSync } from 'node:fs';
      await openImage(process.argv[1]);
      console.log(readFileSync('/proc/self/task/' + process.pid + '/children', 'utf8').trim());
      setInterval(() => undefined, 1000);`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', program, at('killed.qcow2')], {
      cwd: join(import.meta.dirname, '../../apps/cli'),
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    onTestFinished(() => void child.kill('SIGKILL'));
    const [printed] = (await once(child.stdout, 'data')) as [Buffer];
    const helper = await descendant(printed.toString().trim(), 'qemu-nbd');
    // A session of its own: Ctrl-C in a terminal is not for it.
    const session = async (pid: string): Promise<string> =>
      (await readFile(`/proc/${pid}/stat`, 'utf8')).split(' ')[5]!;
    expect(await session(helper)).not.toBe(await session(String(child.pid)));
    for (const kind of ['mnt', 'pid', 'net', 'ipc', 'uts'])
      expect(await readlink(`/proc/${helper}/ns/${kind}`), kind).not.toBe(
        await readlink(`/proc/self/ns/${kind}`),
      );
    // Without privileges, without capabilities but the one by which root reads the files of others.
    const status = await readFile(`/proc/${helper}/status`, 'utf8');
    expect(status).toMatch(/^NoNewPrivs:\s+1$/m);
    const CAP_DAC_OVERRIDE = 1n << 1n;
    for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapAmb']) {
      const mask = BigInt(`0x${new RegExp(`^${set}:\\s+(\\w+)$`, 'm').exec(status)![1]!}`);
      expect(mask & ~(process.geteuid!() === 0 ? CAP_DAC_OVERRIDE : 0n), set).toBe(0n);
    }
    child.kill('SIGKILL');
    await once(child, 'exit');
    await expect
      .poll(() =>
        readlink(`/proc/${helper}/exe`).catch((error: unknown) => (error as NodeJS.ErrnoException).code),
      )
      .toMatch(/ENOENT|ESRCH/);
    await nothingLeft();
  });

  itWithTools(TOOLS, 'is ended when opening is given up', async () => {
    const stop = new AbortController();
    const opening = openImage(at('killed.qcow2'), { signal: stop.signal });
    const reason = new Error('given up');
    setImmediate(() => stop.abort(reason));
    await expect(opening).rejects.toBe(reason);
    await nothingLeft();
  });
});
