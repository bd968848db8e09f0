/** Which VMs a scope holds. */
import { nameProblem, PandoError } from '@pando/common';
import type { Scope } from './types.ts';

/** Most names, and most tags, of one scope. */
export const SCOPE_ITEMS_MAX = 64;

export interface Scoped {
  readonly name: string;
  readonly tags: readonly string[];
}

/** Without a scope everything is in it. */
export function inScope(scope: Scope | undefined, { name, tags }: Scoped): boolean {
  if (scope === undefined) return true;
  return (
    scope.tags?.some((tag) => tags.includes(tag)) === true ||
    scope.vms?.some((pattern) => fits(pattern, name)) === true
  );
}

/**
 * Whether the name fits the pattern. Takes at most the product of both lengths, whatever the pattern: only the last `*` is ever
 * gone back to.
 */
export function fits(pattern: string, name: string): boolean {
  let at = 0;
  let star = -1;
  let resume = 0;
  for (let i = 0; i < name.length;) {
    if (pattern[at] === '*') {
      star = at++;
      resume = i;
    } else if (at < pattern.length && pattern[at] === name[i]) {
      at++;
      i++;
    } else if (star >= 0) {
      at = star + 1;
      i = ++resume;
    } else return false;
  }
  while (pattern[at] === '*') at++;
  return at === pattern.length;
}

/** The scope in its one form: names as the fleet stores them, sorted, each once. @throws `request-invalid` */
export function checkedScope({ vms = [], tags = [] }: Scope): Scope {
  const clean = (what: string, items: readonly string[]): string[] => {
    if (items.length > SCOPE_ITEMS_MAX)
      throw new PandoError('request-invalid', `a scope has at most ${SCOPE_ITEMS_MAX} ${what}`);
    const names = items.map((item) => item.normalize('NFC'));
    for (const name of names) {
      const problem = nameProblem(name);
      if (problem === undefined) continue;
      throw new PandoError(
        'request-invalid',
        `${JSON.stringify(name.slice(0, 80))} among ${what} ${problem}`,
      );
    }
    return [...new Set(names)].sort();
  };
  const scope = { vms: clean('names of VMs', vms), tags: clean('tags', tags) };
  if (scope.vms.length + scope.tags.length === 0)
    throw new PandoError('request-invalid', 'a scope names VMs or tags; without a scope a token has all');
  return {
    ...(scope.vms.length > 0 ? { vms: scope.vms } : {}),
    ...(scope.tags.length > 0 ? { tags: scope.tags } : {}),
  };
}
