/** `pando prove` and `pando check-proof`: proofs as files. */
import { formatSize, fromIoError, PandoError } from '@pando/common';
import { checkProof, PROOF_RANGE_BYTES_MAX, ProofError, type ProvenRange } from '@pando/proof';
import { open, stat, writeFile } from 'node:fs/promises';
import type { JsonOption } from './commands/arguments.ts';
import { connect } from './connect.ts';
import { print } from './output.ts';

/** More than any proof has: its range, and a node of 4,112 bytes for each 512 KiB and level. */
const PROOF_BYTES_MAX = PROOF_RANGE_BYTES_MAX + 1024 * 1024;

export interface ProveOptions extends JsonOption {
  readonly range: { readonly offset: number; readonly length: number };
  readonly disk: string;
  readonly force?: boolean;
}

export interface CheckProofOptions extends JsonOption {
  readonly root?: string;
  readonly out?: string;
  readonly force?: boolean;
}

export async function prove(reference: string, file: string, options: ProveOptions): Promise<void> {
  const { offset, length } = options.range;
  const { bytes: proof } = await connect().bytes('proveBackupDisk', {
    backup: reference,
    disk: options.disk,
    offset,
    length,
  });
  const proven = check(proof);
  await write(file, proof, options.force === true);
  print(options.json, { file, bytes: proof.byteLength, ...claimOf(proven) }, () =>
    [
      `${file}: ${formatSize(proof.byteLength)}, proves ${rangeText(proven)} under the root`,
      rootText(proven),
    ].join('\n'),
  );
}

export async function checkProofFile(file: string, options: CheckProofOptions): Promise<void> {
  const expected = options.root === undefined ? undefined : parseRoot(options.root);
  const proven = check(await read(file));
  if (expected !== undefined && expected.id !== idOf(proven)) {
    throw new PandoError('proof-invalid', `${file} is a proof under another root: ${rootText(proven)}`);
  }
  if (expected?.sizeBytes !== undefined && expected.sizeBytes !== proven.sizeBytes) {
    throw new PandoError(
      'proof-invalid',
      `${file} is about a disk of another size: ${proven.sizeBytes} bytes`,
    );
  }
  if (options.out !== undefined) await write(options.out, proven.data, options.force === true);
  const isRootGiven = expected?.sizeBytes !== undefined;
  print(options.json, { file, ...claimOf(proven), rootGiven: isRootGiven }, () => {
    const lines = [`${file} proves ${rangeText(proven)} under the root`, rootText(proven)];
    if (expected === undefined)
      lines.push('Whether that is the right root, only who knows it can tell: --root.');
    else if (!isRootGiven) lines.push('The size is what the proof says: give it with the root, as ID:SIZE.');
    return lines.join('\n');
  });
}

function check(proof: Uint8Array): ProvenRange {
  try {
    return checkProof(proof);
  } catch (error) {
    if (error instanceof ProofError) throw new PandoError('proof-invalid', error.message, { cause: error });
    throw error;
  }
}

async function read(file: string): Promise<Uint8Array> {
  try {
    const handle = await open(file);
    try {
      const { size } = await handle.stat();
      if (size > PROOF_BYTES_MAX) throw new PandoError('proof-invalid', `${file} is too large for a proof`);
      const bytes = new Uint8Array(size);
      let end = 0;
      for (let got = -1; got !== 0 && end < size; end += got) {
        got = (await handle.read(bytes, end, size - end, end)).bytesRead;
      }
      return bytes.subarray(0, end);
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw fromIoError(error, file, 'file-failed');
  }
}

async function write(file: string, bytes: Uint8Array, force: boolean): Promise<void> {
  try {
    await writeFile(file, bytes, { flag: force ? 'w' : 'wx' });
  } catch (error) {
    const isThere = (error as NodeJS.ErrnoException).code === 'EEXIST' && (await stat(file)).isFile();
    if (isThere) throw new PandoError('file-exists', `${file} exists`, { cause: error });
    throw fromIoError(error, file, 'file-failed');
  }
}

const idOf = ({ rootId }: ProvenRange): string => Buffer.from(rootId).toString('hex');
const rootText = (proven: ProvenRange): string => `${idOf(proven)}:${proven.sizeBytes}`;
const rangeText = ({ offset, length }: ProvenRange): string => `${length} bytes at ${offset}`;

function claimOf(proven: ProvenRange) {
  const { sizeBytes, chunkBytes, height, offset, length } = proven;
  return { root: idOf(proven), sizeBytes, chunkBytes, height, offset, length };
}

/** What the root says that somebody has: an id, and the size with it or not. @throws `request-invalid` */
function parseRoot(text: string): { readonly id: string; readonly sizeBytes: number | undefined } {
  const match = /^([0-9a-f]{64})(?::(\d{1,16}))?$/i.exec(text.trim());
  if (match === null)
    throw new PandoError('request-invalid', 'a root is 64 hex digits, a colon, and the size of the disk');
  return { id: match[1]!.toLowerCase(), sizeBytes: match[2] === undefined ? undefined : Number(match[2]) };
}
