/** The harness itself, on a disk of its own without any server: whole lines, and an end to every wait. */
import { copyFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import { itWithTools } from '../support/tools.ts';
import { guestImage } from './build-image.ts';
import { Guest } from './qemu.ts';
import { TOOLS } from './stage.ts';

const LINES = 300;

itWithTools(
  TOOLS,
  'reports of a guest come whole, and what hangs ends with its console in the error',
  async () => {
    await using cleanup = new AsyncDisposableStack();
    const image = await guestImage();
    const scratch = await mkdtemp(join(tmpdir(), 'pando-guest-'));
    cleanup.defer(() => rm(scratch, { recursive: true, force: true }));
    const disk = join(scratch, 'disk.raw');
    await copyFile(image.disk, disk);
    const guest = await Guest.boot({ image, drives: [disk] });
    cleanup.defer(() => guest.close());

    // A line that comes in two halves is not there before it is whole.
    await guest.must('printf "NUMBER 12" >&3');
    expect(guest.reported('NUMBER')).toBe(0);
    await guest.must('echo 34 >&3');
    await guest.waitForReport('NUMBER', 1234, 60_000);
    expect(guest.reports).toEqual(['NUMBER 1234']);

    // Three that report at once, while commands go on over the console.
    const writer = `for n in $(seq ${LINES}); do echo "$w $n" >&3; done`;
    await guest.must(`for w in A B C; do (${writer} &) done`);
    expect(await guest.must('seq 1000')).toBe(Array.from({ length: 1000 }, (_, i) => i + 1).join('\n'));
    for (const name of ['A', 'B', 'C']) await guest.waitForReport(name, LINES, 120_000);
    for (const name of ['A', 'B', 'C']) {
      const own = guest.reports.filter((line) => line.startsWith(name));
      expect(own).toEqual(Array.from({ length: LINES }, (_, i) => `${name} ${i + 1}`));
    }

    expect(await guest.run('(exit 7)')).toEqual({ status: 7, output: '' });
    await expect(guest.must('echo why; false')).rejects.toThrow(/ended with 1:\nwhy/);
    await expect(guest.waitForReport('NEVER', 1, 100)).rejects.toThrow(
      /took too long \(NEVER 1\)[\s\S]+The last of 901 reports:[\s\S]+Its console ended with:\n[\s\S]+why/,
    );
    await expect(guest.run('echo stuck; sleep 1000', 2000)).rejects.toThrow(/took too long[\s\S]+stuck/);

    const waiting = expect(guest.waitForReport('NEVER', 1, 60_000)).rejects.toThrow(/QEMU ended early/);
    await guest.close();
    await waiting;
  },
);
