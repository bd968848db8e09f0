/**
 * Writes what follows from the routes: docs/openapi.json, which is what `/openapi.json` of a server answers, and from that the types and the
 * table of operations of @pando/client. `node scripts/openapi.ts`. A test fails when they are not what the routes say. Keys of the document are
 * sorted and every value has a line, so that two changes seldom meet.
 */
import { writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { harness } from '../packages/api/src/testing/harness.ts';
import { operationsFile, schemaFile, type OpenApi } from './client-code.ts';

const file = (path: string): URL => new URL(`../${path}`, import.meta.url);

export const OPENAPI_FILE = file('docs/openapi.json');

/** The files as they have to be. */
export async function generatedFiles(): Promise<readonly { readonly file: URL; readonly text: string }[]> {
  const document = await openapi();
  return [
    { file: OPENAPI_FILE, text: `${JSON.stringify(document, undefined, 1)}\n` },
    { file: file('packages/client/src/generated/schema.ts'), text: await schemaFile(document) },
    { file: file('packages/client/src/generated/operations.ts'), text: operationsFile(document) },
  ];
}

async function openapi(): Promise<OpenApi> {
  const api = await harness();
  try {
    const document = (await api.app.inject('/openapi.json')).json<OpenApi>();
    // Of the harness, not of a release.
    document.info.version = '0';
    return sorted(document) as OpenApi;
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
  for (const { file, text } of await generatedFiles()) writeFileSync(file, text);
