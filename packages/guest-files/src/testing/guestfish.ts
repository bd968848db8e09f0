/**
 * A guestfish without an appliance, for tests: run as a program, it answers the commands that the real one is given here, out of a list of
 * files in the environment, and reads its arguments as the real one does.
 *
 *     FAKE_FILES   JSON: path in latin1 → content in latin1; a directory ends with `/`, a link is ['target']
 *     FAKE_LOG     a file to which its commands are written
 */
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

type Files = Readonly<Record<string, string | readonly [string]>>;

const files = JSON.parse(process.env['FAKE_FILES'] ?? '{}') as Files;
const latin1 = (text: string): Buffer => Buffer.from(text, 'latin1');

if (process.env['FAKE_LOG'] !== undefined) {
  const [, bytes] = /^Max file size +(\d+) /m.exec(readFileSync('/proc/self/limits', 'latin1')) ?? [];
  appendFileSync(process.env['FAKE_LOG'], `writes ${bytes}\n`);
}
process.stdin.setEncoding('latin1');
createInterface({ input: process.stdin, terminal: false }).on('line', (line) => {
  const isSpared = line.startsWith('-');
  try {
    answer(...words(isSpared ? line.slice(1) : line));
  } catch (error) {
    process.stderr.write(`*stdin*:1: libguestfs: error: ${(error as Error).message}\n`);
    if (!isSpared) process.exit(1);
  }
});

/** Words in double quotes, in which `\"`, `\\` and `\xHH` mean something; or without. */
function words(line: string): string[] {
  if (line.startsWith('!') || /^[^"]*\|/.test(line)) throw new Error('that goes to a shell');
  const found = [...line.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g)];
  return found.map(([, quoted, plain]) =>
    quoted === undefined
      ? plain!
      : quoted.replace(/\\(?:x([0-9a-f]{2})|(["\\]))/g, (_all, hex: string | undefined, sign: string) =>
          hex === undefined ? sign : String.fromCharCode(Number.parseInt(hex, 16)),
        ),
  );
}

function answer(command?: string, first = '', second = ''): void {
  if (process.env['FAKE_LOG'] !== undefined) appendFileSync(process.env['FAKE_LOG'], `${command}\n`);
  const say = (text: string): void => void process.stdout.write(latin1(text));
  switch (command) {
    case 'echo': {
      say(`${first}\n`);
      return;
    }
    case 'set-memsize':
    case 'run':
    case 'umount-all':
    case 'mount-ro':
    case 'inspect-os':
      return;
    case 'list-filesystems': {
      say('/dev/sda1: ext4\n/dev/sda2: crypto_LUKS\n/dev/sda3: swap\n');
      return;
    }
    case 'vfs-label':
      throw new Error('vfs_label: no label');
    case 'blockdev-getsize64': {
      say('33554432\n');
      return;
    }
    case 'realpath':
      if (first === '/die') process.exit(7);
      if (first === '/hang') return void process.stdin.pause();
      of(first);
      {
        say(`${first}\n`);
        return;
      }
    case 'lstatns':
      of(first);
      {
        say(stat(first));
        return;
      }
    case 'lstatnslist': {
      const names = [...second.matchAll(/'([^']*)' ?/g)].map(([, name]) => name!);
      say(names.map((name, i) => `[${i}] = {\n${stat(join(first, name))}}\n`).join(''));
      return;
    }
    case 'readlink': {
      say(`${(of(first) as readonly [string])[0]}\n`);
      return;
    }
    case 'ls0': {
      writeFileSync(
        second,
        latin1(
          namesIn(first)
            .map((name) => `${name}\0`)
            .join(''),
        ),
      );
      return;
    }
    case 'download': {
      writeFileSync(second, latin1(of(first) as string));
      return;
    }
    default:
      process.stderr.write(`${command}: unknown command\n`);
  }
}

function join(directory: string, name: string): string {
  return `${directory === '/' ? '' : directory}/${name}`;
}

function of(path: string): string | readonly [string] {
  const found = path === '/' ? '' : (files[path] ?? files[`${path}/`]);
  if (found === undefined) throw new Error(`${path}: No such file or directory`);
  return found;
}

function namesIn(directory: string): string[] {
  const above = join(directory, '');
  return Object.keys(files)
    .filter((path) => path.startsWith(above) && path !== above)
    .map((path) => path.slice(above.length).replace(/\/$/, ''))
    .filter((name) => !name.includes('/'))
    .reverse();
}

function stat(path: string): string {
  const found = files[path];
  const isDirectory = found === undefined;
  const kind = isDirectory ? 0o040755 : typeof found === 'string' ? 0o100644 : 0o120777;
  const fields = {
    dev: 1,
    ino: 2,
    mode: kind,
    uid: 3,
    gid: 4,
    // Some say another size than they have.
    size: path === '/less' ? 1 : path === '/more' ? 100_000 : (found?.length ?? 0),
    mtime_sec: 5,
    mtime_nsec: 6e6,
  };
  return Object.entries(fields)
    .map(([name, value]) => `  st_${name}: ${value}\n`)
    .join('');
}
