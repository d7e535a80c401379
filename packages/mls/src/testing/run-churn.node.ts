/**
 * `npm run churn -- [--steps 10000] [--seed S] [--suite pq|<number>] [--members 64]`: the full churn test. A failure
 * prints the seed and the step; the same seed repeats it.
 */
import { parseArgs } from 'node:util';
import { CipherSuiteId } from '../index.ts';
import { runChurn } from './churn.node.ts';

const { values } = parseArgs({
  options: {
    steps: { type: 'string', default: '10000' },
    seed: { type: 'string', default: `${process.pid}` },
    suite: { type: 'string', default: '1' },
    members: { type: 'string', default: '64' },
  },
});
const suite =
  values.suite === 'pq' ? CipherSuiteId.MLS_128_MLKEM768X25519_AES256GCM_SHA384_Ed25519 : Number(values.suite);
console.log(
  `churn: seed ${values.seed}, ${values.steps} steps, suite ${values.suite}, up to ${values.members} members`,
);
const start = performance.now();
const report = runChurn({
  seed: values.seed,
  steps: Number(values.steps),
  membersMax: Number(values.members),
  suite,
  onProgress: (step, { epochs, members }) => {
    if (step % 500 === 0) console.log(`  step ${step}: ${epochs} epochs, ${members} members`);
  },
});
console.log(JSON.stringify(report));
console.log(`passed in ${((performance.now() - start) / 1000).toFixed(1)} s`);
