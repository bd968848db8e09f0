/** What the plugins work with: given to `buildApi` by whoever runs it. */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import type { Activity } from '@pando/activity';
import type { AuditTrail, Tokens } from '@pando/access';
import type { Clock, DiskPart } from '@pando/common';
import type { EventLog, Webhooks } from '@pando/events';
import type { Fleet, Work } from '@pando/fleet';
import type { GuestFiles } from '@pando/guest-files';
import type { Quiesce } from '@pando/guest-agent';
import type { Policies } from '@pando/policies';
import type { FastifyBaseLogger, FastifyInstance, RawServerDefault } from 'fastify';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { TlsOptions } from 'node:tls';
import type { ConnectionLimits } from './connections.ts';
import type { HttpCounts } from './http-counts.ts';
import type { Jobs } from './jobs.ts';
import type { PolicyScopes } from './policy-scopes.ts';
import type { Scopes } from './scopes.ts';
import type {
  GcReport,
  LastVerifications,
  Progress,
  ReadyCheck,
  RepairReport,
  SpaceSample,
  VerifyReport,
} from './schemas/index.ts';

export type App = FastifyInstance<
  RawServerDefault,
  IncomingMessage,
  ServerResponse,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>;

/** What the api needs of the engine besides the fleet. */
export interface Engine {
  /** `thorough`: compact all segments with anything dead in them, and not only where it is a good part. */
  gc(work: Work<Progress>, options: { readonly thorough: boolean }): Promise<GcReport>;
  /** `quick`: structure only, see VerifyReport. `resume`: from where an unfinished one was cut off. */
  verify(
    work: Work<Progress>,
    options: { readonly quick: boolean; readonly resume: boolean },
  ): Promise<VerifyReport>;
  /** Stores anew what disks need, is damaged, and the source holds. */
  repair(work: Work<Progress>, source: RepairSource): Promise<RepairReport>;
  /** A data directory as such a source. @throws `store-missing`, `store-newer`, `source-failed` */
  openStoreSource(path: string): Promise<RepairSource & { close(): Promise<void> }>;
  /** What the last verifications found; kept over restarts. */
  lastVerifications(): Promise<LastVerifications>;
  store(): 'ready' | 'full' | 'failed';
}

export interface RepairSource {
  readonly sizeBytes?: number;
  /** Buffers are the source's and hold until the next pull. */
  parts(signal: AbortSignal): AsyncIterable<DiskPart>;
  /** It can be read but once. */
  readonly isOnce?: boolean;
}

export interface ApiLimits extends ConnectionLimits {
  /** Bytes of a JSON body. */
  readonly bodyBytes: number;
  /** A JSON body has to arrive within this. */
  readonly bodyMs: number;
  /** Longest pause of a client in the middle of an upload. */
  readonly uploadPauseMs: number;
  /** After an upload was refused half-way, how long the client may take to notice. */
  readonly lingerMs: number;
  /** Requests a second, in the mean of ten seconds: with one token, and without a good one from one address. 0: as many as they like. */
  readonly tokenRequests: number;
  readonly addressRequests: number;
  /** Wrong tokens a minute from one address before it is told to wait; 0: as many as they like. */
  readonly wrongTokens: number;
  /** Connections at the same time. */
  readonly connections: number;
  /** Followers of jobs, and of events, at the same time; and those with one token. */
  readonly followers: number;
  readonly followersOfOne: number;
  /** A comment goes to followers when nothing else did for so long. */
  readonly heartbeatMs: number;
  /** Answers kept for `Idempotency-Key`: how many, how big together, and for how long. */
  readonly idempotencyKeys: number;
  readonly idempotencyBytes: number;
  readonly idempotencyMs: number;
}

export const DEFAULT_LIMITS: ApiLimits = {
  bodyBytes: 64 * 1024,
  bodyMs: 30_000,
  uploadPauseMs: 60_000,
  lingerMs: 5_000,
  tokenRequests: 1_000,
  addressRequests: 100,
  wrongTokens: 60,
  connections: 1_000,
  connectionsOfAddress: 250,
  readerPauseMs: 120_000,
  followers: 200,
  followersOfOne: 100,
  heartbeatMs: 15_000,
  idempotencyKeys: 10_000,
  idempotencyBytes: 32 * 1024 * 1024,
  idempotencyMs: 24 * 60 * 60 * 1000,
};

/** Samples of the space report, oldest first. */
export interface SpaceHistorySource {
  /** `since`: milliseconds since 1970. `after`: the `next` of the page before. */
  list(request: {
    readonly grain: '5m' | '1h' | '1d';
    readonly since: number;
    readonly after?: number;
    readonly limit: number;
  }): Promise<{
    readonly items: readonly (Omit<SpaceSample, 'at'> & { at: number })[];
    readonly next?: number;
  }>;
}

/** What is counted, in a text format of its own. */
export interface MetricsSource {
  readonly contentType: string;
  print(): Promise<string>;
}

/** What VMs write over time, by their ids. */
export type ActivitySource = Pick<Activity, 'buckets' | 'tripwire' | 'setSensitivity'>;

export interface ApiOptions {
  readonly fleet: Fleet;
  readonly policies: Policies;
  readonly jobs: Jobs;
  readonly engine: Engine;
  readonly events: EventLog;
  readonly webhooks: Webhooks;
  /** What may be wrong with the server, check by check. */
  readonly ready: () => Promise<readonly ReadyCheck[]>;
  readonly history: SpaceHistorySource;
  /** Counts requests, where somebody reads that. */
  readonly httpCounts?: HttpCounts;
  readonly tokens: Pick<Tokens, 'authenticate' | 'create' | 'get' | 'list' | 'revoke' | 'onEnd'>;
  readonly audit: Pick<AuditTrail, 'begin' | 'end' | 'refuse' | 'list' | 'failure'>;
  /** Speaks HTTPS with these, in place of HTTP. */
  readonly https?: TlsOptions;
  /** Whether who connects so may do everything without a token. Default: nobody. */
  readonly isTrusted?: (socket: Socket) => boolean;
  readonly clock: Clock;
  readonly version: string;
  readonly logger?: FastifyBaseLogger;
  readonly metrics: MetricsSource;
  readonly activity: ActivitySource;
  readonly files: GuestFiles;
  /** Absent: nobody can have a guest frozen. */
  readonly quiesce?: Quiesce;
  /** Where `POST /imports` may read files. Absent: nowhere. */
  readonly importDirectory?: string;
  /** Whether images there are read without a sandbox. Default: no. */
  readonly trustImages?: boolean;
  /** Names besides localhost and IP addresses that requests may carry as their host. */
  readonly hostNames?: readonly string[];
  readonly limits?: Partial<ApiLimits>;
}

export interface ApiContext extends Omit<ApiOptions, 'limits'> {
  readonly limits: ApiLimits;
  readonly scopes: Scopes;
  readonly policyScopes: PolicyScopes;
}
