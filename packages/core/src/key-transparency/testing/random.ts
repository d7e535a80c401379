/** Numbers for property tests: the same for the same seed, which a failing test prints. */
export interface SeededRandom {
  readonly seed: number;
  /** A whole number from 0 up to, not including, `bound`. */
  readonly next: (bound: number) => number;
}

/** @param seed 32 bits; drawn if not given. */
export function randomFrom(seed = Math.floor(Math.random() * 2 ** 32)): SeededRandom {
  let state = seed >>> 0;
  // mulberry32
  const next = (bound: number): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * bound);
  };
  return { seed, next };
}
