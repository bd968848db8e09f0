import { boundConnections } from '@pando/api';
import { systemClock } from '@pando/common';
import { SERVER_CERTIFICATE, SERVER_KEY } from '@pando/nbd/testing';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { connect, type TLSSocket } from 'node:tls';
import { pino } from 'pino';
import { expect, test } from 'vitest';

test('connections have their limits with TLS too: of one address, and for those that do not read', async () => {
  const lines: string[] = [];
  let open = 0;
  const server = createServer({ cert: SERVER_CERTIFICATE, key: SERVER_KEY }, (_request, response) => {
    open++;
    response.on('close', () => open--);
    const more = (): void => {
      while (!response.destroyed && response.write(Buffer.alloc(65_536)));
    };
    response.on('drain', more);
    more();
  });
  boundConnections(
    server,
    { connectionsOfAddress: 2, readerPauseMs: 100 },
    { clock: systemClock, log: pino({}, { write: (line) => lines.push(line) }) },
  );
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const dial = (): Promise<TLSSocket | undefined> =>
    new Promise((resolve) => {
      const socket = connect({ port, host: '127.0.0.1', rejectUnauthorized: false }, () => resolve(socket));
      socket.on('error', () => resolve(undefined)).on('close', () => resolve(undefined));
    });
  const [idle, stalled] = [await dial(), await dial()];
  expect(await dial()).toBeUndefined();
  stalled!.pause();
  stalled!.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
  const soon = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5));
  while (open === 0) await soon();
  while (open > 0) await soon();
  expect(lines.join()).toContain('127.0.0.1');
  let again: TLSSocket | undefined;
  while ((again = await dial()) === undefined) await soon();
  expect(idle!.destroyed).toBe(false);
  for (const socket of [idle, again]) socket!.destroy();
  await new Promise((resolve) => server.close(resolve));
});
