/**
 * What a server can be told: the options, and the one table of their names. Flags, keys of the configuration file, names in the
 * environment (config.ts), help and docs/configuration.md all follow from it.
 */
import { LOCK_DAYS_MAX, parseSize, PandoError, TRIPWIRE_LOCK_DAYS } from '@pando/common';
import type { TlsFiles, TlsMode } from '@pando/nbd';
import { parseAddress, type Address } from './addresses.ts';

export interface ServeOptions {
  readonly dataDirectory: string;
  readonly http: Address;
  /** Unix socket on which REST listens too: without tokens, for whoever may open it. */
  readonly httpSocket?: string;
  /** Permissions of that socket; default 0o600. */
  readonly httpSocketMode?: number;
  /** Paths of certificate and key, PEM: REST by HTTPS. */
  readonly tlsFiles?: { readonly certificate: string; readonly key: string };
  /** How long the audit trail is kept, and how big it may get. */
  readonly auditDays?: number;
  readonly auditBytes?: number;
  /** Serve REST without TLS also beyond this machine. */
  readonly insecureHttp?: boolean;
  /** Requests a second with one token, and without a good one from one address; 0: as many as they like. */
  readonly rateLimit?: number;
  readonly rateLimitAddress?: number;
  /** Wrong tokens a minute from one address, before it is told to wait; 0: as many as it likes. */
  readonly wrongTokens?: number;
  /** Connections of REST from one address at the same time; 0: as many as there may be. */
  readonly connectionsOfAddress?: number;
  readonly nbd: Address;
  readonly nbdSocket?: string;
  /** Permissions of that socket; default 0o600. */
  readonly nbdSocketMode?: number;
  /** Default: `require` with a certificate or keys, else `off`. */
  readonly nbdTls?: TlsMode;
  /** Paths of the files. */
  readonly nbdTlsFiles?: TlsFiles;
  /** Path of the rules who may use which export. */
  readonly nbdAccessFile?: string;
  /** Serve NBD without TLS also beyond this machine. */
  readonly insecureNbd?: boolean;
  /** Where `POST /imports` may read files. Absent: nowhere. */
  readonly importDirectory?: string;
  readonly trustImages?: boolean;
  /** Where sockets of guest agents lie that backups may be quiesced through. Absent: nowhere. */
  readonly guestAgentDirectory?: string;
  /** Appliances that read files out of backups at the same time; 0: none. Default: 2. */
  readonly fileAppliances?: number;
  /** Names besides localhost and IP addresses that requests may carry as their host. */
  readonly hostNames?: readonly string[];
  /** Bytes of a chunk, when a new store is made. */
  readonly chunkBytes?: number;
  /** Whether ids are keyed, when a new store is made; one that is there has to agree. */
  readonly keyedHash?: boolean;
  /** How often garbage is collected when there may be some; 0: never by itself. */
  readonly gcEveryMs?: number;
  /** How long after a full verification the next one begins by itself; 0: never. Default: a week. */
  readonly verifyEveryMs?: number;
  /** How fast that one reads. */
  readonly verifyBytesPerSecond?: number;
  /** How many days the tripwire locks a backup for; 0: it locks none. Default: 30. */
  readonly tripwireLockDays?: number;
  /** Start in spite of damage to these, without what it has taken. */
  readonly acceptDamage?: readonly DamagedPart[];
}

/** Parts of a store that can be damaged so that it does not open before somebody says that it may. */
export const DAMAGED_PARTS = ['log', 'catalog'] as const;
export type DamagedPart = (typeof DAMAGED_PARTS)[number];

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export const TLS_MODES: readonly TlsMode[] = ['off', 'allow', 'require'];

export interface RunOptions extends ServeOptions {
  readonly logLevel: LogLevel;
  /** Print one line of JSON instead of a greeting. */
  readonly json: boolean;
}

const RATE_MAX = 1_000_000;
const WRONG_TOKENS_MAX = 1_000_000;
const CONNECTIONS_MAX = 1_000_000;

export interface Flag {
  readonly name: string;
  /** What its value is called in the help; absent for a switch. */
  readonly value?: string;
  readonly multiple?: boolean;
  readonly fallback?: string;
  readonly help: string;
  /** Where it can be said, if not everywhere: what is about one start belongs into no file. */
  readonly only?: 'flag' | 'flag or environment';
}

/** Read where neither a file nor a data directory is named. */
export const CONFIG_FILE_DEFAULT = '/etc/pando/pando.toml';

/** The flags of `pando serve` and `npm start`. */
export const SERVE_FLAGS: readonly Flag[] = [
  {
    name: 'config',
    value: 'FILE',
    only: 'flag or environment',
    help: `configuration file, TOML (${CONFIG_FILE_DEFAULT} where there is one and no --data is given)`,
  },
  { name: 'data', value: 'DIR', fallback: './pando-data', help: 'data directory' },
  { name: 'http', value: 'HOST:PORT', fallback: '127.0.0.1:7400', help: 'where REST listens' },
  {
    name: 'http-socket',
    value: 'PATH',
    help: 'Unix socket on which REST listens too: an admin without a token is whoever may open it',
  },
  {
    name: 'http-socket-mode',
    value: 'MODE',
    fallback: '600',
    help: 'permissions of that socket, octal',
  },
  {
    name: 'tls-cert',
    value: 'FILE',
    help: 'certificate of REST and those above it, PEM: HTTPS in place of HTTP',
  },
  { name: 'tls-key', value: 'FILE', help: 'key of that certificate, PEM' },
  { name: 'insecure-http', help: 'let REST listen beyond this machine without TLS, tokens in clear' },
  {
    name: 'rate-limit',
    value: 'REQUESTS',
    fallback: '1000',
    help: 'requests a second with one token, in the mean of ten seconds, above which it is told to wait; 0: none',
  },
  {
    name: 'rate-limit-address',
    value: 'REQUESTS',
    fallback: '100',
    help: 'likewise without a good token from one address; 0: none',
  },
  {
    name: 'wrong-tokens',
    value: 'COUNT',
    fallback: '60',
    help: 'wrong tokens a minute from one address, above which wrong ones are told to wait; 0: none',
  },
  {
    name: 'connections-address',
    value: 'COUNT',
    fallback: '250',
    help: 'connections of REST from one address, of the 1000 that there are; 0: all of them',
  },
  { name: 'audit-days', value: 'DAYS', fallback: '400', help: 'how long the audit trail is kept' },
  {
    name: 'audit-bytes',
    value: 'SIZE',
    fallback: '1G',
    help: 'and how big it may get, the oldest days going first',
  },
  { name: 'nbd', value: 'HOST:PORT', fallback: '127.0.0.1:10809', help: 'where NBD listens' },
  { name: 'nbd-socket', value: 'PATH', help: 'Unix socket on which NBD listens too' },
  {
    name: 'nbd-socket-mode',
    value: 'MODE',
    fallback: '600',
    help: 'permissions of that socket, octal; 660 lets the group connect too',
  },
  {
    name: 'nbd-tls',
    value: 'MODE',
    help: `TLS of NBD: ${TLS_MODES.join(', ')} (require when a certificate or keys are given, else off)`,
  },
  { name: 'nbd-tls-cert', value: 'FILE', help: 'certificate of the server and those above it, PEM' },
  { name: 'nbd-tls-key', value: 'FILE', help: 'key of that certificate, PEM' },
  { name: 'nbd-tls-ca', value: 'FILE', help: 'ask clients for certificates that this authority signed, PEM' },
  {
    name: 'nbd-tls-psk',
    value: 'FILE',
    help: 'keys shared with clients, lines IDENTITY:HEXKEY as of psktool',
  },
  { name: 'nbd-access', value: 'FILE', help: 'rules which client may use which export, JSON' },
  { name: 'insecure-nbd', help: 'let NBD listen beyond this machine without requiring TLS' },
  { name: 'import-dir', value: 'DIR', help: 'directory whose files can be imported by path' },
  {
    name: 'trust-images',
    help: 'read the images there without a sandbox: only where nobody hostile made them',
  },
  {
    name: 'guest-agent-dir',
    value: 'DIR',
    help: 'directory whose sockets of guest agents backups may be quiesced through',
  },
  {
    name: 'file-appliances',
    value: 'N',
    fallback: '2',
    help: 'appliances that read files out of backups at the same time (docs/files.md); 0: none',
  },
  {
    name: 'host-name',
    value: 'NAME',
    multiple: true,
    help: 'host name that requests may carry, besides localhost and IP addresses',
  },
  { name: 'chunk-bytes', value: 'SIZE', help: 'size of chunks when a new store is made (4K to 64K; 4K)' },
  {
    name: 'keyed-hash',
    help: 'key the ids of chunks with a secret of the store when a new one is made; one that is there has to agree: SECURITY.md',
  },
  {
    name: 'gc-every',
    value: 'MINUTES',
    fallback: '60',
    help: 'collect garbage so often when there may be some; 0: never',
  },
  {
    name: 'verify-every',
    value: 'HOURS',
    fallback: '168',
    help: 'verify the whole store so long after the last time; 0: never',
  },
  {
    name: 'verify-rate',
    value: 'MIB',
    fallback: '100',
    help: 'MiB a second that this verification reads at most',
  },
  {
    name: 'tripwire-lock',
    value: 'DAYS',
    fallback: String(TRIPWIRE_LOCK_DAYS),
    help: 'lock the last good backup so long when a VM seems to be encrypted; 0: tell, and lock nothing',
  },
  {
    name: 'accept-damage',
    value: 'PART',
    multiple: true,
    only: 'flag',
    help: `start in spite of damage to ${DAMAGED_PARTS.join(' or ')}, without what is lost with it: docs/durability.md`,
  },
  { name: 'log-level', value: 'LEVEL', fallback: 'info', help: LOG_LEVELS.join(', ') },
  { name: 'json', only: 'flag', help: 'print where it listens as one line of JSON' },
];

/** Values of flags by their names. */
export type FlagValues = Readonly<Record<string, string | boolean | readonly string[] | undefined>>;

/** @throws `address-invalid`, `size-invalid`, `request-invalid` */
export function runOptions(values: FlagValues): RunOptions {
  const text = (name: string): string | undefined => {
    const value = values[name] ?? SERVE_FLAGS.find((flag) => flag.name === name)?.fallback;
    return typeof value === 'string' ? value : undefined;
  };
  const logLevel = LOG_LEVELS.find((level) => level === text('log-level'));
  if (logLevel === undefined)
    throw new PandoError('request-invalid', `--log-level is one of ${LOG_LEVELS.join(', ')}`);
  const minutes = Number(text('gc-every'));
  if (!(minutes >= 0 && minutes <= 10_000)) {
    throw new PandoError('request-invalid', '--gc-every is a number of minutes, up to 10000');
  }
  const hours = Number(text('verify-every'));
  if (!(hours >= 0 && hours <= 100_000)) {
    throw new PandoError('request-invalid', '--verify-every is a number of hours, up to 100000');
  }
  const rate = Number(text('verify-rate'));
  if (!(rate >= 1 && rate <= 1_000_000)) {
    throw new PandoError('request-invalid', '--verify-rate is a number of MiB a second from 1 to 1000000');
  }
  const lockDays = Number(text('tripwire-lock'));
  if (!(lockDays >= 0 && lockDays <= LOCK_DAYS_MAX)) {
    throw new PandoError('request-invalid', `--tripwire-lock is a number of days, up to ${LOCK_DAYS_MAX}`);
  }
  const accepted = values['accept-damage'];
  const acceptDamage = (Array.isArray(accepted) ? accepted : []).map((value: unknown) => {
    const part = DAMAGED_PARTS.find((each) => each === value);
    if (part === undefined)
      throw new PandoError('request-invalid', `--accept-damage is one of ${DAMAGED_PARTS.join(', ')}`);
    return part;
  });
  const nbdTls = TLS_MODES.find((mode) => mode === text('nbd-tls'));
  if (nbdTls === undefined && text('nbd-tls') !== undefined) {
    throw new PandoError('request-invalid', `--nbd-tls is one of ${TLS_MODES.join(', ')}`);
  }
  const octal = (name: string): number => {
    const mode = text(name)!;
    if (!/^0?[0-7]{3}$/.test(mode)) {
      throw new PandoError('request-invalid', `--${name} is an octal mode such as 600 or 660`);
    }
    return Number.parseInt(mode, 8);
  };
  const auditDays = Number(text('audit-days'));
  if (!(auditDays >= 1 && auditDays <= 36_500)) {
    throw new PandoError('request-invalid', '--audit-days is a number of days from 1 to 36500');
  }
  const [rateLimit, rateLimitAddress, wrongTokens, connectionsOfAddress] = (
    [
      ['rate-limit', RATE_MAX],
      ['rate-limit-address', RATE_MAX],
      ['wrong-tokens', WRONG_TOKENS_MAX],
      ['connections-address', CONNECTIONS_MAX],
    ] as const
  ).map(([name, max]) => {
    const count = Number(text(name));
    if (!(Number.isInteger(count) && count >= 0 && count <= max))
      throw new PandoError('request-invalid', `--${name} is a whole number, up to ${max}`);
    return count;
  }) as [number, number, number, number];
  const fileAppliances = Number(text('file-appliances'));
  if (!(Number.isInteger(fileAppliances) && fileAppliances >= 0 && fileAppliances <= 64)) {
    throw new PandoError('request-invalid', '--file-appliances is a number from 0 to 64');
  }
  const nbdSocketMode = octal('nbd-socket-mode');
  const httpSocketMode = octal('http-socket-mode');
  const [certificate, key] = [text('tls-cert'), text('tls-key')];
  if ((certificate === undefined) !== (key === undefined)) {
    throw new PandoError('request-invalid', '--tls-cert and --tls-key go together');
  }
  const given = <Name extends string>(name: Name, value: string | undefined): { [name in Name]?: string } =>
    value === undefined ? {} : ({ [name]: value } as { [name in Name]: string });
  const nbdSocket = text('nbd-socket');
  const importDirectory = text('import-dir');
  const chunkBytes = text('chunk-bytes');
  const hostNames = values['host-name'];
  const keyedHash = values['keyed-hash'];
  return {
    dataDirectory: text('data')!,
    http: parseAddress(text('http')!),
    ...given('httpSocket', text('http-socket')),
    httpSocketMode,
    ...(certificate === undefined || key === undefined ? {} : { tlsFiles: { certificate, key } }),
    auditDays,
    auditBytes: parseSize(text('audit-bytes')!),
    insecureHttp: values['insecure-http'] === true,
    ...{ rateLimit, rateLimitAddress, wrongTokens, connectionsOfAddress },
    nbd: parseAddress(text('nbd')!),
    ...given('nbdSocket', nbdSocket),
    nbdSocketMode,
    ...(nbdTls === undefined ? {} : { nbdTls }),
    nbdTlsFiles: {
      ...given('certificate', text('nbd-tls-cert')),
      ...given('key', text('nbd-tls-key')),
      ...given('clientCa', text('nbd-tls-ca')),
      ...given('pskKeys', text('nbd-tls-psk')),
    },
    ...given('nbdAccessFile', text('nbd-access')),
    insecureNbd: values['insecure-nbd'] === true,
    ...(importDirectory === undefined ? {} : { importDirectory }),
    ...given('guestAgentDirectory', text('guest-agent-dir')),
    trustImages: values['trust-images'] === true,
    fileAppliances,
    ...(Array.isArray(hostNames) ? { hostNames: hostNames as string[] } : {}),
    ...(chunkBytes === undefined ? {} : { chunkBytes: parseSize(chunkBytes) }),
    ...(typeof keyedHash === 'boolean' ? { keyedHash } : {}),
    gcEveryMs: minutes * 60_000,
    verifyEveryMs: hours * 3_600_000,
    verifyBytesPerSecond: rate * 2 ** 20,
    tripwireLockDays: lockDays,
    ...(acceptDamage.length === 0 ? {} : { acceptDamage }),
    logLevel,
    json: values['json'] === true,
  };
}
