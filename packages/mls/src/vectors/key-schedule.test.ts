import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeGroupContext, epochKeys, joinerSecret, mlsExporter, welcomeSecret } from '../key-schedule.ts';
import { assertHex, loadVectors, providers, suiteCases, unhex } from '../testing/vectors.node.ts';

interface Epoch {
  readonly commit_secret: string;
  readonly psk_secret: string;
  readonly confirmed_transcript_hash: string;
  readonly tree_hash: string;
  readonly group_context: string;
  readonly joiner_secret: string;
  readonly welcome_secret: string;
  readonly init_secret: string;
  readonly sender_data_secret: string;
  readonly encryption_secret: string;
  readonly exporter_secret: string;
  readonly external_secret: string;
  readonly external_pub: string;
  readonly confirmation_key: string;
  readonly membership_key: string;
  readonly resumption_psk: string;
  readonly epoch_authenticator: string;
  readonly exporter: { label: string; context: string; length: number; secret: string };
}

interface Vector {
  readonly cipher_suite: number;
  readonly group_id: string;
  readonly initial_init_secret: string;
  readonly epochs: readonly Epoch[];
}

for (const crypto of providers) {
  test(`key-schedule (RFC 9420 section 8) on ${crypto.name}`, () => {
    const cases = suiteCases(loadVectors<Vector>('key-schedule'), crypto);
    assert.equal(cases.length, 5);
    for (const { suite, vector } of cases) {
      let init = unhex(vector.initial_init_secret);
      assert.ok(vector.epochs.length > 0);
      vector.epochs.forEach((epoch, i) => {
        const contextBytes = encodeGroupContext({
          version: 1,
          cipherSuite: suite.id,
          groupId: unhex(vector.group_id),
          epoch: BigInt(i),
          treeHash: unhex(epoch.tree_hash),
          confirmedTranscriptHash: unhex(epoch.confirmed_transcript_hash),
          extensions: [],
        });
        assertHex(contextBytes, epoch.group_context);
        const joiner = joinerSecret(suite, init, unhex(epoch.commit_secret), contextBytes);
        assertHex(joiner, epoch.joiner_secret);
        assertHex(welcomeSecret(suite, joiner, unhex(epoch.psk_secret)), epoch.welcome_secret);
        const { secrets, encryptionSecret } = epochKeys(suite, joiner, unhex(epoch.psk_secret), contextBytes);
        assertHex(encryptionSecret, epoch.encryption_secret);
        assertHex(secrets.initSecret, epoch.init_secret);
        assertHex(secrets.senderDataSecret, epoch.sender_data_secret);
        assertHex(secrets.exporterSecret, epoch.exporter_secret);
        assertHex(secrets.externalSecret, epoch.external_secret);
        assertHex(suite.kem.deriveKeyPair(secrets.externalSecret).publicKey, epoch.external_pub);
        assertHex(secrets.confirmationKey, epoch.confirmation_key);
        assertHex(secrets.membershipKey, epoch.membership_key);
        assertHex(secrets.resumptionPsk, epoch.resumption_psk);
        assertHex(secrets.epochAuthenticator, epoch.epoch_authenticator);
        const { exporter } = epoch;
        assertHex(
          mlsExporter(suite, secrets.exporterSecret, exporter.label, unhex(exporter.context), exporter.length),
          exporter.secret,
        );
        init = secrets.initSecret;
      });
    }
  });
}
