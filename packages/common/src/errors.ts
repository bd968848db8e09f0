/**
 * The one error class of Pando and the table of its codes.
 *
 * `code` is stable and what programs compare; `message` is for people and free to change; `kind`
 * tells the caller what to do. `docs/errors.md` lists every code with its remedy, and a test holds
 * that page and this table together.
 */

/**
 * What the caller can do about an error:
 * `invalid` fix the request · `conflict` something else is in the way · `missing` it does not exist ·
 * `unavailable` try again later (a full disk is one) · `data` stored bytes are wrong: stop and repair ·
 * `internal` a bug: report it.
 */
export type ErrorKind = 'invalid' | 'conflict' | 'missing' | 'unavailable' | 'data' | 'internal';

/** Every code, with its kind and the remedy that `docs/errors.md` prints. */
export const ERROR_CODES = {
  'id-invalid': { kind: 'invalid', remedy: 'Give an id as 64 hex digits.' },
  'name-invalid': {
    kind: 'invalid',
    remedy: 'Use a name of 1 to 255 bytes of UTF-8 without `/`, `@` and control characters.',
  },
  'size-invalid': {
    kind: 'invalid',
    remedy: 'Use a size from 512 bytes to 64 TiB that is a multiple of 512.',
  },
  'not-allowed': {
    kind: 'conflict',
    remedy: 'Ask whoever runs the server to allow your certificate name or PSK identity for this export.',
  },
  'unauthenticated': {
    kind: 'invalid',
    remedy:
      'Send a token: `Authorization: Bearer …`; the command takes it from PANDO_TOKEN, PANDO_TOKEN_FILE or `pando login`. The first one is in the file `admin-token` of the data directory (docs/access.md).',
  },
  'forbidden': {
    kind: 'invalid',
    remedy:
      'Ask whoever gives out tokens for one with the role that the message names (`pando token create`).',
  },
  'scope-exceeded': {
    kind: 'invalid',
    remedy:
      'Stay with the names or tags of the scope, which `pando whoami` shows, or use a token without one.',
  },
  'last-admin': {
    kind: 'conflict',
    remedy: 'Make another token with the role admin first; without one nobody could make tokens any more.',
  },
  'token-missing': { kind: 'missing', remedy: 'Check the name or id; `pando token ls` lists tokens.' },
  'request-invalid': { kind: 'invalid', remedy: 'Fix the fields that the message names.' },
  'body-too-large': {
    kind: 'invalid',
    remedy: 'Send a smaller body; disks go to `POST /imports` as a stream.',
  },
  'media-type-unsupported': {
    kind: 'invalid',
    remedy: 'Send JSON with `Content-Type: application/json`; `POST /imports` also takes streams.',
  },
  'host-refused': {
    kind: 'invalid',
    remedy: 'Use localhost or an IP address as host, or start the server with `--host-name` for this name.',
  },
  'request-timeout': { kind: 'invalid', remedy: 'Send the whole request without long pauses.' },
  'stream-invalid': { kind: 'invalid', remedy: 'Fix the framing of the sparse stream; see docs/api.md.' },
  'address-invalid': {
    kind: 'invalid',
    remedy: 'Write an address as HOST:PORT, for example 127.0.0.1:7400.',
  },
  'uri-invalid': {
    kind: 'invalid',
    remedy:
      'Write an NBD URI as nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH; see docs/cli.md.',
  },
  'range-invalid': { kind: 'invalid', remedy: 'Keep offset and length inside the disk.' },
  'proof-invalid': {
    kind: 'invalid',
    remedy:
      'The file proves nothing, or nothing about that root; get the proof and the root anew (docs/proofs.md).',
  },
  'shrink-refused': {
    kind: 'invalid',
    remedy: 'Shrinking throws data away; allow it explicitly (`--shrink`, `"shrink": true`).',
  },
  'import-not-a-file': { kind: 'invalid', remedy: 'Import a regular file.' },
  'import-path-refused': {
    kind: 'invalid',
    remedy: 'Name a path inside the directory that the server was started with `--import-dir` for.',
  },
  'image-format-mismatch': {
    kind: 'invalid',
    remedy: 'Leave `--format` out to have the format recognised, or name the one that the image has.',
  },
  'image-unsupported': {
    kind: 'invalid',
    remedy: 'Convert the image with the tools that made it, for example `qemu-img convert -O qcow2`.',
  },
  'image-refused': {
    kind: 'invalid',
    remedy:
      'An image may name other files only where that was allowed: beside it, and when its format was stated. See SECURITY.md.',
  },
  'image-damaged': {
    kind: 'invalid',
    remedy: 'The image cannot be read; check it with `qemu-img check` or copy it again.',
  },
  'read-only': {
    kind: 'invalid',
    remedy: 'Backups are immutable; restore the backup as a VM and write to that.',
  },
  'file-type-wrong': {
    kind: 'invalid',
    remedy: '`pando backup cat` reads regular files, `pando backup extract` also directories.',
  },
  'file-system-encrypted': {
    kind: 'invalid',
    remedy: 'Its key is in the guest, not here: attach the backup over NBD and open it there.',
  },
  'cursor-invalid': { kind: 'invalid', remedy: 'Start the list again without a cursor.' },
  'name-taken': { kind: 'conflict', remedy: 'Choose another name, or delete or rename what holds it.' },
  'policy-busy': {
    kind: 'conflict',
    remedy: 'The policy is suspended, resume it; or such a run is under way, wait until it has ended.',
  },
  'backup-locked': {
    kind: 'conflict',
    remedy: 'Wait until the date that the backup is locked until; a lock can be extended, and not lifted.',
  },
  'clock-set-back': {
    kind: 'conflict',
    remedy: "Set this machine's clock right: it is behind what it was, and locks and expiry count by it.",
  },
  'vm-attached': {
    kind: 'conflict',
    remedy: 'Disconnect the clients of the VM, or use force, which disconnects them.',
  },
  'disk-in-use': {
    kind: 'conflict',
    remedy: 'Wait until the other operation on this disk has ended.',
  },
  'idempotency-conflict': {
    kind: 'conflict',
    remedy: 'Use a fresh Idempotency-Key for a request that differs from the one it was first used with.',
  },
  'address-in-use': {
    kind: 'conflict',
    remedy: 'Another program listens there; choose another address or stop it.',
  },
  'file-exists': {
    kind: 'conflict',
    remedy: 'Choose another place, or overwrite it with `--force` where the command has that.',
  },
  'store-locked': {
    kind: 'conflict',
    remedy: 'Another process has this data directory open; stop it or choose another directory.',
  },
  'store-foreign': {
    kind: 'conflict',
    remedy: 'The directory holds files of something else; choose an empty directory or one that Pando made.',
  },
  'store-hash-fixed': {
    kind: 'conflict',
    remedy:
      'Whether ids are keyed is chosen when a store is made, for good: let `keyed-hash` say what the store is, or leave it out; or choose another data directory.',
  },
  'store-newer': {
    kind: 'conflict',
    remedy: 'The data directory was written by a newer Pando; upgrade this one.',
  },
  'catalog-whole': {
    kind: 'conflict',
    remedy:
      'Nothing needs to be made anew; with `--force` the catalog is replaced by its mirror, which may be some seconds older.',
  },
  'vm-missing': { kind: 'missing', remedy: 'Check the name or id; `pando vm ls` lists VMs.' },
  'disk-missing': {
    kind: 'missing',
    remedy: 'Check the disk name; `pando vm show` lists the disks of a VM.',
  },
  'policy-missing': {
    kind: 'missing',
    remedy: 'Check the name or id; `pando policy ls` lists policies.',
  },
  'backup-missing': { kind: 'missing', remedy: 'Check the name or id; `pando backup ls` lists backups.' },
  'file-system-missing': {
    kind: 'missing',
    remedy:
      '`pando backup ls-files BACKUP --file-systems` lists the file systems; name one with `--file-system`.',
  },
  'file-missing': {
    kind: 'missing',
    remedy: 'Check the path; `pando backup ls-files` lists a directory. Links are followed inside the guest.',
  },
  'export-missing': {
    kind: 'missing',
    remedy: 'Check the export name; `nbdinfo --list` shows the exports of an NBD server.',
  },
  'store-missing': { kind: 'missing', remedy: 'Name a data directory that Pando made, with `--data`.' },
  'job-missing': {
    kind: 'missing',
    remedy: 'Jobs are kept for a while only; `GET /api/v1/jobs` lists them.',
  },
  'webhook-missing': { kind: 'missing', remedy: '`pando webhook ls` lists webhooks with their ids.' },
  'webhook-invalid': {
    kind: 'invalid',
    remedy:
      'Give the URL of the receiver as https://…; http only with `--insecure` (`"insecure": true`), names and passwords not at all.',
  },
  'route-missing': { kind: 'missing', remedy: 'See `/openapi.json` for the routes that exist.' },
  'guest-agent-refused': {
    kind: 'invalid',
    remedy:
      'Name a guest agent as `qemu-ga:PATH`, the path of a Unix socket inside the directory that the server was started with `--guest-agent-dir` for.',
  },
  'guest-frozen': {
    kind: 'conflict',
    remedy:
      'Wait until the other backup of this guest has ended; a guest that could not be thawed is in the log of the server.',
  },
  'guest-agent-gone': {
    kind: 'unavailable',
    remedy:
      'Check that QEMU runs and has a `virtserialport` named org.qemu.guest_agent.0 on that socket; see docs/hypervisors.md.',
  },
  'guest-agent-failed': {
    kind: 'unavailable',
    remedy:
      'Check that `qemu-guest-agent` runs in the guest and that no one else is connected to its socket, or take the backup without `--quiesce`.',
  },
  'quiesce-timeout': {
    kind: 'unavailable',
    remedy:
      'The guest could not be kept at rest long enough, and no backup was kept. Try again when the server is less busy.',
  },
  'store-full': {
    kind: 'unavailable',
    remedy:
      'The disk under the data directory is full; make room. Reads go on; writes work again by themselves.',
  },
  'store-failed': {
    kind: 'unavailable',
    remedy:
      'A sync of the data directory failed, so the store stopped writing. Check the disk, then restart.',
  },
  'server-unreachable': {
    kind: 'unavailable',
    remedy: 'Start a server (`npm start`, `pando serve`), or set PANDO_URL to where one listens.',
  },
  'shutting-down': { kind: 'unavailable', remedy: 'The server is stopping; try again when it is back.' },
  'audit-unavailable': {
    kind: 'unavailable',
    remedy:
      'Changes are refused while nobody could say afterwards who made them: make room on the disk under the data directory (deleting works), or check it; the log of the server says more.',
  },
  'too-busy': { kind: 'unavailable', remedy: 'A limit on work in flight is reached; try again later.' },
  'rate-limited': {
    kind: 'unavailable',
    remedy:
      'Wait as long as `Retry-After` says, and ask less often; or have the limits of the server raised (`--rate-limit`, docs/access.md).',
  },
  'import-interrupted': {
    kind: 'unavailable',
    remedy: 'The upload broke off; nothing was kept. Run the import again.',
  },
  'connection-lost': {
    kind: 'unavailable',
    remedy: 'The connection to the other side was lost; check that it runs, and try again.',
  },
  'protocol-error': {
    kind: 'unavailable',
    remedy:
      'What answers there does not keep to the NBD protocol; check host and port, or report it to its makers.',
  },
  'tls-file-invalid': {
    kind: 'invalid',
    remedy:
      'Give `--nbd-tls-cert` and `--nbd-tls-key` (PEM), `--nbd-tls-psk` (lines of psktool) or both, and for REST `--tls-cert` and `--tls-key`; the message says what is wrong with which.',
  },
  'tls-key-mismatch': {
    kind: 'invalid',
    remedy: 'Give the key that the server certificate was made for, and that certificate first in its file.',
  },
  'tls-certificate-expired': {
    kind: 'invalid',
    remedy: "Renew the server certificate, and check this machine's clock.",
  },
  'access-file-invalid': {
    kind: 'invalid',
    remedy: 'Fix the place in the access file that the message names; docs/nbd.md has the format.',
  },
  'config-invalid': {
    kind: 'invalid',
    remedy:
      'Fix the places that the message names; `pando config check` looks again, and docs/configuration.md has every option.',
  },
  'server-file-unreadable': {
    kind: 'invalid',
    remedy: 'Check that the file that the flag names exists and that the server may read it.',
  },
  'nbd-exposed': {
    kind: 'invalid',
    remedy:
      'Give NBD certificates or keys (`--nbd-tls-cert`, `--nbd-tls-psk`), let it listen on 127.0.0.1, or accept with `--insecure-nbd` that all who reach it may do everything.',
  },
  'http-exposed': {
    kind: 'invalid',
    remedy:
      'Give REST a certificate (`--tls-cert`, `--tls-key`), let it listen on 127.0.0.1, or accept with `--insecure-http` that who listens on the way sees tokens.',
  },
  'tls-failed': {
    kind: 'invalid',
    remedy:
      'Check certificates, keys and host name; `nbds` and `https` need a server with TLS, `nbd` and `http` one without. PANDO_CA names a file with the authority to trust.',
  },
  'source-failed': {
    kind: 'unavailable',
    remedy: 'The disk that was read from gave an error; check it where it is served. Nothing was kept.',
  },
  'verify-failed': {
    kind: 'unavailable',
    remedy:
      'What was read again differs from what was stored, and nothing was kept. Copy from a source that stands still.',
  },
  'export-interrupted': {
    kind: 'unavailable',
    remedy: 'The download broke off; no file was left. Run the export again.',
  },
  'file-failed': { kind: 'unavailable', remedy: 'Check the local disk: room, permissions, health.' },
  'cancelled': { kind: 'unavailable', remedy: 'The work was cancelled; start it again if it is wanted.' },
  'tool-missing': {
    kind: 'unavailable',
    remedy: 'Install the package that the message names; raw images need no other program.',
  },
  'files-off': {
    kind: 'unavailable',
    remedy: 'Start the server with `--file-appliances` above 0, or attach the backup and read it yourself.',
  },
  'files-tool-failed': {
    kind: 'unavailable',
    remedy:
      'libguestfs could not start its appliance, or not read the file system; `libguestfs-test-tool` and docs/files.md say what it needs.',
  },
  'confinement-unavailable': {
    kind: 'unavailable',
    remedy:
      'Allow bubblewrap (`bwrap`) to make namespaces, in the kernel, AppArmor or the container; or, for images from somebody you trust, go without: `pando vm import --trust-image`, `pando serve --trust-images`.',
  },
  'chunk-unknown': {
    kind: 'conflict',
    remedy: 'A chunk that was sent by its id is not in the store, or not any more: send its bytes.',
  },
  'ids-keyed': {
    kind: 'conflict',
    remedy:
      'Ids of this store are keyed with a secret of its own, and mean nothing outside of it (SECURITY.md): send bytes in place of ids, and compare disks with `pando diff`. There are no proofs of its disks.',
  },
  'chunk-missing': {
    kind: 'data',
    remedy: 'A chunk that a disk needs is not in the store; run `pando verify`.',
  },
  'chunk-corrupt': {
    kind: 'data',
    remedy: 'Stored bytes do not match their checksum or id; run `pando verify` and check the disk.',
  },
  'segment-corrupt': { kind: 'data', remedy: 'A segment file is damaged; run `pando verify`.' },
  'index-corrupt': {
    kind: 'data',
    remedy: 'The index is damaged; it is made anew from the segments when the server is started again.',
  },
  'log-corrupt': {
    kind: 'data',
    remedy:
      'The write log is damaged. Keep a copy of the data directory; a server that is started with `--accept-damage log` goes on without what the message names (docs/durability.md).',
  },
  'catalog-corrupt': {
    kind: 'data',
    remedy:
      'The catalog is damaged or gone. Keep a copy of the data directory, then make the catalog anew: `pando verify --rebuild-catalog --data DIR`.',
  },
  'catalog-unmirrored': {
    kind: 'data',
    remedy:
      'The segments hold no mirror of the catalog that can be read; keep a copy of the data directory and ask for help.',
  },
  'internal': { kind: 'internal', remedy: 'This is a bug in Pando; report it with the server log.' },
} as const satisfies Record<string, { kind: ErrorKind; remedy: string }>;

export type ErrorCode = keyof typeof ERROR_CODES;

/** An error with a stable code; `cause` keeps what went wrong underneath. */
export class PandoError extends Error {
  readonly code: ErrorCode;
  readonly kind: ErrorKind;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'PandoError';
    this.code = code;
    this.kind = ERROR_CODES[code].kind;
  }
}

/** Whether `error` is a PandoError, of the given code when one is given. */
export function isPandoError(error: unknown, code?: ErrorCode): error is PandoError {
  return error instanceof PandoError && (code === undefined || error.code === code);
}

/**
 * Turns what the file system throws into a PandoError: a full disk (ENOSPC, EDQUOT, EFBIG) becomes
 * `store-full`; PandoErrors pass unchanged; anything else becomes `fallback`.
 */
export function fromIoError(error: unknown, what: string, fallback: ErrorCode): PandoError {
  if (error instanceof PandoError) return error;
  const errno = (error as NodeJS.ErrnoException | undefined)?.code;
  if (errno === 'ENOSPC' || errno === 'EDQUOT' || errno === 'EFBIG') {
    return new PandoError('store-full', `${what}: no space left on the disk`, { cause: error });
  }
  const reason = error instanceof Error ? error.message : String(error);
  return new PandoError(fallback, `${what}: ${reason}`, { cause: error });
}
