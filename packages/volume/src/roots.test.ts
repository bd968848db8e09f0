import { MemoryCatalog } from '@pando/catalog';
import { PandoError } from '@pando/common';
import { expect, it } from 'vitest';
import { rootsNow } from './roots.ts';

it('roots for a collection are refused once a commit to the catalog has failed', () => {
  const catalog = new MemoryCatalog();
  const failure = new PandoError('store-failed', 'the sync failed');
  expect(() => rootsNow(catalog, 4096)).not.toThrow();
  Object.defineProperty(catalog, 'failure', { value: failure });
  expect(() => rootsNow(catalog, 4096)).toThrow(
    expect.objectContaining({ code: 'store-failed', cause: failure }),
  );
});
