// `npm run fault -- --kills 50 --seed N`: the real server under load, killed with SIGKILL at random moments, also while it
// starts. Afterwards everything it ever promised is compared with what is there (history.ts). Exit code 1 and the evidence
// when a promise was broken.
//
//   --kills N   how often; 50
//   --seed TEXT of the moments and of what is sent; printed. What meets what is left to the machine, so a seed gives the
//               same kind of run, not the same run
//   --json      one object on standard output
import { parseArgs } from 'node:util';
import { killAgainAndAgain } from './kill-again-and-again.ts';

const { values } = parseArgs({
  options: { kills: { type: 'string' }, seed: { type: 'string' }, json: { type: 'boolean' } },
});
const kills = Number(values.kills ?? 50);
if (!Number.isInteger(kills) || kills < 1 || kills > 10_000) {
  console.error('--kills is a whole number from 1 to 10000');
  process.exit(2);
}
const seed = values.seed ?? String(Date.now() % 1_000_000);
const outcome = await killAgainAndAgain({ kills, seed, people: true, say: (line) => console.error(line) });
if (values.json === true) console.log(JSON.stringify({ v: 1, type: 'result', ...outcome }));
else {
  console.log(`seed ${seed}, ${outcome.database}, ${(outcome.elapsedMs / 1000).toFixed(0)} s`);
  for (const [name, count] of Object.entries(outcome.counts)) console.log(`  ${name.padEnd(28)} ${count}`);
  console.log(
    outcome.violations.length === 0 ? 'every promise was kept' : `${outcome.violations.length} promises were broken:`,
  );
  for (const violation of outcome.violations.slice(0, 100)) console.log(`  ${violation}`);
}
// Threads of the QUIC engine may linger; everything of ours is closed.
process.exit(outcome.violations.length === 0 ? 0 : 1);
