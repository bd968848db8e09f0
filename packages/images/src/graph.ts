/**
 * From an image file to what QEMU is told: an explicit block graph over files that are open already.
 *
 * QEMU would follow the names that a header holds. Here this file follows them, by rules: a backing file is followed only
 * where the caller allowed a directory, only when the format of the image that names it was stated (by the user,
 * by the header that names it, or by the extension of its name: a raw disk that a guest has made look like qcow2
 * has none of these), and only to a regular file that lies in that directory with all links resolved. QEMU then
 * gets descriptors, and `"backing": null` where a chain ends.
 */
import { PandoError, SECTOR_BYTES } from '@pando/common';
import { dirname, extname, isAbsolute, join } from 'node:path';
import { openImageFile, readAt, unnamedFile, type ImageFile } from './image-file.ts';
import { readQcow2Header } from './qcow2.ts';
import { hasVhdFooter, recogniseFile, VHD_FOOTER_BYTES } from './recognise.ts';
import { FIRST_IMAGE_FD } from './sandbox.ts';
import { IMAGE_FORMATS, type ImageFormat } from './types.ts';
import { checkSparseExtent, descriptorText, readVmdkLayout, type VmdkExtent } from './vmdk.ts';

/** Longest chain of backing files. */
const CHAIN_MAX = 64;

/** Extensions that state the formats whose images can name other files. */
const NAMING_EXTENSIONS: Partial<Record<ImageFormat, readonly string[]>> = {
  qcow2: ['.qcow2', '.qcow'],
  vmdk: ['.vmdk'],
};

export interface Graph {
  readonly node: object;
  /** In the order of their descriptors. */
  readonly files: readonly ImageFile[];
  /** For each qcow2 image of the chain: where it is, and a graph of it alone. */
  readonly qcow2: readonly { readonly path: string; readonly node: object }[];
}

export interface StatedFormat {
  readonly format: ImageFormat;
  /** Whether somebody besides the content says so. */
  readonly stated: boolean;
  /** Something that a person should know. */
  readonly remark?: string;
}

/** What the file is to be read as. @throws `image-unsupported`, `image-format-mismatch` */
export async function formatOf(file: ImageFile, stated: ImageFormat | undefined): Promise<StatedFormat> {
  if (stated !== undefined) return { format: stated, stated: true };
  const { format, unsupported, remark } = await recogniseFile(file);
  if (unsupported !== undefined) {
    throw new PandoError(
      'image-unsupported',
      `${file.path} is ${unsupported}; state --format raw to take its bytes as they are`,
    );
  }
  const extension = extname(file.path).toLowerCase();
  if (format !== 'raw' && extension === '.raw') {
    throw new PandoError(
      'image-format-mismatch',
      `${file.path} is called raw and looks like ${format}; state --format raw or --format ${format}`,
    );
  }
  return {
    format,
    stated: NAMING_EXTENSIONS[format]?.includes(extension) ?? false,
    ...(remark === undefined ? {} : { remark }),
  };
}

/**
 * The graph of an image that is not raw. Takes over `image`: its files are the caller's to close on success and are
 * closed when it throws.
 */
export async function buildGraph(
  image: ImageFile,
  how: StatedFormat,
  within: string | undefined,
): Promise<Graph> {
  const files: ImageFile[] = [image];
  try {
    const building: Building = { files, images: [image], qcow2: [], within };
    return { node: await formatNode(building, how), files, qcow2: building.qcow2 };
  } catch (error) {
    await closeAll(files);
    throw error;
  }
}

export async function closeAll(files: readonly ImageFile[]): Promise<void> {
  for (const { handle } of files) await handle.close();
}

interface Building {
  /** What is handed over, in the order of descriptors. */
  readonly files: ImageFile[];
  /** The chain so far; all of them are in `files` too. */
  readonly images: ImageFile[];
  readonly qcow2: { readonly path: string; readonly node: object }[];
  readonly within: string | undefined;
}

/** The node of the last of `images`; appends what it builds on. */
async function formatNode(building: Building, how: StatedFormat): Promise<object> {
  const { files, images } = building;
  const file = images.at(-1)!;
  await checkSignature(file, how.format);
  const node = (of: ImageFile): object => ({
    'driver': how.format,
    'read-only': true,
    'file': { 'driver': 'file', 'filename': fdPath(files.indexOf(of)), 'read-only': true },
  });
  if (how.format === 'vmdk') {
    const layout = await readVmdkLayout(file);
    const of =
      layout.kind === 'sparse' ? file : await openExtents(building, file, layout.extents, how.stated);
    return { ...node(of), backing: null };
  }
  if (how.format !== 'qcow2') return node(file);
  const { backing } = await readQcow2Header(file);
  building.qcow2.push({ path: file.path, node: { ...node(file), backing: null } });
  return {
    ...node(file),
    backing: backing === undefined ? null : await backingNode(building, backing, how.stated),
  };
}

function fdPath(index: number): string {
  return `/dev/fd/${FIRST_IMAGE_FD + index}`;
}

async function backingNode(
  building: Building,
  backing: { readonly name: string; readonly format: string | undefined },
  stated: boolean,
): Promise<object> {
  const { files, images, within } = building;
  const file = images.at(-1)!;
  const named = `${file.path} names ${JSON.stringify(backing.name.slice(0, 200))} as its backing file`;
  if (within === undefined) throw new PandoError('image-refused', `${named}, and none is allowed here`);
  if (!stated) {
    throw new PandoError(
      'image-refused',
      `${named}; that is followed only when its format is stated (--format qcow2) or its name ends in .qcow2`,
    );
  }
  if (images.length >= CHAIN_MAX) throw new PandoError('image-refused', `${named}: the chain is too long`);
  // A colon before the first slash is a protocol to QEMU: json:, nbd:, file:, ...
  if (/^[^/]*:/.test(backing.name) || backing.name.includes('\0')) {
    throw new PandoError('image-refused', `${named}; only names of files are followed`);
  }
  const path = isAbsolute(backing.name) ? backing.name : join(dirname(file.path), backing.name);
  const next = await openImageFile(path, within);
  files.push(next);
  images.push(next);
  await checkLoop(images, named);
  if (backing.format !== undefined && !isImageFormat(backing.format)) {
    throw new PandoError(
      'image-unsupported',
      `${named}, of format ${JSON.stringify(backing.format.slice(0, 40))}`,
    );
  }
  const how = await formatOf(next, backing.format);
  if (how.format !== 'raw') return formatNode(building, how);
  return {
    driver: 'raw',
    file: { 'driver': 'file', 'filename': fdPath(files.indexOf(next)), 'read-only': true },
  };
}

/**
 * Opens the extents that a VMDK lists. What QEMU gets is a list of our own, in which they are descriptors: resolves to that
 * file, which has no name.
 */
async function openExtents(
  { files, within }: Building,
  list: ImageFile,
  extents: readonly VmdkExtent[],
  stated: boolean,
): Promise<ImageFile> {
  const refuse = (why: string): PandoError =>
    new PandoError('image-refused', `${list.path} is a list of other files${why}`);
  if (within === undefined) throw refuse(', and none are allowed here');
  if (!stated) {
    throw refuse(
      '; they are followed only when its format is stated (--format vmdk) or its name ends in .vmdk',
    );
  }
  const lines: string[] = [];
  const folder = dirname(list.path);
  for (const { name, kind, sizeBytes, offset } of extents) {
    const file = await openImageFile(join(folder, name), within);
    const index = files.push(file) - 1;
    // A link could still lead to somebody else's disk inside the directory that is allowed.
    if (dirname(file.path) !== folder)
      throw refuse(`, and ${JSON.stringify(name)} leads to another directory`);
    if (kind === 'sparse') await checkSparseExtent(file);
    if (kind === 'flat' && file.bytes < offset + sizeBytes) {
      throw new PandoError('image-damaged', `${file.path} is shorter than ${list.path} says`);
    }
    const place = kind === 'sparse' ? 'SPARSE' : 'FLAT';
    lines.push(
      `RW ${sizeBytes / SECTOR_BYTES} ${place} "${fdPath(index)}"${kind === 'flat' ? ` ${offset / SECTOR_BYTES}` : ''}`,
    );
  }
  const own = await unnamedFile(descriptorText(lines));
  files.push(own);
  return own;
}

async function checkLoop(files: readonly ImageFile[], named: string): Promise<void> {
  const stats = await Promise.all(files.map(({ handle }) => handle.stat({ bigint: true })));
  const last = stats.pop()!;
  if (stats.some(({ dev, ino }) => dev === last.dev && ino === last.ino)) {
    throw new PandoError('image-refused', `${named}, which leads back to itself`);
  }
}

/** What a format must show, whoever said that the file has it; and kinds of it that need other files. */
async function checkSignature(file: ImageFile, format: ImageFormat): Promise<void> {
  const mismatch = (): PandoError =>
    new PandoError(
      'image-format-mismatch',
      `${file.path} is not ${format === 'vpc' ? 'a VHD (vpc)' : format}`,
    );
  const head = await readAt(file, 0, VHD_FOOTER_BYTES);
  if (format === 'vdi' && !head.subarray(64, 68).equals(Buffer.from([0x7f, 0x10, 0xda, 0xbe])))
    throw mismatch();
  const VDI_KINDS = [1, 2];
  if (format === 'vdi' && head.length >= 80 && !VDI_KINDS.includes(head.readUInt32LE(76))) {
    throw new PandoError(
      'image-unsupported',
      `${file.path} is a VDI that builds on another one (differencing)`,
    );
  }
  if (format === 'vhdx' && head.toString('latin1', 0, 8) !== 'vhdxfile') throw mismatch();
  if (format === 'vpc') {
    const atStart = head.toString('latin1', 0, 8) === 'conectix';
    if (!atStart && !(await hasVhdFooter(file))) throw mismatch();
    const DIFFERENCING = 4;
    if (atStart && head.length >= 64 && head.readUInt32BE(60) === DIFFERENCING) {
      throw new PandoError(
        'image-unsupported',
        `${file.path} is a VHD that builds on another one (differencing)`,
      );
    }
  }
}

function isImageFormat(text: string): text is ImageFormat {
  return (IMAGE_FORMATS as readonly string[]).includes(text);
}
