/**
 * A configuration file: TOML, one key for each option of the table in options.ts that may stand in a file, with the flag's own name.
 * What is read here are values with their places; whether they are any good, config.ts says.
 */
import { open } from 'node:fs/promises';
import { PandoError } from '@pando/common';
import { closest, distance } from 'fastest-levenshtein';
import { ParseError, parseTOML, type AST } from 'toml-eslint-parser';
import { SERVE_FLAGS, type Flag } from './options.ts';

const FILE_BYTES_MAX = 1024 * 1024;
/** A name that differs by more is no misspelling. */
const MISSPELT_MAX = 3;

export interface Place {
  readonly file: string;
  /** Both from 1. */
  readonly line: number;
  readonly column: number;
}

/** Something in a file, in the environment or among the flags that cannot be. */
export interface Mistake {
  /** Absent for a flag or the environment. */
  readonly place?: Place;
  /** The key; or the flag, or the name in the environment. */
  readonly key?: string;
  readonly problem: string;
}

export interface FileValue {
  readonly value: string | boolean | readonly string[];
  readonly place: Place;
}

/** Options that a file can say. */
export const FILE_FLAGS: readonly Flag[] = SERVE_FLAGS.filter(({ only }) => only === undefined);

/** @throws `server-file-unreadable` */
export async function readConfigFile(path: string): Promise<string> {
  try {
    const handle = await open(path);
    try {
      const found = await handle.stat();
      if (!found.isFile()) throw new Error('it is no regular file');
      if (found.size > FILE_BYTES_MAX) throw new Error(`it has more than ${FILE_BYTES_MAX} bytes`);
      return await handle.readFile('utf8');
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw new PandoError('server-file-unreadable', `cannot read ${path}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** The values that a file has, and everything in it that has no meaning. */
export function parseConfig(
  text: string,
  file: string,
): { readonly values: ReadonlyMap<string, FileValue>; readonly mistakes: readonly Mistake[] } {
  const values = new Map<string, FileValue>();
  const mistakes: Mistake[] = [];
  const at = ({ loc }: { readonly loc: AST.SourceLocation }): Place => ({
    file,
    line: loc.start.line,
    column: loc.start.column + 1,
  });
  let program: AST.TOMLProgram;
  try {
    program = parseTOML(text, { tomlVersion: '1.0' });
  } catch (error) {
    if (!(error instanceof ParseError)) throw error;
    const place = { file, line: error.lineNumber, column: error.column + 1 };
    return { values, mistakes: [{ place, problem: error.message }] };
  }
  for (const entry of program.body[0].body) {
    if (entry.type === 'TOMLTable') {
      const key = namesOf(entry.key).join('.');
      mistakes.push({
        place: at(entry),
        key,
        problem: 'there are no tables: every option is a key of its own',
      });
      continue;
    }
    const key = namesOf(entry.key).join('.');
    const flag = FILE_FLAGS.find(({ name }) => name === key);
    if (flag === undefined) {
      mistakes.push({ place: at(entry.key), key, problem: `there is no such option: ${hintFor(key)}` });
      continue;
    }
    const read = valueOf(flag, entry.value, text);
    if ('problem' in read) mistakes.push({ place: at(entry.value), key, problem: read.problem });
    else values.set(key, { value: read.value, place: at(entry.value) });
  }
  return { values, mistakes };
}

type Read = { readonly value: FileValue['value'] } | { readonly problem: string };

function valueOf(flag: Flag, node: AST.TOMLContentNode, text: string): Read {
  if (flag.multiple === true && node.type === 'TOMLArray') {
    const parts = node.elements.map((element) => scalarOf(element, text));
    const texts = parts.filter((part) => typeof part === 'string');
    return texts.length === parts.length
      ? { value: texts }
      : { problem: 'a list of texts is expected: ["a", "b"]' };
  }
  const value = scalarOf(node, text);
  if (flag.value === undefined)
    return typeof value === 'boolean' ? { value } : { problem: 'true or false is expected' };
  if (typeof value !== 'string') return { problem: 'a text in quotes, or a number, is expected' };
  return { value: flag.multiple === true ? [value] : value };
}

/** A number stays as it is written, if it is a plain one: 0o660 is none of the ways in which flags take it. */
function scalarOf(node: AST.TOMLContentNode, text: string): string | boolean | undefined {
  if (node.type !== 'TOMLValue') return undefined;
  if (node.kind === 'string' || node.kind === 'boolean') return node.value;
  const written = text.slice(node.range[0], node.range[1]);
  return /^\d+(\.\d+)?$/.test(written) ? written : undefined;
}

function namesOf(key: AST.TOMLKey): string[] {
  return key.keys.map((part) => (part.type === 'TOMLBare' ? part.name : part.value));
}

function hintFor(key: string): string {
  const elsewhere = SERVE_FLAGS.find(({ name, only }) => name === key && only !== undefined);
  if (elsewhere !== undefined) return `--${key} belongs into no file`;
  const written = key.replaceAll(/[._]/g, '-').toLowerCase();
  const nearest = closest(
    written,
    FILE_FLAGS.map(({ name }) => name),
  );
  return distance(written, nearest) <= MISSPELT_MAX
    ? `did you mean ${nearest}?`
    : 'docs/configuration.md has the options';
}
