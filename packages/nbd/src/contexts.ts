/**
 * Metadata contexts: a table of what block status can describe. A new context is a new row; names are matched here
 * and nowhere else.
 */
import type { BlockDevice } from '@pando/block-device';
import { AllocationFlag } from './protocol.ts';

/** What a context says about a range: `flags[i]` holds for `lengths[i]` bytes, from the offset asked for on. */
export interface StatusExtents {
  readonly lengths: readonly number[];
  readonly flags: readonly number[];
}

export interface MetaContext {
  /** Number on the wire, unique in the table. */
  readonly id: number;
  readonly name: string;
  describe(device: BlockDevice, offset: number, length: number, extentsMax: number): Promise<StatusExtents>;
}

const baseAllocation: MetaContext = {
  id: 1,
  name: 'base:allocation',
  async describe(device, offset, length, extentsMax) {
    const { lengths, holes } = await device.allocation(offset, length, extentsMax);
    // A hole reads as zeros; of stored bytes neither can be promised.
    return { lengths, flags: holes.map((hole) => (hole ? AllocationFlag.hole | AllocationFlag.zero : 0)) };
  },
};

export const META_CONTEXTS: readonly MetaContext[] = [baseAllocation];

/** Contexts that a LIST query names: itself, or all of a namespace ("base:"); none for what is not known. */
export function listContexts(queries: readonly string[]): MetaContext[] {
  if (queries.length === 0) return [...META_CONTEXTS];
  return META_CONTEXTS.filter((context) =>
    queries.some(
      (query) => query === context.name || (query.endsWith(':') && context.name.startsWith(query)),
    ),
  );
}

/** Contexts that a SET query selects: exact names only. */
export function selectContexts(queries: readonly string[]): MetaContext[] {
  return META_CONTEXTS.filter((context) => queries.includes(context.name));
}
