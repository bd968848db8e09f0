/**
 * Takes out of a text what could be a secret: nothing that the server answers ought to hold one, but an error may quote a URL, and a URL a
 * password.
 */
const HIDDEN = '(hidden)';

const RULES: readonly (readonly [pattern: RegExp, replacement: string])[] = [
  [/-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(-----END [A-Z ]*PRIVATE KEY-----|$)/g, HIDDEN],
  [/\bpando_[a-z2-9]{10}_[a-z2-9]{52}\b/g, HIDDEN],
  [/whsec_[A-Za-z0-9+/=]+/g, HIDDEN],
  [/\b(Bearer|Basic) +[A-Za-z0-9._~+/=-]{8,}/gi, `$1 ${HIDDEN}`],
  // Of the URL of a receiver any part may be the secret.
  [/\b(https?:\/\/)(?:[^\s/"@]*@)?([^\s/"?#\\]+)[^\s"\\]*/g, `$1$2/${HIDDEN}`],
  [/\b(nbds?(?:\+unix)?:\/\/)[^\s/"@]*@/g, `$1${HIDDEN}@`],
  [/("[a-z-]*(?:secret|token|password|passphrase)[a-z-]*"\s*:\s*)"(?:[^"\\]|\\.)*"/gi, `$1"${HIDDEN}"`],
];

export function withoutSecrets(text: string): string {
  return RULES.reduce((found, [pattern, replacement]) => found.replaceAll(pattern, replacement), text);
}
