/**
 * `npm run pack:all`: builds every package to JavaScript with declarations and packs it to build/tarballs.
 *
 * One compilation over all packages, so that they are checked against each other; then each is staged with a package.json
 * of its own: `exports` and `bin` point at `dist/`, tests and conformance suites stay here. What is compiled is
 * what can be reached from exports, commands and workers: nothing else gets shipped.
 */
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import ts from 'typescript';
import { ROOT, workspaces } from './workspaces.ts';
import type { Manifest, Workspace } from './workspaces.ts';

const BUILD = join(ROOT, 'build');
const JAVASCRIPT = join(BUILD, 'js');
const STAGE = join(BUILD, 'stage');
const TARBALLS = join(BUILD, 'tarballs');

/** Exports for tests of other packages. They import the test runner, which nobody who installs a package has. */
const TEST_EXPORT = /^\.\/(conformance|testing)(\/|$)/;
/** Files that are started as worker threads: no import names them. */
const WORKER = /(^|\/)([\w-]+-)?worker\.ts$/;

const all = workspaces();

function shippedExports(manifest: Manifest): readonly (readonly [string, string])[] {
  return Object.entries(manifest.exports ?? {}).filter(([subpath]) => !TEST_EXPORT.test(subpath));
}

/** `./src/x.ts` → `./dist/x.js` (or `.d.ts`). @throws Error for a path that is not a source file */
function built(path: string, extension: '.js' | '.d.ts'): string {
  const match = /^(?:\.\/)?src\/(.+)\.ts$/.exec(path);
  if (match === null) throw new Error(`"${path}" is no source file under src/`);
  return `./dist/${match[1]!}${extension}`;
}

/** The source files that compilation starts from. */
function entries({ folder, manifest }: Workspace): string[] {
  const found = shippedExports(manifest).map(([, path]) => join(ROOT, folder, path));
  for (const command of Object.values(manifest.bin ?? {})) {
    const text = readFileSync(join(ROOT, folder, command), 'utf8');
    for (const [, source] of text.matchAll(/['"`]\.\.\/(src\/[^'"`]+\.ts)['"`]/g)) {
      found.push(join(ROOT, folder, source!));
    }
  }
  const sources = globSync(`${folder}/src/**/*.ts`, { cwd: ROOT });
  found.push(...sources.filter((path) => WORKER.test(path)).map((path) => join(ROOT, path)));
  return [...new Set(found)];
}

function compile(): void {
  const { config } = ts.readConfigFile(join(ROOT, 'tsconfig.json'), (path) => ts.sys.readFile(path)) as {
    config: { compilerOptions: object };
  };
  const { options, errors } = ts.convertCompilerOptionsFromJson(
    {
      ...config.compilerOptions,
      noEmit: false,
      noEmitOnError: true,
      declaration: true,
      sourceMap: false,
      rootDir: ROOT,
      outDir: JAVASCRIPT,
    },
    ROOT,
  );
  const program = ts.createProgram(all.flatMap(entries), options);
  const { diagnostics } = program.emit();
  const problems = [...errors, ...ts.getPreEmitDiagnostics(program), ...diagnostics];
  if (problems.length === 0) return;
  console.error(
    ts.formatDiagnostics(ts.sortAndDeduplicateDiagnostics(problems), {
      getCanonicalFileName: (name) => name,
      getCurrentDirectory: () => ROOT,
      getNewLine: () => '\n',
    }),
  );
  throw new Error('the packages do not compile');
}

/** The package.json that users get. */
function shippedManifest({ manifest }: Workspace): object {
  const { devDependencies: _tools, exports: _sources, ...kept } = manifest;
  return {
    ...kept,
    exports: Object.fromEntries([
      ...shippedExports(manifest).map(([subpath, path]) => [
        subpath,
        { types: built(path, '.d.ts'), default: built(path, '.js') },
      ]),
      ['./package.json', './package.json'],
    ]) as object,
    files: [
      'dist',
      ...(manifest.bin === undefined ? [] : ['bin']),
      ...(manifest.files ?? []),
      'LICENSE',
      'README.md',
    ],
  };
}

/** Commands import their source beside them in the checkout, and what was built from it once packed. */
function stageCommands({ folder, manifest }: Workspace, target: string): void {
  for (const command of Object.values(manifest.bin ?? {})) {
    const text = readFileSync(join(ROOT, folder, command), 'utf8');
    const shipped = text.replaceAll(
      /(['"`])\.\.\/(src\/[^'"`]+\.ts)\1/g,
      (_all, quote: string, source: string) => {
        return `${quote}.${built(source, '.js')}${quote}`;
      },
    );
    mkdirSync(dirname(join(target, command)), { recursive: true });
    writeFileSync(join(target, command), shipped, { mode: 0o755 });
  }
}

function stage(workspace: Workspace): string {
  const { folder, manifest } = workspace;
  const target = join(STAGE, folder);
  mkdirSync(target, { recursive: true });
  cpSync(join(JAVASCRIPT, folder, 'src'), join(target, 'dist'), { recursive: true });
  // Files that code reads at run time (pages, schemas) lie beside the sources.
  for (const path of globSync(`${folder}/src/**/*`, { cwd: ROOT, withFileTypes: true })) {
    if (!path.isFile() || /\.(ts|snap)$/.test(path.name)) continue;
    const file = join(path.parentPath, path.name);
    cpSync(file, join(target, 'dist', relative(join(ROOT, folder, 'src'), file)));
  }
  for (const extra of manifest.files ?? []) {
    if (existsSync(join(ROOT, folder, extra)))
      cpSync(join(ROOT, folder, extra), join(target, extra), { recursive: true });
  }
  stageCommands(workspace, target);
  cpSync(join(ROOT, 'LICENSE'), join(target, 'LICENSE'));
  const readme = join(ROOT, folder, 'README.md');
  if (existsSync(readme)) cpSync(readme, join(target, 'README.md'));
  else writeFileSync(join(target, 'README.md'), `# ${manifest.name}\n\n${manifest.description ?? ''}\n`);
  writeFileSync(join(target, 'package.json'), `${JSON.stringify(shippedManifest(workspace), null, 2)}\n`);
  return target;
}

interface Packed {
  readonly name: string;
  readonly filename: string;
  readonly size: number;
  readonly files: readonly { readonly path: string }[];
}

function checkPacked({ name, files }: Packed, { manifest }: Workspace): void {
  const paths = new Set(files.map(({ path }) => path));
  const wanted = ['LICENSE', 'README.md', 'package.json'];
  for (const [, path] of shippedExports(manifest)) {
    wanted.push(built(path, '.js').slice(2), built(path, '.d.ts').slice(2));
  }
  for (const path of wanted)
    if (!paths.has(path)) throw new Error(`${name}: ${path} is missing in the tarball`);
  for (const path of paths) {
    if (/\.test\.|(?<!\.d)\.ts$|^src\//.test(path))
      throw new Error(`${name}: ${path} does not belong in the tarball`);
  }
}

rmSync(BUILD, { recursive: true, force: true });
mkdirSync(TARBALLS, { recursive: true });
compile();
for (const workspace of all) {
  const folder = stage(workspace);
  const output = execFileSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', TARBALLS], {
    cwd: folder,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const parsed = JSON.parse(output) as Packed[] | Record<string, Packed>;
  const [packed] = Object.values(parsed);
  checkPacked(packed!, workspace);
  console.log(`${packed!.filename}  ${packed!.files.length} files, ${(packed!.size / 1024).toFixed(1)} KiB`);
}
