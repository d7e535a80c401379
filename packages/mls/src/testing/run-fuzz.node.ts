/** `npm run fuzz -- [--seconds 60] [--seed S]`: the fuzzer of fuzz.node.ts; a failure prints the seed and round that repeat it. */
import { parseArgs } from 'node:util';
import { runFuzz } from './fuzz.node.ts';

const { values } = parseArgs({
  options: { seconds: { type: 'string', default: '60' }, seed: { type: 'string', default: `${process.pid}` } },
});
console.log(`fuzz: seed ${values.seed}, ${values.seconds} s`);
const report = runFuzz({ seed: values.seed, until: performance.now() + 1000 * Number(values.seconds) });
console.log(`${report.inputs} inputs in ${report.rounds} rounds, slowest ${report.slowestMs.toFixed(1)} ms`);
for (const [rule, count] of [...report.refusals].sort((a, b) => b[1] - a[1])) console.log(`  ${rule}: ${count}`);
if (report.slowestMs > 1000) {
  console.log('FAILED: an input took more than a second');
  process.exitCode = 1;
}
if (report.accepted > 0) {
  console.log(`FAILED: ${report.accepted} changed inputs were accepted`);
  process.exitCode = 1;
}
