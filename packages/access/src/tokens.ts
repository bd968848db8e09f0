/**
 * Tokens: made, shown, revoked, and asked about with every request.
 *
 * All records are in memory, TOKENS_MAX of them, so that a request costs one look into a map and one hash. A change is in the catalog,
 * durably, before it is in memory: who was told of a token can use it, and who was told that one is revoked is right over a crash.
 * When tokens were last used is written every now and then, never with a request.
 */
import type { Catalog, CatalogOperation } from '@pando/catalog';
import { PandoError, type Clock, type Random } from '@pando/common';
import { readTokens, TOKEN_TABLE, USE_TABLE, type TokenRecord } from './records.ts';
import { checkedScope } from './scope.ts';
import { formatToken, hashSecret, isSecretOf, newTokenText, parseToken } from './token-text.ts';
import type { Actor, Role, Scope } from './types.ts';

/** Tokens at the same time. Those that have expired make room for new ones. */
export const TOKENS_MAX = 1000;
/** How often it is looked whether a last use is worth writing; and how old a written one gets before it is written again. */
const USE_LOOK_MS = 60_000;
const USE_WRITE_MS = 10 * 60_000;
const NAME_BYTES_MAX = 255;
const PAGE_ITEMS_DEFAULT = 100;

export interface Token {
  readonly id: string;
  readonly name: string;
  readonly role: Role;
  readonly scope?: Scope;
  /** RFC 3339, UTC. */
  readonly createdAt: string;
  readonly expiresAt?: string;
  readonly expired: boolean;
  readonly lastUsedAt?: string;
  /** Address of the client. */
  readonly lastUsedFrom?: string;
}

export interface NewToken {
  readonly name: string;
  readonly role: Role;
  readonly scope?: Scope;
  /** Milliseconds since 1970. */
  readonly expiresAt?: number;
}

export interface TokensOptions {
  readonly catalog: Catalog;
  readonly clock: Clock;
  readonly random: Random;
  /** A last use could not be written; nothing else is lost. */
  readonly onTrouble?: (error: unknown) => void;
}

interface Entry {
  readonly id: string;
  readonly record: TokenRecord;
  readonly actor: Actor;
  usedAt: number | undefined;
  usedFrom: string | undefined;
  /** What is in the catalog of it. */
  writtenUseAt: number | undefined;
}

export class Tokens {
  readonly #catalog: Catalog;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #onTrouble: (error: unknown) => void;
  readonly #entries = new Map<string, Entry>();
  readonly #closing = new AbortController();
  readonly #watchers = new Set<(tokenId: string) => void>();
  /** Those that have expired, of which the watchers were told. */
  readonly #ended = new Set<string>();
  /** Changes go one after another: a name is free, or an admin left, until it is not. */
  #changes: Promise<unknown> = Promise.resolve();
  readonly #writing: Promise<void>;

  private constructor({ catalog, clock, random, onTrouble }: TokensOptions, entries: readonly Entry[]) {
    this.#catalog = catalog;
    this.#clock = clock;
    this.#random = random;
    this.#onTrouble = onTrouble ?? (() => undefined);
    for (const entry of entries) this.#entries.set(entry.id, entry);
    this.#writing = this.#writeUses();
  }

  /** Reads all tokens. Close it before the catalog. @throws `catalog-corrupt`, `store-newer` */
  static async open(options: TokensOptions): Promise<Tokens> {
    // More than the bound cannot have been made; were there more, none may be forgotten that somebody wants to revoke.
    const { tokens, uses } = await readTokens(options.catalog, Number.MAX_SAFE_INTEGER);
    const entries = tokens.map(({ id, record }) => {
      const use = uses.get(id);
      return entryOf(id, record, use?.at, use?.from);
    });
    return new Tokens(options, entries);
  }

  get count(): number {
    return this.#entries.size;
  }

  /** Who it is that shows this text. `from` is their address. @throws `unauthenticated` */
  authenticate(text: string | undefined, from: string): Actor {
    if (text === undefined) throw new PandoError('unauthenticated', 'the request has no token');
    const entry = this.#find(text);
    if (entry === undefined) throw new PandoError('unauthenticated', 'the token is not known here');
    if (this.#isExpired(entry)) throw new PandoError('unauthenticated', 'the token has expired');
    entry.usedAt = this.#clock.now();
    entry.usedFrom = from;
    return entry.actor;
  }

  /** Whether this is the text of a token that is good now. Does not count as a use. */
  isValid(text: string): boolean {
    const entry = this.#find(text);
    return entry !== undefined && !this.#isExpired(entry);
  }

  /**
   * Makes a token; its text is told this once. `beforeStored` is called with it before the token is good.
   * @throws `name-taken`, `name-invalid`, `request-invalid`, `too-busy` when there are too many, and what `beforeStored` throws
   */
  create(
    request: NewToken,
    beforeStored: (text: string) => Promise<void> = () => Promise.resolve(),
  ): Promise<{ text: string; token: Token }> {
    return this.#change(async () => {
      const now = this.#clock.now();
      const { name, role, scope, expiresAt } = this.#checked(request, now);
      if (this.#named(name) !== undefined)
        throw new PandoError('name-taken', `there is a token named ${JSON.stringify(name)}`);
      const leaving = this.#entries.size < TOKENS_MAX ? [] : this.#expired();
      if (this.#entries.size - leaving.length >= TOKENS_MAX)
        throw new PandoError('too-busy', `there are ${TOKENS_MAX} tokens; revoke those that nobody needs`);
      const made = newTokenText(this.#random);
      if (this.#entries.has(made.id)) throw new PandoError('internal', 'two tokens would have one id');
      const text = formatToken(made);
      await beforeStored(text);
      const record: TokenRecord = {
        version: 1,
        ...{ name, role, createdAt: now, hash: hashSecret(made.secret) },
        ...(scope === undefined ? {} : { scope }),
        ...(expiresAt === undefined ? {} : { expiresAt }),
      };
      await this.#catalog.commit([
        ...leaving.flatMap(({ id }) => removal(id)),
        { type: 'put', table: TOKEN_TABLE, key: made.id, value: record },
      ]);
      for (const { id } of leaving) {
        this.#tellEnd(id);
        this.#ended.delete(id);
        this.#entries.delete(id);
      }
      const entry = entryOf(made.id, record, undefined, undefined);
      this.#entries.set(entry.id, entry);
      return { text, token: this.#show(entry) };
    });
  }

  /** By id or name. @throws `token-missing` */
  get(reference: string): Token {
    return this.#show(this.#entry(reference));
  }

  /** In the order of their names. @throws `cursor-invalid` */
  list({ cursor, limit = PAGE_ITEMS_DEFAULT }: { cursor?: string; limit?: number } = {}): {
    items: Token[];
    nextCursor?: string;
  } {
    const after = cursor === undefined ? undefined : decodeCursor(cursor);
    const sorted = [...this.#entries.values()]
      .filter(({ record }) => after === undefined || record.name > after)
      .sort((a, b) => (a.record.name < b.record.name ? -1 : 1));
    const page = sorted.slice(0, limit);
    return {
      items: page.map((entry) => this.#show(entry)),
      ...(page.length < sorted.length ? { nextCursor: encodeCursor(page.at(-1)!.record.name) } : {}),
    };
  }

  /**
   * Ends a token; who comes with it from now on is nobody. The last admin's that has not expired stays.
   * @throws `token-missing`, `last-admin`
   */
  revoke(reference: string): Promise<Token> {
    return this.#change(async () => {
      const entry = this.#entry(reference);
      const isAdmin = (each: Entry): boolean => each.record.role === 'admin' && !this.#isExpired(each);
      if (isAdmin(entry) && [...this.#entries.values()].filter(isAdmin).length === 1)
        throw new PandoError('last-admin', `${entry.record.name} is the last token with the role admin`);
      await this.#catalog.commit(removal(entry.id));
      this.#entries.delete(entry.id);
      this.#tellEnd(entry.id);
      this.#ended.delete(entry.id);
      return this.#show(entry);
    });
  }

  /** Called with the id of each token that is revoked, or expires: of the latter within a minute. */
  onEnd(watcher: (tokenId: string) => void): void {
    this.#watchers.add(watcher);
  }

  /** Waits for changes under way, and writes when tokens were last used. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#writing;
    await this.#writeInTurn(0);
  }

  async #writeUses(): Promise<void> {
    for (;;) {
      try {
        await this.#clock.sleep(USE_LOOK_MS, this.#closing.signal);
      } catch {
        return;
      }
      for (const { id } of this.#expired()) this.#tellEnd(id);
      await this.#writeInTurn(USE_WRITE_MS);
    }
  }

  #tellEnd(id: string): void {
    if (this.#ended.has(id)) return;
    this.#ended.add(id);
    for (const watcher of this.#watchers) watcher(id);
  }

  /** Between changes, so that nothing is written of a token that is being revoked. */
  #writeInTurn(newerMs: number): Promise<void> {
    const write = (): Promise<void> => this.#write(newerMs);
    const done = this.#changes.then(write, write);
    this.#changes = done;
    return done;
  }

  /** Writes each last use that is newer by so much than what is written. */
  async #write(newerMs: number): Promise<void> {
    const due = [...this.#entries.values()].filter(
      ({ usedAt, writtenUseAt }) =>
        usedAt !== undefined &&
        usedAt !== writtenUseAt &&
        // A clock that was set back must not stop it.
        (writtenUseAt === undefined || Math.abs(usedAt - writtenUseAt) >= newerMs),
    );
    if (due.length === 0) return;
    const written = due.map((entry) => [entry, entry.usedAt!] as const);
    try {
      await this.#catalog.commit(
        written.map(([{ id, usedFrom }, at]) => {
          const value = { version: 1, at, from: usedFrom ?? '' };
          return { type: 'put', table: USE_TABLE, key: id, value };
        }),
      );
      for (const [entry, at] of written) entry.writtenUseAt = at;
    } catch (error) {
      this.#onTrouble(error);
    }
  }

  #find(text: string): Entry | undefined {
    const given = parseToken(text);
    const entry = given === undefined ? undefined : this.#entries.get(given.id);
    return entry !== undefined && isSecretOf(given!.secret, entry.record.hash) ? entry : undefined;
  }

  #checked(request: NewToken, now: number): NewToken {
    const name = request.name.normalize('NFC');
    const bytes = Buffer.byteLength(name);
    if (bytes === 0 || bytes > NAME_BYTES_MAX || !name.isWellFormed() || /[/@\u0000-\u001f\u007f]/.test(name))
      throw new PandoError('name-invalid', `${JSON.stringify(name.slice(0, 80))} is no name for a token`);
    if (request.expiresAt !== undefined && !(request.expiresAt > now))
      throw new PandoError('request-invalid', 'the token would have expired already');
    if (request.scope !== undefined && request.role === 'admin')
      throw new PandoError('request-invalid', 'an admin has no scope; an operator can have one');
    return {
      ...request,
      name,
      ...(request.scope === undefined ? {} : { scope: checkedScope(request.scope) }),
    };
  }

  #change<T>(action: () => Promise<T>): Promise<T> {
    if (this.#closing.signal.aborted)
      return Promise.reject(new PandoError('shutting-down', 'the server is stopping'));
    const done = this.#changes.then(action, action);
    this.#changes = done.catch(() => undefined);
    return done;
  }

  #named(name: string): Entry | undefined {
    for (const entry of this.#entries.values()) if (entry.record.name === name) return entry;
    return undefined;
  }

  #entry(reference: string): Entry {
    const found = this.#entries.get(reference) ?? this.#named(reference.normalize('NFC'));
    if (found === undefined)
      throw new PandoError('token-missing', `there is no token ${JSON.stringify(reference.slice(0, 80))}`);
    return found;
  }

  #isExpired({ record: { expiresAt } }: Entry): boolean {
    return expiresAt !== undefined && expiresAt <= this.#clock.now();
  }

  #expired(): Entry[] {
    return [...this.#entries.values()].filter((entry) => this.#isExpired(entry));
  }

  #show(entry: Entry): Token {
    const { id, record, usedAt, usedFrom } = entry;
    const { name, role, scope, createdAt, expiresAt } = record;
    return {
      ...{ id, name, role },
      ...(scope === undefined ? {} : { scope }),
      createdAt: time(createdAt),
      ...(expiresAt === undefined ? {} : { expiresAt: time(expiresAt) }),
      expired: this.#isExpired(entry),
      ...(usedAt === undefined ? {} : { lastUsedAt: time(usedAt) }),
      ...(usedFrom === undefined || usedFrom === '' ? {} : { lastUsedFrom: usedFrom }),
    };
  }
}

function entryOf(
  id: string,
  record: TokenRecord,
  usedAt: number | undefined,
  usedFrom: string | undefined,
): Entry {
  const { name, role, scope } = record;
  const actor: Actor = Object.freeze({
    ...{ tokenId: id, name, role },
    ...(scope === undefined ? {} : { scope }),
  });
  return { id, record, actor, usedAt, usedFrom, writtenUseAt: usedAt };
}

function removal(id: string): CatalogOperation[] {
  return [
    { type: 'delete', table: TOKEN_TABLE, key: id },
    { type: 'delete', table: USE_TABLE, key: id },
  ];
}

function time(ms: number): string {
  return new Date(ms).toISOString();
}

function encodeCursor(name: string): string {
  return Buffer.from(JSON.stringify([1, 'tokens', name])).toString('base64url');
}

function decodeCursor(cursor: string): string {
  try {
    const parts = JSON.parse(Buffer.from(cursor, 'base64url').toString()) as unknown;
    if (Array.isArray(parts) && parts[0] === 1 && parts[1] === 'tokens' && typeof parts[2] === 'string')
      return parts[2];
  } catch {
    // Said below.
  }
  throw new PandoError('cursor-invalid', 'the cursor is not one of this list');
}
