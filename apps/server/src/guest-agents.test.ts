import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MemoryCatalog } from '@pando/catalog';
import { systemClock, type PandoError } from '@pando/common';
import type { ServiceEvent } from '@pando/events';
import { FakeGuest, line } from '@pando/guest-agent/testing';
import { pino } from 'pino';
import { expect, onTestFinished, test } from 'vitest';
import { openGuestAgents } from './guest-agents.ts';

test('a guest that cannot be thawed is told of once, and again when it can be; one accident is not', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'pando-guests-'));
  const guest = new FakeGuest();
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    const agent = guest.connect();
    socket.pipe(agent).pipe(socket);
    socket.on('error', () => undefined);
  });
  const path = join(directory, 'web.sock');
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const events: ServiceEvent[] = [];
  const told = Promise.withResolvers<undefined>();
  const thawed = Promise.withResolvers<undefined>();
  const agents = await openGuestAgents({
    directory,
    catalog: new MemoryCatalog(),
    clock: { ...systemClock, sleep: (ms, signal) => systemClock.sleep(ms / 100, signal) },
    logger: pino({ level: 'silent' }),
    onEvent: (event) => {
      events.push(event);
      (event.kind === 'guest-frozen' ? told : thawed).resolve(undefined);
    },
  });
  onTestFinished(async () => {
    await agents.close();
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
    await rm(directory, { recursive: true });
  });
  let refusals = 1;
  const refused = line({ error: { desc: 'busy' } });
  guest.answer = (command) => (command === 'guest-fsfreeze-thaw' && refusals-- > 0 ? refused : 'honest');
  const backUp = (): Promise<string> =>
    agents.quiesce!(
      { guest: `qemu-ga:${path}`, vm: 'web' },
      () => Promise.resolve('taken'),
      () => Promise.resolve(),
    );
  await backUp();
  await expect.poll(() => guest.frozen).toBe(false);
  // Until the second thaw is known to be one.
  await expect.poll(() => backUp().catch(() => '')).toBe('taken');
  expect(events).toEqual([]);

  refusals = 4;
  await backUp();
  await told.promise;
  expect(guest.frozen).toBe(true);
  await thawed.promise;
  expect(guest.frozen).toBe(false);
  expect(events.map(({ kind, data }) => [kind, data])).toEqual([
    ['guest-frozen', { path }],
    ['guest-thawed', { path }],
  ]);
});

test('of paths outside of the directory it is not said whether anything is there', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'pando-guests-'));
  onTestFinished(() => rm(folder, { recursive: true }));
  const directory = join(folder, 'guests');
  await mkdir(directory);
  await writeFile(join(folder, 'there'), '');
  await symlink(folder, join(directory, 'link'));
  await symlink(directory, join(folder, 'alias'));
  const codeOf = async (asked: string, within = directory): Promise<string> => {
    const agents = await openGuestAgents({
      ...{ directory: within, catalog: new MemoryCatalog(), clock: systemClock },
      ...{ logger: pino({ level: 'silent' }), onEvent: () => undefined },
    });
    const asking = agents.quiesce!(
      { guest: `qemu-ga:${asked}`, vm: 'web' },
      () => Promise.resolve(),
      () => Promise.resolve(),
    );
    const { code } = await asking.then(
      () => ({ code: 'nothing' }),
      (error: unknown) => error as PandoError,
    );
    await agents.close();
    return code;
  };
  for (const path of ['there', 'missing', 'guests/../missing', 'guests/link/there', 'guests-2/missing'])
    expect(await codeOf(join(folder, path)), path).toBe('guest-agent-refused');
  expect(await codeOf(`${directory}/../missing`)).toBe('guest-agent-refused');
  expect(await codeOf(join(directory, 'missing'))).toBe('guest-agent-gone');
  // Either name of the directory will do.
  expect(await codeOf(join(directory, 'missing'), join(folder, 'alias'))).toBe('guest-agent-gone');
  expect(await codeOf(join(folder, 'alias/missing'), join(folder, 'alias'))).toBe('guest-agent-gone');
});
