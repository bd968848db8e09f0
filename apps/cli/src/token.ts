/** Which token goes with the requests to a server. It never comes from the command line, which other users can see. */
import { readFileSync } from 'node:fs';
import { PandoError } from '@pando/common';
import { tokenFile } from '@pando/server/token-files';

/**
 * From PANDO_TOKEN, the file PANDO_TOKEN_FILE, or the file for this server in the user's configuration; undefined when there is none.
 * @throws `server-file-unreadable` for a file that was named, `request-invalid` for a text that is no token
 */
export function findToken(server: URL, env: NodeJS.ProcessEnv = process.env): string | undefined {
  const given = env['PANDO_TOKEN'];
  if (given !== undefined && given !== '') return checkedToken(given, 'PANDO_TOKEN');
  const named = env['PANDO_TOKEN_FILE'];
  if (named !== undefined && named !== '') return checkedToken(read(named), 'the file PANDO_TOKEN_FILE');
  const kept = tokenFile(server, env);
  try {
    return checkedToken(readFileSync(kept, 'utf8'), kept);
  } catch (error) {
    // Then the server says what is missing.
    if (error instanceof PandoError) throw error;
    return undefined;
  }
}

/** The text without blanks around it; it must not break out of a header, and is not repeated in an error. @throws `request-invalid` */
export function checkedToken(text: string, where: string): string {
  const token = text.trim();
  if (!/^[\x21-\x7e]{1,200}$/.test(token))
    throw new PandoError('request-invalid', `what ${where} holds is no token`);
  return token;
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const message = `cannot read PANDO_TOKEN_FILE: ${(error as Error).message}`;
    throw new PandoError('server-file-unreadable', message, { cause: error });
  }
}
