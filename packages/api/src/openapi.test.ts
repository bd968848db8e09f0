import { afterEach, beforeEach, expect, test } from 'vitest';
import { harness, type Harness } from './testing/harness.ts';

let at: Harness;
beforeEach(async () => {
  at = await harness();
});
afterEach(() => at.close());

interface Operation {
  operationId?: string;
  summary?: string;
  tags?: string[];
  parameters?: { name: string; in: string; required?: boolean; schema: object }[];
  responses: Record<string, { description: string; content?: Record<string, { schema: object }> }>;
}
interface Document {
  openapi: string;
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, object> };
}

const document = async (): Promise<Document> => (await at.app.inject('/openapi.json')).json();

const ROUTES = [
  'get /api/v1/backups',
  'get /api/v1/backups/{backup}',
  'get /api/v1/policies',
  'post /api/v1/policies',
  'post /api/v1/policy-impact',
  'get /api/v1/policy-runs',
  'get /api/v1/policies/{policy}',
  'patch /api/v1/policies/{policy}',
  'delete /api/v1/policies/{policy}',
  'post /api/v1/policies/{policy}/assign',
  'post /api/v1/policies/{policy}/unassign',
  'post /api/v1/policies/{policy}/suspend',
  'post /api/v1/policies/{policy}/resume',
  'post /api/v1/policies/{policy}/run',
  'get /api/v1/policies/{policy}/vms',
  'get /api/v1/policies/{policy}/failures',
  'get /api/v1/vms/{vm}/policies',
  'patch /api/v1/backups/{backup}',
  'delete /api/v1/backups/{backup}',
  'post /api/v1/chunks/lookup',
  'get /api/v1/backups/{backup}/disks/{disk}/content',
  'head /api/v1/backups/{backup}/disks/{disk}/content',
  'get /api/v1/backups/{backup}/disks/{disk}/map',
  'get /api/v1/backups/{backup}/disks/{disk}/proof',
  'get /api/v1/backups/{backup}/file-systems',
  'get /api/v1/backups/{backup}/files',
  'get /api/v1/backups/{backup}/files/archive',
  'get /api/v1/backups/{backup}/files/content',
  'get /api/v1/backups/{backup}/roots',
  'get /api/v1/vms/{vm}/roots',
  'get /api/v1/diff',
  'post /api/v1/backups/{backup}/restore',
  'post /api/v1/gc',
  'get /api/v1/events',
  'get /api/v1/events/stream',
  'get /api/v1/health',
  'post /api/v1/imports',
  'post /api/v1/repairs',
  'get /api/v1/jobs',
  'get /api/v1/jobs/{id}',
  'delete /api/v1/jobs/{id}',
  'get /api/v1/jobs/{id}/events',
  'get /api/v1/report/accounts',
  'get /api/v1/report/holders',
  'post /api/v1/report/reclaim',
  'post /api/v1/report/reclaim/plan',
  'get /api/v1/metrics',
  'get /api/v1/ready',
  'get /api/v1/report/space',
  'get /api/v1/report/space/history',
  'get /api/v1/report/space/owners',
  'get /api/v1/audit',
  'get /api/v1/tokens',
  'post /api/v1/tokens',
  'get /api/v1/tokens/{token}',
  'delete /api/v1/tokens/{token}',
  'get /api/v1/whoami',
  'post /api/v1/verify',
  'get /api/v1/verify/last',
  'get /api/v1/vms',
  'post /api/v1/vms',
  'get /api/v1/vms/{vm}',
  'patch /api/v1/vms/{vm}',
  'delete /api/v1/vms/{vm}',
  'post /api/v1/vms/{vm}/backups',
  'post /api/v1/vms/{vm}/clone',
  'get /api/v1/vms/{vm}/activity',
  'get /api/v1/vms/{vm}/tripwire',
  'put /api/v1/vms/{vm}/tripwire',
  'get /api/v1/vms/{vm}/disks/{disk}/content',
  'head /api/v1/vms/{vm}/disks/{disk}/content',
  'get /api/v1/vms/{vm}/disks/{disk}/map',
  'get /api/v1/webhooks',
  'post /api/v1/webhooks',
  'get /api/v1/webhooks/{id}',
  'delete /api/v1/webhooks/{id}',
  'post /api/v1/webhooks/{id}/test',
  'get /health',
  'get /metrics',
  'get /ready',
];

test('every route is in the document, and the document has no other', async () => {
  const { openapi, paths } = await document();
  expect(openapi).toBe('3.1.0');
  const found = Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method} ${path}`),
  );
  expect(found.sort()).toEqual([...ROUTES].sort());
});

test('every operation has a name of its own, a summary, a tag, its path parameters, good answers and problems', async () => {
  const { paths } = await document();
  const names = new Set<string>();
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const at = `${method} ${path}`;
      expect(names, at).not.toContain(operation.operationId);
      names.add(operation.operationId!);
      expect(operation.summary, at).toBeTruthy();
      expect(operation.tags, at).toHaveLength(1);
      const placed = [...path.matchAll(/\{(\w+)\}/g)].map((match) => match[1]);
      expect(
        (operation.parameters ?? []).filter((parameter) => parameter.in === 'path').map(({ name }) => name),
        at,
      ).toEqual(placed);
      const codes = Object.keys(operation.responses);
      expect(
        codes.some((code) => code.startsWith('2')),
        at,
      ).toBe(true);
      for (const [code, response] of Object.entries(operation.responses)) {
        expect(response.description, `${at} ${code}`).toBeTruthy();
        if (code !== '204')
          expect(Object.values(response.content ?? {}).length, `${at} ${code}`).toBeGreaterThan(0);
      }
      for (const code of ['4XX', '5XX']) {
        expect(operation.responses[code]?.content, `${at} ${code}`).toEqual({
          'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } },
        });
      }
    }
  }
});

test('every reference in the document leads somewhere', async () => {
  const whole = await document();
  const references = [...JSON.stringify(whole).matchAll(/"\$ref":"([^"]+)"/g)].map((match) => match[1]!);
  expect(references.length).toBeGreaterThan(20);
  for (const reference of references) {
    const [, place, kind, name] = reference.split('/');
    expect([place, kind]).toEqual(['components', 'schemas']);
    expect(whole.components.schemas, reference).toHaveProperty([name!]);
  }
});

test('the page to try it needs nothing from elsewhere', async () => {
  const page = await at.app.inject('/docs/');
  expect(page.statusCode).toBe(200);
  const links = [...page.body.matchAll(/(?:src|href)="([^"]+)"/g)].map((match) => match[1]!);
  expect(links.length).toBeGreaterThan(2);
  for (const link of links) {
    expect(link).not.toMatch(/^(https?:)?\/\//);
    expect((await at.app.inject(new URL(link, 'http://localhost/docs/').pathname)).statusCode, link).toBe(
      200,
    );
  }
});
