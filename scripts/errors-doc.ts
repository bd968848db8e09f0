/** Writes docs/errors.md from the table of codes: `node scripts/errors-doc.ts`. A test holds the two together. */
import { writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { statusOf } from '@pando/api';
import { ERROR_CODES, type ErrorCode, type ErrorKind } from '@pando/common';

export const ERRORS_PAGE = new URL('../docs/errors.md', import.meta.url);

const KINDS: Record<ErrorKind, string> = {
  invalid: 'The request is wrong. Fix it.',
  conflict: 'Something else is in the way. Move it, or choose another name or place.',
  missing: 'It does not exist.',
  unavailable: 'Not now. Try again later, or make room.',
  data: 'Stored bytes are wrong. Stop, keep a copy of the data directory, repair.',
  internal: 'A bug. Report it.',
};

const INTRODUCTION = `# Errors

Written by \`node scripts/errors-doc.ts\` from \`packages/common/src/errors.ts\`; edit that file.

Every error has a \`code\`, which is stable and what programs compare, and a message, which is for people and may change. The
kind of a code says what to do about it. REST sends an error as a problem document (RFC 9457) with the status below, \`code\`,
\`detail\` and \`remedy\`; the command \`pando\` prints the same, as one line of JSON with \`--json\`. What NBD clients get is in
[nbd.md](nbd.md).
`;

/** The page as it has to be. */
export function errorsPage(): string {
  const sections = (Object.keys(KINDS) as ErrorKind[]).map((kind) => {
    const codes = (Object.keys(ERROR_CODES) as ErrorCode[]).filter((code) => ERROR_CODES[code].kind === kind);
    const rows = codes.map((code) => `| \`${code}\` | ${statusOf(code)} | ${ERROR_CODES[code].remedy} |`);
    return [
      `## ${kind}`,
      '',
      KINDS[kind],
      '',
      '| code | HTTP | remedy |',
      '| --- | --- | --- |',
      ...rows,
      '',
    ].join('\n');
  });
  return `${[INTRODUCTION, ...sections].join('\n').trimEnd()}\n`;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) writeFileSync(ERRORS_PAGE, errorsPage());
