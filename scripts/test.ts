/**
 * `npm test`: runs every suite that this machine can run, says by name what it skipped and why, and ends with the
 * one line that counts: `N passed, N failed, N skipped`. With CI=true a skip is a failure. Arguments are filters:
 * `npm test -- packages/tree`, and `-t "part of a name"`.
 *
 * What is counted: each test; besides, as one failed test each, every file that could not be collected or whose
 * hooks failed, every error outside of any test, and a run that found no test at all.
 */
import { startVitest } from 'vitest/node';
import type { TestCase, TestModule, TestSuite, Vitest } from 'vitest/node';
import { TOOLS_ENVIRONMENT_NOTE, parseArguments } from './test-arguments.ts';

interface Outcome {
  passed: number;
  failed: number;
  /** Name and reason of every test that did not run. */
  readonly skipped: { readonly name: string; readonly why: string }[];
  /** Failures that are no test: named, so that the count can be checked. */
  readonly broken: string[];
}

function countTest(test: TestCase, outcome: Outcome, moduleFailed: boolean): void {
  const result = test.result();
  switch (result.state) {
    case 'passed':
      outcome.passed++;
      return;
    case 'failed':
      outcome.failed++;
      return;
    case 'skipped':
      // Tests behind a failed hook are reported as skipped; they did not run because something is broken.
      if (moduleFailed && test.options.mode === 'run') {
        outcome.failed++;
        return;
      }
      outcome.skipped.push({ name: `${test.module.relativeModuleId} > ${test.fullName}`, why: reasonOf(test) });
      return;
    case 'pending':
      outcome.failed++;
      outcome.broken.push(`${test.module.relativeModuleId} > ${test.fullName}: never finished`);
  }
}

function reasonOf(test: TestCase): string {
  const result = test.result();
  if (result.state === 'skipped' && result.note !== undefined) return result.note;
  return test.options.mode === 'todo' ? 'not written yet' : TOOLS_ENVIRONMENT_NOTE;
}

function suitesOf(module: TestModule): TestSuite[] {
  return [...module.children.allSuites()];
}

function countModule(module: TestModule, outcome: Outcome): void {
  const owners = [module, ...suitesOf(module)];
  let moduleFailed = false;
  for (const owner of owners) {
    if (owner.errors().length === 0) continue;
    moduleFailed = true;
    outcome.failed++;
    const name = owner.type === 'suite' ? ` > ${owner.fullName}` : '';
    outcome.broken.push(`${module.relativeModuleId}${name}: ${owner.errors()[0]!.message}`);
  }
  for (const test of module.children.allTests()) countTest(test, outcome, moduleFailed);
}

function count(vitest: Vitest): Outcome {
  const outcome: Outcome = { passed: 0, failed: 0, skipped: [], broken: [] };
  for (const module of vitest.state.getTestModules()) countModule(module, outcome);
  for (const error of vitest.state.getUnhandledErrors()) {
    outcome.failed++;
    outcome.broken.push(`outside of any test: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (outcome.passed + outcome.failed + outcome.skipped.length === 0) {
    outcome.failed = 1;
    outcome.broken.push('no test was found');
  }
  return outcome;
}

async function main(): Promise<number> {
  const { filters, options } = parseArguments(process.argv.slice(2));
  const strict = process.env['CI'] === 'true' || process.env['CI'] === '1';
  let outcome: Outcome;
  try {
    const vitest = await startVitest('test', filters, {
      ...options,
      watch: false,
      run: true,
      passWithNoTests: true,
      allowOnly: !strict,
      reporters: ['default'],
    });
    outcome = count(vitest);
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

const exitCode = await main();
// A suite that leaks a handle must not hang the run; the last line is written by then (stdout may be a pipe).
process.stdout.write('', () => process.exit(exitCode));
