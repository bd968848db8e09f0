/**
 * Who may do what with which export: rules read from a file, and a provider that holds every client to them.
 *
 * Decided on the canonical name of an export, after it was opened: names have short forms, and a rule that could be
 * walked around by another spelling would be none.
 */
import { ForwardingDevice } from '@pando/block-device';
import { PandoError } from '@pando/common';
import { setImmediate } from 'node:timers/promises';
import type { OpenExport } from './contexts.ts';
import { globMatcher } from './glob.ts';
import type { ClientIdentity, ExportHandle, ExportProvider, StatusSource } from './types.ts';

export type Access = 'none' | 'read' | 'write';

/** What a client may do. */
export interface AccessPolicy {
  /** `exportName` is canonical: `vm/disk` or `vm@backup/disk`. Must not throw. */
  of(exportName: string, client: ClientIdentity): Access;
}

/** Without rules, everybody who may connect may do everything. */
export const OPEN_ACCESS: AccessPolicy = { of: () => 'write' };

const RULES_MAX = 10_000;
const PATTERNS_MAX = 1_000;
const PATTERN_CHARACTERS_MAX = 1_000;
/** Names that are held against the rules in one turn of the event loop. */
const SCAN_TURN_NAMES = 64;

const ACCESS = new Set<unknown>(['none', 'read', 'write']);
const PROOFS = new Set<unknown>(['none', 'x509', 'psk']);
const FIELDS = new Set(['client', 'proof', 'exports', 'access']);

interface Rule {
  readonly admits: (client: ClientIdentity) => boolean;
  readonly exports: readonly ((exportName: string) => boolean)[];
  readonly access: Access;
}

/**
 * The policy in the text of an access file: `{"rules": [{"client", "proof", "exports", "access"}, …]}`. The first rule
 * that fits client and export decides; where none does, access is `none`.
 * @throws `access-file-invalid` naming the line, or the field
 */
export function parseAccessPolicy(text: string): AccessPolicy {
  let file: unknown;
  try {
    file = JSON.parse(text);
  } catch (error) {
    throw refusal(`not JSON: ${(error as Error).message}`, error);
  }
  const { rules, ...others } = objectAt('the file', file);
  for (const name of Object.keys(others)) throw refusal(`unknown field "${name}"`);
  const parsed = listAt('rules', rules, RULES_MAX).map((rule, i) => parseRule(`rules[${i}]`, rule));
  return {
    of: (exportName, client) => {
      const rule = parsed.find(
        (each) => each.admits(client) && each.exports.some((matches) => matches(exportName)),
      );
      return rule?.access ?? 'none';
    },
  };
}

function parseRule(where: string, value: unknown): Rule {
  const rule = objectAt(where, value);
  for (const name of Object.keys(rule)) {
    if (!FIELDS.has(name)) throw refusal(`unknown field "${name}" in ${where}`);
  }
  const { client, proof, access } = rule;
  if (!ACCESS.has(access)) throw refusal(`${where}.access is one of "none", "read", "write"`);
  if (proof !== undefined && !PROOFS.has(proof)) {
    throw refusal(`${where}.proof is one of "none", "x509", "psk"`);
  }
  if (client === undefined && proof === undefined) throw refusal(`${where} needs "client", "proof" or both`);
  if (client !== undefined && proof === 'none') {
    throw refusal(`${where}: clients without proof have no name, so "client" would never fit`);
  }
  const exports = Array.isArray(rule['exports'])
    ? listAt(`${where}.exports`, rule['exports'], PATTERNS_MAX)
    : [rule['exports']];
  // Names of clients have no parts: `*.example.org`, `spiffe://cell/*`.
  const named = client === undefined ? undefined : patternAt(`${where}.client`, client, '');
  return {
    admits: (of) =>
      (proof === undefined || of.proof === proof) && (named === undefined || of.names.some(named)),
    exports: exports.map((pattern) => patternAt(`${where}.exports`, pattern, '/@')),
    access: access as Access,
  };
}

function objectAt(where: string, value: unknown): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  throw refusal(`${where} is no object`);
}

function listAt(where: string, value: unknown, max: number): readonly unknown[] {
  if (!Array.isArray(value)) throw refusal(`${where} is no list`);
  if (value.length > max) throw refusal(`${where} has more than ${max} entries`);
  return value;
}

function patternAt(where: string, value: unknown, separators: string): (name: string) => boolean {
  if (typeof value !== 'string' || value === '') throw refusal(`${where} is a name or pattern`);
  if (value.length > PATTERN_CHARACTERS_MAX) {
    throw refusal(`${where} has more than ${PATTERN_CHARACTERS_MAX} characters`);
  }
  return globMatcher(value, separators);
}

function refusal(message: string, cause?: unknown): PandoError {
  return new PandoError('access-file-invalid', message, cause === undefined ? {} : { cause });
}

/** A provider that shows and opens to each client what the policy of the moment allows. */
export class GuardedExports implements ExportProvider {
  readonly #exports: ExportProvider;
  readonly #policy: () => AccessPolicy;
  readonly #scannedMax: number;
  readonly #isFull: () => boolean;
  /** One list is looked through at a time: whoever asks often takes no more of the processor, or of memory. */
  #scanned: Promise<void> = Promise.resolve();

  /**
   * `scannedMax`: names looked through for a list when some of them may have to be left out. `isFull`: no client may
   * attach any more; asked when an export has been opened.
   */
  constructor(
    exports: ExportProvider,
    policy: () => AccessPolicy,
    scannedMax: number,
    isFull: () => boolean,
  ) {
    this.#exports = exports;
    this.#policy = policy;
    this.#scannedMax = scannedMax;
    this.#isFull = isFull;
  }

  async list(limit: number, client: ClientIdentity): Promise<readonly string[]> {
    if (this.#policy() === OPEN_ACCESS) return this.#exports.list(limit, client);
    const names = this.#scanned.then(() => this.#scan(limit, client));
    this.#scanned = names.then(
      () => undefined,
      () => undefined,
    );
    return names;
  }

  /** Many names against many rules take seconds: in small turns, so that requests of others are served in between. */
  async #scan(limit: number, client: ClientIdentity): Promise<readonly string[]> {
    const names = await this.#exports.list(Math.max(limit, this.#scannedMax), client);
    const shown: string[] = [];
    for (const [i, name] of names.entries()) {
      if (shown.length === limit) break;
      if (i % SCAN_TURN_NAMES === 0) await setImmediate();
      if (this.#policy().of(name, client) !== 'none') shown.push(name);
    }
    return shown;
  }

  async open(name: string, client: ClientIdentity): Promise<ExportHandle> {
    const handle = await this.#exports.open(name, client);
    try {
      if (this.#isFull()) throw new PandoError('too-busy', 'the server has all the connections it takes');
      const access = this.#policy().of(handle.exportName, client);
      if (access === 'none') throw new PandoError('not-allowed', 'this client may not use this export');
      if (this.#policy() === OPEN_ACCESS) return handle;
      const mayRead = (exportName: string): boolean => this.#policy().of(exportName, client) !== 'none';
      return new GuardedExport(handle, access === 'write', mayRead);
    } catch (error) {
      await handle.close();
      throw error;
    }
  }
}

/** Whether a client may go on with what it has opened. */
export function mayKeep(
  { handle, contexts }: OpenExport,
  client: ClientIdentity,
  policy: AccessPolicy,
): boolean {
  const access = policy.of(handle.exportName, client);
  if (access === 'none' || (access === 'read' && !handle.readOnly)) return false;
  return contexts.every(
    ({ source: { comparedWith } }) =>
      comparedWith === undefined || policy.of(comparedWith, client) !== 'none',
  );
}

/** An export as one client may see it: read-only for who may only read, compared with nothing that is not its own. */
class GuardedExport extends ForwardingDevice<ExportHandle> implements ExportHandle {
  readonly #mayRead: (exportName: string) => boolean;
  readonly #mayWrite: boolean;

  constructor(inner: ExportHandle, mayWrite: boolean, mayRead: (exportName: string) => boolean) {
    super(inner);
    this.#mayRead = mayRead;
    this.#mayWrite = mayWrite;
  }

  get exportName(): string {
    return this.inner.exportName;
  }

  get revoked(): AbortSignal {
    return this.inner.revoked;
  }

  override get readOnly(): boolean {
    return this.inner.readOnly || !this.#mayWrite;
  }

  override write(offset: number, data: Uint8Array): Promise<void> | undefined {
    this.#checkWritable();
    return super.write(offset, data);
  }

  override zero(offset: number, length: number): Promise<void> | undefined {
    this.#checkWritable();
    return super.zero(offset, length);
  }

  #checkWritable(): void {
    if (this.readOnly) throw new PandoError('read-only', 'this client may only read');
  }

  contextNames(prefix: string, limit: number): Promise<readonly string[]> {
    return this.inner.contextNames(prefix, limit);
  }

  async openContext(name: string): Promise<StatusSource | undefined> {
    const source = await this.inner.openContext(name);
    if (source?.comparedWith === undefined || this.#mayRead(source.comparedWith)) return source;
    await source.close();
    return undefined;
  }

  leave(): void {
    this.inner.leave();
  }

  close(): Promise<void> {
    return this.inner.close();
  }
}
