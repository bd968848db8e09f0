/** TLS, access rules and their flags, with the clients and certificate tools that people have, on the real server. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect } from 'vitest';
import { TestServer } from '../support/server.ts';
import { itWithTools, mustRun, requireTools, runTool } from '../support/tools.ts';

const MiB = 2 ** 20;
const SIZE = 8 * MiB;
/** GnuTLS makes the certificates and keys, as people do who follow the documentation of qemu or libnbd. */
const MAKERS = ['certtool', 'psktool'];

let folder: string;
/** Folders as GnuTLS clients want them: `ca-cert.pem`, `client-cert.pem`, `client-key.pem`; or the authority alone. */
let pki: { server: string; client: string; stranger: string; authority: string };
let keys: string;
let image: string;

async function certtool(...args: string[]): Promise<void> {
  await mustRun('certtool', args);
}

async function makeAuthority(path: string, name: string): Promise<void> {
  await certtool('--generate-privkey', '--key-type', 'rsa', '--bits', '2048', '--outfile', `${path}-key.pem`);
  await writeFile(`${path}.cfg`, `cn = "${name}"\nca\ncert_signing_key\nexpiration_days = 2\n`);
  const key = ['--load-privkey', `${path}-key.pem`, '--template', `${path}.cfg`];
  await certtool('--generate-self-signed', ...key, '--outfile', `${path}-cert.pem`);
}

async function makeCertificate(
  authority: string,
  directory: string,
  who: string,
  template: string,
): Promise<void> {
  await mkdir(directory, { recursive: true });
  const path = join(directory, who);
  await certtool('--generate-privkey', '--key-type', 'rsa', '--bits', '2048', '--outfile', `${path}-key.pem`);
  await writeFile(`${path}.cfg`, `${template}\nsigning_key\nencryption_key\nexpiration_days = 2\n`);
  await certtool(
    ...['--generate-certificate', '--load-privkey', `${path}-key.pem`, '--template', `${path}.cfg`],
    ...['--load-ca-certificate', `${authority}-cert.pem`, '--load-ca-privkey', `${authority}-key.pem`],
    ...['--outfile', `${path}-cert.pem`],
  );
}

async function psktool(path: string, identity: string): Promise<void> {
  await mustRun('psktool', ['--username', identity, '--pskfile', path]);
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pando-tls-'));
  if (requireTools(...MAKERS) !== undefined) return;
  const [authority, other] = [join(folder, 'authority'), join(folder, 'other')];
  await makeAuthority(authority, 'Test authority');
  await makeAuthority(other, 'Another authority');
  pki = {
    server: join(folder, 'server'),
    client: join(folder, 'client'),
    stranger: join(folder, 'stranger'),
    authority: join(folder, 'authority-alone'),
  };
  const names = 'dns_name = "localhost"\nip_address = "127.0.0.1"';
  await makeCertificate(authority, pki.server, 'server', `cn = "localhost"\n${names}\ntls_www_server`);
  await makeCertificate(
    authority,
    pki.client,
    'client',
    'cn = "backup"\ndns_name = "backup.example.org"\ntls_www_client',
  );
  await makeCertificate(other, pki.stranger, 'client', 'cn = "backup"\ntls_www_client');
  await mkdir(pki.authority);
  const trusted = await readFile(`${authority}-cert.pem`);
  for (const directory of [pki.client, pki.stranger, pki.authority]) {
    await writeFile(join(directory, 'ca-cert.pem'), trusted);
  }
  const keyFolder = join(folder, 'keys');
  await mkdir(keyFolder);
  keys = join(keyFolder, 'keys.psk');
  for (const identity of ['alice', 'bob']) await psktool(keys, identity);
  image = join(folder, 'image.raw');
  await writeFile(
    image,
    Buffer.concat([randomBytes(MiB), Buffer.alloc(2 * MiB), randomBytes(SIZE - 3 * MiB)]),
  );
});

afterAll(() => rm(folder, { recursive: true, force: true }));

const certificateFlags = (): string[] => [
  ...['--nbd-tls-cert', join(pki.server, 'server-cert.pem')],
  ...['--nbd-tls-key', join(pki.server, 'server-key.pem')],
];
const clientFlags = (): string[] => ['--nbd-tls-ca', join(pki.client, 'ca-cert.pem')];
const keyFlags = (): string[] => ['--nbd-tls-psk', keys];

async function withServer(
  args: readonly string[],
  body: (server: TestServer) => Promise<void>,
): Promise<void> {
  const server = await TestServer.start({ args });
  try {
    for (const name of ['web', 'mail']) {
      await server.rest.must('POST', '/vms', { name, disks: [{ name: 'disk0', sizeBytes: SIZE }] });
    }
    await body(server);
  } finally {
    await server.close();
  }
}

/** URIs of libnbd. */
const uri = {
  x509: (server: TestServer, certificates: string, disk = 'web/disk0') =>
    `nbds://localhost:${server.nbdPort}/${disk}?tls-certificates=${certificates}`,
  x509Unix: (server: TestServer, certificates: string, disk = 'web/disk0') =>
    `nbds+unix://localhost/${disk}?socket=${server.nbdSocket}&tls-certificates=${certificates}`,
  psk: (server: TestServer, identity = 'alice', disk = 'web/disk0', file = keys) =>
    `nbds://${identity}@127.0.0.1:${server.nbdPort}/${disk}?tls-psk-file=${file}`,
  pskUnix: (server: TestServer, identity = 'alice', disk = 'web/disk0') =>
    `nbds+unix://${identity}@localhost/${disk}?socket=${server.nbdSocket}&tls-psk-file=${keys}`,
};

/** Arguments of qemu-img for an export over TLS of one version. */
const qemu = {
  options: (server: TestServer, disk = 'web/disk0') =>
    `driver=nbd,host=localhost,port=${server.nbdPort},export=${disk},tls-creds=tls`,
  x509: (version: string) =>
    `tls-creds-x509,id=tls,endpoint=client,dir=${pki.client},priority=NORMAL:-VERS-ALL:+VERS-TLS${version}`,
  psk: (version: string) =>
    `tls-creds-psk,id=tls,endpoint=client,dir=${join(keys, '..')},username=alice,priority=NORMAL:-VERS-ALL:+VERS-TLS${version}`,
};

async function fails(tool: string, args: readonly string[]): Promise<string> {
  const { code, stderr } = await runTool(tool, args);
  expect(code, `${tool} ${args.join(' ')}`).not.toBe(0);
  return stderr;
}

async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  for (let i = 0; i < 1_000; i++) {
    if (await condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`never happened: ${what}`);
}

describe('NBD over TLS with real clients', () => {
  itWithTools(
    [...MAKERS, 'nbdinfo', 'nbdcopy', 'qemu-img'],
    'serves libnbd and qemu with certificates, over TCP and the Unix socket, by TLS 1.2 and 1.3',
    () =>
      withServer([...certificateFlags(), ...clientFlags()], async (server) => {
        for (const of of [uri.x509, uri.x509Unix]) {
          expect((await mustRun('nbdinfo', ['--size', of(server, pki.client)])).trim()).toBe(`${SIZE}`);
        }
        await mustRun('nbdcopy', ['--connections=8', image, uri.x509(server, pki.client)]);
        for (const version of ['1.2', '1.3']) {
          const object = ['--object', qemu.x509(version), '--image-opts'];
          const same = await mustRun('qemu-img', [
            ...['compare', ...object, `driver=file,filename=${image}`, qemu.options(server)],
          ]);
          expect(same).toContain('identical');
        }
        await mustRun('nbdcopy', [
          '--connections=8',
          uri.x509Unix(server, pki.client),
          join(folder, 'back.raw'),
        ]);
        expect((await readFile(join(folder, 'back.raw'))).equals(await readFile(image))).toBe(true);
        for (const agreed of ['TLSv1.2 ECDHE-RSA-AES256-GCM-SHA384', 'TLSv1.3 TLS_AES_256_GCM_SHA384']) {
          expect(server.log).toContain(
            `"proof":"x509","names":["backup","backup.example.org"],"tls":"${agreed}"`,
          );
        }
        // No certificate, a stranger's, none at all.
        await fails('nbdinfo', [uri.x509(server, pki.authority)]);
        await fails('nbdinfo', [uri.x509(server, pki.stranger)]);
        expect(await fails('nbdinfo', ['--size', server.nbdUri('web/disk0')])).toMatch(/TLS/);
        expect(await fails('nbdinfo', ['--size', server.nbdUri('web/disk0', 'unix')])).toMatch(/TLS/);
        expect(server.log).toContain('no client certificate');
        expect(server.log).toMatch(/nbds:\/\/127\.0\.0\.1:\d+.*TLS required/);
      }),
  );

  itWithTools(
    [...MAKERS, 'nbdinfo', 'nbdcopy', 'qemu-img'],
    'serves libnbd and qemu with shared keys, by TLS 1.2 and 1.3',
    () =>
      withServer(keyFlags(), async (server) => {
        for (const of of [uri.psk, uri.pskUnix]) {
          expect((await mustRun('nbdinfo', ['--size', of(server, 'bob')])).trim()).toBe(`${SIZE}`);
        }
        await mustRun('nbdcopy', ['--connections=8', image, uri.psk(server)]);
        for (const version of ['1.2', '1.3']) {
          const object = ['--object', qemu.psk(version), '--image-opts'];
          const same = await mustRun('qemu-img', [
            ...['compare', ...object, `driver=file,filename=${image}`, qemu.options(server)],
          ]);
          expect(same).toContain('identical');
        }
        for (const agreed of ['TLSv1.2 ECDHE-PSK-CHACHA20-POLY1305', 'TLSv1.3 TLS_AES_128_GCM_SHA256']) {
          expect(server.log).toContain(`"proof":"psk","names":["alice"],"tls":"${agreed}"`);
        }
        const others = join(folder, 'others.psk');
        for (const identity of ['alice', 'carol']) await psktool(others, identity);
        const wrong = await fails('nbdinfo', [uri.psk(server, 'alice', 'web/disk0', others)]);
        const unknown = await fails('nbdinfo', [uri.psk(server, 'carol', 'web/disk0', others)]);
        expect(unknown.replaceAll('carol', 'alice')).toBe(wrong);
      }),
  );

  itWithTools(
    [...MAKERS, 'nbdinfo', 'nbdkit', 'nbdcopy'],
    'serves certificates and keys at once, also through nbdkit, and clear text where TLS is only allowed',
    () =>
      withServer(
        [...certificateFlags(), ...clientFlags(), ...keyFlags(), '--nbd-tls', 'allow'],
        async (server) => {
          await mustRun('nbdcopy', [image, uri.psk(server)]);
          await mustRun('nbdinfo', [uri.x509(server, pki.client)]);
          expect(await mustRun('nbdinfo', ['--list', server.nbdUri('')])).toContain('web/disk0');
          await mustRun('nbdinfo', [server.nbdUri('web/disk0')]);
          const copy = join(folder, 'nbdkit.raw');
          await mustRun('nbdkit', [
            ...['--exit-with-parent', '-U', '-', 'nbd'],
            ...['hostname=localhost', `port=${server.nbdPort}`, 'export=web/disk0'],
            ...['tls=require', `tls-certificates=${pki.client}`],
            ...['--run', `nbdcopy "${image}" "$uri" && nbdcopy "$uri" "${copy}"`],
          ]);
          expect((await readFile(copy)).equals(await readFile(image))).toBe(true);
        },
      ),
  );

  itWithTools(
    [...MAKERS, 'gnutls-cli'],
    'fails the handshake of a client that speaks plain TLS, and goes on',
    () =>
      withServer(certificateFlags(), async (server) => {
        await fails('gnutls-cli', ['--insecure', '-p', `${server.nbdPort}`, '127.0.0.1']);
        await mustRun('nbdinfo', [uri.x509(server, pki.authority)]);
      }),
  );
});

describe('access rules with real clients', () => {
  itWithTools(
    [...MAKERS, 'nbdinfo', 'nbdcopy'],
    'let each client see and use what is its own, and are read again on SIGHUP',
    async () => {
      const access = join(folder, 'access.json');
      const rules = (...list: object[]): Promise<void> => writeFile(access, JSON.stringify({ rules: list }));
      await rules(
        { client: 'alice', exports: ['web/*', 'web@*/*'], access: 'write' },
        { client: '*.example.org', proof: 'x509', exports: '**', access: 'read' },
      );
      const args = [...certificateFlags(), ...clientFlags(), ...keyFlags(), '--nbd-access', access];
      await withServer(args, async (server) => {
        await mustRun('nbdcopy', [image, uri.psk(server)]);
        expect(await fails('nbdinfo', [uri.psk(server, 'alice', 'mail/disk0')])).toMatch(/not supported/);
        // A shorter spelling of the same export is no way around.
        expect(await fails('nbdinfo', [uri.psk(server, 'alice', 'mail')])).toMatch(/not supported/);
        expect(await fails('nbdinfo', [uri.psk(server, 'bob')])).toMatch(/not supported/);
        const listed = await mustRun('nbdinfo', ['--list', '--json', uri.psk(server, 'alice', '')]);
        expect(listed).toContain('web/disk0');
        expect(listed).not.toContain('mail/disk0');
        expect(await mustRun('nbdinfo', [uri.x509(server, pki.client, 'mail/disk0')])).toMatch(
          /is_read_only: true/,
        );
        expect(await fails('nbdcopy', [image, uri.x509(server, pki.client)])).toMatch(/read.only/i);

        expect(server.log).toContain('"code":"not-allowed"');

        const reloaded = (): number => server.log.split('read certificates, keys and access rules').length;
        const before = reloaded();
        await rules({ client: 'bob', exports: 'mail/*', access: 'read' });
        process.kill(server.pid!, 'SIGHUP');
        await until(() => reloaded() > before, 'the new rules read');
        expect(await fails('nbdinfo', [uri.psk(server)])).toMatch(/not supported/);
        await mustRun('nbdinfo', [uri.psk(server, 'bob', 'mail/disk0')]);

        await writeFile(access, '{"rules": [{"client": "alice", "exports": "web/*", "access": "all"}]}');
        process.kill(server.pid!, 'SIGHUP');
        await until(() => server.log.includes('rules[0].access'), 'the bad rules refused');
        await mustRun('nbdinfo', [uri.psk(server, 'bob', 'mail/disk0')]);
        await fails('nbdinfo', [uri.psk(server)]);
      });
    },
  );
});

describe('flags of NBD security', () => {
  /** What a server that refuses to start prints. */
  async function refusal(...args: string[]): Promise<string> {
    const main = join(import.meta.dirname, '../../apps/server/src/main.ts');
    const data = join(folder, 'never');
    const { code, stderr } = await runTool(process.execPath, [
      main,
      '--data',
      data,
      '--http',
      '127.0.0.1:0',
      ...args,
    ]);
    expect(code, stderr).not.toBe(0);
    await expect(stat(data)).rejects.toThrow();
    return stderr;
  }

  itWithTools(MAKERS, 'refuse what cannot be meant, with codes, before anything is made', async () => {
    expect(await refusal('--nbd', '0.0.0.0:0')).toMatch(/nbd-exposed.*\n.*--insecure-nbd/);
    const key = join(pki.server, 'server-key.pem');
    const old = join(folder, 'old');
    const dates = 'activation_date = "2001-01-01 00:00:00"\nexpiration_date = "2002-01-01 00:00:00"';
    await writeFile(`${old}.cfg`, `cn = "localhost"\n${dates}\n`);
    await certtool(
      ...[
        '--generate-self-signed',
        '--load-privkey',
        key,
        '--template',
        `${old}.cfg`,
        '--outfile',
        `${old}.pem`,
      ],
    );
    const expired = ['--nbd-tls-cert', `${old}.pem`, '--nbd-tls-key', key];
    expect(await refusal('--nbd', '127.0.0.1:0', ...expired)).toMatch(/tls-certificate-expired/);
  });

  itWithTools(
    ['nbdinfo'],
    'let NBD listen abroad in clear when told that it is meant, and say so',
    async () => {
      const server = await TestServer.start({ args: ['--nbd', '0.0.0.0:0', '--insecure-nbd'] });
      try {
        await server.rest.must('POST', '/vms', { name: 'web', disks: [{ name: 'disk0', sizeBytes: SIZE }] });
        await mustRun('nbdinfo', [server.nbdUri('web/disk0')]);
        expect(server.log).toContain('NBD listens beyond this machine without TLS');
      } finally {
        await server.close();
      }
    },
  );

  itWithTools([], 'make the Unix socket for the user of the server alone, or as told', async () => {
    for (const [args, mode] of [
      [[], 0o600],
      [['--nbd-socket-mode', '660'], 0o660],
    ] as const) {
      const server = await TestServer.start({ args });
      expect((await stat(server.nbdSocket)).mode & 0o777).toBe(mode);
      await server.close();
    }
  });

  itWithTools([...MAKERS, 'nbdcopy', 'nbdinfo'], 'drain clients over TLS when the server stops', () =>
    withServer(keyFlags(), async (server) => {
      await mustRun('nbdcopy', [image, uri.psk(server)]);
      const copy = spawn('nbdcopy', [uri.psk(server), 'null:'], { stdio: 'ignore' });
      const ended = once(copy, 'close');
      expect(await server.stop()).toBe(0);
      await ended;
      await server.restart();
      await mustRun('nbdinfo', [uri.psk(server)]);
    }),
  );
});
