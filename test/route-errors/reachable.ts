/** Which error codes come out of a function, and by which way. */
import type { CallGraph, Filter, Unit } from './call-graph.ts';
import type { AlsoTaken, NotTaken } from './exceptions.ts';

/** By code, the functions from the one that was asked about to the one that makes the error. */
export type Reachable = ReadonlyMap<string, readonly string[]>;

export interface Reaching {
  readonly of: (unit: Unit) => Reachable;
  /** Exceptions that kept something from being reached. */
  readonly used: ReadonlySet<NotTaken | AlsoTaken>;
}

export function reachableCodes(
  { handlers, hooks, others, kindOf }: CallGraph,
  notTaken: readonly NotTaken[],
  alsoTaken: readonly AlsoTaken[],
): Reaching {
  const units = unitsFrom([...handlers.values(), ...hooks, ...others]);
  const callers = new Map<Unit, { readonly from: Unit; readonly filters: readonly Filter[] }[]>();
  for (const from of units) {
    for (const { to, filters } of from.mentions) {
      const known = callers.get(to) ?? [];
      callers.set(to, known);
      known.push({ from, filters });
    }
  }
  const used = new Set<NotTaken | AlsoTaken>();
  for (const one of alsoTaken) {
    const waiting = [...units].filter(({ name }) => one.from.test(name));
    for (const unit of units) {
      if (!one.to.test(unit.name)) continue;
      const known = callers.get(unit) ?? [];
      callers.set(unit, known);
      for (const from of waiting) known.push({ from, filters: [] });
      if (waiting.length > 0) used.add(one);
    }
  }
  const passes = (code: string, filters: readonly Filter[]): boolean =>
    !filters.some(({ all, codes, kinds }) => all || codes.has(code) || kinds.has(kindOf(code) ?? ''));
  const isTaken = (from: Unit, to: Unit, code: string): boolean => {
    const exception = notTaken.find(
      (one) =>
        (one.from === undefined || one.from.test(from.name)) &&
        one.to.test(to.name) &&
        (one.codes === undefined || one.codes.includes(code)),
    );
    if (exception !== undefined) used.add(exception);
    return exception === undefined;
  };

  /** For each function, the codes that come out of it, each with the function that it comes from. */
  const found = new Map<Unit, Map<string, Unit | undefined>>();
  const queue: { readonly unit: Unit; readonly code: string; readonly via: Unit | undefined }[] = [];
  for (const unit of units) {
    for (const { code, filters } of unit.codes) {
      if (passes(code, filters)) queue.push({ unit, code, via: undefined });
    }
  }
  for (const { unit, code, via } of queue) {
    const codes = found.get(unit) ?? new Map<string, Unit | undefined>();
    found.set(unit, codes);
    if (codes.has(code)) continue;
    codes.set(code, via);
    for (const { from, filters } of callers.get(unit) ?? []) {
      if (passes(code, filters) && isTaken(from, unit, code)) queue.push({ unit: from, code, via: unit });
    }
  }
  return {
    used,
    of: (unit) => {
      const codes = new Map<string, readonly string[]>();
      for (const code of found.get(unit)?.keys() ?? []) {
        const way: string[] = [];
        for (let at: Unit | undefined = unit; at !== undefined; at = found.get(at)?.get(code))
          way.push(at.name);
        codes.set(code, way);
      }
      return codes;
    },
  };
}

function unitsFrom(first: readonly Unit[]): ReadonlySet<Unit> {
  const units = new Set<Unit>();
  const stack = [...first];
  for (let unit = stack.pop(); unit !== undefined; unit = stack.pop()) {
    if (units.has(unit)) continue;
    units.add(unit);
    for (const { to } of unit.mentions) stack.push(to);
  }
  return units;
}
