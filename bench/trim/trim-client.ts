/** A client that gives back a whole disk: TRIM in requests as long as the protocol allows, then FLUSH. */
import { connect } from '../../packages/nbd/src/client/connect.ts';
import { newCall, readReply } from '../../packages/nbd/src/client/replies.ts';
import type { Call } from '../../packages/nbd/src/client/replies.ts';
import {
  Command,
  EXTENDED_HEADER_BYTES,
  EXTENDED_REQUEST_MAGIC,
  REQUEST_BYTES,
  REQUEST_MAGIC,
  putU16,
  putU32,
  putU64,
} from '../../packages/nbd/src/protocol.ts';

/** The longest whole multiple of 4 KiB that 32 bits hold: what the kernel's client sends. */
const SHORT_BYTES_MAX = 2 ** 32 - 4096;
const REQUESTS_IN_FLIGHT = 64;

/** Milliseconds from the first request until the FLUSH after the last one is answered; `isExtended`: with lengths of 64 bits. */
export async function trimDisk(socketPath: string, exportName: string, isExtended: boolean): Promise<number> {
  const options = { exportName, extendedHeaders: isExtended };
  const { channel, session } = await connect({ path: socketPath }, options);
  const { socket, reader } = channel;
  const calls = new Map<number, Call>();
  let cookies = 0;
  const send = (call: Call): void => {
    const bytes = Buffer.alloc(isExtended ? EXTENDED_HEADER_BYTES : REQUEST_BYTES);
    putU32(bytes, 0, isExtended ? EXTENDED_REQUEST_MAGIC : REQUEST_MAGIC);
    putU16(bytes, 6, call.command);
    putU64(bytes, 8, ++cookies);
    putU64(bytes, 16, call.offset);
    if (isExtended) putU64(bytes, 24, call.length);
    else putU32(bytes, 24, call.length);
    calls.set(cookies, call);
    socket.write(bytes);
  };
  const answersUntil = async (left: number): Promise<void> => {
    while (calls.size > left) {
      const { cookie, done } = await readReply(reader, session, (of) => calls.get(of));
      if (!done) continue;
      const { error } = calls.get(cookie)!;
      if (error !== undefined) throw error;
      calls.delete(cookie);
    }
  };
  try {
    if (session.extendedHeaders !== isExtended) throw new Error('the server has no extended headers');
    const most = isExtended ? session.size : SHORT_BYTES_MAX;
    const started = performance.now();
    for (let offset = 0; offset < session.size; offset += most) {
      send(newCall(Command.trim, offset, Math.min(most, session.size - offset)));
      await answersUntil(REQUESTS_IN_FLIGHT - 1);
    }
    await answersUntil(0);
    send(newCall(Command.flush, 0, 0));
    await answersUntil(0);
    return performance.now() - started;
  } finally {
    socket.destroy();
  }
}
