// npm run bench -- [AREA …] [--quick] [--json]: prints what it measured, each figure beside its baseline of the same run.
import { availableParallelism, cpus } from 'node:os';
import type { Bench, BenchResult } from './result.ts';

const areas: Readonly<Record<string, () => Promise<Bench>>> = {
  transport: async () => (await import('./transport.ts')).transportBench,
  mls: async () => (await import('./mls.ts')).mlsBench,
  'mls-browser': async () => (await import('./mls-browser.ts')).mlsBrowserBench,
  server: async () => (await import('./server.ts')).serverBench,
  'end-to-end': async () => (await import('./end-to-end.ts')).endToEndBench,
};

// So that what has to be cleared away at the end is.
for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  process.once(signal, () => process.exit(code));
}

const args = process.argv.slice(2);
const quick = args.includes('--quick');
const json = args.includes('--json');
const chosen = args.filter((argument) => !argument.startsWith('--'));
const unknown = [
  ...chosen.filter((area) => !(area in areas)),
  ...args.filter((argument) => argument.startsWith('--') && argument !== '--quick' && argument !== '--json'),
];

if (unknown.length > 0) {
  console.error(`Unknown: ${unknown.join(', ')}. Areas: ${Object.keys(areas).join(', ')}. Options: --quick, --json.`);
  process.exitCode = 2;
} else {
  if (!json)
    console.log(`Node ${process.version}, ${availableParallelism()} cores, ${cpus()[0]?.model ?? 'unknown processor'}`);
  for (const area of chosen.length > 0 ? chosen : Object.keys(areas)) {
    const bench = await areas[area]?.();
    if (!bench) continue;
    if (!json) console.log(`\n${area}${quick ? ' (quick: not to be quoted)' : ''}`);
    for await (const result of bench({ quick })) print(area, result);
  }
}

function print(area: string, result: BenchResult): void {
  if (json) {
    const { baseline, target, ...rest } = result;
    const bound = target && (target.atLeast ?? target.atMost);
    console.log(
      JSON.stringify({
        ...rest,
        name: `${area}/${result.name}`,
        baseline: baseline?.value ?? null,
        baselineName: baseline?.name ?? null,
        ratio: result.ratio ?? null,
        target: bound === undefined ? null : `${target?.of} ${target?.atLeast === undefined ? '<=' : '>='} ${bound}`,
        met: result.met ?? null,
      }),
    );
    return;
  }
  const { baseline, target } = result;
  const against = baseline
    ? `  ${format(result.ratio ?? Number.NaN)} × ${baseline.name} (${format(baseline.value)} ${result.unit})`
    : '';
  const wanted = target
    ? `  ${result.met ? 'met' : 'MISSED'}: ${target.of === 'ratio' ? '× ' : ''}${target.atLeast === undefined ? `≤ ${target.atMost}` : `≥ ${target.atLeast}`}`
    : '';
  console.log(
    `  ${result.name.padEnd(44)} ${`${format(result.value)} ${result.unit}`.padStart(18)}${against}${wanted}`,
  );
}

function format(value: number): string {
  return value >= 1000 ? Math.round(value).toLocaleString('en') : value.toPrecision(3);
}
