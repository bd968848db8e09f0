/**
 * Sends requests to every route of a real server, made of its own OpenAPI document: good ones, and ones that are broken in one place or
 * altogether. Whatever is sent, an answer comes, and it is never a 500; what is refused is refused with a problem document.
 */
import { ERROR_CODES, SPARSE_MEDIA_TYPE } from '@pando/common';
import { seededRandom } from '@pando/common/testing';
import { Agent, request, type IncomingMessage } from 'node:http';
import { unlistedEnd } from '../support/listed-errors.ts';
import { binaryBody } from './bodies.ts';
import { readDocument, type Document, type Operation, type Schema } from './document.ts';
import { keyOf, Values } from './values.ts';

/** Whoever waits longer hangs. Collections and verifications are jobs, and so no reason. */
const ANSWER_MS_MAX = 30_000;
/** Of an answer, so much is read: a disk may have 64 TiB. */
const ANSWER_BYTES_MAX = 512 * 1024;
const BROKEN_JSON = [
  '',
  '{',
  '{"name":',
  '[',
  'null',
  'true',
  '"text"',
  '{"a":1}}',
  '\u0000',
  '{"__proto__":{"a":1}}',
  'ÿ',
];

/** What is wrong with a request: most are good. */
const KINDS = [
  ...(['good', 'good', 'good', 'good', 'good', 'good', 'good'] as const),
  ...(['broken', 'broken', 'path', 'query', 'json', 'media', 'headers', 'actor'] as const),
] as const;
type Kind = (typeof KINDS)[number];
/** So many requests are sent three times at once. */
const BURSTS = 0.08;
const BURST = 3;
/** Of what takes things away, so many are left out: else there is soon nothing to ask for. */
const DELETES_LEFT_OUT = 0.7;

export interface FuzzTarget {
  readonly url: string;
  /** Headers that say who asks: most times the first. */
  readonly actors: readonly Readonly<Record<string, string>>[];
  /** Texts for parameters by their names. */
  readonly known: Readonly<Record<string, readonly string[]>>;
  /** Paths that are not asked for: what would take the fuzzer's own rights away. */
  readonly spared: (method: string, path: string) => boolean;
}

export interface Exchange {
  readonly operation: string;
  readonly method: string;
  readonly path: string;
  readonly body: string;
  readonly status: number;
  readonly answer: string;
}

export interface Summary {
  readonly requests: number;
  /** Answers by operation and status. */
  readonly statuses: ReadonlyMap<string, ReadonlyMap<number, number>>;
  /** Codes that were answered, by operation, and how many of those that are listed. */
  readonly codes: ReadonlyMap<string, ReadonlySet<string>>;
  readonly seenPairs: number;
  readonly listedPairs: number;
  readonly failures: readonly (Exchange & { readonly problem: string })[];
}

interface Sent {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

interface Got {
  readonly status: number;
  readonly answer: string;
}

/** @param each so many requests for each operation, in a mixed order */
export async function fuzzApi(target: FuzzTarget, seed: number, each: number): Promise<Summary> {
  const random = seededRandom(seed);
  const agent = new Agent({ keepAlive: true, maxSockets: 4 });
  const ask = (path: string): Promise<Got> =>
    exchange(target.url, agent, { method: 'GET', path, headers: target.actors[0]!, body: NOTHING }, Infinity);
  const document = readDocument(JSON.parse((await ask('/openapi.json')).answer));
  const values = new Values(random, document, target.known);
  const statuses = new Map<string, Map<number, number>>();
  const codes = new Map<string, Set<string>>();
  const failures: Summary['failures'][number][] = [];
  let requests = 0;
  const send = async (operation: Operation, sent: Sent): Promise<void> => {
    requests++;
    const got = await exchange(target.url, agent, sent, ANSWER_BYTES_MAX);
    const ended = { operation: operation.id, ...sent, body: sent.body.toString(), ...got };
    const counts = statuses.get(operation.id) ?? new Map<number, number>();
    statuses.set(operation.id, counts.set(got.status, (counts.get(got.status) ?? 0) + 1));
    const problem = problemWith(got, sent, operation);
    if (problem !== undefined) failures.push({ ...ended, problem });
    const { code } = (jsonOf(got.answer) ?? {}) as { readonly code?: unknown };
    if (got.status < 300) values.learn(jsonOf(got.answer));
    else if (typeof code === 'string' && operation.errors.includes(code))
      codes.set(operation.id, (codes.get(operation.id) ?? new Set()).add(code));
  };
  try {
    for (const path of LISTS) values.learn(jsonOf((await ask(path)).answer));
    for (let round = 0; round < each; round++) {
      for (const operation of document.operations) {
        if (operation.method === 'DELETE' && values.chance(DELETES_LEFT_OUT)) continue;
        values.operation = operation.id;
        const kind = values.pick(KINDS);
        const sent = makeRequest(document, operation, values, kind, target.actors);
        if (target.spared(sent.method, sent.path)) continue;
        const times = values.chance(BURSTS) ? BURST : 1;
        await Promise.all(Array.from({ length: times }, () => send(operation, sent)));
      }
    }
    failures.push(...(await endsOf(ask)));
  } finally {
    agent.destroy();
  }
  return {
    ...{ requests, statuses, codes, failures },
    seenPairs: [...codes.values()].reduce((sum, { size }) => sum + size, 0),
    listedPairs: document.operations.reduce((sum, { errors }) => sum + errors.length, 0),
  };
}

const NOTHING = Buffer.alloc(0);
/** What there is before anything is asked. */
const LISTS = ['vms', 'backups', 'policies', 'tokens', 'webhooks', 'jobs'].map((name) => `/api/v1/${name}`);

/** Jobs that have ended with what the operation that began them does not list. */
async function endsOf(ask: (path: string) => Promise<Got>): Promise<Summary['failures']> {
  const failures: Summary['failures'][number][] = [];
  let cursor = '';
  do {
    const path = `/api/v1/jobs?limit=1000${cursor}`;
    const { status, answer } = await ask(path);
    const page = jsonOf(answer) as { readonly items: readonly unknown[]; readonly nextCursor?: string };
    for (const job of page.items) {
      const found = unlistedEnd(job);
      if (found === undefined) continue;
      const problem = `its document does not say that its job ends with ${found.code}`;
      failures.push({
        ...{ operation: found.operation, method: 'GET', path, body: '', status },
        ...{ answer: JSON.stringify(job), problem },
      });
    }
    cursor = page.nextCursor === undefined ? '' : `&cursor=${page.nextCursor}`;
  } while (cursor !== '');
  return failures;
}

function makeRequest(
  document: Document,
  { method, path, parameters, bodies }: Operation,
  values: Values,
  kind: Kind,
  actors: FuzzTarget['actors'],
): Sent {
  const query = new URLSearchParams();
  let target = path;
  for (const { name, in: where, required, schema } of parameters) {
    if (where === 'path') {
      const text = values.text(keyOf(name, path), document.resolve(schema));
      // An empty part would be another path.
      const encoded = encodeURIComponent(text.toWellFormed() || 'x');
      target = target.replace(
        `{${name}}`,
        kind === 'path' && values.chance(0.5) ? values.pick(['%', '%zz', '%00', '..', encoded]) : encoded,
      );
    } else if (where === 'query' && (required === true || values.chance(0.25))) {
      query.append(name, textOf(kind === 'query' ? values.anything() : values.good(schema, name)));
    }
  }
  if (kind === 'query' && values.chance(0.4)) query.append('unknown', '1');
  const search = query.size === 0 ? '' : `?${query.toString()}`;
  const headers = {
    ...(kind === 'actor' ? values.pick(actors) : actors[0]),
    ...(kind === 'headers' ? values.pick(HEADERS) : {}),
  };
  const asked = { method, path: target + search };
  if (method === 'GET' || method === 'HEAD' || (method === 'DELETE' && bodies.length === 0))
    return { ...asked, headers, body: NOTHING };
  const { mediaType, schema } = bodies.length === 0 ? JSON_BODY : values.pick(bodies);
  const sent = kind === 'media' ? values.pick(MEDIA_TYPES) : mediaType;
  return {
    ...asked,
    headers: { ...headers, 'content-type': sent },
    body:
      mediaType === JSON_BODY.mediaType
        ? Buffer.from(jsonBody(schema, values, kind))
        : binaryBody(mediaType, values.random),
  };
}

const JSON_BODY = { mediaType: 'application/json', schema: {} } as const;
const MEDIA_TYPES = ['text/plain', 'application/octet-stream', 'application/xml', 'x'];
const HEADERS: readonly Readonly<Record<string, string>>[] = [
  { host: 'evil.example' },
  { range: 'bytes=0-511' },
  { 'range': 'bytes=512-', 'if-range': '"x"' },
  { range: 'bytes=70368744177664-' },
  { accept: SPARSE_MEDIA_TYPE },
  { 'idempotency-key': 'k0' },
  { 'idempotency-key': 'k1' },
  { 'idempotency-key': '' },
  { 'last-event-id': '1' },
];

function jsonBody(schema: Schema, values: Values, kind: Kind): string {
  if (kind === 'json') return values.pick(BROKEN_JSON);
  const good = Object.keys(schema).length === 0 ? {} : values.good(schema);
  return JSON.stringify(kind === 'broken' ? values.broken(good) : good);
}

/** As it would stand in an address. */
function textOf(value: unknown): string {
  return (typeof value === 'string' ? value : JSON.stringify(value)).toWellFormed();
}

function exchange(
  url: string,
  agent: Agent,
  { method, path, headers, body }: Sent,
  bytesMax: number,
): Promise<Got> {
  return new Promise((resolve, reject) => {
    const length = body.byteLength === 0 ? {} : { 'content-length': String(body.byteLength) };
    const sent = request(url + path, { method, agent, headers: { ...headers, ...length } }, (answer) => {
      read(answer, bytesMax).then((text) => {
        clearTimeout(timer);
        resolve({ status: answer.statusCode ?? 0, answer: text });
      }, reject);
    });
    const timer = setTimeout(() => sent.destroy(new Error('no answer came')), ANSWER_MS_MAX);
    sent.on('error', (error) => {
      clearTimeout(timer);
      resolve({ status: 0, answer: error.message });
    });
    sent.end(body);
  });
}

/** Answers without an end (events) and disks are left after their beginning. */
async function read(answer: IncomingMessage, bytesMax: number): Promise<string> {
  if (answer.headers['content-type']?.startsWith('text/event-stream') === true) {
    answer.destroy();
    return '';
  }
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of answer) {
    parts.push(part as Buffer);
    bytes += (part as Buffer).byteLength;
    if (bytes > bytesMax) break;
  }
  return Buffer.concat(parts).toString();
}

/** Why the answer is none that a server gives; undefined when it is. */
function problemWith({ status, answer }: Got, { path }: Sent, { errors }: Operation): string | undefined {
  if (status === 0) return 'there was no answer';
  if (status < 400) return undefined;
  if (status === 500) return 'an internal error';
  // A HEAD has no body to say it in.
  if (answer === '') return undefined;
  try {
    const { code } = JSON.parse(answer) as { code?: unknown };
    if (typeof code !== 'string' || !Object.hasOwn(ERROR_CODES, code))
      return `the code ${JSON.stringify(code)} is none`;
    // Dots in a path make another one of it.
    const isOther = /\/\.\.?(\/|\?|$)/.test(path);
    return isOther || errors.includes(code) ? undefined : `its document does not say that it answers ${code}`;
  } catch {
    return 'the answer is no problem document';
  }
}

function jsonOf(answer: string): unknown {
  try {
    return JSON.parse(answer) as unknown;
  } catch {
    return undefined;
  }
}
