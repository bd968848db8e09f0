/** What requests there were, by route: one entry for each route and class of status, so as many as there are routes. */
import { DurationHistogram, type Durations } from '@pando/common';
import type { FastifyReply, FastifyRequest } from 'fastify';

export interface HttpCount {
  readonly method: string;
  /** The pattern of the route, such as `/api/v1/vms/:vm`; `none` where there is none. */
  readonly route: string;
  /** `2xx`, `4xx`, … */
  readonly status: string;
  readonly times: Durations;
}

/** Why a request was told that there are too many. */
const REFUSAL_REASONS = ['token', 'address', 'wrong-token'] as const;
export type RefusalReason = (typeof REFUSAL_REASONS)[number];

export class HttpCounts {
  readonly #refusals = new Map<RefusalReason, number>();
  #wrongTokens = 0;
  readonly #counts = new Map<string, HttpCount & { readonly times: DurationHistogram }>();

  /** A request that was answered. Streams of events last as long as somebody listens: their time says nothing. */
  count(request: FastifyRequest, reply: FastifyReply): void {
    const route = request.routeOptions.url ?? 'none';
    // A method that no route has could be anything.
    const method = route === 'none' ? 'any' : request.method;
    const status = `${Math.floor(reply.statusCode / 100)}xx`;
    const key = `${method} ${route} ${status}`;
    let found = this.#counts.get(key);
    if (found === undefined) {
      found = { method, route, status, times: new DurationHistogram() };
      this.#counts.set(key, found);
    }
    const isStream = String(reply.getHeader('content-type') ?? '').startsWith('text/event-stream');
    found.times.record(isStream ? 0 : reply.elapsedTime);
  }

  refuse(reason: RefusalReason): void {
    this.#refusals.set(reason, (this.#refusals.get(reason) ?? 0) + 1);
  }

  wrongToken(): void {
    this.#wrongTokens++;
  }

  /** Requests that came with a token that is none. */
  get wrongTokens(): number {
    return this.#wrongTokens;
  }

  refusals(): readonly (readonly [RefusalReason, number])[] {
    return REFUSAL_REASONS.map((reason) => [reason, this.#refusals.get(reason) ?? 0]);
  }

  all(): readonly HttpCount[] {
    return [...this.#counts.values()];
  }
}
