/** Numbers as a line of small bars. */
const BARS = '▁▂▃▄▅▆▇█';

/** At most `width` bars from the least number, which is the lowest one, to the greatest; where there are more numbers, each bar is the greatest of some. */
export function sparkline(numbers: readonly number[], width: number): string {
  const groups = Math.min(numbers.length, width);
  const found: number[] = [];
  for (let i = 0; i < groups; i++) {
    const group = numbers.slice(
      Math.floor((i * numbers.length) / groups),
      Math.floor(((i + 1) * numbers.length) / groups),
    );
    found.push(Math.max(...group));
  }
  const least = Math.min(...found);
  const range = Math.max(...found) - least;
  const barOf = (number: number): string =>
    BARS[range === 0 ? 0 : Math.min(BARS.length - 1, Math.floor(((number - least) / range) * BARS.length))]!;
  return found.map(barOf).join('');
}
