/** What format an image file has, told by its content. */
import { extname } from 'node:path';
import { openImageFile, readAt, type ImageFile } from './image-file.ts';
import type { ImageFormat } from './types.ts';

const HEAD_BYTES = 1024;
/** A fixed VHD has its whole header at the end. */
export const VHD_FOOTER_BYTES = 512;

export interface Recognised {
  readonly format: ImageFormat;
  /** A format that is recognised and not read; `format` is then meaningless. */
  readonly unsupported?: string;
  /** Something that a person should know. */
  readonly remark?: string;
}

interface Magic {
  readonly at: number;
  readonly bytes: Buffer;
  readonly format?: ImageFormat;
  readonly unsupported?: string;
}

const magic = (at: number, text: string, is: ImageFormat | { unsupported: string }): Magic => ({
  at,
  bytes: Buffer.from(text, 'latin1'),
  ...(typeof is === 'string' ? { format: is } : is),
});

/** From the specifications of the formats; QEMU looks for the same bytes. */
const MAGICS: readonly Magic[] = [
  magic(0, 'QFI\xfb\0\0\0\x01', { unsupported: 'a qcow image of version 1' }),
  magic(0, 'QFI\xfb', 'qcow2'),
  magic(0, 'KDMV', 'vmdk'),
  magic(0, 'COWD', { unsupported: 'a VMDK of the old ESX kind (COWD)' }),
  magic(0, 'vhdxfile', 'vhdx'),
  magic(0, 'conectix', 'vpc'),
  magic(64, '\x7f\x10\xda\xbe', 'vdi'),
  magic(0, 'QED\0', { unsupported: 'a QED image' }),
  magic(0, 'LUKS\xba\xbe', { unsupported: 'an encrypted (LUKS) volume' }),
  magic(0, 'WithoutFreeSpace', { unsupported: 'a Parallels image' }),
  magic(0, 'WithouFreSpacExt', { unsupported: 'a Parallels image' }),
  magic(0, 'Bochs Virtual HD Image', { unsupported: 'a Bochs image' }),
  magic(0, 'MSWIM\0\0\0', { unsupported: 'a WIM archive' }),
  magic(0, '\x1f\x8b', { unsupported: 'compressed (gzip)' }),
  magic(0, '\xfd7zXZ\0', { unsupported: 'compressed (xz)' }),
  magic(0, '\x28\xb5\x2f\xfd', { unsupported: 'compressed (zstd)' }),
  magic(257, 'ustar', { unsupported: 'a tar archive (an OVA is one: unpack it)' }),
];

/** A descriptor of a VMDK: text that begins so, as far as space and comments allow. */
const VMDK_DESCRIPTOR = /^(?:\s|#[^\n]*\n)*(?:# Disk DescriptorFile|version\s*=)/i;

/** @throws `import-not-a-file` */
export async function recognise(path: string): Promise<Recognised> {
  const file = await openImageFile(path);
  try {
    return await recogniseFile(file);
  } finally {
    await file.handle.close();
  }
}

export async function recogniseFile(file: ImageFile): Promise<Recognised> {
  const head = await readAt(file, 0, HEAD_BYTES);
  for (const { at, bytes, format, unsupported } of MAGICS) {
    if (!head.subarray(at, at + bytes.length).equals(bytes)) continue;
    return unsupported === undefined ? { format: format! } : { format: 'raw', unsupported };
  }
  if (isVmdkDescriptor(head)) return { format: 'vmdk' };
  if (!(await hasVhdFooter(file))) return { format: 'raw' };
  // The last sector may be a guest's: the name has to agree.
  if (['.vhd', '.vpc'].includes(extname(file.path).toLowerCase())) return { format: 'vpc' };
  return {
    format: 'raw',
    remark:
      'it ends like a fixed VHD; read as raw, because its name does not end in .vhd (or state --format vpc)',
  };
}

export function isVmdkDescriptor(head: Uint8Array): boolean {
  const text = Buffer.from(head).toString('latin1');
  return text.startsWith('# Disk DescriptorFile') || VMDK_DESCRIPTOR.test(text);
}

export async function hasVhdFooter(file: ImageFile): Promise<boolean> {
  if (file.bytes < VHD_FOOTER_BYTES) return false;
  const footer = await readAt(file, file.bytes - VHD_FOOTER_BYTES, 8);
  return footer.toString('latin1') === 'conectix';
}
