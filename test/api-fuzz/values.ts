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
};

export class Values {
  readonly #random: Random;
  readonly #document: Document;
  /** What answers have held under a name such as `id`, `name`, `nextCursor`. */
  readonly #seen = new Map<string, string[]>();

  constructor(random: Random, document: Document) {
    this.#random = random;
    this.#document = document;
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
      const { vmName, name, attachedClients, rules } = value as Record<string, unknown>;
      if (rules !== undefined) this.learn(name, 'policy');
      if (attachedClients !== undefined) this.learn(name, 'vm');
      if (typeof vmName === 'string' && typeof name === 'string') this.learn(`${vmName}@${name}`, 'backup');
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
        return this.#object(schema, depth);
      case 'array':
        return this.#array(schema, key, depth);
      case 'integer':
      case 'number':
        if (/Bytes$/.test(key) && this.chance(0.8)) return this.pick(SIZES);
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
    const known = KNOWN[key] ?? [...(this.#seen.get(key) ?? []), ...this.#related(key)];
    const chosen = known.length > 0 && this.chance(0.7) ? this.pick(known) : this.#freshText();
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
    return this.chance(0.15) ? this.pick(TEXTS) : `n${between(this.#random, 0, 60)}`;
  }

  /** Where else such a name may have been answered. */
  #related(key: string): readonly string[] {
    const others: Record<string, readonly string[]> = {
      vm: ['vmId'],
      vms: ['vm'],
      backup: ['id'],
      disk: ['disk0'],
      since: ['backup', 'createdAt'],
      cursor: ['nextCursor'],
      policy: [],
    };
    const names = others[key] ?? ['id', 'name'];
    return [...names.flatMap((name) => this.#seen.get(name) ?? []), ...(key === 'disk' ? ['disk0'] : [])];
  }
}
