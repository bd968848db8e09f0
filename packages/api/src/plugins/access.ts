/**
 * Who may do what: asked before anybody looks at the body of a request.
 *
 * 401 without a token that is good, 403 without the role, 404 for what is not in the scope; of routes that do not exist nobody without a
 * token learns. A VM or backup whose scope was checked is handed on by its id, so that the handler means the same one.
 */
import { mayAs, type Actor } from '@pando/access';
import { PandoError } from '@pando/common';
import type { FastifyReply, FastifyRequest, RouteOptions } from 'fastify';
import type { ApiContext, App } from '../context.ts';
import type { RouteNeeds } from '../needs.ts';
import { refuseScoped } from '../scopes.ts';
import { linger } from './imports.ts';
import type { Rates } from './rates.ts';

declare module 'fastify' {
  interface FastifyRequest {
    /** Who makes the request. Of routes that are `open`: nobody. */
    actor: Actor;
  }
  interface FastifyContextConfig {
    /** It answers although the token that it came with is revoked meanwhile. */
    survivesRevocation?: boolean;
  }
}

/** What comes through the Unix socket: whoever may open that, the file system says. */
const SOCKET_ACTOR: Actor = Object.freeze({ name: 'socket', role: 'admin' });

export function access(app: App, context: ApiContext, rates: Rates): void {
  const { tokens, scopes, policyScopes, jobs, limits, isTrusted } = context;
  app.decorateRequest('actor', null as unknown as Actor);
  const routes: RouteOptions[] = [];
  app.addHook('onRoute', (route) => void routes.push(route));
  app.addHook('onReady', async () => {
    const unsaid = routes
      .filter(({ config }) => config?.needs === undefined)
      .map(({ method, url }) => `${String(method)} ${url}`);
    if (unsaid.length > 0) throw new Error(`routes that do not say what they need: ${unsaid.join(', ')}`);
  });

  app.addHook('onRequest', async (request, reply) => {
    const { needs, unlimited } = request.routeOptions.config;
    const isFromSocket = isTrusted?.(request.raw.socket) === true;
    try {
      if (needs === 'open') {
        if (!isFromSocket && unlimited !== true) await rates.ofAddress(request, reply);
        return;
      }
      if (isFromSocket) request.actor = SOCKET_ACTOR;
      else await authenticate(request, reply);
      if (needs !== undefined) await check(request, needs);
    } catch (error) {
      // Whoever uploads a disk may not be looking: what comes is not read for long.
      linger(request, limits.lingerMs);
      throw error;
    }
  });

  async function authenticate(request: FastifyRequest, reply: FastifyReply): Promise<void> {
    const text = bearerOf(request.headers.authorization);
    try {
      request.actor = tokens.authenticate(text, request.ip);
    } catch (error) {
      await rates.ofAddress(request, reply);
      if (text !== undefined) await rates.ofWrongToken(request, reply);
      throw error;
    }
    await rates.ofActor(request, reply);
  }

  // What is under way with a token ends with it: a download takes hours, an event stream for ever.
  const underWay = new Map<string, Set<FastifyRequest>>();
  tokens.onEnd((tokenId) => {
    for (const { raw, routeOptions } of underWay.get(tokenId) ?? []) {
      if (routeOptions.config.survivesRevocation !== true) raw.socket.destroy();
    }
  });
  app.addHook('onRequest', (request, reply, done) => {
    const tokenId = (request.actor as Actor | null)?.tokenId;
    if (tokenId !== undefined) {
      const requests = underWay.get(tokenId) ?? new Set();
      underWay.set(tokenId, requests.add(request));
      reply.raw.once('close', () => {
        requests.delete(request);
        if (requests.size === 0) underWay.delete(tokenId);
      });
    }
    done();
  });

  async function check(request: FastifyRequest, { role, on }: Exclude<RouteNeeds, 'open'>): Promise<void> {
    const { actor } = request;
    if (!mayAs(actor.role, role)) {
      const who = `the token ${JSON.stringify(actor.name)} has the role ${actor.role}`;
      throw new PandoError('forbidden', `this takes the role ${role}, and ${who}`);
    }
    if (actor.scope === undefined) return;
    const params = request.params as Record<string, string>;
    request.named = { ...params };
    switch (on) {
      case 'vm':
        params['vm'] = (await scopes.vm(actor, params['vm']!)).id;
        break;
      case 'backup':
        params['backup'] = (await scopes.backup(actor, params['backup']!)).id;
        break;
      case 'policy':
        params['policy'] = (await policyScopes.policy(actor, params['policy']!)).id;
        break;
      case 'job':
        jobs.checkVisible(params['id']!, actor);
        break;
      case 'store':
        refuseScoped(actor);
        break;
      case 'list':
      case 'new':
      case 'self':
      // That is for the handler.
    }
  }
}

function bearerOf(header: string | undefined): string | undefined {
  return /^Bearer +([^\s]+) *$/i.exec(header ?? '')?.[1];
}
