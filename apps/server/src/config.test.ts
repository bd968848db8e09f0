import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import {
  configuredOptions,
  exposureMistakes,
  mistakeLine,
  readConfiguration,
  type Configuration,
} from './config.ts';

let folder: string;
let file: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pando-config-'));
  file = join(folder, 'pando.toml');
});
afterEach(() => rm(folder, { recursive: true }));

async function read(text: string, environment = {}, flags = {}): Promise<Configuration> {
  await writeFile(file, text);
  return readConfiguration({ config: file, ...flags }, environment);
}
const linesOf = ({ mistakes }: Configuration): string[] =>
  mistakes.map((mistake) => mistakeLine(mistake).replace(file, 'pando.toml'));

test('flags win over the environment, the environment over the file, the file over what is built in', async () => {
  const text =
    'gc-every = 1\nverify-every = 2.5\nverify-rate = 3\ndata = "/a"\ntrust-images = true\nhost-name = ["a", "b"]\n';
  const environment = {
    PANDO_VERIFY_RATE: '30',
    PANDO_DATA: '/b',
    PANDO_TRUST_IMAGES: 'false',
    PANDO_HTTP: '',
  };
  const found = await read(text, environment, { data: '/c' });
  expect(found.mistakes).toEqual([]);
  expect(found.options).toMatchObject({
    gcEveryMs: 60_000,
    verifyEveryMs: 2.5 * 3_600_000,
    verifyBytesPerSecond: 30 * 2 ** 20,
    dataDirectory: '/c',
    trustImages: false,
    hostNames: ['a', 'b'],
    http: { host: '127.0.0.1', port: 7400 },
  });
  const from = Object.fromEntries(found.settings.map((setting) => [setting.name, setting]));
  expect(from['gc-every']).toEqual({
    ...{ name: 'gc-every', value: '1', from: 'file' },
    place: { file, line: 1, column: 12 },
  });
  expect(from['verify-rate']).toEqual({ name: 'verify-rate', value: '30', from: 'environment' });
  expect(from['data']).toMatchObject({ value: '/c', from: 'flag' });
  expect(from['http']).toEqual({ name: 'http', value: '127.0.0.1:7400', from: 'default' });
  expect(from).not.toHaveProperty('accept-damage');
});

test('every mistake is found, with line and column, whatever it is a mistake of', async () => {
  const text = [
    'http = "nowhere"', // a value that means nothing
    'gc-evry = 5', // misspelt
    'nbd_tls = "require"',
    'trust-images = "yes"', // of the wrong type
    'verify-rate = -1',
    'nbd-socket-mode = 0o660',
    'host-name = ["a", true]',
    'accept-damage = ["log"]', // a flag only
    'something-else = 1',
    '[nbd]',
    'tls = "require"',
  ].join('\n');
  const found = await read(
    text,
    { PANDO_GC_EVERY: 'often', PANDO_INSECURE_NBD: 'maybe' },
    { 'log-level': 'loud' },
  );
  expect(found.options).toBeUndefined();
  expect(linesOf(found)).toEqual([
    'pando.toml:2:1: gc-evry: there is no such option: did you mean gc-every?',
    'pando.toml:3:1: nbd_tls: there is no such option: did you mean nbd-tls?',
    'pando.toml:4:16: trust-images: true or false is expected',
    'pando.toml:5:15: verify-rate: a text in quotes, or a number, is expected',
    'pando.toml:6:19: nbd-socket-mode: a text in quotes, or a number, is expected',
    'pando.toml:7:13: host-name: a list of texts is expected: ["a", "b"]',
    'pando.toml:8:1: accept-damage: there is no such option: --accept-damage belongs into no file',
    'pando.toml:9:1: something-else: there is no such option: docs/configuration.md has the options',
    'pando.toml:10:1: nbd: there are no tables: every option is a key of its own',
    'PANDO_INSECURE_NBD: true or false is expected',
    'pando.toml:1:8: http: "nowhere" is not an address',
    'PANDO_GC_EVERY is a number of minutes, up to 10000',
    '--log-level is one of trace, debug, info, warn, error, fatal, silent',
  ]);
});

test('a check finds what a server would refuse to start with: listening for everybody without TLS', async () => {
  const exposed = async (text: string): Promise<string[]> =>
    exposureMistakes(await read(text)).map((mistake) => mistakeLine(mistake).replace(file, 'pando.toml'));
  expect(await exposed('gc-every = 5\nhttp = "0.0.0.0:1"\nnbd = "[::]:2"\n')).toEqual([
    'pando.toml:2:8: http: REST would listen on 0.0.0.0 without TLS, and tokens go over it',
    'pando.toml:3:7: nbd: NBD would listen on :: and serve whoever reaches it without TLS',
  ]);
  expect(await exposed('http = "0.0.0.0:1"\ninsecure-http = true\n')).toEqual([]);
  expect(await exposed('http = "nowhere"\n')).toEqual([]);
});

test('what is no TOML is said with its place', async () => {
  expect(linesOf(await read('gc-every = 5\nhttp = = "x"\n'))).toEqual(['pando.toml:2:8: Unexpected token']);
  expect(linesOf(await read('gc-every = 5\ngc-every = 6\n'))).toEqual([
    expect.stringMatching(/^pando.toml:2:1: .*multiple/) as string,
  ]);
  expect(linesOf(await read(''))).toEqual([]);
});

test('the file of the machine is read only where neither a file nor a data directory is named', async () => {
  await writeFile(file, 'gc-every = 7\n');
  const chosen = async (flags: object, environment: object): Promise<string | undefined> =>
    (await readConfiguration({ ...flags }, { ...environment }, { defaultFile: file })).file;
  expect(await chosen({}, {})).toBe(file);
  expect(await chosen({ data: '/a' }, {})).toBeUndefined();
  expect(await chosen({}, { PANDO_DATA: '/a' })).toBeUndefined();
  expect(await chosen({ data: '/a', config: file }, {})).toBe(file);
  expect(await chosen({ data: '/a' }, { PANDO_CONFIG: file })).toBe(file);
  await rm(file);
  expect(await chosen({}, {})).toBeUndefined();
  await expect(chosen({ config: file }, {})).rejects.toMatchObject({ code: 'server-file-unreadable' });
  await expect(chosen({ config: folder }, {})).rejects.toMatchObject({ code: 'server-file-unreadable' });
});

test('who starts a server is told whether it is the command line that is wrong', async () => {
  await writeFile(file, 'gc-every = "x"\n');
  await expect(configuredOptions({ config: file }, {})).rejects.toMatchObject({ code: 'config-invalid' });
  await expect(configuredOptions({ 'data': '/a', 'gc-every': 'x' }, {})).rejects.toMatchObject({
    code: 'request-invalid',
    message: '--gc-every is a number of minutes, up to 10000',
  });
});
