/**
 * What a token looks like: `pando_<id>_<secret>`. The id finds the record and is no secret; of the secret only a SHA-256 is stored.
 *
 * A slow hash would make guessing dear; 260 random bits need no such help, and every request would pay for it. The letters
 * are those that nobody mistakes for one another, and a double click takes the whole text.
 */
import { hash, timingSafeEqual } from 'node:crypto';
import type { Random } from '@pando/common';

const LETTERS = 'abcdefghijkmnpqrstuvwxyz23456789';
const ID_LETTERS = 10;
const SECRET_LETTERS = 52;
const FORM = new RegExp(`^pando_([${LETTERS}]{${ID_LETTERS}})_([${LETTERS}]{${SECRET_LETTERS}})$`);

/** Texts of tokens, and signing secrets of webhooks, wherever they stand. */
const SECRETS = new RegExp(
  `pando_([${LETTERS}]{${ID_LETTERS}})_[${LETTERS}]+|(whsec_)[A-Za-z0-9+/=_-]+`,
  'g',
);

export interface TokenText {
  readonly id: string;
  readonly secret: string;
}

export function newTokenText(random: Random): TokenText {
  const letters = random32(random, ID_LETTERS + SECRET_LETTERS);
  return { id: letters.slice(0, ID_LETTERS), secret: letters.slice(ID_LETTERS) };
}

export function formatToken({ id, secret }: TokenText): string {
  return `pando_${id}_${secret}`;
}

/** Undefined for what is no token. */
export function parseToken(text: string): TokenText | undefined {
  const match = FORM.exec(text);
  return match === null ? undefined : { id: match[1]!, secret: match[2]! };
}

/** Id of the token that the text is of; undefined for what is no token. */
export function tokenIdOf(text: string): string | undefined {
  return parseToken(text)?.id;
}

/** The text without the secrets in it: somebody may have put one where a name belongs. Of a token its id is left. */
export function withoutSecrets(text: string): string {
  return text.replace(SECRETS, (_secret, id?: string) => (id === undefined ? 'whsec_…' : `pando_${id}_…`));
}

export function hashSecret(secret: string): Buffer {
  return hash('sha256', secret, 'buffer');
}

/** Takes as long whatever the secret is. */
export function isSecretOf(secret: string, stored: Uint8Array): boolean {
  const hashed = hashSecret(secret);
  return stored.byteLength === hashed.byteLength && timingSafeEqual(hashed, stored);
}

function random32(random: Random, count: number): string {
  const bytes = new Uint8Array(count);
  random.fill(bytes);
  return Array.from(bytes, (byte) => LETTERS[byte & 31]).join('');
}
