/**
 * Writes docs/openapi.json, what `/openapi.json` of a server answers: `node scripts/openapi.ts`. A test fails when it is not what the
 * routes say. Keys are sorted and every value has a line, so that two changes seldom meet.
 */
import { writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { harness } from '../packages/api/src/testing/harness.ts';

export const OPENAPI_FILE = new URL('../docs/openapi.json', import.meta.url);

/** The file as it has to be. */
export async function openapiFile(): Promise<string> {
  const api = await harness();
  try {
    const document: unknown = (await api.app.inject('/openapi.json')).json();
    // Of the harness, not of a release.
    (document as { info: { version: string } }).info.version = '0';
    return `${JSON.stringify(sorted(document), undefined, 1)}\n`;
  } finally {
    await api.close();
  }
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(entries.map(([key, one]) => [key, sorted(one)]));
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href)
  writeFileSync(OPENAPI_FILE, await openapiFile());
