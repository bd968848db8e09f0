/**
 * `npm test`: runs every suite that this machine can run, says by name what it skipped and why, and ends with the
 * one line that counts: `N passed, N failed, N skipped`. With CI=true a skip is a failure. Arguments are filters:
 * `npm test -- packages/tree`, and `-t "part of a name"`.
 *
 * What is counted: each test; besides, as one failed test each, every file that could not be collected or whose
 * hooks failed, every error outside of any test, and a run that found no test at all.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startVitest } from 'vitest/node';
import type { TestCase, TestModule, Vitest } from 'vitest/node';
import { parseArguments } from './test-arguments.ts';

interface Outcome {
  passed: number;
  failed: number;
  /** Name and reason of every test that did not run. */
  readonly skipped: { readonly name: string; readonly why: string }[];
  /** Failures that are no test: named, so that the count can be checked. */
  readonly broken: string[];
}

function countTest(test: TestCase, outcome: Outcome, named: boolean): void {
  const result = test.result();
  const name = `${test.module.relativeModuleId} > ${test.fullName}`;
  switch (result.state) {
    case 'passed':
      outcome.passed++;
      return;
    case 'failed':
      outcome.failed++;
      return;
    case 'pending':
      outcome.failed++;
      outcome.broken.push(`${name}: never finished`);
      return;
    case 'skipped':
      if (result.note !== undefined) outcome.skipped.push({ name, why: result.note });
      // Tests behind a failed hook are reported as skipped; they did not run because something is broken.
      else if (isBehindFailure(test)) outcome.failed++;
      // With `-t`, whatever has another name was not asked for.
      else if (!named) outcome.skipped.push({ name, why: whyNot(test) });
  }
}

function isBehindFailure(test: TestCase): boolean {
  for (let at: TestCase['parent'] = test.parent; ; at = at.parent) {
    if (at.errors().length > 0) return true;
    if (at.type === 'module') return false;
  }
}

function whyNot(test: TestCase): string {
  return test.options.mode === 'todo' ? 'not written yet' : 'what its name says is not there on this machine';
}

function countModule(module: TestModule, outcome: Outcome, named: boolean): void {
  for (const owner of [module, ...module.children.allSuites()]) {
    const [error] = owner.errors();
    if (error === undefined) continue;
    outcome.failed++;
    const name = owner.type === 'suite' ? ` > ${owner.fullName}` : '';
    outcome.broken.push(`${module.relativeModuleId}${name}: ${error.message}`);
  }
  for (const test of module.children.allTests()) countTest(test, outcome, named);
}

/** Errors come from the workers as plain objects. */
function messageOf(error: unknown): string {
  const { message, cause } = error as { message?: unknown; cause?: { message?: unknown } };
  if (typeof message !== 'string') return JSON.stringify(error);
  return typeof cause?.message === 'string' ? `${message} ${cause.message}` : message;
}

function count(vitest: Vitest, named: boolean): Outcome {
  const outcome: Outcome = { passed: 0, failed: 0, skipped: [], broken: [] };
  for (const module of vitest.state.getTestModules()) countModule(module, outcome, named);
  for (const error of vitest.state.getUnhandledErrors()) {
    outcome.failed++;
    outcome.broken.push(`outside of any test: ${messageOf(error)}`);
  }
  if (outcome.passed + outcome.failed + outcome.skipped.length === 0) {
    outcome.failed = 1;
    outcome.broken.push('no test was found');
  }
  return outcome;
}

async function main(): Promise<number> {
  const parsed = parseArguments(process.argv.slice(2));
  if (parsed === undefined) return 2;
  const { filters, options } = parsed;
  const strict = process.env['CI'] === 'true' || process.env['CI'] === '1';
  let outcome: Outcome;
  try {
    const vitest = await startVitest(filters, {
      ...options,
      watch: false,
      run: true,
      passWithNoTests: true,
      allowOnly: !strict,
      reporters: ['default'],
    });
    outcome = count(vitest, options.testNamePattern !== undefined);
    await vitest.close();
  } catch (error) {
    console.error(error);
    outcome = { passed: 0, failed: 1, skipped: [], broken: [] };
  }
  if (outcome.broken.length > 0) {
    console.log('\nBroken outside of a test:');
    for (const line of outcome.broken) console.log(`  ${line.split('\n', 1)[0]!}`);
  }
  if (outcome.skipped.length > 0) {
    console.log(strict ? '\nSkipped, which fails in CI:' : '\nSkipped:');
    for (const { name, why } of outcome.skipped) console.log(`  ${name} (${why})`);
  }
  console.log(`${outcome.passed} passed, ${outcome.failed} failed, ${outcome.skipped.length} skipped`);
  return outcome.failed > 0 || (strict && outcome.skipped.length > 0) ? 1 : 0;
}

/** Servers and commands start a thousand times here, and half of that would be compiling them: it is done once a run. */
function keepCompiled(): () => void {
  if (process.env['NODE_COMPILE_CACHE'] !== undefined) return () => undefined;
  const folder = mkdtempSync(join(tmpdir(), 'pando-compiled-'));
  process.env['NODE_COMPILE_CACHE'] = folder;
  return () => rmSync(folder, { recursive: true, force: true });
}

const forget = keepCompiled();
const exitCode = await main();
forget();
// A suite that leaks a handle must not hang the run; the last line is written by then (stdout may be a pipe).
process.stdout.write('', () => process.exit(exitCode));
