/**
 * Where tokens lie so that the command finds them: one file a server, named by host and port, below the user's configuration.
 * The server writes the one of its own address; `pando login` those of others.
 */
import { open, mkdir, readFile, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';

const DEFAULT_PORTS: Record<string, number> = { 'http:': 80, 'https:': 443 };

/** The file for the server at this URL. */
export function tokenFile(url: URL, env: NodeJS.ProcessEnv = process.env): string {
  const folder = join(env['XDG_CONFIG_HOME'] || join(homedir(), '.config'), 'pando', 'tokens');
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const port = url.port === '' ? (DEFAULT_PORTS[url.protocol] ?? 0) : url.port;
  // An address has colons, and a zone behind it may have anything.
  const name = `${host === 'localhost' ? '127.0.0.1' : host}_${port}`;
  return join(folder, encodeURIComponent(name));
}

/** The token in a file, without the line's end; undefined where there is no file. @throws the system's errors */
export async function readTokenFile(path: string): Promise<string | undefined> {
  try {
    return (await readFile(path, 'utf8')).trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** Writes it so that it is there wholly or not at all, durably, and for the owner only. @throws the system's errors */
export async function writeTokenFile(path: string, token: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  // Another process that writes the same file has another name for what is not done yet.
  const temporary = `${path}.${process.pid}.new`;
  await rm(temporary, { force: true });
  const file = await open(temporary, 'wx', 0o600);
  try {
    await file.writeFile(`${token}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
  const folder = await open(dirname(path), 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
