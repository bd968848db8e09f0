/**
 * `Idempotency-Key` on requests that create something: whoever lost an answer can ask again and gets that
 * answer, not a second thing.
 *
 * - Same key, same request, first one under way: both get its answer. Ended well: its answer, again.
 * - Ended in an error: nothing was made, so the request runs anew.
 * - Same key, other request: `idempotency-conflict`.
 *
 * Answers are kept in memory, for a while and so many: a restart forgets them, and then a name that is taken
 * tells the client what happened. The body of an upload is not compared, only what announces it.
 */
import { createHash } from 'node:crypto';
import { actorKey } from '@pando/access';
import { Type } from '@fastify/type-provider-typebox';
import { PandoError, type Clock } from '@pando/common';
import type { FastifyInstance, FastifyReply, FastifyRequest, RouteHandlerMethod } from 'fastify';
import type { ApiContext, ApiLimits, App } from '../context.ts';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Honours `Idempotency-Key`. The handler must return its body and not send it. */
    idempotent?: boolean;
  }
}

const Headers = Type.Object({
  'idempotency-key': Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: 255,
      description: 'The same key with the same request gets the same answer and makes nothing twice',
    }),
  ),
});

interface Answer {
  readonly status: number;
  readonly location: string | undefined;
  readonly body: unknown;
}

interface Entry {
  readonly request: string;
  readonly answer: Promise<Answer>;
  readonly expires: number;
  /** Of the body as JSON, once there is one. */
  bytes: number;
}

class Answers {
  readonly #entries = new Map<string, Entry>();
  readonly #clock: Clock;
  readonly #limits: ApiLimits;
  #bytes = 0;

  constructor(clock: Clock, limits: ApiLimits) {
    this.#clock = clock;
    this.#limits = limits;
  }

  /** The answer that the key has, or that `make` gives. The promise is shared. */
  answer(
    key: string,
    request: string,
    make: () => Promise<Answer>,
  ): { answer: Promise<Answer>; replayed: boolean } {
    this.#forget();
    const known = this.#entries.get(key);
    if (known !== undefined) {
      if (known.request !== request) {
        throw new PandoError('idempotency-conflict', 'this Idempotency-Key was used with another request');
      }
      return { answer: known.answer, replayed: true };
    }
    const answer = make();
    const expires = this.#clock.monotonic() + this.#limits.idempotencyMs;
    const entry: Entry = { request, answer, expires, bytes: 0 };
    this.#entries.set(key, entry);
    answer.then(
      ({ body }) => {
        if (this.#entries.get(key) !== entry) return;
        entry.bytes = JSON.stringify(body).length;
        this.#bytes += entry.bytes;
      },
      () => {
        if (this.#entries.get(key) === entry) this.#entries.delete(key);
      },
    );
    return { answer, replayed: false };
  }

  /** Makes room for one more: what has expired goes, then what is oldest. Entries expire in the order in which they came. */
  #forget(): void {
    const now = this.#clock.monotonic();
    const { idempotencyKeys, idempotencyBytes } = this.#limits;
    for (const [key, entry] of this.#entries) {
      if (entry.expires > now && this.#entries.size < idempotencyKeys && this.#bytes < idempotencyBytes)
        break;
      this.#entries.delete(key);
      this.#bytes -= entry.bytes;
    }
  }
}

export function idempotency(app: App, { clock, limits }: ApiContext): void {
  const answers = new Answers(clock, limits);

  app.addHook('onRoute', (route) => {
    if (route.config?.idempotent !== true) return;
    route.schema = { ...route.schema, headers: Headers };
    const handler = route.handler;
    route.handler = async function (request, reply) {
      const key = request.headers['idempotency-key'] as string | undefined;
      if (key === undefined) return callHandler(handler, this, request, reply);
      // A key is its actor's own: nobody gets another's answer by guessing it.
      const own = `${actorKey(request.actor)} ${key}`;
      const { answer, replayed } = answers.answer(own, fingerprint(request), async () => {
        const body: unknown = await callHandler(handler, this, request, reply);
        return {
          status: reply.statusCode,
          location: reply.getHeader('location') as string | undefined,
          body,
        };
      });
      const { status, location, body } = await answer;
      if (replayed) {
        void reply.code(status).header('idempotency-replayed', 'true');
        if (location !== undefined) void reply.header('location', location);
        // The body of a repeated upload is of no use: do not read it.
        if (request.routeOptions.config.upload === true) void reply.header('connection', 'close');
      }
      return body;
    };
  });
}

async function callHandler(
  handler: RouteHandlerMethod,
  self: FastifyInstance,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<unknown> {
  const body: unknown = await handler.call(self, request, reply);
  return body;
}

function fingerprint(request: FastifyRequest): string {
  const { headers } = request;
  const body: unknown = isPlain(request.body) ? request.body : undefined;
  const parts = [request.method, request.url, headers['content-type'], headers['content-length'], body];
  return createHash('sha256').update(JSON.stringify(parts)).digest('base64');
}

function isPlain(body: unknown): boolean {
  return typeof body === 'object' && body !== null && Object.getPrototypeOf(body) === Object.prototype;
}
