/**
 * A block device: `size` bytes that can be read and written at any offset, as NBD serves them.
 *
 * Contract, in one sentence: a read sees every write whose promise has resolved (or that returned
 * undefined), `flush` makes all of those durable, and concurrent operations on overlapping ranges may take
 * effect in any order but never tear a byte. Offsets and lengths are bytes, any alignment, and inside
 * the device: callers check ranges first; implementations throw `range-invalid` all the same.
 *
 * Operations return undefined instead of a promise when they are done already: the hot path of a
 * cached read makes no promise.
 */
export interface BlockDevice {
  readonly size: number;
  readonly readOnly: boolean;
  /** Preferred grain of requests: a power of two. */
  readonly blockBytes: number;

  /**
   * Fills `target[targetOffset … + length − 1]`, zeros where nothing is stored. When `holes` is given, pairs of
   * (offset on the device, length) of ranges inside the request that are known to be holes are appended,
   * ascending; the target is filled with zeros there all the same.
   * @throws PandoError of kind `data` when stored bytes are damaged; the rest of the device stays readable
   */
  read(
    offset: number,
    length: number,
    target: Uint8Array,
    targetOffset: number,
    holes?: number[],
  ): Promise<void> | undefined;

  /**
   * Writes `data` (the device copies it before it returns). Resolves when the write is acknowledged:
   * it survives the process, and the machine after the next flush.
   * @throws `read-only`, `store-full`, `store-failed`
   */
  write(offset: number, data: Uint8Array): Promise<void> | undefined;

  /** Makes the range read as zeros and frees what it held. Costs the same for any length. Errors as write. */
  zero(offset: number, length: number): Promise<void> | undefined;

  /** Makes everything acknowledged so far, on this and every other handle of the device, durable. */
  flush(): Promise<void>;

  /** Brings the range into the cache as far as there is room. */
  prefetch(offset: number, length: number): Promise<void>;

  /** What lies where, from `offset`: see Extents. */
  allocation(offset: number, length: number, extentsMax: number): Promise<Extents>;
}

/**
 * Extents from the offset of the request on, without gaps, neighbours of different kind. They cover at
 * least one byte and at most the request; fewer than all of it when `extentsMax` were found first, or when finding
 * more would have taken long: who wants to know asks on from there.
 * Boundaries are multiples of blockBytes, except at the request's own ends and the device's end.
 */
export interface Extents {
  readonly lengths: number[];
  /** For each extent: true where nothing is stored and zeros are read. */
  readonly holes: boolean[];
}

/**
 * What some context says about a range: `flags[i]` holds for `lengths[i]` bytes, from the offset of the request on,
 * without gaps, neighbours of different flags. Coverage and boundaries as in Extents.
 */
export interface StatusExtents {
  readonly lengths: number[];
  readonly flags: number[];
}
