/** The rule of sources that holes next to each other are one. */
import type { DiskPart } from '@pando/common';

/** Parts with neighbouring holes made one and none of no bytes. */
export async function* joinHoles(parts: AsyncIterable<DiskPart>): AsyncGenerator<DiskPart, void, undefined> {
  let holeBytes = 0;
  for await (const part of parts) {
    if (!(part instanceof Uint8Array)) {
      holeBytes += part.holeBytes;
      continue;
    }
    if (part.byteLength === 0) continue;
    if (holeBytes > 0) yield { holeBytes };
    holeBytes = 0;
    yield part;
  }
  if (holeBytes > 0) yield { holeBytes };
}
