/** Writes packaging/grafana/pando.json, a dashboard for Grafana 10 and newer: `node scripts/dashboard.ts`. A test holds it and the metrics together. */
import { writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

export const DASHBOARD = new URL('../packaging/grafana/pando.json', import.meta.url);

type Query = readonly [expression: string, legend: string];
interface Panel {
  readonly title: string;
  readonly unit: string;
  readonly queries: readonly Query[];
  readonly kind?: 'stat';
}

const rate = (name: string, labels = ''): string =>
  `rate(${name}{instance=~"$instance"${labels}}[$__rate_interval])`;
const now = (name: string, labels = ''): string => `${name}{instance=~"$instance"${labels}}`;
const quantile = (share: number, name: string, by: string): string =>
  `histogram_quantile(${share}, sum by (le${by}) (${rate(`${name}_bucket`)}))`;
const hitShare = (name: string): string => `sum(${rate(name, ',result="hit"')}) / sum(${rate(name)})`;

const ROWS: readonly (readonly [title: string, panels: readonly Panel[]])[] = [
  [
    'State',
    [
      {
        ...{ title: 'Checks that are not ok', unit: 'short', kind: 'stat' },
        queries: [[`max by (check) (${now('pando_check')}) > 0`, '{{check}}']],
      },
      { title: 'Free on disk', unit: 'bytes', kind: 'stat', queries: [[now('pando_disk_free_bytes'), '']] },
      {
        ...{ title: 'Space', unit: 'bytes' },
        queries: [
          [now('pando_segment_bytes'), 'segments'],
          [now('pando_index_bytes'), 'index'],
          [now('pando_log_bytes'), 'log'],
          [now('pando_catalog_bytes'), 'catalog'],
        ],
      },
    ],
  ],
  [
    'Guests',
    [
      {
        ...{ title: 'Requests', unit: 'reqps' },
        queries: [[`sum by (command) (${rate('pando_nbd_requests_total')})`, '{{command}}']],
      },
      {
        ...{ title: 'Throughput', unit: 'Bps' },
        queries: [[`sum by (command) (${rate('pando_nbd_request_bytes_total')})`, '{{command}}']],
      },
      {
        ...{ title: 'Wait of those not answered at once, 99 %', unit: 's' },
        queries: [[quantile(0.99, 'pando_nbd_request_wait_seconds', ', command'), '{{command}}']],
      },
      {
        ...{ title: 'In flight, and connections', unit: 'short' },
        queries: [
          [now('pando_nbd_requests_in_flight'), 'requests'],
          [now('pando_nbd_connections'), 'connections'],
        ],
      },
      {
        ...{ title: 'Failed requests', unit: 'reqps' },
        queries: [[`sum by (command) (${rate('pando_nbd_request_failures_total')})`, '{{command}}']],
      },
    ],
  ],
  [
    'Log and destage',
    [
      {
        ...{ title: 'Sync of the log', unit: 's' },
        queries: [
          [quantile(0.5, 'pando_log_sync_seconds', ''), '50 %'],
          [quantile(0.99, 'pando_log_sync_seconds', ''), '99 %'],
        ],
      },
      {
        ...{ title: 'What waits for the tree', unit: 'bytes' },
        queries: [
          [now('pando_overlay_bytes'), 'in memory'],
          [now('pando_log_bytes'), 'in the log'],
        ],
      },
      {
        ...{ title: 'Written by guests, destaged', unit: 'Bps' },
        queries: [
          [rate('pando_guest_written_bytes_total'), 'written'],
          [rate('pando_destaged_bytes_total'), 'destaged'],
        ],
      },
      {
        ...{ title: 'Destage of an overlay, 99 %', unit: 's' },
        queries: [[quantile(0.99, 'pando_destage_seconds', ''), '']],
      },
    ],
  ],
  [
    'Dedupe and caches',
    [
      {
        ...{ title: 'Chunks that were to be stored', unit: 'cps' },
        queries: [[`sum by (result) (${rate('pando_chunks_total')})`, '{{result}}']],
      },
      {
        ...{ title: 'Compression of new chunks', unit: 'short' },
        queries: [[`${rate('pando_new_chunk_bytes_total')} / ${rate('pando_stored_bytes_total')}`, 'ratio']],
      },
      {
        ...{ title: 'Answered from memory', unit: 'percentunit' },
        queries: [
          [hitShare('pando_run_requests_total'), 'runs'],
          [hitShare('pando_node_requests_total'), 'nodes'],
        ],
      },
      {
        ...{ title: 'Reading a run, 99 %', unit: 's' },
        queries: [[quantile(0.99, 'pando_run_load_seconds', ''), '']],
      },
      {
        ...{ title: 'Asked of the index', unit: 'ops' },
        queries: [[`sum by (by) (${rate('pando_index_lookups_total')})`, '{{by}}']],
      },
      {
        ...{ title: 'Bytes written to disk for each byte of a guest', unit: 'short' },
        queries: [
          [
            `${rate('pando_process_disk_bytes_total', ',direction="written"')} / ignoring(direction) ${rate('pando_guest_written_bytes_total')}`,
            '',
          ],
        ],
      },
    ],
  ],
  [
    'Collections, jobs, REST',
    [
      { title: 'Freed by gc', unit: 'Bps', queries: [[rate('pando_gc_freed_bytes_total'), '']] },
      {
        ...{ title: 'Since the last gc', unit: 's', kind: 'stat' },
        queries: [[`time() - (${now('pando_gc_ended_timestamp_seconds')} > 0)`, '']],
      },
      {
        ...{ title: 'Jobs that have ended', unit: 'short' },
        queries: [
          [
            `sum by (kind, state) (increase(${now('pando_jobs_total')}[$__rate_interval]))`,
            '{{kind}} {{state}}',
          ],
        ],
      },
      {
        ...{ title: 'REST requests', unit: 'reqps' },
        queries: [[`sum by (status) (${rate('pando_http_requests_total')})`, '{{status}}']],
      },
      {
        ...{ title: 'REST, 99 %', unit: 's' },
        queries: [[quantile(0.99, 'pando_http_request_seconds', ', method'), '{{method}}']],
      },
      {
        ...{ title: 'Memory of the process', unit: 'bytes' },
        queries: [[now('process_resident_memory_bytes'), '']],
      },
    ],
  ],
];

const WIDTH = 24;
const PANEL_WIDTH = 8;
const PANEL_HEIGHT = 8;

/** The file as it has to be. */
export function dashboard(): string {
  const panels: object[] = [];
  let id = 1;
  let y = 0;
  for (const [title, row] of ROWS) {
    panels.push({
      id: id++,
      type: 'row',
      title,
      collapsed: false,
      gridPos: { x: 0, y: y++, w: WIDTH, h: 1 },
      panels: [],
    });
    for (const [i, { title: name, unit, kind = 'timeseries', queries }] of row.entries()) {
      const x = (i * PANEL_WIDTH) % WIDTH;
      panels.push({
        ...{ id: id++, type: kind, title: name, datasource: { type: 'prometheus', uid: '${source}' } },
        gridPos: { x, y, w: PANEL_WIDTH, h: PANEL_HEIGHT },
        fieldConfig: { defaults: { unit }, overrides: [] },
        targets: queries.map(([expr, legendFormat], n) => ({
          refId: String.fromCharCode(65 + n),
          expr,
          legendFormat,
        })),
      });
      if (x + PANEL_WIDTH >= WIDTH || i === row.length - 1) y += PANEL_HEIGHT;
    }
  }
  const whole = {
    ...{ title: 'Pando', uid: 'pando', schemaVersion: 39, editable: true, refresh: '30s', tags: ['pando'] },
    time: { from: 'now-6h', to: 'now' },
    templating: {
      list: [
        { name: 'source', type: 'datasource', query: 'prometheus' },
        {
          ...{ name: 'instance', type: 'query', datasource: { type: 'prometheus', uid: '${source}' } },
          ...{ query: 'label_values(pando_build_info, instance)', includeAll: true, multi: true, refresh: 2 },
        },
      ],
    },
    panels,
  };
  return `${JSON.stringify(whole, undefined, 2)}\n`;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) writeFileSync(DASHBOARD, dashboard());
