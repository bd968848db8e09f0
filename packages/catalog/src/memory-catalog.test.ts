import { catalogConformance } from './conformance.ts';
import { MemoryCatalog } from './memory-catalog.ts';

catalogConformance('MemoryCatalog', () =>
  Promise.resolve({ catalog: new MemoryCatalog(), cleanUp: () => Promise.resolve() }),
);
