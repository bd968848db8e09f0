/**
 * How many requests somebody may make: with a token by the token, without a good one by the address. Looked at once it is known who asks, which
 * costs a look into a map and a hash, and before anything else is done; those that fail later count as well (adr/0022).
 *
 * Wrong tokens are counted by address once more. An address that has shown too many is told so in place of 401, and a good token from there passes all the same:
 * nobody guesses one, so refusing good ones would help nobody but who wants to lock others out.
 */
import rateLimit, { normalizeIP } from '@fastify/rate-limit';
import type { Actor } from '@pando/access';
import { PandoError } from '@pando/common';
import type { EventKind } from '@pando/events';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { ApiContext, App } from '../context.ts';
import type { RefusalReason } from '../http-counts.ts';
import { requestWindows } from '../request-windows.ts';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Not counted: it costs no more than being told that there were too many. */
    unlimited?: boolean;
  }
}

/** Limits a second hold as the mean over this: who comes in bursts is not held up. */
const SECONDS = 10;
const WRONG_TOKENS_MS = 60_000;
/** At most so often an event of one kind tells of it. */
const EVENT_MS = 10 * 60_000;

export interface Rates {
  /** @throws `rate-limited` */
  ofActor(request: FastifyRequest, reply: FastifyReply): Promise<void>;
  /** Without a good token. @throws `rate-limited` */
  ofAddress(request: FastifyRequest, reply: FastifyReply): Promise<void>;
  /** With a token that is none. @throws `rate-limited` */
  ofWrongToken(request: FastifyRequest, reply: FastifyReply): Promise<void>;
}

type Limit = (request: FastifyRequest, reply: FastifyReply) => Promise<void>;

export async function rates(app: App, context: ApiContext): Promise<Rates> {
  const { limits, clock, events, httpCounts } = context;
  await app.register(rateLimit, { global: false, store: requestWindows(clock) });
  const toldAt = new Map<EventKind, number>();

  const limit = (max: number, windowMs: number, asker: (request: FastifyRequest) => string) => {
    const count = app.createRateLimit({ max, timeWindow: windowMs, keyGenerator: asker });
    return (reason: RefusalReason, refuse: (request: FastifyRequest) => string): Limit =>
      async (request, reply) => {
        if (max === 0) return;
        const found = await count(request);
        if (found.isAllowed || !found.isExceeded) return;
        httpCounts?.refuse(reason);
        const text = refuse(request);
        void reply.header('retry-after', found.ttlInSeconds);
        throw new PandoError('rate-limited', `${text}: wait ${found.ttlInSeconds} s`);
      };
  };

  const tell = (kind: EventKind, text: string, subject: string): void => {
    const now = clock.monotonic();
    if (now - (toldAt.get(kind) ?? -Infinity) < EVENT_MS) return;
    toldAt.set(kind, now);
    events.raise({ kind, text, subject });
  };

  const overSeconds = (perSecond: number, asker: (request: FastifyRequest) => string) =>
    limit(perSecond * SECONDS, SECONDS * 1000, asker);
  const wrongTokens = limit(
    limits.wrongTokens,
    WRONG_TOKENS_MS,
    addressOf,
  )('wrong-token', (request) => {
    const address = addressOf(request);
    tell('wrong-tokens', `Somebody comes from ${address} with wrong tokens, again and again.`, address);
    return `more than ${limits.wrongTokens} wrong tokens came from ${address} within a minute`;
  });
  return {
    ofActor: overSeconds(limits.tokenRequests, keyOf)('token', ({ actor }) => {
      const who = `the token ${JSON.stringify(actor.name)}`;
      const text = `More than ${limits.tokenRequests} requests a second come with ${who}; it is told to wait.`;
      tell('requests-limited', text, actor.name);
      return `more than ${limits.tokenRequests} requests a second came with ${who}`;
    }),
    ofAddress: overSeconds(limits.addressRequests, addressOf)('address', (request) => {
      const without = 'without a good token';
      return `more than ${limits.addressRequests} requests a second came ${without} from ${addressOf(request)}`;
    }),
    ofWrongToken: (request, reply) => {
      httpCounts?.wrongToken();
      return wrongTokens(request, reply);
    },
  };
}

function keyOf({ actor }: { readonly actor: Actor }): string {
  return actor.tokenId ?? actor.name;
}

/** Of IPv6 the network: a host there has addresses without number. */
function addressOf({ ip }: FastifyRequest): string {
  return normalizeIP(ip);
}
