/** Writes docs/metrics.md from the tables of the server's metrics: `node scripts/metrics-doc.ts`. A test holds the two together. */
import { writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { METRICS } from '@pando/server';

export const METRICS_PAGE = new URL('../docs/metrics.md', import.meta.url);

const INTRODUCTION = `# Metrics

Written by \`node scripts/metrics-doc.ts\` from \`apps/server/src/metrics.ts\`; edit that file.

What \`GET /metrics\` gives besides what the client library counts of the process (\`process_…\`, \`nodejs_…\`). Counters start from zero with the server. Histograms are times in seconds with buckets
that double from 1 µs on. What to divide by what: [api.md](api.md#metrics). A dashboard is in \`packaging/grafana\`, alerts in \`packaging/prometheus\`.
`;

/** The page as it has to be. */
export function metricsPage(): string {
  const rows = METRICS.map(({ name, kind, help }) => `| \`${name}\` | ${kind} | ${help} |`);
  return [INTRODUCTION, '| metric | kind | what it is |', '| --- | --- | --- |', ...rows.sort(), ''].join(
    '\n',
  );
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) writeFileSync(METRICS_PAGE, metricsPage());
