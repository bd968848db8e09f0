/** Errors as problem documents (RFC 9457), and the one table from kinds and codes to HTTP status. */
import { ERROR_CODES, isPandoError, PandoError, type ErrorCode, type ErrorKind } from '@pando/common';
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify';
import type { Duplex } from 'node:stream';
import type { App } from '../context.ts';
import type { Problem } from '../schemas/index.ts';

const KIND_STATUS: Record<ErrorKind, number> = {
  invalid: 400,
  conflict: 409,
  missing: 404,
  unavailable: 503,
  data: 500,
  internal: 500,
};

/** Codes for which HTTP has a more telling status than that of their kind. */
const CODE_STATUS: Partial<Record<ErrorCode, number>> = {
  'store-full': 507,
  'body-too-large': 413,
  'media-type-unsupported': 415,
  'request-timeout': 408,
  'host-refused': 421,
  'unauthenticated': 401,
  'forbidden': 403,
  'scope-exceeded': 403,
  'rate-limited': 429,
};

export const PROBLEM_MEDIA_TYPE = 'application/problem+json';

/** HTTP status of an error code. */
export function statusOf(code: ErrorCode): number {
  return CODE_STATUS[code] ?? KIND_STATUS[ERROR_CODES[code].kind];
}

export function problemOf(error: PandoError, instance: string, status = statusOf(error.code)): Problem {
  const words = error.code.replaceAll('-', ' ');
  return {
    type: `urn:pando:problem:${error.code}`,
    title: words.charAt(0).toUpperCase() + words.slice(1),
    status,
    // What an unexpected error says may tell of things that are nobody's business; the log has it all.
    detail:
      error.code === 'internal'
        ? 'unexpected error; the log of the server has it under the instance'
        : error.message,
    code: error.code,
    instance,
    remedy: ERROR_CODES[error.code].remedy,
  };
}

const FASTIFY_CODES: Record<string, ErrorCode> = {
  FST_ERR_CTP_BODY_TOO_LARGE: 'body-too-large',
  FST_ERR_CTP_INVALID_MEDIA_TYPE: 'media-type-unsupported',
  FST_ERR_NOT_FOUND: 'route-missing',
};

/** Any error as a PandoError: what Fastify refused is `request-invalid` or a code of its own, the rest is a bug. */
export function toPandoError(error: unknown): PandoError {
  if (isPandoError(error)) return error;
  const known = error as Partial<FastifyError>;
  if (Array.isArray(known.validation))
    return new PandoError('request-invalid', validationMessage(known), { cause: error });
  const code = FASTIFY_CODES[known.code ?? ''];
  if (code !== undefined) return new PandoError(code, known.message ?? code, { cause: error });
  if (typeof known.statusCode === 'number' && known.statusCode >= 400 && known.statusCode < 500) {
    return new PandoError('request-invalid', known.message ?? 'the request is malformed', { cause: error });
  }
  return new PandoError('internal', 'unexpected error', { cause: error });
}

function validationMessage(error: Partial<FastifyError>): string {
  const context = error.validationContext ?? 'request';
  const parts = (error.validation ?? []).map(({ instancePath, message, params }) => {
    const at = `${context}${instancePath.replaceAll('/', '.')}`;
    const extra: unknown = params['additionalProperties'];
    if (Array.isArray(extra))
      return `${at} has no field ${extra.map((name) => `"${String(name)}"`).join(', ')}`;
    return `${at} ${message ?? 'is wrong'}`;
  });
  return parts.slice(0, 8).join('; ');
}

export function sendProblem(
  request: FastifyRequest,
  reply: FastifyReply,
  error: PandoError,
  status?: number,
): FastifyReply {
  const problem = problemOf(error, `urn:pando:request:${request.id}`, status);
  codes.set(request, error.code);
  if (problem.status === 401) void reply.header('www-authenticate', 'Bearer realm="pando"');
  return reply.code(problem.status).type(PROBLEM_MEDIA_TYPE).serializer(JSON.stringify).send(problem);
}

const codes = new WeakMap<FastifyRequest, ErrorCode>();

/** Code of the error that a request was answered with. */
export function codeOfAnswer(request: FastifyRequest): ErrorCode | undefined {
  return codes.get(request);
}

export function errors(app: App): void {
  app.setErrorHandler((thrown, request, reply) => {
    const error = toPandoError(thrown);
    if (error.kind === 'internal') request.log.error({ err: error.cause ?? error }, 'unexpected error');
    else if (error.kind === 'data') request.log.error({ err: error }, 'stored bytes are wrong');
    else request.log.debug({ code: error.code }, error.message);
    return sendProblem(request, reply, error);
  });
  app.setNotFoundHandler((request, reply) =>
    sendProblem(
      request,
      reply,
      new PandoError('route-missing', `no route ${request.method} ${request.url.slice(0, 200)}`),
    ),
  );
}

/** Bytes that are no HTTP at all: there is no request to answer, only a socket. */
export function onClientError(error: NodeJS.ErrnoException, socket: Duplex): void {
  if (error.code === 'ECONNRESET' || socket.destroyed || !socket.writable) {
    socket.destroy();
    return;
  }
  const timeout = error.code === 'ERR_HTTP_REQUEST_TIMEOUT';
  const problem = problemOf(
    timeout
      ? new PandoError('request-timeout', 'the request did not arrive in time')
      : new PandoError('request-invalid', 'the request is not HTTP'),
    'urn:pando:request:none',
  );
  const body = JSON.stringify(problem);
  const reason = timeout ? '408 Request Timeout' : '400 Bad Request';
  socket.end(
    `HTTP/1.1 ${reason}\r\nContent-Type: ${PROBLEM_MEDIA_TYPE}\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
}
