/** Sizes as people write and read them: binary units, `20G` in, `20 GiB` out. */
import { PandoError } from './errors.ts';

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const;
const POWERS: Record<string, number> = { '': 0, 'K': 1, 'M': 2, 'G': 3, 'T': 4, 'P': 5 };

/**
 * Reads `512`, `512B`, `4K`, `20G`, `1.5T`, `64MiB`, `20 GB` (case does not matter). All units are binary: K
 * is 1,024, also as KB.
 * @throws PandoError `size-invalid` for anything else, fractions of a byte, and what a number cannot hold exactly
 */
export function parseSize(text: string): number {
  const match = /^\s*(\d+(?:\.\d+)?)\s*(?:([KMGTP])(?:i?B)?|B)?\s*$/i.exec(text);
  if (match === null) {
    throw new PandoError(
      'size-invalid',
      `${JSON.stringify(text.slice(0, 40))} is not a size; write 20G or 512M`,
    );
  }
  const power = POWERS[(match[2] ?? '').toUpperCase()]!;
  const bytes = Number(match[1]) * 1024 ** power;
  if (!Number.isSafeInteger(bytes)) {
    throw new PandoError(
      'size-invalid',
      `${text.trim().slice(0, 40)} is not a whole number of bytes, or too many`,
    );
  }
  return bytes;
}

/** Prints bytes with two or three digits that matter: `0 B`, `512 B`, `8.0 GiB`, `312 MiB`. */
export function formatSize(bytes: number): string {
  let value = bytes;
  let unit = 0;
  // 1023.5 KiB would print as 1024 KiB: the next unit says it better.
  while (Math.abs(value) >= 1023.5 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  const digits = unit > 0 && Math.abs(value) < 9.95 ? 1 : 0;
  return `${value.toFixed(digits)} ${UNITS[unit]!}`;
}
