/** The range check that every device makes, so that all of them refuse the same requests. */
import { PandoError } from '@pando/common';

/**
 * Checks that `offset … offset + length − 1` lies inside a device of `size` bytes. Compares by
 * subtraction: `offset + length` may leave the safe integers.
 * @throws PandoError `range-invalid`
 */
export function checkRange(size: number, offset: number, length: number): void {
  if (
    Number.isSafeInteger(offset) &&
    Number.isSafeInteger(length) &&
    offset >= 0 &&
    length >= 0 &&
    offset <= size &&
    length <= size - offset
  ) {
    return;
  }
  throw new PandoError(
    'range-invalid',
    `bytes ${offset} + ${length} are not inside a device of ${size} bytes`,
  );
}
