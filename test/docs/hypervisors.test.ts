/**
 * The snippets of docs/hypervisors.md, as they stand there: a comment `<!-- run: KIND -->` before one says how it is tried. Only
 * addresses and paths are put in, `-accel kvm` becomes `tcg`, and guests are built but not started.
 */
import { existsSync, readFileSync } from 'node:fs';
import { chmod, copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createVm, MiB } from '../support/disks.ts';
import { TestServer } from '../support/server.ts';
import { itWithTools, mustRun, runTool } from '../support/tools.ts';

const PAGE = new URL('../../docs/hypervisors.md', import.meta.url);
const page = readFileSync(PAGE, 'utf8');

interface Snippet {
  readonly kind: string;
  readonly text: string;
  /** First line that tells it from others. */
  readonly name: string;
}

const snippets: readonly Snippet[] = [
  ...page.matchAll(/<!-- run: ([a-z -]+) -->\s*```[a-z]+\n([\s\S]*?)```/g),
].map((match, i) => {
  const text = match[2]!;
  const line = page.slice(0, match.index).split('\n').length;
  return { kind: match[1]!, text, name: `${match[1]!} ${i + 1} (line ${line})` };
});

const of = (kind: string): readonly Snippet[] => snippets.filter((snippet) => snippet.kind === kind);

const GUEST_SECONDS_MAX = 60;
/** Looks, 20 ms apart, whether a daemon has ended; where nobody reaps it, it stays. */
const ENDS_TRIES_MAX = 250;
/** The libvirt that has been seen to take `<reconnect>`. */
const RECONNECT_SINCE = 11;
const KEY = '00112233445566778899aabbccddeeff';

let scratch: string;
let plain: TestServer;

beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'pando-hypervisors-'));
  plain = await TestServer.start();
  await createVm(plain, 'web-1', 8 * MiB);
  await plain.rest.must('POST', '/vms/web-1/backups', { name: 'monday' });
});

afterAll(async () => {
  await plain.close();
  await rm(scratch, { recursive: true, force: true });
});

/** The snippet with this machine's addresses and paths. */
function here(text: string, port: number): string {
  return text
    .replaceAll('-accel kvm', '-accel tcg')
    .replaceAll('-m 1G', '-m 64M')
    .replaceAll('10809', String(port))
    .replaceAll('/run/pando/nbd.sock', plain.nbdSocket)
    .replaceAll('/run/pando', scratch)
    .replaceAll('/etc/pki/qemu', join(scratch, 'x509'))
    .replaceAll('/etc/pando/psk', join(scratch, 'psk'))
    .replaceAll('store.example.net', 'localhost');
}

/** Builds the machine, asks its monitor for the disks, and ends it. */
async function disksOf(command: string): Promise<string> {
  const whole = `${command.trimEnd()} -S -display none -monitor stdio`;
  return mustRun('bash', ['-c', `printf 'info block\\nquit\\n' | timeout ${GUEST_SECONDS_MAX} ${whole}`]);
}

describe('docs/hypervisors.md', () => {
  it('has snippets of every kind', () => {
    const kinds = new Set(snippets.map((snippet) => snippet.kind));
    expect([...kinds].sort()).toEqual(
      [
        'libvirt',
        'libvirt-disk',
        'openssl',
        'qemu',
        'qemu-tls',
        'storage-daemon',
        'storage-daemon fuse',
        'systemd',
      ].sort(),
    );
  });

  for (const snippet of of('qemu')) {
    itWithTools(['qemu-system-x86_64'], snippet.name, async () => {
      const disks = await disksOf(here(snippet.text, plain.nbdPort));
      expect(disks).toMatch(/disk0|web-1/);
      expect(disks).toMatch(/Attached to:/);
    });
  }

  itWithTools(['qemu-system-x86_64', 'openssl'], 'TLS, from the certificates to QEMU', async () => {
    const [openssl] = of('openssl');
    await mustRun('bash', ['-ec', here(openssl!.text, 0)], { cwd: scratch });
    const pki = join(scratch, 'pki');
    await mkdir(join(scratch, 'x509'));
    for (const name of ['ca-cert.pem', 'client-cert.pem', 'client-key.pem'])
      await copyFile(join(pki, name), join(scratch, 'x509', name));
    await mkdir(join(scratch, 'psk'));
    const keys = join(scratch, 'psk', 'keys.psk');
    await writeFile(keys, `hv1:${KEY}\n`);
    await chmod(keys, 0o600);
    // The flags of the page's own `pando serve`, and the keys.
    const flags = /^pando serve .*?(--nbd-tls-cert .*)$/m
      .exec(page)?.[1]
      ?.replaceAll('pki/', `${pki}/`)
      .split(' ');
    const secure = await TestServer.start({ args: [...flags!, '--nbd-tls-psk', keys] });
    try {
      await createVm(secure, 'web-1', 8 * MiB);
      const both = of('qemu-tls');
      expect(both).toHaveLength(2);
      for (const snippet of both) {
        const command = here(snippet.text, secure.nbdPort);
        expect(await disksOf(command)).toMatch(/disk0/);
        // Without the credentials there is nothing to see.
        const bare = command.replace(/,tls-creds=tls0/, '').replace(/,reconnect-delay=60/, '');
        await expect(disksOf(bare)).rejects.toThrow(/TLS/i);
      }
    } finally {
      await secure.close();
    }
  });

  for (const snippet of [...of('storage-daemon'), ...of('storage-daemon fuse')]) {
    itWithTools(['qemu-storage-daemon'], snippet.name, async () => {
      const fuse = snippet.kind.endsWith('fuse');
      if (fuse && !existsSync('/dev/fuse')) throw new Error('this needs /dev/fuse');
      const text = here(snippet.text, plain.nbdPort);
      await mustRun('bash', ['-ec', text]);
      const pid = Number(await readFile(/--pidfile (\S+)/.exec(text)![1]!, 'utf8'));
      try {
        const path = /(?:mountpoint|addr\.path)=([^,]+)/.exec(text)![1]!;
        if (fuse) {
          const image = await mustRun('qemu-img', ['info', '--output=json', '-f', 'raw', path]);
          expect(JSON.parse(image)).toMatchObject({ 'virtual-size': 8 * MiB });
        } else {
          expect(existsSync(path)).toBe(true);
        }
      } finally {
        process.kill(pid);
        for (let i = 0; i < ENDS_TRIES_MAX && existsSync(`/proc/${pid}`); i++) await sleep(20);
      }
    });
  }

  itWithTools(['virt-xml-validate', 'xmllint', 'virsh'], "libvirt's schema passes the XML", async () => {
    const [domain] = of('libvirt');
    const file = join(scratch, 'domain.xml');
    const more = of('libvirt-disk');
    expect(more.length).toBeGreaterThan(1);
    const newest = domain!.text.replace(
      '    <serial',
      `${more.map((disk) => disk.text).join('')}    <serial`,
    );
    // As the page says: older ones do not know it.
    const major = parseInt(await mustRun('virsh', ['--version']), 10);
    const whole = major < RECONNECT_SINCE ? newest.replaceAll(/^.*<reconnect .*\n/gm, '') : newest;
    await writeFile(file, whole);
    await mustRun('virt-xml-validate', [file, 'domain']);
    await writeFile(file, whole.replace("discard='unmap'", "discard='sometimes'"));
    expect((await runTool('virt-xml-validate', [file, 'domain'])).code).not.toBe(0);
  });

  itWithTools(['systemd-analyze'], 'systemd passes the unit', async () => {
    const [unit] = of('systemd');
    const file = join(scratch, 'pando-nbd@nbd0.service');
    // nbd-client itself need not be there.
    await writeFile(file, unit!.text.replaceAll('/usr/sbin/nbd-client', '/bin/true'));
    const { stdout, stderr } = await runTool('systemd-analyze', ['verify', file]);
    const about = `${stdout}\n${stderr}`.split('\n').filter((line) => line.includes('pando-nbd'));
    expect(about).toEqual([]);
    await writeFile(file, unit!.text.replaceAll('ExecStart=', 'ExecStrat='));
    const wrong = await runTool('systemd-analyze', ['verify', file]);
    expect(`${wrong.stdout}\n${wrong.stderr}`).toMatch(/pando-nbd/);
  });

  itWithTools(['qemu-img'], 'QEMU opens what Xen would give it', async () => {
    const target = /target=(nbd:[^ ']+)/.exec(page)![1]!.replace('10809', String(plain.nbdPort));
    const image = await mustRun('qemu-img', ['info', '--output=json', '-f', 'raw', target]);
    expect(JSON.parse(image)).toMatchObject({ 'virtual-size': 8 * MiB });
  });
});
