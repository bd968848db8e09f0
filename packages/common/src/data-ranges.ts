/**
 * Where a sparse file has data, asked of the file system (SEEK_DATA, SEEK_HOLE).
 *
 * Node has no lseek. An allocation count (`st_blocks`) only says that there are holes, not where, and on
 * compressing file systems not even that; FIEMAP tools have lost data that was not allocated yet. Nearly
 * every Linux has a Python or a Perl, though, and both hand lseek through: a helper of three lines gets the
 * open file as its standard input and prints the ranges. Without a helper, or for any doubt about its
 * answer, there is no map and the caller reads the whole file, which is always right.
 */
import { spawn } from 'node:child_process';
import { systemClock } from './clock.ts';

/** Start and end (exclusive) of each range with data, ascending. */
export type DataRanges = readonly (readonly [number, number])[];

/** More ranges than this are read as one: the map would cost more than it saves. */
const RANGES_MAX = 1_000_000;
const OUTPUT_BYTES_MAX = 64 * 1024 * 1024;
const HELPER_MS_MAX = 30_000;

const PYTHON = `
import os, errno
at = 0
try:
    while True:
        start = os.lseek(0, at, os.SEEK_DATA)
        at = os.lseek(0, start, os.SEEK_HOLE)
        print(start, at)
except OSError as error:
    print("end" if error.errno == errno.ENXIO else "failed")
`;

const PERL = `
use Errno;
my $at = 0;
while (1) {
  my $start = sysseek(STDIN, $at, 3);
  last unless defined $start;
  $at = sysseek(STDIN, $start + 0, 4);
  last unless defined $at;
  print $start + 0, " ", $at + 0, "\\n";
}
print $!{ENXIO} ? "end\\n" : "failed\\n";
`;

const HELPERS: readonly (readonly [string, readonly string[]])[] = [
  ['python3', ['-I', '-S', '-c', PYTHON]],
  ['perl', ['-e', PERL]],
];

/** The data ranges of the open file, or undefined when nobody can tell. Moves the file's own position. */
export async function dataRanges(fd: number, size: number): Promise<DataRanges | undefined> {
  if (process.platform !== 'linux') return undefined;
  for (const [program, args] of HELPERS) {
    const output = await run(program, args, fd);
    const ranges = output === undefined ? undefined : parseRanges(output, size);
    if (ranges !== undefined) return ranges;
  }
  return undefined;
}

/** Reads a helper's answer; undefined unless it is complete and in order. */
export function parseRanges(output: string, size: number): DataRanges | undefined {
  const lines = output.trimEnd().split('\n');
  if (lines.pop() !== 'end' || lines.length > RANGES_MAX) return undefined;
  const ranges: [number, number][] = [];
  let last = 0;
  for (const line of lines) {
    const match = /^(\d+) (\d+)$/.exec(line);
    if (match === null) return undefined;
    const start = Number(match[1]);
    const end = Math.min(Number(match[2]), size);
    if (start < last) return undefined;
    if (start >= size) break; // the file grew meanwhile
    if (end <= start) return undefined;
    ranges.push([start, end]);
    last = end;
  }
  return ranges;
}

function run(program: string, args: readonly string[], fd: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const child = spawn(program, args, { stdio: [fd, 'pipe', 'ignore'] });
    // Not spawn's own timeout: where there is no such program, that would keep the process alive until it has passed.
    const done = new AbortController();
    systemClock.sleep(HELPER_MS_MAX, done.signal).then(
      () => child.kill('SIGKILL'),
      () => undefined,
    );
    const parts: Buffer[] = [];
    let bytes = 0;
    child.stdout!.on('data', (part: Buffer) => {
      bytes += part.byteLength;
      if (bytes > OUTPUT_BYTES_MAX) child.kill();
      else parts.push(part);
    });
    child.on('error', () => {
      done.abort();
      resolve(undefined);
    });
    child.on('close', (code) => {
      done.abort();
      resolve(code === 0 && bytes <= OUTPUT_BYTES_MAX ? Buffer.concat(parts).toString() : undefined);
    });
  });
}
