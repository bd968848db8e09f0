/**
 * Sends requests to every route of a real server, made of its own OpenAPI document: good ones, and ones that are broken in one place or
 * altogether. Whatever is sent, an answer comes, and it is never a 500; what is refused is refused with a problem document.
 */
import { ERROR_CODES } from '@pando/common';
import { seededRandom } from '@pando/common/testing';
import { Agent, request, type IncomingMessage } from 'node:http';
import { readDocument, type Document, type Operation } from './document.ts';
import { Values } from './values.ts';

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
const KINDS = ['good', 'good', 'good', 'good', 'broken', 'broken', 'path', 'query', 'json', 'media'] as const;
/** Of what takes things away, so many are left out: else there is soon nothing to ask for. */
const DELETES_LEFT_OUT = 0.7;

export interface FuzzTarget {
  readonly url: string;
  readonly authorization: Readonly<Record<string, string>>;
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
  readonly failures: readonly (Exchange & { readonly problem: string })[];
}

interface Sent {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** @param each so many requests for each operation, in a mixed order */
export async function fuzzApi(target: FuzzTarget, seed: number, each: number): Promise<Summary> {
  const random = seededRandom(seed);
  const agent = new Agent({ keepAlive: true, maxSockets: 4 });
  const first = await exchange(
    target,
    agent,
    { method: 'GET', path: '/openapi.json', headers: {}, body: '' },
    Infinity,
  );
  const document = readDocument(JSON.parse(first.answer));
  const values = new Values(random, document);
  const statuses = new Map<string, Map<number, number>>();
  const failures: Summary['failures'][number][] = [];
  let requests = 0;
  try {
    for (let round = 0; round < each; round++) {
      for (const operation of document.operations) {
        if (operation.method === 'DELETE' && values.chance(DELETES_LEFT_OUT)) continue;
        const sent = makeRequest(document, operation, values);
        if (target.spared(sent.method, sent.path)) continue;
        requests++;
        const got = await exchange(target, agent, sent, ANSWER_BYTES_MAX);
        const ended = { operation: operation.id, ...sent, ...got };
        const counts = statuses.get(operation.id) ?? new Map<number, number>();
        statuses.set(operation.id, counts.set(got.status, (counts.get(got.status) ?? 0) + 1));
        const problem = problemWith(got, sent, operation);
        if (problem !== undefined) failures.push({ ...ended, problem });
        else if (got.status < 300) learn(values, got.answer);
      }
    }
  } finally {
    agent.destroy();
  }
  return { requests, statuses, failures };
}

function makeRequest(
  document: Document,
  { method, path, parameters, bodies }: Operation,
  values: Values,
): Sent {
  const kind = values.pick(KINDS);
  const query = new URLSearchParams();
  let target = path;
  for (const { name, in: where, required, schema } of parameters) {
    if (where === 'path') {
      const text = values.text(name, document.resolve(schema));
      // An empty part would be another path.
      const encoded = encodeURIComponent(text.toWellFormed() || 'x');
      target = target.replace(
        `{${name}}`,
        kind === 'path' && values.chance(0.5) ? values.pick(['%', '%zz', '%00', '..', encoded]) : encoded,
      );
    } else if (where === 'query' && (required === true || values.chance(0.3))) {
      query.append(name, textOf(kind === 'query' ? values.anything() : values.good(schema, name)));
    }
  }
  if (kind === 'query' && values.chance(0.4)) query.append('unknown', '1');
  const search = query.size === 0 ? '' : `?${query.toString()}`;
  if (method === 'GET' || method === 'HEAD' || (method === 'DELETE' && bodies.length === 0)) {
    return { method, path: target + search, headers: {}, body: '' };
  }
  const [chosen] = bodies.filter(({ mediaType }) => mediaType === 'application/json');
  const mediaType =
    kind === 'media'
      ? values.pick(['text/plain', 'application/octet-stream', 'application/xml', 'x'])
      : 'application/json';
  const good = chosen === undefined ? {} : values.good(chosen.schema);
  const value = kind === 'broken' ? values.broken(good) : good;
  const body = kind === 'json' ? values.pick(BROKEN_JSON) : JSON.stringify(value);
  return { method, path: target + search, headers: { 'content-type': mediaType }, body };
}

/** As it would stand in an address. */
function textOf(value: unknown): string {
  return (typeof value === 'string' ? value : JSON.stringify(value)).toWellFormed();
}

function exchange(
  { url, authorization }: FuzzTarget,
  agent: Agent,
  { method, path, headers, body }: Sent,
  bytesMax: number,
): Promise<{ status: number; answer: string }> {
  return new Promise((resolve, reject) => {
    const length = body === '' ? {} : { 'content-length': String(Buffer.byteLength(body)) };
    const sent = request(
      url + path,
      { method, agent, headers: { ...authorization, ...headers, ...length } },
      (answer) => {
        read(answer, bytesMax).then((text) => {
          clearTimeout(timer);
          resolve({ status: answer.statusCode ?? 0, answer: text });
        }, reject);
      },
    );
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
function problemWith(
  { status, answer }: { readonly status: number; readonly answer: string },
  { path }: Sent,
  { errors }: Operation,
): string | undefined {
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

function learn(values: Values, answer: string): void {
  try {
    values.learn(JSON.parse(answer));
  } catch {
    // Nothing to be learned from.
  }
}
