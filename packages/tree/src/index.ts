export { allocationOf } from './allocation.ts';
export { TreeBuilder } from './builder.ts';
export { diffTrees } from './diff.ts';
export { readTree } from './read.ts';
export { resizeTree } from './resize.ts';
export { chunkCount, emptyRoot, heightFor, rootsEqual } from './shape.ts';
export * from './types.ts';
export { updateTree } from './update.ts';
export { walkTree, type TreeVisitor } from './walk.ts';
