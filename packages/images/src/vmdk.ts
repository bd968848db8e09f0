/**
 * VMDK images, as far as they name other files: the sparse header (`KDMV`) and the descriptor, a text that lists
 * extents. Layout: VMware's "Virtual Disk Format 5.0".
 */
import { DISK_BYTES_MAX, PandoError } from '@pando/common';
import { isVmdkDescriptor } from './recognise.ts';
import { readAt, type ImageFile } from './image-file.ts';

const SECTOR = 512;
const HEADER_BYTES = 79;
/** Descriptors are about 1 KiB. */
const DESCRIPTOR_BYTES_MAX = 1024 * 1024;
/** Each is an open file: 2 TiB in pieces of 2 GiB. */
const EXTENTS_MAX = 1024;
const NO_PARENT = 'ffffffff';

const EXTENT_KINDS: Readonly<Record<string, VmdkExtent['kind']>> = {
  FLAT: 'flat',
  VMFS: 'flat',
  SPARSE: 'sparse',
};

/** One line of a descriptor: so many bytes of the disk, kept where. */
export interface VmdkExtent {
  readonly sizeBytes: number;
  readonly kind: 'flat' | 'sparse';
  /** A plain name, beside the descriptor. */
  readonly name: string;
  /** Of the first byte in a flat file. */
  readonly offset: number;
}

/** What kind of VMDK the file is: one sparse file that needs no other, or a list of extents in other files. */
export type VmdkLayout =
  { readonly kind: 'sparse' } | { readonly kind: 'extents'; readonly extents: readonly VmdkExtent[] };

/** @throws `image-format-mismatch`, `image-damaged`, `image-unsupported`, `image-refused` for names that lead elsewhere */
export async function readVmdkLayout(file: ImageFile): Promise<VmdkLayout> {
  const head = await readAt(file, 0, 1024);
  if (head.toString('latin1', 0, 4) === 'KDMV') {
    const descriptor = await checkSparseHeader(file, head);
    if (descriptor !== undefined) checkDescriptor(file, descriptor);
    return { kind: 'sparse' };
  }
  if (!isVmdkDescriptor(head))
    throw new PandoError('image-format-mismatch', `${file.path} is not a VMDK image`);
  if (file.bytes > DESCRIPTOR_BYTES_MAX) {
    throw new PandoError('image-damaged', `${file.path}: a descriptor of ${file.bytes} bytes`);
  }
  const text = (await readAt(file, 0, file.bytes)).toString();
  checkDescriptor(file, text);
  return { kind: 'extents', extents: parseExtents(file, text) };
}

/** An extent of its own is a sparse file that needs no other. @throws as readVmdkLayout */
export async function checkSparseExtent(file: ImageFile): Promise<void> {
  const layout = await readVmdkLayout(file);
  if (layout.kind !== 'sparse') {
    throw new PandoError('image-refused', `${file.path} is a part of a VMDK and a list of other files`);
  }
}

/** A descriptor of the extents in `lines`. */
export function descriptorText(lines: readonly string[]): string {
  const type = lines.some((line) => line.includes(' SPARSE '))
    ? 'twoGbMaxExtentSparse'
    : 'twoGbMaxExtentFlat';
  return `# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=${NO_PARENT}\ncreateType="${type}"\n${lines.join('\n')}\n`;
}

/** The descriptor that is embedded in a sparse file, where it has one. */
async function checkSparseHeader(file: ImageFile, head: Buffer): Promise<string | undefined> {
  if (head.length < HEADER_BYTES)
    throw new PandoError('image-damaged', `${file.path}: its header is cut off`);
  // Without a capacity QEMU would take the embedded descriptor for the list of extents and open what it names.
  if (head.readBigUInt64LE(12) === 0n) {
    throw new PandoError(
      'image-refused',
      `${file.path} is a VMDK without a size, which hides a list of other files`,
    );
  }
  const at = head.readBigUInt64LE(28);
  const sectors = head.readBigUInt64LE(36);
  if (at === 0n || sectors === 0n) return undefined;
  if (sectors > DESCRIPTOR_BYTES_MAX / SECTOR || at > BigInt(DISK_BYTES_MAX / SECTOR)) {
    throw new PandoError('image-damaged', `${file.path}: a descriptor of ${sectors} sectors at sector ${at}`);
  }
  const bytes = await readAt(file, Number(at) * SECTOR, Number(sectors) * SECTOR);
  const end = bytes.indexOf(0);
  return bytes.toString('utf8', 0, end < 0 ? bytes.length : end);
}

function checkDescriptor(file: ImageFile, text: string): void {
  const parent = /^\s*parentCID\s*=\s*"?([0-9a-f]+)/im.exec(text)?.[1]?.toLowerCase();
  if (parent !== undefined && parent !== NO_PARENT) {
    throw new PandoError(
      'image-unsupported',
      `${file.path} is a VMDK that builds on another one (a snapshot)`,
    );
  }
  if (/^\s*encryption\./im.test(text)) {
    throw new PandoError('image-unsupported', `${file.path} is an encrypted VMDK`);
  }
}

/** `RW 4192256 SPARSE "disk-s001.vmdk"`, `RW 204800 FLAT "disk-flat.vmdk" 0` */
function parseExtents(file: ImageFile, text: string): VmdkExtent[] {
  const extents: VmdkExtent[] = [];
  for (const line of text.split(/\r?\n/)) {
    if (!/^\s*(RW|RDONLY|NOACCESS)\s/.test(line)) continue;
    const match = /^\s*(?:RW|RDONLY)\s+(\d{1,15})\s+(\w+)(?:\s+"([^"]*)"(?:\s+(\d{1,15}))?)?\s*$/.exec(line);
    if (match === null) throw new PandoError('image-damaged', `${file.path}: an extent that cannot be read`);
    const [, sectors, type, name = '', offset = '0'] = match;
    const kind = EXTENT_KINDS[type!];
    if (kind === undefined) {
      throw new PandoError('image-unsupported', `${file.path} is a VMDK with ${type} extents`);
    }
    checkName(file, name);
    extents.push({ sizeBytes: Number(sectors) * SECTOR, kind, name, offset: Number(offset) * SECTOR });
    if (extents.length > EXTENTS_MAX) throw new PandoError('image-damaged', `${file.path}: too many extents`);
  }
  const sizeBytes = extents.reduce((sum, extent) => sum + extent.sizeBytes, 0);
  if (sizeBytes > DISK_BYTES_MAX) {
    throw new PandoError('size-invalid', `${file.path} is a disk of ${sizeBytes} bytes; the most is 64 TiB`);
  }
  if (extents.length === 0)
    throw new PandoError('image-damaged', `${file.path}: a descriptor without extents`);
  return extents;
}

function checkName(file: ImageFile, name: string): void {
  if (/[/\\:\0]/.test(name) || name === '' || name === '.' || name === '..') {
    throw new PandoError(
      'image-refused',
      `${file.path} names ${JSON.stringify(name.slice(0, 200))} as a part of itself; only plain names beside it are followed`,
    );
  }
}
