/** Lists are given out a page at a time, with a cursor for the next. */
export interface Page<T> {
  readonly items: readonly T[];
  /** Where the next page starts; absent on the last page. */
  readonly nextCursor?: string;
}

export interface PageRequest {
  readonly cursor?: string;
  /** 1 to 1000, default 100. */
  readonly limit?: number;
}
