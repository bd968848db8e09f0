/** The figures of `/metrics` as numbers by name and labels, and what grew between two looks. */

export type Scrape = ReadonlyMap<string, number>;

const SAMPLE = /^([a-zA-Z_:][\w:]*(?:\{.*\})?) (\S+)$/;

/** Keys are as they are printed: `name{label="value"}`. */
export function parseMetrics(text: string): Scrape {
  const found = new Map<string, number>();
  for (const line of text.split('\n')) {
    const [, key, value] = SAMPLE.exec(line) ?? [];
    if (key !== undefined) found.set(key, Number(value));
  }
  return found;
}

/** What a counter has grown by; all of it where it began anew in between. */
export function grown(before: Scrape, after: Scrape, key: string): number {
  const now = after.get(key) ?? 0;
  const then = before.get(key) ?? 0;
  return now < then ? now : now - then;
}

/** Sum over all labels of a name. */
export function sumOf(scrape: Scrape, name: string): number {
  let sum = 0;
  for (const [key, value] of scrape) if (key === name || key.startsWith(`${name}{`)) sum += value;
  return sum;
}
