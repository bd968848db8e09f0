/**
 * Metadata contexts: which names a query means, and an export that is open together with the contexts that a client
 * selected. base:allocation is made here, of any block device; every other context comes from the export.
 */
import type { BlockDevice, StatusExtents } from '@pando/block-device';
import { AllocationFlag } from './protocol.ts';
import type { ExportHandle, StatusSource } from './types.ts';

const BASE_NAMESPACE = 'base:';
const BASE_ALLOCATION = 'base:allocation';

/** Prefixes below a namespace that stand for every name that begins with them. */
const LEAF_WILDCARDS: ReadonlySet<string> = new Set(['qemu:dirty-bitmap:']);

/** A context that SET_META_CONTEXT selected, with its number on the wire. */
export interface SelectedContext {
  readonly id: number;
  readonly source: StatusSource;
}

/** A hole reads as zeros; of stored bytes neither can be promised. */
function baseAllocation(device: BlockDevice): StatusSource {
  return {
    name: BASE_ALLOCATION,
    async describe(offset, length, extentsMax): Promise<StatusExtents> {
      const { lengths, holes } = await device.allocation(offset, length, extentsMax);
      return { lengths, flags: holes.map((hole) => (hole ? AllocationFlag.hole | AllocationFlag.zero : 0)) };
    },
    close: () => Promise.resolve(),
  };
}

/** Whether a query lists what begins with it, and selects nothing: a namespace (`base:`, `qemu:`) or a leaf wildcard. */
function isWildcard(query: string): boolean {
  return (query.length > 1 && query.indexOf(':') === query.length - 1) || LEAF_WILDCARDS.has(query);
}

/** Names that LIST_META_CONTEXT shows for its queries, each once, at most `limit`; no query asks for everything. */
export async function listContexts(
  handle: ExportHandle,
  queries: readonly string[],
  limit: number,
): Promise<readonly string[]> {
  const names = new Set<string>();
  for (const query of queries.length === 0 ? [''] : new Set(queries)) {
    if (names.size >= limit) break;
    if (queries.length === 0 || isWildcard(query)) {
      if (BASE_ALLOCATION.startsWith(query)) names.add(BASE_ALLOCATION);
      if (query === BASE_NAMESPACE) continue;
      for (const name of await handle.contextNames(query, limit)) names.add(name);
    } else if (!names.has(query)) {
      const source = await openContext(handle, query);
      if (source === undefined) continue;
      names.add(query);
      await source.close();
    }
  }
  return [...names].slice(0, limit);
}

async function openContext(handle: ExportHandle, name: string): Promise<StatusSource | undefined> {
  if (name === BASE_ALLOCATION) return baseAllocation(handle);
  // The namespace is the protocol's own: no export can add to it.
  if (name.startsWith(BASE_NAMESPACE) || !name.includes(':')) return undefined;
  return handle.openContext(name);
}

/**
 * An export that one client has opened, with the contexts that it selected. Owns all of them: `close` closes each
 * once, contexts before the handle.
 */
export class OpenExport {
  /** As the client wrote it: contexts hold for this very name. */
  readonly name: string;
  readonly handle: ExportHandle;
  readonly #contexts: SelectedContext[] = [];
  #closed: Promise<void> | undefined;

  constructor(name: string, handle: ExportHandle) {
    this.name = name;
    this.handle = handle;
  }

  get contexts(): readonly SelectedContext[] {
    return this.#contexts;
  }

  /**
   * Opens the contexts that the queries name, each once; numbers come from `nextId`. What is unknown is passed over.
   * @returns false when there would be more than `limit`; those that were opened stay open until `close`
   */
  async select(queries: readonly string[], limit: number, nextId: () => number): Promise<boolean> {
    for (const query of new Set(queries)) {
      if (isWildcard(query)) continue;
      const source = await openContext(this.handle, query);
      if (source === undefined) continue;
      this.#contexts.push({ id: nextId(), source });
      if (this.#contexts.length > limit) return false;
    }
    return true;
  }

  /** Idempotent. No describe and no operation on the handle may be under way. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    const closed = await Promise.allSettled(this.#contexts.map(({ source }) => source.close()));
    await this.handle.close();
    for (const result of closed) if (result.status === 'rejected') throw result.reason;
  }
}
