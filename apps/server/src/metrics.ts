/**
 * What the server counts, in the form that Prometheus reads. The rooms of the engine count for themselves, with plain numbers, always;
 * here they are given names, and are read when somebody asks.
 */
import type { HttpCount, ReadyCheck } from '@pando/api';
import type { ActivityStats } from '@pando/activity';
import type { Durations } from '@pando/common';
import type { NbdServerStats } from '@pando/nbd';
import type { StoreCounters, StoreStats } from '@pando/chunk-store';
import type { PolicyCounters } from '@pando/policies';
import type { VolumeStats } from '@pando/volume';
import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from 'prom-client';
import type { GcCounts, JobCount } from './job-counts.ts';
import type { ProcessIo } from './process-io.ts';

/** Everything that is counted, at one instant. */
export interface Counts {
  readonly version: string;
  readonly state: 'ready' | 'full' | 'failed';
  readonly nbd: NbdServerStats;
  readonly volumes: VolumeStats;
  readonly store: StoreStats;
  readonly catalogBytes: number;
  readonly catalogCommitTimes: Durations | undefined;
  readonly activity: ActivityStats;
  readonly processIo: ProcessIo | undefined;
  readonly policies: PolicyCounters & { readonly dueLagMs: number };
  readonly http: readonly HttpCount[];
  readonly httpRefusals: readonly (readonly [reason: string, count: number])[];
  readonly wrongTokens: number;
  readonly jobs: readonly JobCount[];
  readonly gc: GcCounts;
  /** Jobs that wait or run now. */
  readonly activeJobs: { readonly queued: number; readonly running: number };
  readonly checks: readonly ReadyCheck[];
  readonly freeBytes: number | undefined;
  readonly lostEvents: number;
}

type Sample = readonly [labels: Record<string, string>, value: number];
type Read = (counts: Counts) => number | readonly Sample[];

const GAUGES: readonly (readonly [name: string, help: string, read: Read])[] = [
  ['pando_build_info', 'Always 1; the version is in the label.', ({ version }) => [[{ version }, 1]]],
  [
    'pando_store_state',
    '1 for the state that the store is in, 0 for the others.',
    ({ state }) =>
      (['ready', 'full', 'failed'] as const).map((one) => [{ state: one }, one === state ? 1 : 0] as const),
  ],
  [
    'pando_check',
    'What GET /ready says of each check: 0 ok, 1 a warning, 2 failed.',
    ({ checks }) =>
      checks.map(({ name, status }) => [{ check: name }, { ok: 0, warning: 1, failed: 2 }[status]]),
  ],
  [
    'pando_disk_free_bytes',
    'Room on the file system that holds the data directory.',
    ({ freeBytes }) => (freeBytes === undefined ? [] : [[{}, freeBytes]]),
  ],
  [
    'pando_jobs',
    'Jobs that wait for others, and that run.',
    ({ activeJobs }) => [
      [{ state: 'queued' }, activeJobs.queued],
      [{ state: 'running' }, activeJobs.running],
    ],
  ],
  [
    'pando_gc_live_bytes',
    'Bytes of chunks that the newest collection found alive, before compression; 0 before there was one.',
    ({ gc }) => gc.liveBytes,
  ],
  [
    'pando_gc_ended_timestamp_seconds',
    'When the newest collection ended that ended well, since 1970; 0 before there was one.',
    ({ gc }) => gc.endedAtMs / 1000,
  ],
  ['pando_nbd_connections', 'NBD connections.', ({ nbd }) => nbd.connections],
  [
    'pando_nbd_connections_in_handshake',
    'Those of them that have no export yet.',
    ({ nbd }) => nbd.connectionsInHandshake,
  ],
  [
    'pando_nbd_requests_in_flight',
    'NBD requests that wait for the engine.',
    ({ nbd }) => nbd.requestsInFlight,
  ],
  ['pando_nbd_buffer_bytes', 'Reply and payload buffers in use.', ({ nbd }) => nbd.bufferBytes],
  [
    'pando_overlay_bytes',
    'Guest data in memory that is in the log and not in the tree yet.',
    ({ volumes }) => volumes.overlayBytes,
  ],
  ['pando_overlays', 'Overlays that hold it.', ({ volumes }) => volumes.overlays],
  [
    'pando_log_bytes',
    'Bytes in the write log that are not in the tree yet.',
    ({ volumes }) => volumes.logBytes,
  ],
  [
    'pando_log_spare_bytes',
    'Bytes of files that the write log uses again, and behind the end of the others.',
    ({ volumes }) => volumes.logDiskBytes - volumes.logBytes,
  ],
  ['pando_log_files', 'Files of the write log.', ({ volumes }) => volumes.log.files],
  [
    'pando_damaged_disks',
    'Disks whose writes damage keeps in the log.',
    ({ volumes }) => volumes.damaged.length,
  ],
  ['pando_segment_bytes', 'Bytes of the segments on disk.', ({ store }) => store.segmentBytes],
  ['pando_segments', 'Segments.', ({ store }) => store.segments],
  ['pando_index_bytes', 'Bytes of the index on disk, approximately.', ({ store }) => store.indexBytes],
  [
    'pando_index_stale_entries',
    'At most so many entries of the index name segments that are gone; they are deleted when they are many.',
    ({ store }) => store.staleIndexEntries,
  ],
  ['pando_catalog_bytes', 'Bytes of the catalog on disk, approximately.', ({ catalogBytes }) => catalogBytes],
  [
    'pando_policy_due_lag_seconds',
    'For how long the policy run that is due longest has waited to begin, or to end.',
    ({ policies }) => policies.dueLagMs / 1000,
  ],
  ['pando_run_cache_bytes', 'Decompressed runs in memory.', ({ store }) => store.runCacheBytes],
  ['pando_node_cache_bytes', 'Nodes in memory.', ({ store }) => store.nodeCacheBytes],
  [
    'pando_damaged_runs',
    'Runs found damaged since the start and not removed since.',
    ({ store }) => store.damagedRuns,
  ],
];

const COUNTERS: readonly (readonly [name: string, help: string, read: Read])[] = [
  [
    'pando_http_requests_total',
    'HTTP requests that were answered, by route and class of status.',
    ({ http }) =>
      http.map(({ method, route, status, times }) => [
        { method, route, status },
        times.counts.counts.reduce((sum, count) => sum + count, 0),
      ]),
  ],
  [
    'pando_http_limited_total',
    'HTTP requests that were told to wait: too many with one token, without a good one from one address, or with wrong ones from one address.',
    ({ httpRefusals }) => httpRefusals.map(([reason, count]) => [{ reason }, count]),
  ],
  [
    'pando_http_wrong_tokens_total',
    'HTTP requests with a token that is none, was revoked or has expired.',
    ({ wrongTokens }) => wrongTokens,
  ],
  [
    'pando_jobs_total',
    'Jobs that have ended, and how.',
    ({ jobs }) => jobs.map(({ kind, state, count }) => [{ kind, state }, count]),
  ],
  [
    'pando_job_seconds_total',
    'Time that they took, waiting for others aside.',
    ({ jobs }) => jobs.map(({ kind, state, seconds }) => [{ kind, state }, seconds]),
  ],
  ['pando_gc_freed_bytes_total', 'Bytes of segments that collections have freed.', ({ gc }) => gc.freedBytes],
  ['pando_gc_dead_chunks_total', 'Chunks that they found dead.', ({ gc }) => gc.deadChunks],
  [
    'pando_gc_segments_total',
    'Segments that they removed as a whole, and that they compacted.',
    ({ gc }) => [
      [{ result: 'dropped' }, gc.droppedSegments],
      [{ result: 'compacted' }, gc.compactedSegments],
    ],
  ],
  [
    'pando_events_lost_total',
    'Events that came while too many waited to be kept.',
    ({ lostEvents }) => lostEvents,
  ],
  [
    'pando_nbd_requests_total',
    'NBD requests that were carried out or failed.',
    ({ nbd }) => nbd.commands.map(({ command, requests }) => [{ command }, requests]),
  ],
  [
    'pando_nbd_request_bytes_total',
    'Bytes that they were about.',
    ({ nbd }) => nbd.commands.map(({ command, bytes }) => [{ command }, bytes]),
  ],
  [
    'pando_nbd_request_failures_total',
    'Those of them that failed.',
    ({ nbd }) => nbd.commands.map(({ command, failed }) => [{ command }, failed]),
  ],
  [
    'pando_guest_written_bytes_total',
    'Bytes that guests have written, zeros aside.',
    ({ volumes }) => volumes.writtenBytes,
  ],
  [
    'pando_destaged_bytes_total',
    'Bytes of overlays that have come into the tree.',
    ({ volumes }) => volumes.destagedBytes,
  ],
  [
    'pando_chunks_total',
    'Chunks that were to be stored: holes, those that were there already, and new ones.',
    ({ store: { counters } }) => [
      [{ result: 'zero' }, counters.zeroChunks],
      [{ result: 'known' }, counters.knownChunks],
      [{ result: 'new' }, counters.newChunks],
    ],
  ],
  ['pando_new_chunk_bytes_total', 'Bytes of the new ones.', ({ store }) => store.counters.newBytes],
  [
    'pando_stored_bytes_total',
    'Bytes of the runs that they came to, copies by compaction included.',
    ({ store }) => store.counters.storedBytes,
  ],
  [
    'pando_segment_written_bytes_total',
    'Bytes appended to segments.',
    ({ store }) => store.counters.segmentWrittenBytes,
  ],
  [
    'pando_log_appended_bytes_total',
    'Bytes appended to the write log.',
    ({ volumes }) => volumes.log.appendedBytes,
  ],
  [
    'pando_log_files_reused_total',
    'Files of the write log that had been other ones before.',
    ({ volumes }) => volumes.log.reusedFiles,
  ],
  ['pando_log_records_total', 'Records appended to the write log.', ({ volumes }) => volumes.log.records],
  [
    'pando_log_rewrites_total',
    'Times that writes which damage keeps out of the tree were appended to the log anew.',
    ({ volumes }) => volumes.logRewrites,
  ],
  [
    'pando_node_requests_total',
    'Nodes that were asked for: in the node cache, or not.',
    ({ store: { counters } }) => [
      [{ result: 'hit' }, counters.nodeHits],
      [{ result: 'miss' }, counters.nodeMisses],
    ],
  ],
  [
    'pando_run_requests_total',
    'Chunks, and nodes that were not in their cache: their run was in memory or about to be, or it was read for them.',
    ({ store: { counters } }) => [
      [{ result: 'hit' }, counters.runHits],
      [{ result: 'miss' }, counters.runMisses],
    ],
  ],
  [
    'pando_run_load_bytes_total',
    'Bytes of runs read from segments, for guests or for compaction.',
    ({ store }) => store.counters.loadedBytes,
  ],
  [
    'pando_chunk_lookups_total',
    'Ids whose place was looked up.',
    ({ store: { counters } }) => byWhom(counters, 'all'),
  ],
  [
    'pando_index_lookups_total',
    'Those of them that the index was asked for.',
    ({ store: { counters } }) => byWhom(counters, 'index'),
  ],
  [
    'pando_index_compaction_bytes_total',
    'Bytes of tables that the index has read and written behind its answers, in whole MiB for each of its levels.',
    ({ store: { indexCompactions } }) =>
      indexCompactions === undefined
        ? []
        : [
            [{ direction: 'read' }, indexCompactions.readBytes],
            [{ direction: 'written' }, indexCompactions.writtenBytes],
          ],
  ],
  [
    'pando_index_compaction_seconds_total',
    'Time that this took, in whole seconds for each of its levels.',
    ({ store: { indexCompactions } }) =>
      indexCompactions === undefined ? [] : [[{}, indexCompactions.seconds]],
  ],
  ['pando_policy_runs_total', 'Runs of policies that have ended.', ({ policies }) => policies.runs],
  ['pando_policy_backups_total', 'Backups that policies took.', ({ policies }) => policies.backups],
  [
    'pando_policy_failures_total',
    'Backups that policies could not take; each pass of a run counts.',
    ({ policies }) => policies.failures,
  ],
  [
    'pando_policy_expired_backups_total',
    'Backups that policies let go of.',
    ({ policies }) => policies.expired,
  ],
  [
    'pando_tripwire_trips_total',
    'Times that a VM was found to write as if its disk were being encrypted.',
    ({ activity }) => activity.trips,
  ],
  [
    'pando_activity_uncounted_bytes_total',
    'Bytes that were destaged and are in the activity of no VM.',
    ({ activity }) => activity.uncountedBytes,
  ],
  [
    'pando_process_disk_bytes_total',
    'Bytes that the process read from disks, wrote to them, and of those what went with its file before it got there, as the kernel counts them.',
    ({ processIo }) =>
      processIo === undefined
        ? []
        : [
            [{ direction: 'read' }, processIo.readBytes],
            [{ direction: 'written' }, processIo.writtenBytes],
            [{ direction: 'cancelled' }, processIo.cancelledBytes],
          ],
  ],
];

function byWhom(counters: Readonly<StoreCounters>, which: 'all' | 'index'): readonly Sample[] {
  return [
    [{ by: 'reader' }, counters.readerLookUps[which]],
    [{ by: 'writer' }, counters.writerLookUps[which]],
    [{ by: 'collection' }, counters.collectionLookUps[which]],
    [{ by: 'verification' }, counters.verifyLookUps[which]],
  ];
}

type Times = readonly (readonly [labels: Record<string, string>, times: Durations])[];
const TIMES: readonly (readonly [name: string, help: string, read: (counts: Counts) => Times])[] = [
  [
    'pando_nbd_request_wait_seconds',
    'From the arrival of an NBD request to its answer, for those that were not answered at once.',
    ({ nbd }) => nbd.commands.map(({ command, waited }) => [{ command }, waited]),
  ],
  [
    'pando_http_request_seconds',
    'From the arrival of an HTTP request to the end of its answer; streams of events count as 0.',
    ({ http }) => http.map(({ method, route, status, times }) => [{ method, route, status }, times]),
  ],
  [
    'pando_log_group_seconds',
    'Writing one group of records to the log.',
    ({ volumes }) => [[{}, volumes.log.groupTimes]],
  ],
  ['pando_log_sync_seconds', 'Syncing the log.', ({ volumes }) => [[{}, volumes.log.syncTimes]]],
  [
    'pando_segment_sync_seconds',
    'Syncing a segment.',
    ({ store }) => [[{}, store.counters.segmentSyncTimes]],
  ],
  [
    'pando_run_load_seconds',
    'Reading one run, checking and decompressing it.',
    ({ store }) => [[{}, store.counters.runLoadTimes]],
  ],
  [
    'pando_hash_seconds',
    'Hashing one batch of chunks, in a thread or out of it; waiting for the thread is not counted.',
    ({ store }) => [[{}, store.counters.hashTimes]],
  ],
  [
    'pando_pack_seconds',
    'Compressing the new chunks of one batch into runs, likewise.',
    ({ store }) => [[{}, store.counters.packTimes]],
  ],
  ['pando_destage_seconds', 'Destaging one overlay.', ({ volumes }) => [[{}, volumes.destageTimes]]],
  [
    'pando_catalog_commit_seconds',
    'Committing one synced batch to the catalog.',
    ({ catalogCommitTimes }) => (catalogCommitTimes === undefined ? [] : [[{}, catalogCommitTimes]]),
  ],
];

/** A histogram whose times somebody else has counted. */
class CountedHistogram extends Histogram {
  times: Times = [];

  /** What the registry asks for when it prints. */
  getForPromString(): Promise<object> {
    const { name, help } = this as unknown as { name: string; help: string };
    const values = this.times.flatMap(([labels, times]) => {
      const { bounds, counts, sumSeconds } = times.counts;
      let upTo = 0;
      const buckets = bounds.map((bound, i) => {
        upTo += counts[i]!;
        return { metricName: `${name}_bucket`, labels: { ...labels, le: bound }, value: upTo };
      });
      const all = upTo + counts.at(-1)!;
      return [
        ...buckets,
        { metricName: `${name}_bucket`, labels: { ...labels, le: '+Inf' }, value: all },
        { metricName: `${name}_sum`, labels, value: sumSeconds },
        { metricName: `${name}_count`, labels, value: all },
      ];
    });
    return Promise.resolve({ name, help, type: 'histogram', values });
  }
}

export class Metrics {
  readonly #registry = new Registry();
  readonly #setters: ((counts: Counts) => void)[] = [];
  readonly #read: () => Promise<Counts>;
  /** Scrapes at the same time share one reading. */
  #printing: Promise<string> | undefined;

  constructor(read: () => Promise<Counts>) {
    this.#read = read;
    const registers = [this.#registry];
    collectDefaultMetrics({ register: this.#registry });
    for (const [name, help, value] of GAUGES) {
      const gauge = new Gauge({ name, help, registers, labelNames: LABELS });
      this.#setters.push((counts) => {
        gauge.reset();
        for (const [labels, one] of samplesOf(value(counts))) gauge.set(labels, one);
      });
    }
    for (const [name, help, value] of COUNTERS) {
      const counter = new Counter({ name, help, registers, labelNames: LABELS });
      this.#setters.push((counts) => {
        counter.reset();
        for (const [labels, one] of samplesOf(value(counts))) counter.inc(labels, one);
      });
    }
    for (const [name, help, times] of TIMES) {
      const histogram = new CountedHistogram({ name, help, registers, labelNames: LABELS });
      this.#setters.push((counts) => {
        histogram.times = times(counts);
      });
    }
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** All metrics as they are now. */
  print(): Promise<string> {
    this.#printing ??= this.#print().finally(() => {
      this.#printing = undefined;
    });
    return this.#printing;
  }

  async #print(): Promise<string> {
    const counts = await this.#read();
    for (const set of this.#setters) set(counts);
    return this.#registry.metrics();
  }
}

const LABELS = [
  ...['version', 'state', 'command', 'result', 'by', 'direction'],
  ...['method', 'route', 'status', 'kind', 'check', 'reason'],
] as const;

function samplesOf(value: number | readonly Sample[]): readonly Sample[] {
  return typeof value === 'number' ? [[{}, value]] : value;
}

/** Every metric of our own, for the documentation. */
export const METRICS: readonly {
  readonly name: string;
  readonly kind: 'gauge' | 'counter' | 'histogram';
  readonly help: string;
}[] = [
  ...GAUGES.map(([name, help]) => ({ name, kind: 'gauge' as const, help })),
  ...COUNTERS.map(([name, help]) => ({ name, kind: 'counter' as const, help })),
  ...TIMES.map(([name, help]) => ({ name, kind: 'histogram' as const, help })),
];
