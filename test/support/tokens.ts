/** Tokens of the admins of the servers that this process has started, by their URLs: for whatever talks to one of them. */
import { readFileSync } from 'node:fs';

/** What `serve` resolves to, as far as it matters here. */
export interface Reachable {
  readonly addresses: { readonly http: string };
  readonly adminTokenFile: string;
}

const tokens = new Map<string, string>();

export function noteToken(url: string, token: string): void {
  tokens.set(url, token);
}

/** Of a server in this process. */
export function tokenOfServing({ addresses, adminTokenFile }: Reachable): string {
  const token = readFileSync(adminTokenFile, 'utf8').trim();
  noteToken(addresses.http, token);
  return token;
}

/** Undefined where no server of ours listens. */
export function tokenOf(url: string): string | undefined {
  return tokens.get(url);
}
