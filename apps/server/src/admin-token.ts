/**
 * The first token of a store: made when there is none, kept in `admin-token` of the data directory for its owner, and put where the
 * command of the same user finds it for as long as the server runs.
 *
 * The file is durable before the token is good. A crash in between leaves a file with a text that nobody knows, and still no
 * token: the next start makes another.
 */
import { rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { tokenIdOf, type Tokens } from '@pando/access';
import { fromIoError, PandoError } from '@pando/common';
import type { Logger } from 'pino';
import { readTokenFile, tokenFile, writeTokenFile } from './token-files.ts';

const NAME = 'admin';
const COPY_FILE = 'admin-token.copy';

export function adminTokenFile(dataDirectory: string): string {
  return join(dataDirectory, 'admin-token');
}

/** Makes the first token, where there is none. Resolves to its text then. @throws `store-full`, `store-failed` */
export async function ensureAdminToken(tokens: Tokens, dataDirectory: string): Promise<string | undefined> {
  return tokens.count > 0 ? undefined : makeAdminToken(tokens, dataDirectory, NAME);
}

/** Another admin's token into the file, for whoever has lost theirs. */
export async function resetAdminToken(tokens: Tokens, dataDirectory: string): Promise<{ name: string }> {
  const isTaken = (name: string): boolean => {
    try {
      tokens.get(name);
      return true;
    } catch {
      return false;
    }
  };
  let name = NAME;
  for (let n = 2; isTaken(name); n++) name = `${NAME}-${n}`;
  await makeAdminToken(tokens, dataDirectory, name);
  return { name };
}

async function makeAdminToken(tokens: Tokens, dataDirectory: string, name: string): Promise<string> {
  const path = adminTokenFile(dataDirectory);
  const { text } = await tokens.create({ name, role: 'admin' }, async (given) => {
    await writeTokenFile(path, given).catch((error: unknown) => {
      throw fromIoError(error, `writing ${path}`, 'store-failed');
    });
  });
  return text;
}

/** Where a server has put a copy of which token, kept beside it: one that is killed leaves the copy behind. */
interface Copy {
  /** The data directory: one that was copied from it has this file too, and nothing to do with it. */
  readonly of: string;
  readonly path: string;
  readonly tokenId: string;
}

/**
 * Puts the token of the data directory, while it is good, where the command looks for the server at `url`. Resolves to what takes it away
 * again. What a server before this one has left, elsewhere maybe, is taken away first. A user without a home directory, or one that cannot be
 * written to, has to say where the token is.
 */
export async function offerAdminToken(
  tokens: Tokens,
  dataDirectory: string,
  url: string,
  logger: Logger,
): Promise<() => Promise<void>> {
  const record = join(dataDirectory, COPY_FILE);
  try {
    await removeCopy(dataDirectory);
    const text = await readTokenFile(adminTokenFile(dataDirectory));
    const tokenId = text === undefined ? undefined : tokenIdOf(text);
    if (text === undefined || tokenId === undefined || !tokens.isValid(text)) return () => Promise.resolve();
    const path = resolve(tokenFile(new URL(url)));
    await writeTokenFile(
      record,
      JSON.stringify({ of: resolve(dataDirectory), path, tokenId } satisfies Copy),
    );
    await writeTokenFile(path, text);
    return () => removeCopy(dataDirectory);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const reason = code ?? (error instanceof PandoError ? error.message : 'unknown');
    logger.warn(
      { reason },
      'the command will not find the token by itself: PANDO_TOKEN_FILE says where it is',
    );
    return () => Promise.resolve();
  }
}

/** Removes the copy that a server over this data directory has made, unless another token is there by now. Never throws. */
async function removeCopy(dataDirectory: string): Promise<void> {
  const record = join(dataDirectory, COPY_FILE);
  try {
    const copy = JSON.parse((await readTokenFile(record)) ?? '{}') as Partial<Copy>;
    const there =
      copy.path === undefined || copy.of !== resolve(dataDirectory)
        ? undefined
        : await readTokenFile(copy.path);
    if (there !== undefined && tokenIdOf(there) === copy.tokenId) await rm(copy.path!, { force: true });
  } catch {
    // Whatever is in the way of it is in the way of no start.
  }
  await rm(record, { force: true }).catch(() => undefined);
}
