import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CipherSuiteId } from './index.ts';
import { runChurn } from './testing/churn.node.ts';
import { testSeed } from './testing/world.node.ts';

test('churn: random epochs, races, restarts; all members agree, removed ones are locked out', () => {
  const report = runChurn({ seed: testSeed('churn'), steps: 60, membersMax: 12 });
  assert.ok(
    report.epochs > 30 &&
      report.messages > 0 &&
      report.restarts > 0 &&
      report.pathsTried > 0 &&
      report.externalJoins > 0,
    JSON.stringify(report),
  );
});

test('churn in the post-quantum suite', () => {
  const suite = CipherSuiteId.MLS_128_MLKEM768X25519_AES256GCM_SHA384_Ed25519;
  const report = runChurn({ seed: testSeed('churn pq'), steps: 20, membersMax: 6, suite });
  assert.ok(report.epochs > 8, JSON.stringify(report));
});
