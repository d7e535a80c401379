import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeHex } from '@quicprochat/crypto';
import { nodeCrypto } from '@quicprochat/crypto/node';
import {
  epochAuthenticator,
  groupRows,
  joinGroup,
  memoryRows,
  type MlsContext,
  processMessage,
  restoreGroup,
} from '../index.ts';
import { keyPackageRef, readKeyPackageMessage } from '../leaf-node.ts';
import {
  assertHex,
  loadVectors,
  suiteCases,
  unhex,
  unhexKemPrivateKey,
  unhexPrivateKey,
} from '../testing/vectors.node.ts';

interface Vector {
  readonly cipher_suite: number;
  readonly external_psks: readonly { psk_id: string; psk: string }[];
  readonly key_package: string;
  readonly signature_priv: string;
  readonly encryption_priv: string;
  readonly init_priv: string;
  readonly welcome: string;
  readonly ratchet_tree: string | null;
  readonly initial_epoch_authenticator: string;
  readonly epochs: readonly { proposals: readonly string[]; commit: string; epoch_authenticator: string }[];
}

test('passive-client-welcome: join, and follow the epochs given', () => {
  const cases = suiteCases(loadVectors<Vector>('passive-client-welcome'));
  assert.equal(cases.length, 40);
  for (const { suite, vector } of cases) {
    const psks = new Map(vector.external_psks.map(({ psk_id: id, psk }) => [id, unhex(psk)]));
    const context: MlsContext = {
      crypto: nodeCrypto,
      random: nodeCrypto.random,
      now: 0,
      hooks: { externalPsk: (id) => psks.get(encodeHex(id)) },
    };
    const keyPackage = unhex(vector.key_package);
    const outcome = joinGroup(context, {
      welcome: unhex(vector.welcome),
      keyPackage: {
        keyPackage,
        keyPackageRef: keyPackageRef(suite, readKeyPackageMessage(keyPackage)),
        initPrivateKey: unhexKemPrivateKey(suite, vector.init_priv),
        encryptionPrivateKey: unhexKemPrivateKey(suite, vector.encryption_priv),
        signaturePrivateKey: unhexPrivateKey(suite, vector.signature_priv),
      },
      ...(vector.ratchet_tree === null ? {} : { ratchetTree: unhex(vector.ratchet_tree) }),
    });
    assert.ok(outcome.kind === 'joined', outcome.kind);
    let { state } = outcome;
    assertHex(epochAuthenticator(state), vector.initial_epoch_authenticator);
    for (const epoch of vector.epochs) {
      for (const message of [...epoch.proposals, epoch.commit]) {
        const step = processMessage(context, state, unhex(message));
        assert.ok(step.kind === 'proposal' || step.kind === 'commit', step.kind);
        ({ state } = step);
      }
      assertHex(epochAuthenticator(state), epoch.epoch_authenticator);
    }
    assertHex(
      epochAuthenticator(restoreGroup(context, memoryRows(groupRows(state)))),
      encodeHex(epochAuthenticator(state)),
    );
  }
});
