/** Patterns of the access file: `*`, `**`, `?`, and `\` before a character that stands for itself. */

type Token = { readonly kind: 'one' | 'many' | 'any' } | { readonly kind: 'literal'; readonly text: string };

/**
 * Whether a name fits a pattern. `**` stands for any characters, `*` for any but the separators, `?` for one that is no
 * separator. Time is at most the product of both lengths, whatever the name: clients choose names.
 */
export function globMatcher(pattern: string, separators: string): (name: string) => boolean {
  const tokens = parse(pattern);
  const wild = tokens.findIndex(({ kind }) => kind !== 'literal');
  const beginning = tokens
    .slice(0, wild < 0 ? tokens.length : wild)
    .map((token) => (token.kind === 'literal' ? token.text : ''))
    .join('');
  // Here most patterns end for most names, before a list of characters is made.
  return (name) => name.startsWith(beginning) && matches(tokens, Array.from(name), separators);
}

function parse(pattern: string): readonly Token[] {
  const tokens: Token[] = [];
  const characters = Array.from(pattern);
  for (let i = 0; i < characters.length; i++) {
    const character = characters[i]!;
    if (character === '\\' && i + 1 < characters.length) {
      tokens.push({ kind: 'literal', text: characters[++i]! });
    } else if (character === '*') {
      let stars = 1;
      for (; characters[i + 1] === '*'; i++) stars++;
      tokens.push({ kind: stars > 1 ? 'any' : 'many' });
    } else {
      tokens.push(character === '?' ? { kind: 'one' } : { kind: 'literal', text: character });
    }
  }
  return tokens;
}

/**
 * Greedy, with two places to go back to: the last `*`, which may not grow over a separator, and the last `**` before
 * it, which may grow over anything. Earlier ones need no second look: they gave the later ones all they could use.
 */
function matches(tokens: readonly Token[], name: readonly string[], separators: string): boolean {
  let token = 0;
  let at = 0;
  let many = { token: -1, at: 0 };
  let any = { token: -1, at: 0 };
  for (;;) {
    const current = tokens[token];
    if (current?.kind === 'many') {
      many = { token, at };
      token++;
    } else if (current?.kind === 'any') {
      any = { token, at };
      many = { token: -1, at: 0 };
      token++;
    } else if (at === name.length && current === undefined) {
      return true;
    } else if (at < name.length && current !== undefined && fits(current, name[at]!, separators)) {
      token++;
      at++;
    } else if (many.token >= 0 && many.at < name.length && !separators.includes(name[many.at]!)) {
      many.at++;
      token = many.token + 1;
      at = many.at;
    } else if (any.token >= 0 && any.at < name.length) {
      any.at++;
      many = { token: -1, at: 0 };
      token = any.token + 1;
      at = any.at;
    } else {
      return false;
    }
  }
}

function fits(token: Token, character: string, separators: string): boolean {
  return token.kind === 'literal' ? token.text === character : !separators.includes(character);
}
