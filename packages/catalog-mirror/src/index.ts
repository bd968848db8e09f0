export { ANCHOR_VERSION, decodeAnchor, encodeAnchor, type Anchor } from './anchor.ts';
export { openCatalogMirror, type CatalogMirror, type CatalogMirrorOptions } from './catalog-mirror.ts';
export { findAnchors, restoreCatalog, type FoundAnchor, type RestoredCatalog } from './restore.ts';
