/**
 * Values for schemas: good ones, and broken ones. Names and ids that the server has answered with come back, so that requests
 * find something.
 */
import { between } from '@pando/common/testing';
import type { Document, Schema } from './document.ts';

type Random = () => number;

const DEPTH_MAX = 6;
const SEEN_MAX = 400;
/** Numbers at which something changes. */
const NUMBERS = [
  0,
  1,
  -1,
  2,
  511,
  512,
  4096,
  65_536,
  1e9,
  2 ** 31,
  2 ** 32,
  2 ** 46,
  2 ** 53 - 1,
  2 ** 53,
  -0.5,
  1.5,
  1e308,
];
/** That a disk can have. */
const SIZES = [512, 4096, 2 ** 20 + 512, 2 ** 30, 2 ** 46];
const TEXTS = [
  ...[
    '',
    ' ',
    'a',
    'web',
    'ä',
    'a\u0308',
    '\u0000',
    '\ud800',
    '\u202e',
    '../..',
    '.',
    '..',
    '%',
    '%2F',
    'a/b',
    'a@b',
    '@',
    '*',
    '[',
    '(a+)+$',
  ],
  ...[
    '__proto__',
    'constructor',
    'toString',
    'null',
    'true',
    '0',
    '-1',
    '1e999',
    'NaN',
    '2026-02-30',
    '2026-11-20T10:00:00Z',
  ],
  ...[
    '9999-12-31T23:59:59.999Z',
    'Europe/Berlin',
    'Mars/Olympus',
    'https://127.0.0.1:9/x',
    'file:///etc/passwd',
    'qemu-ga:/etc/passwd',
  ],
  'x'.repeat(255),
  'x'.repeat(256),
  '\ud83d\ude00'.repeat(100),
  'y'.repeat(5000),
];

/** What chance does not come by. */
const KNOWN: Readonly<Record<string, readonly string[]>> = {
  timeZone: ['UTC', 'Europe/Berlin', 'America/New_York'],
  at: ['02:00', '23:59'],
  from: ['00:00', '08:30'],
  to: ['24:00', '06:00'],
  disk: ['disk0', 'disk0', 'data'],
  tag: ['a', 'b', 'c'],
  label: ['env=prod', 'a=1', 'env'],
  prefix: ['w', ''],
  pathBase64: ['L2V0Yw==', 'L2V0YwA=', '%'],
  url: ['https://127.0.0.1:9/x', 'http://127.0.0.1:9/x', 'https://me:it@127.0.0.1/'],
};
const NUMBERS_KNOWN: Readonly<Record<string, readonly number[]>> = {
  count: [1, 2, 3, 20],
  limit: [1, 2, 1000],
  offset: [0, 512, 4096],
  length: [1, 512, 4096],
};
/** Parts of these fit one another seldom. */
const OBJECTS: Readonly<Record<string, readonly object[]>> = {
  schedule: [
    { timeZone: 'UTC', everyMinutes: 60 },
    { timeZone: 'Europe/Berlin', at: ['02:00'] },
    { timeZone: 'America/New_York', weekdays: ['mon', 'sun'], at: ['23:59', '02:30'] },
    { timeZone: 'UTC', monthDays: [1, 31, 'last'], at: ['00:00'] },
    { timeZone: 'UTC', everyDays: 2, everyMinutes: 30, from: '22:00', to: '06:00' },
  ],
  retention: [{}, { keepLast: 3 }, { keepForMinutes: 1 }, { keepDaily: 7, keepWeekly: 4, keepAtLeast: 2 }],
};
const HOUR_MS = 60 * 60_000;
/** Instants that are past, that come while it is fuzzed, and that are far away. */
function instants(): readonly string[] {
  const offsets = [-HOUR_MS, 1000, HOUR_MS, 24 * HOUR_MS, 100 * 366 * 24 * HOUR_MS];
  return [...offsets.map((ms) => new Date(Date.now() + ms).toISOString()), 'never', '2026-02-30T00:00:00Z'];
}
/** Names of what there is not yet, as a rule. */
const NEW_NAMES = new Set(['name', 'as']);
const KINDS = new Set(['vm', 'backup', 'policy', 'token', 'webhook', 'job']);
/** Of what is about these, names and ids come under them. */
const KINDS_BY_PATH: Readonly<Record<string, string>> = { jobs: 'job', webhooks: 'webhook' };

export class Values {
  readonly #random: Random;
  readonly #document: Document;
  /** What answers have held under a name such as `id`, `name`, `nextCursor`. */
  readonly #seen = new Map<string, string[]>();
  readonly #known: Readonly<Record<string, readonly string[]>>;
  /** Of the operation that values are for: cursors are its own. */
  operation = '';

  /** @param known texts for the names of parameters, besides those that are known for all */
  constructor(random: Random, document: Document, known: Readonly<Record<string, readonly string[]>>) {
    this.#random = random;
    this.#document = document;
    this.#known = { ...KNOWN, ...known };
  }

  get random(): Random {
    return this.#random;
  }

  chance(share: number): boolean {
    return this.#random() < share;
  }

  pick<T>(items: readonly T[]): T {
    return items[between(this.#random, 0, items.length - 1)]!;
  }

  /** Keeps the strings of an answer. */
  learn(value: unknown, key = ''): void {
    if (typeof value === 'string') {
      const kept = this.#seen.get(key) ?? [];
      this.#seen.set(key, kept);
      if (kept.length < SEEN_MAX) kept.push(value);
      else kept[between(this.#random, 0, SEEN_MAX - 1)] = value;
    } else if (Array.isArray(value)) for (const item of value.slice(0, 20)) this.learn(item, key);
    else if (typeof value === 'object' && value !== null) {
      for (const [name, item] of Object.entries(value)) this.learn(item, name);
      const { vmName, name, id, nextCursor } = value as Record<string, unknown>;
      if (nextCursor !== undefined) this.learn(nextCursor, `cursor of ${this.operation}`);
      const kind = kindOf(value);
      if (kind === undefined) return;
      this.learn(id, kind);
      if (kind !== 'backup') this.learn(name, kind);
      else if (typeof vmName === 'string' && typeof name === 'string') this.learn(`${vmName}@${name}`, kind);
    }
  }

  /** A value that the schema allows, as a rule. */
  good(given: Schema, key = '', depth = 0): unknown {
    const schema = this.#document.resolve(given);
    const choices = schema.anyOf ?? schema.oneOf;
    if (choices !== undefined) return this.good(this.pick(choices), key, depth + 1);
    if (schema.allOf !== undefined) {
      return Object.assign({}, ...schema.allOf.map((part) => this.good(part, key, depth + 1))) as unknown;
    }
    if ('const' in schema) return schema.const;
    if (schema.enum !== undefined) return this.pick(schema.enum);
    const type = typeof schema.type === 'object' ? this.pick(schema.type) : schema.type;
    switch (type) {
      case 'object':
        if (OBJECTS[key] !== undefined && this.chance(0.85)) return this.pick(OBJECTS[key]);
        return this.#object(schema, depth);
      case 'array':
        return this.#array(schema, key, depth);
      case 'integer':
      case 'number':
        if (/Bytes$/.test(key) && this.chance(0.8)) return this.pick(SIZES);
        if (NUMBERS_KNOWN[key] !== undefined && this.chance(0.85)) return this.pick(NUMBERS_KNOWN[key]);
        return this.#number(schema, type === 'integer');
      case 'boolean':
        return this.chance(0.5);
      case 'null':
        return null;
      case 'string':
        return this.text(key, schema);
      default:
        return this.anything(depth);
    }
  }

  /** A text for something of this name. */
  text(key: string, schema: Schema = {}): string {
    const known = this.#known[key] ?? [...(this.#seen.get(key) ?? []), ...this.#related(key)];
    const share = NEW_NAMES.has(key) ? 0.25 : 0.8;
    const chosen = known.length > 0 && this.chance(share) ? this.pick(known) : this.#freshText();
    return schema.maxLength === undefined ? chosen : chosen.slice(0, schema.maxLength);
  }

  /** Anything that JSON can say. */
  anything(depth = 0): unknown {
    const kinds = depth < DEPTH_MAX ? 8 : 5;
    switch (between(this.#random, 0, kinds - 1)) {
      case 0:
        return this.pick(TEXTS);
      case 1:
        return this.pick(NUMBERS);
      case 2:
        return null;
      case 3:
        return this.chance(0.5);
      case 4:
        return this.#freshText();
      case 5:
        return Array.from({ length: between(this.#random, 0, 3) }, () => this.anything(depth + 1));
      case 6:
        return { [this.pick(TEXTS)]: this.anything(depth + 1) };
      default:
        return JSON.parse('['.repeat(200) + ']'.repeat(200)) as unknown;
    }
  }

  /** The value with one place of it changed into something else. */
  broken(value: unknown): unknown {
    if (Array.isArray(value) && value.length > 0 && this.chance(0.7)) {
      const at = between(this.#random, 0, value.length - 1);
      return value.map((item: unknown, i) => (i === at ? this.broken(item) : item));
    }
    if (Array.isArray(value) && this.chance(0.3)) return Array.from({ length: 5000 }, () => this.pick(TEXTS));
    if (typeof value === 'object' && value !== null && !Array.isArray(value) && this.chance(0.85)) {
      const entries = Object.entries(value);
      const at = between(this.#random, 0, entries.length);
      if (at === entries.length)
        return Object.fromEntries([...entries, [this.#freshText(), this.anything()]]);
      if (this.chance(0.3)) return Object.fromEntries(entries.filter((_, i) => i !== at));
      return Object.fromEntries(
        entries.map(([name, item], i) => [name, i === at ? this.broken(item) : item]),
      );
    }
    return this.anything();
  }

  #object(schema: Schema, depth: number): Record<string, unknown> {
    const required = new Set(schema.required ?? []);
    const made: Record<string, unknown> = {};
    for (const [name, property] of Object.entries(schema.properties ?? {})) {
      // What is optional is left out more often the deeper it is.
      if (required.has(name) || (depth < DEPTH_MAX && this.chance(0.35))) {
        made[name] = this.good(property, name, depth + 1);
      }
    }
    const more = typeof schema.additionalProperties === 'object' ? schema.additionalProperties : undefined;
    const any = more ?? Object.values(schema.patternProperties ?? {})[0];
    if (any !== undefined && this.chance(0.7))
      made[this.pick(['a', 'env', 'team'])] = this.good(any, '', depth + 1);
    return made;
  }

  #array({ items = {}, minItems = 0, maxItems = 3 }: Schema, key: string, depth: number): unknown[] {
    const length = between(this.#random, minItems, Math.max(minItems, Math.min(maxItems, depth > 3 ? 1 : 3)));
    return Array.from({ length }, () => this.good(items, key.replace(/s$/, ''), depth + 1));
  }

  #number({ minimum = 0, maximum = 2 ** 40 }: Schema, whole: boolean): number {
    const fitting = NUMBERS.filter(
      (number) => number >= minimum && number <= maximum && (!whole || number % 1 === 0),
    );
    if (fitting.length > 0 && this.chance(0.8)) return this.pick(fitting);
    return between(this.#random, Math.ceil(minimum), Math.floor(Math.min(maximum, minimum + 1000)));
  }

  #freshText(): string {
    return this.chance(0.15) ? this.pick(TEXTS) : `n${between(this.#random, 0, 600)}`;
  }

  /** Where else such a name may have been answered. */
  #related(key: string): readonly string[] {
    if (/Until$|^(expiresAt|until)$/.test(key)) return instants();
    if (key === 'since' && !/^import/.test(this.operation)) return instants();
    if (key === 'cursor') return this.#seen.get(`cursor of ${this.operation}`) ?? [];
    const others: Record<string, readonly string[]> = {
      since: ['backup'],
      of: ['vm', 'backup'],
      a: ['vm', 'backup'],
      b: ['vm', 'backup'],
      owner: ['vm', 'backup'],
    };
    const names = others[key] ?? (KINDS.has(key) ? [] : ['id', 'name']);
    const found = names.flatMap((name) => this.#seen.get(name) ?? []);
    return key === 'a' || key === 'b' ? [...found, ...found.map((name) => `${name}/disk0`)] : found;
  }
}

/** What an answer, or a part of it, is. */
function kindOf(value: object): string | undefined {
  if ('attachedClients' in value) return 'vm';
  if ('vmName' in value) return 'backup';
  if ('rules' in value) return 'policy';
  if ('role' in value) return 'token';
  if ('url' in value) return 'webhook';
  return 'kind' in value && 'state' in value ? 'job' : undefined;
}

/** Under which name something is known that is called `id` in a path. */
export function keyOf(name: string, path: string): string {
  return name === 'id' ? (KINDS_BY_PATH[path.split('/')[3] ?? ''] ?? name) : name;
}
