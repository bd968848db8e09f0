/**
 * What is attacked: a server in this process, with devices that wait, fail, and are huge or tiny, or a real server
 * process with VMs. Either tells how it is, so that the fuzzer sees what it lost.
 */
import { MemoryBlockDevice } from '@pando/block-device';
import type { BlockDevice, StatusExtents } from '@pando/block-device';
import { DelayDevice, ErrorDevice, SeededRandom } from '@pando/block-device/testing';
import { PandoError } from '@pando/common';
import { DEFAULT_LIMITS, createNbdServer, tlsCredentials } from '@pando/nbd';
import { AUTHORITY, SERVER_CERTIFICATE, SERVER_KEY } from '@pando/nbd/testing';
import type { ExportHandle, ExportProvider, Logger, NbdAddress, NbdServer, StatusSource } from '@pando/nbd';
import { mkdtemp, readFile, readdir, readlink, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { createVm } from '../support/disks.ts';
import { TestServer } from '../support/server.ts';
import { Batch, DiskModel } from './disk-model.ts';
import type { ExportFacts, World } from './witness.ts';

/** What has to come back to where it was, and what must not grow. */
export interface Health {
  readonly descriptors: number;
  /** Of the JavaScript heap, after a collection; 0 when it is another process's. */
  readonly heapBytes: number;
  readonly rssBytes: number;
}

/** One of the addresses of a target, and what is served there. */
export interface Endpoint {
  readonly address: NbdAddress;
  readonly world: World;
  /** The certificate that vouches for the server, where it speaks TLS. */
  readonly authority?: string;
}

export interface Target {
  readonly endpoints: readonly Endpoint[];
  /** Exports that connections are for, one after another; each of them takes one connection at a time. */
  readonly exports: readonly ExportFacts[];
  /** For the client that behaves. */
  readonly calm: { readonly exportName: string };
  readonly canRevoke: boolean;
  /** Descriptors that may be open beyond those at the start. */
  readonly descriptorSlack: number;
  /** Resolves when no connection has this export open any more. */
  idle(facts: ExportFacts): Promise<void>;
  revoke(name: string): void;
  /** With only the calm client attached: @throws Error naming what is left over */
  expectQuiet(): Promise<void>;
  health(): Promise<Health>;
  close(): Promise<void>;
}

const WAIT_MS_MAX = 30_000;
const IN_FLIGHT_MAX = 24;

/** Polls until `reason` is empty. @throws Error with the reason when it stays, and with what `describe` says then */
async function untilNone(
  reason: () => string | Promise<string>,
  describe: () => string = () => '',
): Promise<void> {
  const deadline = performance.now() + WAIT_MS_MAX;
  for (let pauseMs = 0; ; pauseMs = Math.min(50, pauseMs + 1)) {
    const left = await reason();
    if (left === '') return;
    if (performance.now() > deadline) throw new Error(left + describe());
    // First the next turn of the event loop, then ever longer.
    if (pauseMs < 5) await new Promise((resolve) => setImmediate(resolve));
    else await sleep(pauseMs);
  }
}

// In this process.

const CONTEXTS = [
  'qemu:allocation-depth',
  'qemu:dirty-bitmap:monday',
  'qemu:dirty-bitmap:day/1:2',
  'qemu:dirty-bitmap:Gürtel',
  'x-pando:root',
];

/** A context in stripes: every 64 KiB has other flags. */
class Stripes implements StatusSource {
  readonly name: string;
  readonly #onClose: () => void;
  readonly #fault: () => Error | undefined;
  #calls = 0;
  #closed = false;

  constructor(name: string, fault: () => Error | undefined, onClose: () => void) {
    this.name = name;
    this.#fault = fault;
    this.#onClose = onClose;
  }

  async describe(offset: number, length: number, extentsMax: number): Promise<StatusExtents> {
    if (this.#closed) throw new Error(`${this.name} is used after it was closed`);
    this.#calls++;
    await new Promise((resolve) => setImmediate(resolve));
    this.#calls--;
    const fault = this.#fault();
    if (fault !== undefined) throw fault;
    const lengths: number[] = [];
    const flags: number[] = [];
    for (let at = offset; at < offset + length && lengths.length < extentsMax;) {
      const stripe = Math.floor(at / 65_536);
      const count = Math.min((stripe + 1) * 65_536, offset + length) - at;
      lengths.push(count);
      flags.push(stripe % 2);
      at += count;
    }
    return { lengths, flags };
  }

  async close(): Promise<void> {
    if (this.#closed) throw new Error(`${this.name} is closed twice`);
    if (this.#calls > 0) throw new Error(`${this.name} is closed under a call`);
    this.#closed = true;
    this.#onClose();
  }
}

class FuzzExports implements ExportProvider {
  readonly #devices: ReadonlyMap<string, { device: BlockDevice; facts: ExportFacts }>;
  readonly #random: SeededRandom;
  readonly #revocations = new Map<string, AbortController>();
  readonly handles = new Map<string, number>();
  openHandles = 0;
  openContexts = 0;
  readonly misuse: string[] = [];

  constructor(
    devices: ReadonlyMap<string, { device: BlockDevice; facts: ExportFacts }>,
    random: SeededRandom,
  ) {
    this.#devices = devices;
    this.#random = random;
  }

  revoke(name: string): void {
    this.#revocations.get(name)?.abort();
    this.#revocations.delete(name);
  }

  async list(limit: number): Promise<readonly string[]> {
    return [...this.#devices.keys()].slice(0, limit);
  }

  async open(name: string): Promise<ExportHandle> {
    const found = this.#devices.get(name);
    if (found === undefined) throw new PandoError('disk-missing', `no export ${name}`);
    if (this.#random.below(4) === 0) await new Promise((resolve) => setImmediate(resolve));
    if (found.facts.broken) throw new PandoError('store-failed', 'this export cannot be opened');
    let revocation = this.#revocations.get(name);
    if (revocation === undefined) {
      revocation = new AbortController();
      this.#revocations.set(name, revocation);
    }
    this.#count(name, 1);
    return this.#handle(name, found.device, found.facts, revocation.signal);
  }

  #count(name: string, change: number): void {
    this.openHandles += change;
    this.handles.set(name, (this.handles.get(name) ?? 0) + change);
  }

  #handle(name: string, device: BlockDevice, facts: ExportFacts, revoked: AbortSignal): ExportHandle {
    let open = true;
    let running = 0;
    let contexts = 0;
    const checked = (): BlockDevice => {
      if (!open) this.misuse.push(`${name} is used after it was closed`);
      return device;
    };
    const track = <T>(result: Promise<T>): Promise<T> => {
      running++;
      return result.finally(() => running--);
    };
    const maybe = (result: Promise<void> | undefined): Promise<void> | undefined =>
      result === undefined ? undefined : track(result);
    const fault = (): Error | undefined =>
      facts.faulty && this.#random.below(10) === 0 ? new PandoError('store-failed', 'injected') : undefined;
    return {
      exportName: name,
      size: device.size,
      readOnly: device.readOnly,
      blockBytes: device.blockBytes,
      revoked,
      read: (offset, length, target, targetOffset, holes) =>
        maybe(checked().read(offset, length, target, targetOffset, holes)),
      write: (offset, data) => maybe(checked().write(offset, data)),
      zero: (offset, length) => maybe(checked().zero(offset, length)),
      flush: () => track(checked().flush()),
      prefetch: (offset, length) => track(checked().prefetch(offset, length)),
      allocation: (offset, length, extentsMax) => track(checked().allocation(offset, length, extentsMax)),
      contextNames: async (prefix, limit) =>
        CONTEXTS.filter((context) => context.startsWith(prefix)).slice(0, limit),
      openContext: async (context) => {
        checked();
        if (!CONTEXTS.includes(context)) return undefined;
        this.openContexts++;
        contexts++;
        return new Stripes(context, fault, () => {
          this.openContexts--;
          contexts--;
        });
      },
      leave: () => {
        checked();
      },
      close: async () => {
        if (!open) this.misuse.push(`${name} is closed twice`);
        if (running > 0) this.misuse.push(`${name} is closed with ${running} operations under way`);
        if (contexts > 0) this.misuse.push(`${name} is closed before its ${contexts} contexts`);
        open = false;
        this.#count(name, -1);
      },
    };
  }
}

/** Keeps errors that the server calls its own. */
class ErrorLogger implements Logger {
  readonly errors: string[] = [];

  debug(): void {}

  info(): void {}

  warn(): void {}

  error(fields: object, message: string): void {
    const error = 'err' in fields && fields.err instanceof Error ? `: ${fields.err.stack ?? ''}` : '';
    if (this.errors.length < 20) this.errors.push(`${message}${error}`);
  }
}

export async function memoryTarget(seed: number): Promise<Target> {
  const random = new SeededRandom(seed ^ 0x7461_7267);
  const devices = new Map<string, { device: BlockDevice; facts: ExportFacts }>();
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  const add = (name: string, device: BlockDevice, rest: Partial<ExportFacts> = {}): ExportFacts => {
    const facts: ExportFacts = {
      name,
      size: device.size,
      readOnly: device.readOnly,
      faulty: false,
      broken: false,
      sinceZeros: [],
      model: new DiskModel(),
      ...rest,
    };
    devices.set(name, { device, facts });
    return facts;
  };
  const memory = (size: number): MemoryBlockDevice => new MemoryBlockDevice({ size });
  const slow = (device: BlockDevice): BlockDevice =>
    new DelayDevice(device, () => {
      const wait = random.below(8);
      return wait < 3 ? undefined : wait < 7 ? turn() : sleep(wait % 3);
    });
  const faulty = new ErrorDevice(memory(2 ** 21), () => {
    const kind = random.below(40);
    if (kind === 0) return new PandoError('store-full', 'injected');
    return kind === 1
      ? new PandoError('store-failed', 'injected')
      : kind === 2
        ? new Error('injected')
        : undefined;
  });
  const archive = memory(2 ** 20 + 4097);
  const archived = Buffer.from(random.bytes(300_000));
  await archive.write(100_000, archived);
  const archiveModel = new DiskModel();
  const contents = new Batch();
  contents.mutations.push({ from: 100_000, to: 400_000, data: archived, sure: true });
  archiveModel.settle(contents);
  const common = slow(memory(2 ** 20));
  const exports = [
    add('memory', memory(3 * 2 ** 20 + 517)),
    add('slow', slow(memory(2 ** 20))),
    add('faulty', slow(faulty), { faulty: true }),
    add('huge', memory(2 ** 45)),
    add('archive', archive.handle({ readOnly: true }), { model: archiveModel }),
    add('tiny', memory(1000)),
    add('common', common, { model: undefined }),
    add('common', common, { model: undefined }),
  ];
  add('broken', memory(4096), { broken: true });
  add('empty', memory(0));
  add('calm', memory(2 ** 20), { model: undefined });
  const provider = new FuzzExports(devices, random);
  const logger = new ErrorLogger();
  // Tight, so that connections wait for room now and then.
  const limits = {
    ...DEFAULT_LIMITS,
    connectionsMax: 96,
    connectionsInHandshakeMax: 64,
    requestsInFlightMax: IN_FLIGHT_MAX,
    connectionBufferBytesMax: 2 * 2 ** 20,
    bufferBytesMax: 12 * 2 ** 20,
    poolBytesMax: 4 * 2 ** 20,
    unsentBytesMax: 2 ** 18,
    extentsMax: 64,
    // Long enough for a machine that has other things to do, and shorter than what is waited for connections to end.
    handshakeMsMax: 20_000,
    lingerMsMax: 20_000,
  };
  const folder = await mkdtemp(join(tmpdir(), 'pando-fuzz-'));
  const facts = new Map([...devices].map(([name, device]) => [name, device.facts]));
  const servers: NbdServer[] = [];
  const endpoints: Endpoint[] = [];
  const credentials = tlsCredentials({ certificate: SERVER_CERTIFICATE, key: SERVER_KEY }, Date.now());
  for (const tls of ['off', 'allow', 'require'] as const) {
    const security = tls === 'off' ? {} : { credentials };
    const server = createNbdServer({ exports: provider, logger, limits, tls, ...security });
    servers.push(server);
    const world = { ...limits, exports: facts, tls };
    const authority = tls === 'off' ? {} : { authority: AUTHORITY };
    // Most of what there is to find lies behind the handshake, and TLS only makes the way there longer.
    const addresses = [
      await server.listen({ host: '127.0.0.1', port: 0 }),
      await server.listen({ path: join(folder, `${tls}.sock`) }),
    ];
    for (const address of tls === 'off' ? [...addresses, ...addresses, ...addresses] : addresses)
      endpoints.push({ address, world, ...authority });
  }
  return new MemoryTarget({ servers, provider, logger, folder, exports, endpoints });
}

class MemoryTarget implements Target {
  readonly endpoints: readonly Endpoint[];
  readonly exports: readonly ExportFacts[];
  readonly calm = { exportName: 'calm' };
  readonly canRevoke = true;
  readonly descriptorSlack = 0;
  readonly #servers: readonly NbdServer[];
  readonly #provider: FuzzExports;
  readonly #logger: ErrorLogger;
  readonly #folder: string;

  constructor(parts: {
    servers: readonly NbdServer[];
    provider: FuzzExports;
    logger: ErrorLogger;
    folder: string;
    exports: readonly ExportFacts[];
    endpoints: readonly Endpoint[];
  }) {
    this.#servers = parts.servers;
    this.#provider = parts.provider;
    this.#logger = parts.logger;
    this.#folder = parts.folder;
    this.exports = parts.exports;
    this.endpoints = parts.endpoints;
  }

  async idle(facts: ExportFacts): Promise<void> {
    // Several share an export without a model, so nobody needs it to himself.
    if (facts.model === undefined) return;
    await untilNone(() => {
      const open = this.#provider.handles.get(facts.name) ?? 0;
      return open === 0 ? '' : `${facts.name} still has ${open} handles`;
    }, this.#describe);
  }

  /** What every connection of every server is doing, and which sockets this process has open. */
  readonly #describe = (): string => {
    const connections = this.#servers.flatMap((server) => server.describe());
    const sockets = process.getActiveResourcesInfo().filter((name) => /Wrap|TLS/.test(name));
    const lines = [...connections.map((connection) => JSON.stringify(connection)), sockets.join(' ')];
    return `\n${lines.join('\n')}`;
  };

  revoke(name: string): void {
    this.#provider.revoke(name);
  }

  async expectQuiet(): Promise<void> {
    await untilNone(() => {
      const stats = { connections: 0, connectionsInHandshake: 0, requestsInFlight: 0, bufferBytes: 0 };
      for (const server of this.#servers) {
        const own = server.stats();
        for (const name of Object.keys(stats) as (keyof typeof stats)[]) stats[name] += own[name];
      }
      const left = { ...stats, handles: this.#provider.openHandles, contexts: this.#provider.openContexts };
      // The calm client's.
      left.connections -= 1;
      left.handles -= 1;
      const names = Object.entries(left).filter(([, count]) => count !== 0);
      return names.map(([name, count]) => `${name}: ${count}`).join(', ');
    }, this.#describe);
    const { misuse } = this.#provider;
    if (misuse.length > 0) throw new Error(misuse.slice(0, 5).join('; '));
    if (this.#logger.errors.length > 0)
      throw new Error(`the server logged: ${this.#logger.errors.join('\n')}`);
  }

  async health(): Promise<Health> {
    collectGarbage();
    const descriptors = await readdir('/proc/self/fd');
    const { heapUsed, rss, arrayBuffers } = process.memoryUsage();
    return { descriptors: descriptors.length, heapBytes: heapUsed + arrayBuffers, rssBytes: rss };
  }

  async close(): Promise<void> {
    for (const server of this.#servers) await server.close({ drainMsMax: 2_000 });
    await rm(this.#folder, { recursive: true, force: true });
  }
}

/** Collects garbage where the process allows it (`--expose-gc`). */
function collectGarbage(): void {
  for (let i = 0; i < 2; i++) globalThis.gc?.();
}

// Another process.

const VM_COUNT = 4;
const VM_BYTES = 4 * 2 ** 20;

export async function processTarget(): Promise<Target> {
  const folder = await mkdtemp(join(tmpdir(), 'pando-fuzz-'));
  const certificate = join(folder, 'certificate.pem');
  const key = join(folder, 'key.pem');
  await writeFile(certificate, SERVER_CERTIFICATE);
  await writeFile(key, SERVER_KEY);
  const tls = ['--nbd-tls', 'allow', '--nbd-tls-cert', certificate, '--nbd-tls-key', key];
  const server = await TestServer.start({ args: tls });
  // It has read them.
  await rm(folder, { recursive: true });
  try {
    const names = Array.from({ length: VM_COUNT }, (_, i) => `fuzz-${i}`);
    for (const name of [...names, 'calm']) await createVm(server, name, VM_BYTES);
    await server.rest.must('POST', '/vms/fuzz-0/backups', { name: 'empty' });
    return new ProcessTarget(server, names);
  } catch (error) {
    await server.close();
    throw error;
  }
}

class ProcessTarget implements Target {
  readonly endpoints: readonly Endpoint[];
  readonly exports: readonly ExportFacts[];
  readonly calm = { exportName: 'calm/disk0' };
  readonly canRevoke = false;
  /** Sockets of REST clients, which are kept open for a while. */
  readonly descriptorSlack = 8;
  readonly #server: TestServer;
  readonly #pid: number;

  constructor(server: TestServer, vms: readonly string[]) {
    this.#server = server;
    this.#pid = server.pid!;
    const facts = (name: string, readOnly = false): ExportFacts => ({
      name,
      size: VM_BYTES,
      readOnly,
      faulty: false,
      broken: false,
      sinceZeros: ['qemu:dirty-bitmap:fuzz-0@empty', 'qemu:dirty-bitmap:empty'],
      model: new DiskModel(),
    });
    this.exports = [...vms.map((vm) => facts(`${vm}/disk0`)), facts('fuzz-0@empty/disk0', true)];
    const named = new Map(this.exports.map((entry) => [entry.name, entry]));
    named.set('calm/disk0', { ...facts('calm/disk0'), model: undefined });
    const world: World = { ...DEFAULT_LIMITS, exports: named, tls: 'allow' };
    this.endpoints = [
      { address: { host: '127.0.0.1', port: server.nbdPort }, world, authority: AUTHORITY },
      { address: { path: server.nbdSocket }, world, authority: AUTHORITY },
    ];
  }

  async idle(facts: ExportFacts): Promise<void> {
    const vm = facts.name.split('/')[0]!;
    if (vm.includes('@')) return;
    await untilNone(async () => {
      const { attachedClients } = (await this.#server.rest.must('GET', `/vms/${vm}`)) as {
        attachedClients: number;
      };
      return attachedClients === 0 ? '' : `${vm} still has ${attachedClients} clients`;
    });
  }

  revoke(): void {}

  async expectQuiet(): Promise<void> {
    if (this.#server.pid !== this.#pid) throw new Error(`the server ended: ${this.#server.log.slice(-3000)}`);
    for (const facts of this.exports) await this.idle(facts);
    const left = /"level":(?:50|60)[^\n]*/.exec(this.#server.log);
    if (left !== null) throw new Error(`the server logged: ${left[0].slice(0, 2000)}`);
  }

  async health(): Promise<Health> {
    // Sockets only: a store opens files as it needs them.
    const folder = `/proc/${this.#pid}/fd`;
    const targets = await Promise.all(
      (await readdir(folder)).map((name) => readlink(join(folder, name)).catch(() => '')),
    );
    const descriptors = targets.filter((name) => name.startsWith('socket:'));
    const status = await readFile(`/proc/${this.#pid}/status`, 'utf8');
    const rss = Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1024;
    return { descriptors: descriptors.length, heapBytes: 0, rssBytes: rss };
  }

  async close(): Promise<void> {
    await this.#server.close();
  }
}
