/** What a real server counts, held against what was done to it. */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { dashboard } from '../../scripts/dashboard.ts';
import { connect, createVm, MiB } from '../support/disks.ts';
import { TestServer } from '../support/server.ts';

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.start({ args: ['--gc-every', '0', '--verify-every', '0'] });
});
afterAll(() => server.close());

const LINE = /^(?<name>[a-z_][a-z0-9_]*)(?:\{(?<labels>[^}]*)\})? (?<value>\S+)$/;

/** Every line of `/metrics` that is none of the comments: its name and labels, and its value. */
async function scrape(): Promise<ReadonlyMap<string, number>> {
  const response = await server.fetch('/metrics');
  expect(response.status).toBe(200);
  expect(response.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8');
  const found = new Map<string, number>();
  const typed = new Set<string>();
  for (const line of (await response.text()).split('\n')) {
    const [, comment, name = ''] = line.split(' ');
    if (line.startsWith('#')) {
      if (comment === 'TYPE') typed.add(name);
      continue;
    }
    if (line === '') continue;
    const { groups } = LINE.exec(line) ?? {};
    expect(groups, line).toBeDefined();
    expect(typed.has(groups!.name!.replace(/_(bucket|sum|count)$/, '')) || typed.has(groups!.name!)).toBe(
      true,
    );
    const key = groups!.labels === undefined ? groups!.name! : `${groups!.name}{${groups!.labels}}`;
    expect(found.has(key), key).toBe(false);
    found.set(key, Number(groups!.value));
  }
  return found;
}

it('counts what clients do', async () => {
  await createVm(server, 'web', 4 * MiB);
  const before = await scrape();
  const client = await connect(server, 'web/disk0');
  for (let i = 0; i < 5; i++) await client.write(i * 8192, Buffer.alloc(4096, i + 1));
  for (let i = 0; i < 3; i++) await client.flush();
  await client.read(0, 65_536, Buffer.alloc(65_536), 0);
  await expect(client.write(4 * MiB - 512, Buffer.alloc(1024))).rejects.toThrow(); // refused for what it says
  const during = await scrape();
  await client.close();
  // A backup destages what is in the overlay, when its contents are asked for.
  await server.rest.must('POST', '/vms/web/backups', { name: 'monday' });
  await server.rest.must('GET', '/backups/web@monday/disks/disk0/map');
  // Its own content, from the tree: nodes and runs are in no cache but the first time.
  const copy = await connect(server, 'web@monday/disk0');
  for (let i = 0; i < 2; i++) await copy.read(0, 65_536, Buffer.alloc(65_536), 0);
  await copy.close();
  const after = await scrape();

  const grown = (name: string, from = before, to = during): number => {
    expect(to.has(name), name).toBe(true);
    return to.get(name)! - (from.get(name) ?? 0);
  };
  expect(during.get('pando_nbd_connections')).toBe(1);
  expect(grown('pando_nbd_requests_total{command="write"}')).toBe(5);
  expect(grown('pando_nbd_request_bytes_total{command="write"}')).toBe(5 * 4096);
  expect(grown('pando_nbd_requests_total{command="read"}')).toBe(1);
  expect(grown('pando_nbd_request_bytes_total{command="read"}')).toBe(65_536);
  expect(grown('pando_nbd_requests_total{command="flush"}')).toBe(3);
  expect(grown('pando_nbd_request_failures_total{command="write"}')).toBe(0);
  expect(grown('pando_nbd_request_wait_seconds_count{command="flush"}')).toBe(3);
  expect(grown('pando_nbd_request_wait_seconds_bucket{command="flush",le="+Inf"}')).toBe(3);
  expect(grown('pando_nbd_request_wait_seconds_sum{command="flush"}')).toBeGreaterThan(0);
  expect(grown('pando_guest_written_bytes_total')).toBe(5 * 4096);
  expect(grown('pando_log_appended_bytes_total')).toBeGreaterThan(5 * 4096);
  expect(grown('pando_log_sync_seconds_count')).toBeGreaterThanOrEqual(1);
  expect(grown('pando_log_group_seconds_count')).toBeGreaterThanOrEqual(1);
  expect(grown('pando_overlay_bytes')).toBe(5 * 4096);
  expect(grown('pando_catalog_commit_seconds_count', during, after)).toBeGreaterThanOrEqual(1);
  // Five chunks of which none was there before; the node above them, and the mirror of the catalog beside them.
  expect(grown('pando_chunks_total{result="new"}', before, after)).toBeGreaterThanOrEqual(6);
  expect(grown('pando_new_chunk_bytes_total', before, after)).toBeGreaterThanOrEqual(6 * 4096);
  expect(grown('pando_segment_written_bytes_total', before, after)).toBeGreaterThanOrEqual(
    grown('pando_stored_bytes_total', before, after),
  );
  expect(grown('pando_stored_bytes_total', before, after)).toBeGreaterThan(0);
  expect(grown('pando_segment_sync_seconds_count', before, after)).toBeGreaterThanOrEqual(1);
  expect(grown('pando_destage_seconds_count', before, after)).toBe(1);
  expect(grown('pando_destaged_bytes_total', before, after)).toBe(5 * 4096);
  const both = (name: string, label: string, values: readonly string[]): number =>
    values.reduce((sum, value) => sum + grown(`${name}{${label}="${value}"}`, before, after), 0);
  expect(grown('pando_run_requests_total{result="hit"}', before, after)).toBeGreaterThanOrEqual(5);
  expect(both('pando_run_requests_total', 'result', ['hit', 'miss'])).toBeGreaterThanOrEqual(10);
  expect(both('pando_node_requests_total', 'result', ['hit', 'miss'])).toBeGreaterThanOrEqual(2);
  expect(grown('pando_run_load_seconds_count', before, after)).toBeGreaterThanOrEqual(1);
  expect(grown('pando_run_load_bytes_total', before, after)).toBeGreaterThanOrEqual(1);
  expect(grown('pando_hash_seconds_count', before, after)).toBeGreaterThanOrEqual(2);
  expect(grown('pando_pack_seconds_count', before, after)).toBeGreaterThanOrEqual(2);
  for (const by of ['reader', 'writer']) {
    const asked = grown(`pando_chunk_lookups_total{by="${by}"}`, before, after);
    expect(asked).toBeGreaterThanOrEqual(1);
    expect(grown(`pando_index_lookups_total{by="${by}"}`, before, after)).toBeLessThanOrEqual(asked);
  }
  expect(after.get('pando_chunk_lookups_total{by="collection"}')).toBe(0);
  expect(after.get('pando_index_compaction_bytes_total{direction="written"}')).toBeGreaterThanOrEqual(0);
  // What the kernel counts of the process: log and segments at the least. Only Linux tells.
  if (process.platform === 'linux') {
    const written = grown('pando_process_disk_bytes_total{direction="written"}', before, after);
    expect(written).toBeGreaterThanOrEqual(5 * 4096);
  }
  expect(after.get('pando_store_state{state="ready"}')).toBe(1);
  expect(after.get('pando_store_state{state="failed"}')).toBe(0);
  expect(after.get('process_resident_memory_bytes')).toBeGreaterThan(MiB);
});

it('the buckets of a time never go down, and all scrapes at once get the same', async () => {
  const texts = await Promise.all(
    Array.from({ length: 8 }, async () => (await server.fetch('/metrics')).text()),
  );
  expect(texts[0]).not.toBe('');
  const buckets = [...texts[0]!.matchAll(/^pando_log_sync_seconds_bucket\{le="(.+)"\} (\d+)$/gm)];
  expect(buckets.length).toBeGreaterThan(10);
  let before = 0;
  let bound = 0;
  for (const [, le, count] of buckets) {
    expect(Number(count)).toBeGreaterThanOrEqual(before);
    expect(le === '+Inf' ? Infinity : Number(le)).toBeGreaterThan(bound);
    before = Number(count);
    bound = Number(le);
  }
});

it('counts collections, jobs, requests and checks, and has every metric that dashboard and alerts name', async () => {
  await server.rest.job('/gc');
  await server.fetch('/ready');
  const found = await scrape();
  expect(found.get('pando_jobs_total{kind="gc",state="done"}')).toBeGreaterThanOrEqual(1);
  expect(found.get('pando_gc_ended_timestamp_seconds')).toBeGreaterThan(1e9);
  expect(found.get('pando_check{check="store"}')).toBe(0);
  expect(found.get('pando_disk_free_bytes')).toBeGreaterThan(0);
  const posts = [...found.keys()].filter((key) => /^pando_http_requests_total\{.*"\/api\/v1\/gc"/.test(key));
  expect(posts).toHaveLength(1);

  const names = new Set([...found.keys()].map((key) => key.replace(/\{.*/, '')));
  const texts = ['grafana/pando.json', 'prometheus/pando.rules.yml'].map((file) =>
    readFileSync(new URL(`../../packaging/${file}`, import.meta.url), 'utf8'),
  );
  expect(texts[0]).toBe(dashboard());
  for (const text of texts) {
    const used = new Set(text.match(/\b(pando|process|nodejs)_[a-z0-9_]+/g));
    expect(used.size).toBeGreaterThanOrEqual(10);
    // What has not happened yet has no sample, but its name is printed.
    for (const name of used) expect(names.has(name) || (await named(name)), name).toBe(true);
  }
});

async function named(name: string): Promise<boolean> {
  const text = await (await server.fetch('/metrics')).text();
  return text.includes(`# TYPE ${name.replace(/_bucket$/, '')} `);
}
