/** What a name is, of whatever is called by one: VMs, disks, backups, tags, policies. */
import { NAME_BYTES_MAX } from './limits.ts';

/** Why the text is no name, to be put behind it; undefined when it is one. */
export function nameProblem(text: string): string | undefined {
  if (text === '') return 'is empty';
  if (!text.isWellFormed()) return 'is not Unicode';
  const bytes = Buffer.byteLength(text.normalize('NFC'));
  if (bytes > NAME_BYTES_MAX) return `has ${bytes} bytes, more than ${NAME_BYTES_MAX}`;
  if (/[/@]/.test(text)) return 'holds / or @';
  if (/[\p{Cc}\u2028\u2029]/u.test(text)) return 'holds a control character';
  if (text.trim() !== text) return 'begins or ends with a blank';
  // Every URL parser folds these away, so such a VM could not be named in a path.
  if (text === '.' || text === '..') return 'is a path to somewhere';
  return undefined;
}
