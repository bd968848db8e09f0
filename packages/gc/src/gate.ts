/** One collection at a time: gc, accounts and their like wait for each other, within one process. */

/** Lets one piece of work through after another, in the order of the calls. */
export class Gate {
  #last: Promise<unknown> = Promise.resolve();

  /** Runs `work` when everything before it has ended, well or badly; settles as it does. */
  run<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#last.then(work);
    this.#last = done.catch(() => undefined);
    return done;
  }
}

const gates = new WeakMap<object, Gate>();

/** The gate of a store: whoever begins a collection of it goes through this one. */
export function gateOf(store: object): Gate {
  let gate = gates.get(store);
  if (gate === undefined) gates.set(store, (gate = new Gate()));
  return gate;
}
