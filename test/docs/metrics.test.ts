import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { METRICS_PAGE, metricsPage } from '../../scripts/metrics-doc.ts';

test('docs/metrics.md is as scripts/metrics-doc.ts writes it, with every metric', () => {
  expect(readFileSync(METRICS_PAGE, 'utf8'), 'run node scripts/metrics-doc.ts').toBe(metricsPage());
});
