/**
 * `npm run check:imports`: packages import only what their package.json lists, and only downwards; relative imports
 * stay inside their package; what is listed is used; versions are exact;
 * every package has its layer, and every dependency its line in docs/dependencies.md.
 */
import { globSync, readFileSync } from 'node:fs';
import { isBuiltin } from 'node:module';
import { join, posix } from 'node:path';
import ts from 'typescript';
import { ROOT, readManifest, workspaces } from './workspaces.ts';
import type { Workspace } from './workspaces.ts';

/** What tests, conformance suites and helpers for tests may use besides: the tools of the repository itself. */
const FOR_TESTS = /\.test\.ts$|\/(conformance|testing)(\.ts$|\/)/;

const problems: string[] = [];
const all = workspaces();
const byName = new Map(all.map((workspace) => [workspace.manifest.name, workspace]));
const rootTools = new Set(Object.keys(readManifest('.').devDependencies ?? {}));

/** The package that a bare specifier belongs to: `@scope/name` or `name`, without the subpath. */
function packageOf(specifier: string): string {
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
}

function importsOf(path: string): readonly string[] {
  const text = readFileSync(join(ROOT, path), 'utf8');
  const imported = ts.preProcessFile(text).importedFiles.map((file) => file.fileName);
  // What may be absent (a native build) is loaded with a require of its own.
  const required = [
    ...text.matchAll(/\b(?:require|createRequire\(import\.meta\.url\))\(\s*(['"])([^'"]+)\1\s*\)/g),
  ].map((match) => match[2]!);
  return [...imported, ...required];
}

function checkImport(workspace: Workspace, path: string, specifier: string, used: Set<string>): void {
  const { manifest, folder } = workspace;
  if (specifier.startsWith('.')) {
    if (!posix.join(posix.dirname(path), specifier).startsWith(`${folder}/`)) {
      problems.push(`${path}: "${specifier}" leaves the package`);
    }
    return;
  }
  if (specifier.startsWith('node:')) return;
  if (isBuiltin(specifier)) {
    problems.push(`${path}: write "node:${specifier}"`);
    return;
  }
  const name = packageOf(specifier);
  const forTests = FOR_TESTS.test(path);
  used.add(name);
  if (name === manifest.name) {
    if (!forTests) problems.push(`${path}: imports its own package by name`);
    return;
  }
  const listed = { ...manifest.dependencies, ...manifest.optionalDependencies };
  if (!(name in listed)) {
    const allowed = forTests && (rootTools.has(name) || name in (manifest.devDependencies ?? {}));
    if (!allowed) problems.push(`${path}: "${name}" is not in the dependencies of ${manifest.name}`);
  }
  const target = byName.get(name);
  if (target !== undefined) {
    const subpath = `.${specifier.slice(name.length)}`;
    if (!(subpath in (target.manifest.exports ?? {})))
      problems.push(`${path}: ${name} exports no "${subpath}"`);
    // A suite that several rooms run may look up from a test; shipped code may not.
    if (target.layer >= workspace.layer && !forTests) problems.push(`${path}: imports upwards (${name})`);
  }
}

function checkManifest({ manifest, folder, layer }: Workspace, used: ReadonlySet<string>): void {
  const listed = {
    ...manifest.dependencies,
    ...manifest.optionalDependencies,
    ...manifest.devDependencies,
  };
  for (const [name, version] of Object.entries(listed)) {
    if (!/^\d+\.\d+\.\d+(-[\w.]+)?$/.test(version))
      problems.push(`${folder}: ${name} "${version}" is not exact`);
    const target = byName.get(name);
    if (target !== undefined && target.layer >= layer && !(name in (manifest.devDependencies ?? {}))) {
      problems.push(`${folder}: depends upwards on ${name}`);
    }
    if (target !== undefined && target.manifest.version !== version) {
      problems.push(`${folder}: wants ${name} ${version}, the repository has ${target.manifest.version}`);
    }
    if (!used.has(name)) problems.push(`${folder}: lists ${name} and does not use it`);
  }
}

const folders = globSync(['packages/*/package.json', 'apps/*/package.json'], { cwd: ROOT });
for (const path of folders.map((found) => posix.dirname(found.replaceAll('\\', '/')))) {
  if (!all.some(({ folder }) => folder === path))
    problems.push(`${path}: has no place in scripts/workspaces.ts`);
}
for (const workspace of all) {
  const used = new Set<string>();
  const files = globSync([`${workspace.folder}/{src,bin}/**/*.{ts,js}`], { cwd: ROOT });
  for (const found of files) {
    const path = found.replaceAll('\\', '/');
    for (const specifier of importsOf(path)) checkImport(workspace, path, specifier, used);
  }
  checkManifest(workspace, used);
}

const explained = readFileSync(join(ROOT, 'docs/dependencies.md'), 'utf8');
for (const { manifest } of [...all, { manifest: readManifest('.') }]) {
  for (const name of Object.keys({ ...manifest.dependencies, ...manifest.devDependencies })) {
    if (!byName.has(name) && !explained.includes(`\`${name}\``)) {
      problems.push(`docs/dependencies.md: no line for ${name}`);
    }
  }
}

for (const problem of problems) console.error(problem);
console.log(problems.length === 0 ? 'imports: all in order' : `imports: ${problems.length} problems`);
process.exitCode = problems.length === 0 ? 0 : 1;
