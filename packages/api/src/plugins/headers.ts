/**
 * Headers that tell browsers how little they may do with an answer: nothing is loaded, framed or guessed from it, and it tells nobody where somebody came
 * from. The page at /docs has a policy of its own (openapi.ts).
 */
import helmet from '@fastify/helmet';
import type { ApiContext, App } from '../context.ts';

/** A browser holds a whole host name to HTTPS so long, whatever the port: not longer than somebody can bear who goes back. */
const HTTPS_SECONDS = 30 * 24 * 60 * 60;

export async function headers(app: App, { https }: ApiContext): Promise<void> {
  await app.register(helmet, {
    contentSecurityPolicy: {
      useDefaults: false,
      directives: {
        'default-src': ["'none'"],
        'base-uri': ["'none'"],
        'form-action': ["'none'"],
        'frame-ancestors': ["'none'"],
      },
    },
    strictTransportSecurity:
      https === undefined ? false : { maxAge: HTTPS_SECONDS, includeSubDomains: false },
    xFrameOptions: { action: 'deny' },
    referrerPolicy: { policy: 'no-referrer' },
    crossOriginOpenerPolicy: { policy: 'same-origin' },
    crossOriginResourcePolicy: { policy: 'same-origin' },
    crossOriginEmbedderPolicy: false,
    originAgentCluster: true,
    xContentTypeOptions: true,
    xDnsPrefetchControl: { allow: false },
    xDownloadOptions: false,
    xPermittedCrossDomainPolicies: { permittedPolicies: 'none' },
    xPoweredBy: false,
    xXssProtection: false,
  });
}
