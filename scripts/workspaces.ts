/** The packages of this repository, from the bottom to the top: what stands higher may import what stands lower. */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT: string = join(dirname(fileURLToPath(import.meta.url)), '..');

/** Folders from the bottom up. A new package is put in its place here. */
const LAYERS = [
  'packages/common',
  'packages/proof',
  'packages/tree',
  'packages/block-device',
  'packages/chunk-store',
  'packages/write-log',
  'packages/catalog',
  'packages/events',
  'packages/catalog-mirror',
  'packages/guest-agent',
  'packages/volume',
  'packages/gc',
  'packages/fleet',
  'packages/activity',
  'packages/policies',
  'packages/access',
  'packages/nbd',
  'packages/client',
  'packages/guest-files',
  'packages/images',
  'packages/scan',
  'packages/api',
  'apps/server',
  'apps/cli',
] as const;

export interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly description?: string;
  readonly license?: string;
  readonly exports?: Readonly<Record<string, string>>;
  readonly bin?: Readonly<Record<string, string>>;
  readonly files?: readonly string[];
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
}

export interface Workspace {
  /** Relative to the root, with forward slashes. */
  readonly folder: string;
  readonly layer: number;
  readonly manifest: Manifest;
}

export function readManifest(folder: string): Manifest {
  return JSON.parse(readFileSync(join(ROOT, folder, 'package.json'), 'utf8')) as Manifest;
}

export function workspaces(): readonly Workspace[] {
  return LAYERS.map((folder, layer) => ({ folder, layer, manifest: readManifest(folder) }));
}
