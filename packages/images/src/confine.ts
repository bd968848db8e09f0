/**
 * Runs `qemu-nbd` so that it can do nothing but decode the files it was handed.
 *
 * The parsers of image formats are large and the images may be hostile. So the program is started by a launcher (Python,
 * because Node can call neither `prctl` nor Landlock) that takes away everything first and then becomes the program:
 *
 * - It dies with the process that started it, also after a SIGKILL (parent death signal).
 * - It listens on a private Unix socket that the launcher has made; with its last client it ends by itself.
 * - Landlock: it opens the images it was handed, programs and libraries of the system, and nothing else. No TCP.
 * - seccomp: no new sockets, no connections, no tracing, no change of owners, modes or attributes of files.
 * - No new privileges, no capabilities but those that reading the images may need.
 * - Bounds on memory and on files; when reading, it can write to none.
 *
 * Where the kernel has no Landlock or the machine is neither x86-64 nor AArch64, that layer is missing and the
 * others hold; the first line of defence, the explicit block graph (graph.ts), does not depend on any of them.
 */
import { PandoError } from '@pando/common';
import { NbdClient } from '@pando/nbd/client';
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deadline } from './deadline.ts';
import { findTool } from './tools.ts';

/** Address space of the helper: QEMU caps its tables at some 50 MiB, threads and libraries take the rest. */
const MEMORY_BYTES_MAX = 3 * 1024 ** 3;
const STDERR_BYTES_MAX = 4096;
const FOLDER_BYTES_MAX = 80;
/** Helpers of this process at a time. */
const HELPERS_MAX = 32;
/** Until an image is open and the first bytes of the handshake are here. */
const OPEN_MS_MAX = 60_000;
/** Without an answer while it is asked: a damaged image may lead its reader round in circles. */
const SILENCE_MS_MAX = 120_000;
/** For the end after a goodbye, which may have to write out what is cached. */
const EXIT_MS_MAX = 600_000;
/** For reading all tables of an image. */
const CHECK_MS_MAX = 600_000;
/** For a helper that has closed its connection to say why and end. */
const GRACE_MS_MAX = 1_000;

/** First descriptor of the images: 0 to 2 are the usual ones, 3 is the listening socket. */
export const FIRST_IMAGE_FD = 4;

/**
 * argv: the parent's pid, `r` or `w`, bytes of address space, how many images, path of the socket, program, arguments.
 * Numbers are those of the kernel's ABI: prctl(2), landlock(7), seccomp(2), and the system call tables.
 */
export const LAUNCHER = `
import ctypes, os, resource, signal, socket, struct, sys
parent, mode, memory, images, path = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
command = sys.argv[6:]
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    return libc.syscall(ctypes.c_long(number), *[ctypes.c_void_p(a) if isinstance(a, int) else a for a in args])
def prctl(option, value=0, pointer=None):
    return libc.prctl(option, ctypes.c_ulong(value), pointer, ctypes.c_ulong(0), ctypes.c_ulong(0))

prctl(1, signal.SIGKILL)
if os.getppid() != parent:
    os._exit(1)
for capability in range(64):
    if capability not in (1, 2):
        prctl(24, capability)
prctl(38, 1)
for limit, value in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, 256 + images)):
    resource.setrlimit(limit, (value, value))
if mode == 'r':
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

if path:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(4)
    if listener.fileno() != 3:
        os.dup2(listener.fileno(), 3)
    os.set_inheritable(3, True)
    os.environ['LISTEN_FDS'] = '1'
    os.environ['LISTEN_PID'] = str(os.getpid())
    os.write(1, b'listening')

abi = call(444, None, 0, 1)
if abi > 0:
    files = (1 << (13 if abi == 1 else 14 if abi == 2 else 15 if abi < 5 else 16)) - 1
    ruleset = struct.pack('=QQQ', files, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    rules = call(444, ruleset, size, 0)
    if rules < 0:
        sys.exit('cannot make a Landlock ruleset')
    def allow(fd, access):
        if call(445, rules, 1, struct.pack('=Qi', access, fd), 0) != 0:
            sys.exit('cannot add a Landlock rule')
    execute, write, read, list_, truncate = 1, 2, 4, 8, 1 << 14
    program = os.path.dirname(os.path.dirname(os.path.realpath(command[0])))
    for name in {'/usr', '/lib', '/lib64', '/lib32', '/bin', '/sbin', '/nix/store', '/gnu/store', '/sys/devices/system', program}:
        if name != '/' and os.path.isdir(name):
            allow(os.open(name, os.O_PATH), execute | read | list_)
    for name, access in (('/etc/ld.so.cache', read), ('/dev/urandom', read), ('/dev/null', read | write)):
        if os.path.exists(name):
            allow(os.open(name, os.O_PATH), access)
    for fd in range(4, 4 + images):
        allow(fd, read if mode == 'r' else (read | write | truncate) & files)
    if call(446, rules, 0) != 0:
        sys.exit('cannot enforce Landlock')
    os.close(rules)

calls = {
    'x86_64': (0xC000003E, (41, 42, 49, 62, 90, 91, 92, 93, 94, 101, 132, 165, 188, 189, 190, 197, 198, 199, 235, 250, 260,
        261, 268, 272, 280, 298, 304, 308, 310, 311, 321, 323, 424, 425, 434, 438, 452, 463, 466)),
    'aarch64': (0xC00000B7, (198, 200, 203, 129, 52, 53, 54, 55, 117, 40, 5, 6, 7, 14, 15, 16, 219, 88, 97, 241, 265, 268,
        270, 271, 280, 282, 424, 425, 434, 438, 452, 463, 466)),
}.get(os.uname().machine)
if calls is not None and sys.maxsize > 1 << 32:
    arch, denied = calls
    code = [(0x20, 0, 0, 4), (0x15, 1, 0, arch), (0x06, 0, 0, 0x80000000), (0x20, 0, 0, 0)]
    for number in denied:
        code += [(0x15, 0, 1, number), (0x06, 0, 0, 0x00050001)]
    # The x32 calls of x86-64 are the same under other numbers.
    code += [(0x35, 0, 1, 0x40000000), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
    filters = ctypes.create_string_buffer(b''.join(struct.pack('=HBBI', *line) for line in code))
    program = ctypes.create_string_buffer(struct.pack('@HP', len(code), ctypes.addressof(filters)))
    # EINVAL: a kernel without filters.
    if prctl(22, 2, program) != 0 and ctypes.get_errno() != 22:
        sys.exit('cannot set a seccomp filter')
os.execv(command[0], command)
`;

export interface ConfinedOptions {
  /** The block graph; images appear in it as `/dev/fd/<FIRST_IMAGE_FD + index>`. */
  readonly graph: object;
  /** Open descriptors of the images; they stay the caller's. */
  readonly images: readonly number[];
  readonly writable: boolean;
  readonly signal?: AbortSignal;
}

/** A running `qemu-nbd` and the one connection to it. */
export interface ConfinedNbd {
  readonly client: NbdClient;
  /** What it has printed on standard error, bounded. */
  complaint(): string;
  /** Says goodbye, waits until it has written and ended. @throws `image-damaged` when it ended badly */
  close(): Promise<void>;
  /** Ends it at once. Idempotent; resolves when it is gone. */
  kill(): Promise<void>;
}

/**
 * Starts `qemu-nbd` on a block graph.
 * @throws `tool-missing`, `image-damaged` when it cannot open the image, `disk-in-use`, `too-busy`
 */
export async function startConfined(options: ConfinedOptions): Promise<ConfinedNbd> {
  const [python, qemuNbd] = await Promise.all([findTool('python3'), findTool('qemu-nbd')]);
  options.signal?.throwIfAborted();
  if (helpers >= HELPERS_MAX) throw new PandoError('too-busy', `${HELPERS_MAX} images are open`);
  // Of mode 0700. The path of a socket may have 107 bytes.
  const parent = Buffer.byteLength(tmpdir()) <= FOLDER_BYTES_MAX ? tmpdir() : '/tmp';
  const folder = await mkdtemp(join(parent, 'pando-nbd-'));
  const socket = join(folder, 's');
  try {
    const tool = [
      qemuNbd,
      ...(options.writable ? ['--discard=unmap'] : ['-r']),
      `json:${JSON.stringify(options.graph)}`,
    ];
    const child = launch(python, tool, socket, options);
    return await connectTo(child, socket, options);
  } finally {
    // The connection lives without the name of the socket; so nothing is left however this process ends.
    await rm(folder, { recursive: true, force: true });
  }
}

/** What `qemu-img check` says of an image, as far as it is kept. Errors as startConfined. */
export async function checkConfined(options: ConfinedOptions): Promise<string> {
  const [python, qemuImg] = await Promise.all([findTool('python3'), findTool('qemu-img')]);
  options.signal?.throwIfAborted();
  if (helpers >= HELPERS_MAX) throw new PandoError('too-busy', `${HELPERS_MAX} images are open`);
  const tool = [qemuImg, 'check', `json:${JSON.stringify(options.graph)}`];
  const child = launch(python, tool, '', options);
  let said = '';
  child.stdout!.resume();
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    if (said.length < STDERR_BYTES_MAX) said += text.slice(0, STDERR_BYTES_MAX - said.length);
  });
  const stop = (): void => void child.kill('SIGKILL');
  const inTime = deadline(CHECK_MS_MAX, stop);
  options.signal?.addEventListener('abort', stop);
  helpers++;
  try {
    await new Promise<void>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', () => resolve());
    });
  } finally {
    helpers--;
    inTime();
    options.signal?.removeEventListener('abort', stop);
  }
  options.signal?.throwIfAborted();
  return said;
}

/** Starts a tool by way of the launcher; without a path of a socket it listens nowhere. */
function launch(
  python: string,
  tool: readonly string[],
  socket: string,
  { images, writable }: ConfinedOptions,
): ChildProcess {
  const confinement = [
    String(process.pid),
    writable ? 'w' : 'r',
    String(MEMORY_BYTES_MAX),
    String(images.length),
  ];
  return spawn(python, ['-I', '-S', '-c', LAUNCHER, ...confinement, socket, ...tool], {
    // Its own group: Ctrl-C is for us, and we decide what becomes of it.
    detached: true,
    env: { LC_ALL: 'C', PATH: '/usr/bin:/bin', MALLOC_ARENA_MAX: '4' },
    cwd: '/',
    stdio: ['ignore', 'pipe', 'pipe', 'ignore', ...images],
  });
}

let helpers = 0;

async function connectTo(
  child: ChildProcess,
  socket: string,
  { writable, signal }: ConfinedOptions,
): Promise<ConfinedNbd> {
  let complaint = '';
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    if (complaint.length < STDERR_BYTES_MAX) complaint += text.slice(0, STDERR_BYTES_MAX - complaint.length);
  });
  const listening = new Promise<void>((resolve) => child.stdout!.on('data', () => resolve()));
  let failure: Error | undefined;
  const ended = new Promise<number | undefined>((resolve) => {
    child.once('close', (code) => resolve(code ?? undefined));
    child.once('error', (error) => {
      failure = error;
      resolve(undefined);
    });
  });
  let running = true;
  helpers++;
  void ended.then(() => {
    running = false;
    helpers--;
  });
  const kill = async (): Promise<void> => {
    if (running && child.pid !== undefined) child.kill('SIGKILL');
    await ended;
  };
  const stop = (): void => void kill();
  const inTime = deadline(OPEN_MS_MAX, stop);
  signal?.addEventListener('abort', stop);
  try {
    await Promise.race([listening, ended]);
    const client = await NbdClient.connect(
      { path: socket },
      // A flush of what was written may rightly take longer.
      { exportName: '', ...(writable ? {} : { silenceMsMax: SILENCE_MS_MAX }) },
    );
    return {
      client,
      complaint: () => complaint,
      kill: async () => {
        await kill();
        await client.close();
      },
      close: async () => {
        await client.close();
        const inTime = deadline(EXIT_MS_MAX, stop);
        const code = await ended;
        inTime();
        if (code !== 0) throw new PandoError('image-damaged', `qemu-nbd ended badly: ${complaint}`);
      },
    };
  } catch (error) {
    // It dies by itself when it cannot open the image; whatever else it was, it must not stay.
    const inTime = deadline(signal?.aborted === true ? 0 : GRACE_MS_MAX, stop);
    await ended;
    inTime();
    signal?.throwIfAborted();
    throw openFailure(complaint, failure ?? error);
  } finally {
    inTime();
    signal?.removeEventListener('abort', stop);
  }
}

function openFailure(complaint: string, cause: unknown): PandoError {
  const text = reason(complaint);
  if (/Failed to get .*lock/.test(text)) {
    return new PandoError('disk-in-use', 'another program has the image open for writing', { cause });
  }
  return new PandoError('image-damaged', `the image cannot be opened: ${text || (cause as Error).message}`, {
    cause,
  });
}

/** What a person can use of a complaint of QEMU's: without its own name and the long name of the graph. */
export function reason(complaint: string): string {
  return complaint
    .replaceAll(/'?json:\{.*\}'?/g, 'the image')
    .replaceAll(/^qemu-(nbd|img): /gm, '')
    .trim()
    .replaceAll(/\s*\n\s*/g, '; ');
}
