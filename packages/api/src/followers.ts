/** Streams of server-sent events: a bounded number of followers, in all and with one token, each of whom is sent the next event when it has taken the one before. */
import { actorKey } from '@pando/access';
import { PandoError } from '@pando/common';
import type { FastifyReply } from 'fastify';
import { Readable } from 'node:stream';
import type { ApiLimits, App } from './context.ts';

/** Bytes that wait for a follower: one event at the least. */
const WAITING_BYTES = 1024;

/** Says that nothing happened, so that the line is known to be up. */
export const STILL_HERE = ': still here\n\n';

/** The header of an answer goes out with its first bytes: whoever follows is to know at once that they do. */
async function* begun(events: AsyncIterable<string>): AsyncGenerator<string> {
  yield ': this is the beginning\n\n';
  yield* events;
}

type FollowerLimits = Pick<ApiLimits, 'followers' | 'followersOfOne'>;

export class Followers {
  readonly #limits: FollowerLimits;
  readonly #what: string;
  /** With whose token they follow. */
  readonly #all = new Map<AbortController, string>();

  /** `isEndless`: nothing else ends the streams, so when the app stops, their followers are let go of at once. */
  constructor(
    app: App,
    limits: FollowerLimits,
    what: string,
    { isEndless }: { readonly isEndless: boolean },
  ) {
    this.#limits = limits;
    this.#what = what;
    if (!isEndless) return;
    app.addHook('preClose', (done) => {
      for (const gone of this.#all.keys()) gone.abort();
      done();
    });
  }

  /** Answers with what `events` yields, until it ends or the follower leaves, which aborts its signal. @throws `too-busy` */
  follow(reply: FastifyReply, events: (signal: AbortSignal) => AsyncIterable<string>): FastifyReply {
    const { followers, followersOfOne } = this.#limits;
    if (this.#all.size >= followers)
      throw new PandoError('too-busy', `${followers} clients follow ${this.#what}`);
    const one = actorKey(reply.request.actor);
    if ([...this.#all.values()].filter((other) => other === one).length >= followersOfOne)
      throw new PandoError('too-busy', `${followersOfOne} clients with this token follow ${this.#what}`);
    const gone = new AbortController();
    const source = begun(events(gone.signal));
    this.#all.set(gone, one);
    const stream = Readable.from(source, { objectMode: false, highWaterMark: WAITING_BYTES });
    // A client that leaves ends the response; the stream waits for the next event and would notice late.
    reply.raw.once('close', () => gone.abort());
    stream.once('close', () => {
      this.#all.delete(gone);
      gone.abort();
    });
    // A connection that was kept for more would hold up a server that stops.
    return reply
      .type('text/event-stream')
      .headers({ 'cache-control': 'no-store', 'connection': 'close' })
      .send(stream);
  }
}
