import { chmod, mkdir, mkdtemp, rm, symlink, writeFile, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PandoError, systemClock } from '@pando/common';
import type { NbdSecurity, NbdServer } from '@pando/nbd';
import { AUTHORITY, CLIENT_KEY, SERVER_CERTIFICATE, SERVER_KEY } from '@pando/nbd/testing';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  checkExposure,
  readNbdSecurity,
  reloadNbdSecurity,
  tlsModeOf,
  warnOfExposure,
} from './nbd-security.ts';
import { runOptions, type RunOptions } from './options.ts';
import { isRotational } from './rotational.ts';

const KEYS = `alice:${'ab'.repeat(16)}\n`;

let folder: string;
let lines: string[];
const logger = pino({ level: 'info' }, { write: (line) => lines.push(line) });

async function file(name: string, content: string, mode = 0o600): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, content);
  await chmod(path, mode);
  return path;
}

let flags: Record<'cert' | 'key' | 'ca' | 'psk', string>;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pando-security-'));
  flags = {
    cert: await file('cert.pem', SERVER_CERTIFICATE),
    key: await file('key.pem', SERVER_KEY),
    ca: await file('ca.pem', AUTHORITY),
    psk: await file('keys.psk', KEYS),
  };
});

afterAll(() => rm(folder, { recursive: true }));

/** Options as the command line gives them. */
function options(values: Record<string, string | boolean>): RunOptions {
  lines = [];
  return runOptions(values);
}

const read = (values: Record<string, string | boolean>, clock = systemClock): Promise<NbdSecurity> =>
  readNbdSecurity(options(values), clock, logger);

async function codeOf(action: () => unknown): Promise<string> {
  try {
    await action();
  } catch (error) {
    if (error instanceof PandoError) return error.code;
    throw error;
  }
  return 'none';
}

describe('flags of NBD security', () => {
  it('require TLS where there is something to speak it with, and do what they are told', () => {
    expect(tlsModeOf(options({}))).toBe('off');
    expect(tlsModeOf(options({ 'nbd-tls-cert': flags.cert, 'nbd-tls-key': flags.key }))).toBe('require');
    expect(tlsModeOf(options({ 'nbd-tls-psk': flags.psk }))).toBe('require');
    expect(tlsModeOf(options({ 'nbd-tls-psk': flags.psk, 'nbd-tls': 'allow' }))).toBe('allow');
    expect(tlsModeOf(options({ 'nbd-tls-psk': flags.psk, 'nbd-tls': 'off' }))).toBe('off');
    expect(() => options({ 'nbd-tls': 'maybe' })).toThrow(/--nbd-tls is one of/);
    expect(options({}).nbdSocketMode).toBe(0o600);
    expect(options({ 'nbd-socket-mode': '0660' }).nbdSocketMode).toBe(0o660);
    for (const mode of ['888', '66', '4755', 'rw']) {
      expect(() => options({ 'nbd-socket-mode': mode })).toThrow(/octal/);
    }
  });

  it('let NBD listen beyond this machine only with TLS required, or when told that it is meant', async () => {
    const check = (values: Record<string, string | boolean>): Promise<string> =>
      codeOf(() => checkExposure(options(values)));
    const psk = { 'nbd-tls-psk': flags.psk };
    for (const nbd of ['0.0.0.0:1', '[::]:1', '192.0.2.1:1', 'store.example:1', '[2001:db8::1]:1']) {
      expect(await check({ nbd })).toBe('nbd-exposed');
      expect(await check({ nbd, ...psk, 'nbd-tls': 'allow' })).toBe('nbd-exposed');
      expect(await check({ nbd, ...psk, 'nbd-tls': 'off' })).toBe('nbd-exposed');
      expect(await check({ nbd, ...psk })).toBe('none');
      expect(await check({ nbd, 'insecure-nbd': true })).toBe('none');
    }
    for (const nbd of ['127.0.0.1:1', 'localhost:1', '[::1]:1']) expect(await check({ nbd })).toBe('none');
  });

  it('refuse files that are wrong, by code', async () => {
    const bad = await file('bad', 'no such thing');
    const otherKey = await file('other-key.pem', CLIENT_KEY);
    const { cert, key } = flags;
    const pair = { 'nbd-tls-cert': cert, 'nbd-tls-key': key };
    const code = (values: Record<string, string>): Promise<string> => codeOf(() => read(values));
    expect(await code({ 'nbd-tls': 'require' })).toBe('tls-file-invalid');
    expect(await code({ 'nbd-tls': 'allow' })).toBe('tls-file-invalid');
    expect(await code({ 'nbd-tls-cert': cert })).toBe('tls-file-invalid');
    expect(await code({ 'nbd-tls-ca': flags.ca, 'nbd-tls-psk': flags.psk })).toBe('tls-file-invalid');
    expect(await code({ 'nbd-tls-psk': join(folder, 'nowhere') })).toBe('server-file-unreadable');
    expect(await code({ 'nbd-tls-psk': folder })).toBe('server-file-unreadable');
    expect(await code({ 'nbd-tls-psk': bad })).toBe('tls-file-invalid');
    expect(await code({ ...pair, 'nbd-tls-key': bad })).toBe('tls-file-invalid');
    expect(await code({ ...pair, 'nbd-tls-ca': bad })).toBe('tls-file-invalid');
    expect(await code({ ...pair, 'nbd-tls-key': otherKey })).toBe('tls-key-mismatch');
    expect(await code({ 'nbd-access': bad })).toBe('access-file-invalid');
    expect(await code(pair)).toBe('none');
    const later = { ...systemClock, now: () => Date.now() + 200 * 365 * 86_400_000 };
    expect(await codeOf(() => read(pair, later))).toBe('tls-certificate-expired');
  });

  it('warn of keys that others can read, certificates that end soon, and clients that prove nothing', async () => {
    const pair = { 'nbd-tls-cert': flags.cert, 'nbd-tls-key': flags.key };
    const { credentials } = await read(pair);
    expect(lines).toEqual([]);
    const soon = { ...systemClock, now: () => credentials!.expiresAt! - 86_400_000 };
    await read(pair, soon);
    expect(lines.join()).toContain('ends soon');
    await read({ 'nbd-tls-psk': await file('open.psk', KEYS, 0o644) });
    expect(lines.join()).toContain('can be read by others');
    const warned = (values: Record<string, string | boolean>, security: NbdSecurity): string => {
      warnOfExposure(options({ nbd: '0.0.0.0:1', ...values }), security, logger);
      return lines.join();
    };
    expect(warned(pair, await read(pair))).toContain('not who they are');
    expect(warned({ 'insecure-nbd': true }, {})).toContain('without TLS');
    const psk = { 'nbd-tls-psk': flags.psk };
    expect(warned(psk, await read(psk))).toBe('');
  });

  it('read again keep what was in force when anything is wrong', async () => {
    const secured: NbdSecurity[] = [];
    const server = { secure: (security: NbdSecurity) => void secured.push(security) } as NbdServer;
    const access = await file('access.json', '{"rules": []}');
    const values = { 'nbd-tls-psk': flags.psk, 'nbd-access': access };
    await reloadNbdSecurity(options(values), server, systemClock, logger);
    expect(secured).toHaveLength(1);
    expect([...secured[0]!.credentials!.keys!.keys()]).toEqual(['alice']);
    await file('access.json', '{"rules": [{}]}');
    await reloadNbdSecurity(options(values), server, systemClock, logger);
    expect(secured).toHaveLength(1);
    expect(lines.join()).toMatch(/access-file-invalid.*rules\[0\]/);
  });
});

describe('a disk that turns', () => {
  it('is known by its queue, or by that of the disk that a partition is of; unknown is no', async () => {
    const { dev } = await stat(folder, { bigint: true });
    const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn);
    const minor = (dev & 0xffn) | ((dev >> 12n) & ~0xffn);
    for (const [name, partition] of [
      ['whole', ''],
      ['part', 'sda1'],
    ] as const) {
      const sysfs = join(folder, name);
      const disk = join(sysfs, 'devices', 'sda');
      await mkdir(join(disk, 'queue'), { recursive: true });
      await mkdir(join(disk, partition), { recursive: true });
      await mkdir(join(sysfs, 'dev', 'block'), { recursive: true });
      expect(await isRotational(folder, sysfs)).toBe(false);
      await symlink(join(disk, partition), join(sysfs, 'dev', 'block', `${major}:${minor}`));
      expect(await isRotational(folder, sysfs)).toBe(false);
      for (const [text, expected] of [
        ['1\n', true],
        ['0\n', false],
      ] as const) {
        await writeFile(join(disk, 'queue', 'rotational'), text);
        expect(await isRotational(folder, sysfs)).toBe(expected);
      }
    }
    expect(await isRotational(join(folder, 'nowhere'))).toBe(false);
  });
});
