/**
 * What a request must be before anyone looks at it.
 *
 * A page from elsewhere, in the browser of somebody who may do things here, must not reach the server; that it has no token is one more hindrance.
 * - A name that an attacker owns can be made to point here (DNS rebinding): the Host must be localhost, an IP
 *   address, or a name from the configuration.
 * - A page can send simple requests anywhere (CSRF): whatever changes something must carry a media type that browsers
 *   do not send without asking first, and nobody who asks is told yes.
 */
import { PandoError } from '@pando/common';
import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import type { ApiContext, App } from '../context.ts';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** The body is a stream that the handler consumes. */
    upload?: boolean;
  }
}

export function guard(app: App, { hostNames, limits }: ApiContext): void {
  const names = new Set(['localhost', ...(hostNames ?? []).map((name) => name.toLowerCase())]);

  // A body that trickles in holds a connection, also where nobody reads it: it has a deadline, until it is known to be an upload that may
  // come. Uploads have one of their own, for pauses.
  const deadlines = new WeakMap<IncomingMessage, NodeJS.Timeout>();
  app.addHook('onRequest', (request, _reply, done) => {
    const { raw } = request;
    if (!raw.complete && hasBody(request.headers)) {
      const timer = setTimeout(() => {
        raw.destroy(new PandoError('request-timeout', 'the body took too long'));
        // The request may be answered, and done with, while its body still comes.
        if (!raw.complete) raw.socket.destroy();
      }, limits.bodyMs);
      deadlines.set(raw, timer);
      raw.once('end', () => clearTimeout(timer));
      raw.once('close', () => {
        if (raw.complete || raw.socket.destroyed) clearTimeout(timer);
      });
    }
    done();
  });

  app.addHook('onRequest', async (request) => {
    // Node takes the first; what stands before this server may have gone by the other (RFC 9112, 3.2).
    if (isTwice(request.raw.rawHeaders, 'host'))
      throw new PandoError('request-invalid', 'there are two Host headers');
    const host = hostOf(request.headers.host);
    if (isIP(host) === 0 && !names.has(host)) {
      throw new PandoError(
        'host-refused',
        `this server does not go by the name ${JSON.stringify(host.slice(0, 100))}`,
      );
    }
    const { method } = request;
    if (
      (method === 'POST' || method === 'PATCH' || method === 'PUT') &&
      request.headers['content-type'] === undefined
    ) {
      throw new PandoError(
        'media-type-unsupported',
        `${method} needs Content-Type: application/json, also without a body`,
      );
    }
  });

  // A JSON body may also be absent: then it is an empty object.
  const parse = app.getDefaultJsonParser('error', 'error');
  app.removeAllContentTypeParsers();
  app.addContentTypeParser(
    'application/json',
    { parseAs: 'string', bodyLimit: limits.bodyBytes },
    (request, body, done) => {
      if (body === '') done(null, {});
      else void parse(request, body as string, done);
    },
  );

  app.addHook('preParsing', (request, reply, payload, done) => {
    if (request.routeOptions.config.upload === true && !isJson(request.headers['content-type'])) {
      clearTimeout(deadlines.get(request.raw));
    } else if (request.headers.expect !== undefined) {
      reply.raw.writeContinue();
    }
    done(null, payload);
  });
}

/** @param raw names and values by turns, as they came */
function isTwice(raw: readonly string[], name: string): boolean {
  return raw.filter((text, i) => i % 2 === 0 && text.toLowerCase() === name).length > 1;
}

function hostOf(header: string | undefined): string {
  const match = /^(?:\[([0-9a-f:.]+)\]|([^:[\]]+))(?::\d{1,5})?$/i.exec(header ?? '');
  return (match?.[1] ?? match?.[2] ?? '').toLowerCase();
}

function hasBody(headers: Record<string, unknown>): boolean {
  return headers['transfer-encoding'] !== undefined || (headers['content-length'] ?? '0') !== '0';
}

export function isJson(contentType: string | undefined): boolean {
  return /^application\/json\s*(;|$)/i.test(contentType ?? '');
}
