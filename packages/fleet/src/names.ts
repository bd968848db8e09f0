/** Names and sizes as people give them: what is allowed, and what an export name means. */
import {
  DISK_BYTES_MAX,
  DISK_BYTES_MIN,
  nameProblem,
  PandoError,
  SECTOR_BYTES,
  VM_TAGS_MAX,
} from '@pando/common';

/**
 * The name in its one form (Unicode NFC).
 * @throws `name-invalid`
 */
export function checkName(what: string, text: string): string {
  const problem = nameProblem(text);
  if (problem !== undefined) {
    throw new PandoError('name-invalid', `${what} ${JSON.stringify(text.slice(0, 80))} ${problem}`);
  }
  return text.normalize('NFC');
}

/**
 * Tags in their one form: each a name, sorted, each once.
 * @throws `name-invalid`, `request-invalid` for too many
 */
export function checkTags(texts: readonly string[]): readonly string[] {
  const tags = [...new Set(texts.map((text) => checkName('tag', text)))].sort();
  if (tags.length > VM_TAGS_MAX) {
    throw new PandoError('request-invalid', `a VM carries at most ${VM_TAGS_MAX} tags, not ${tags.length}`);
  }
  return tags;
}

/** @throws `size-invalid` */
export function checkSize(sizeBytes: number): void {
  if (
    !Number.isSafeInteger(sizeBytes) ||
    sizeBytes < DISK_BYTES_MIN ||
    sizeBytes > DISK_BYTES_MAX ||
    sizeBytes % SECTOR_BYTES !== 0
  ) {
    throw new PandoError('size-invalid', `${sizeBytes} bytes is no size of a disk`);
  }
}

/** Whether the text is a UUID as ids are printed; ids win over names. */
export function looksLikeId(text: string): boolean {
  return /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/.test(text);
}

/** `vm@backup` taken apart; undefined without an @. A second @ stays in the name, where nothing is found. */
export function splitBackupRef(text: string): { readonly vm: string; readonly name: string } | undefined {
  const at = text.indexOf('@');
  return at < 0 ? undefined : { vm: text.slice(0, at), name: text.slice(at + 1) };
}

/** `<owner>` or `<owner>/<disk>`, the owner being a VM, or a backup. */
export function splitExportName(text: string): { readonly owner: string; readonly disk: string | undefined } {
  const slash = text.indexOf('/');
  return slash < 0
    ? { owner: text, disk: undefined }
    : { owner: text.slice(0, slash), disk: text.slice(slash + 1) };
}

/**
 * Name of a backup that got none: `2026-11-20T10-00-00Z`. RFC 3339 but for the colons: `web-1@2026-11-20T10:00` as
 * a file name is a protocol to qemu-img and a host to scp.
 */
export function timeName(milliseconds: number): string {
  return new Date(milliseconds)
    .toISOString()
    .replace(/\.\d+Z$/, 'Z')
    .replaceAll(':', '-');
}
