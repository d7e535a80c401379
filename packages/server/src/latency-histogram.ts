/**
 * How long calls took, by method and status, in Prometheus' text format. Observed once per call, so it counts by position
 * in an array; the library that keeps the other metrics looks each series up by its labels, which costs as much as the
 * rest of a small call.
 */
const BOUNDS_SECS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

interface Series {
  /** By the first bound that is not exceeded; behind the last, what exceeds all. */
  readonly counts: Float64Array;
  sum: number;
}

export class LatencyHistogram {
  readonly #name: string;
  readonly #help: string;
  readonly #labels: readonly [string, string];
  readonly #series = new Map<string, Map<string, Series>>();

  constructor(name: string, help: string, labels: readonly [string, string] = ['method', 'status']) {
    this.#name = name;
    this.#labels = labels;
    this.#help = help;
  }

  observe(method: string, status: string, seconds: number): void {
    let ofMethod = this.#series.get(method);
    if (ofMethod === undefined) {
      ofMethod = new Map();
      this.#series.set(method, ofMethod);
    }
    let series = ofMethod.get(status);
    if (series === undefined) {
      series = { counts: new Float64Array(BOUNDS_SECS.length + 1), sum: 0 };
      ofMethod.set(status, series);
    }
    let at = 0;
    while (at < BOUNDS_SECS.length && seconds > BOUNDS_SECS[at]!) at++;
    series.counts[at]! += 1;
    series.sum += seconds;
  }

  exposition(): string {
    const lines = [`# HELP ${this.#name} ${this.#help}`, `# TYPE ${this.#name} histogram`];
    for (const [method, ofMethod] of this.#series) {
      for (const [status, { counts, sum }] of ofMethod) {
        // Our own words, without a character that would have to be escaped.
        const labels = `${this.#labels[0]}="${method}",${this.#labels[1]}="${status}"`;
        let total = 0;
        for (const [at, count] of counts.entries()) {
          total += count;
          lines.push(`${this.#name}_bucket{le="${BOUNDS_SECS[at] ?? '+Inf'}",${labels}} ${total}`);
        }
        lines.push(`${this.#name}_sum{${labels}} ${sum}`, `${this.#name}_count{${labels}} ${total}`);
      }
    }
    return `${lines.join('\n')}\n`;
  }
}
