/** One measured figure, with what it is measured against in the same run. */
export interface BenchResult {
  readonly name: string;
  readonly value: number;
  /** For example 'calls/s', 'ms', 'KB'. */
  readonly unit: string;
  /** What `value` is compared with, in the same unit, and what that is. */
  readonly baseline?: { readonly name: string; readonly value: number };
  /** value / baseline. */
  readonly ratio?: number;
  /** What the design asks for: a bound on the ratio where there is a baseline, else on the value. */
  readonly target?: { readonly of: 'ratio' | 'value'; readonly atLeast?: number; readonly atMost?: number };
  readonly met?: boolean;
}

export interface BenchOptions {
  /** Shorter runs: a smoke test of the benchmark, not a figure to quote. */
  readonly quick: boolean;
}

/** A benchmark yields its figures as it measures them. */
export type Bench = (options: BenchOptions) => AsyncIterable<BenchResult>;

/** Completes a figure with its ratio and whether its target is met. */
export function figure(result: Omit<BenchResult, 'ratio' | 'met'>): BenchResult {
  const { baseline, target } = result;
  const ratio = baseline ? result.value / baseline.value : undefined;
  const judged = target?.of === 'ratio' ? ratio : result.value;
  return {
    ...result,
    ...(ratio === undefined ? {} : { ratio }),
    ...(target === undefined || judged === undefined
      ? {}
      : { met: judged >= (target.atLeast ?? -Infinity) && judged <= (target.atMost ?? Infinity) }),
  };
}

/** The q-quantile (0 to 1) of the samples, by nearest rank. */
export function quantile(samples: readonly number[], q: number): number {
  const sorted = samples.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(q * sorted.length) - 1))] ?? Number.NaN;
}

export function median(samples: readonly number[]): number {
  return quantile(samples, 0.5);
}
