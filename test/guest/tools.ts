import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

/** Which of the named programs are not on PATH (nor where system programs are). */
export function missingTools(names: readonly string[]): readonly string[] {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  return names.filter((name) => !folders.some((folder) => isExecutable(join(folder, name))));
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
