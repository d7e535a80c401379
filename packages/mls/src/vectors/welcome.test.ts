import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EMPTY } from '@quicprochat/crypto';
import { decryptWithLabel, verifyWithLabel } from '../cipher-suites.ts';
import { decode, encode } from '../codec.ts';
import {
  confirmationTag,
  derivePskSecret,
  encodeGroupContext,
  epochKeys,
  welcomeKey,
  welcomeSecret,
} from '../key-schedule.ts';
import { keyPackageRef, readKeyPackageMessage } from '../leaf-node.ts';
import { readGroupInfo, readGroupSecrets, readMlsMessage, writeUnsignedGroupInfo } from '../structures.ts';
import { loadVectors, providers, suiteCases, unhex } from '../testing/vectors.node.ts';

interface Vector {
  readonly cipher_suite: number;
  readonly init_priv: string;
  readonly signer_pub: string;
  readonly key_package: string;
  readonly welcome: string;
}

for (const crypto of providers) {
  test(`welcome (RFC 9420 section 12.4.3.1) on ${crypto.name}`, () => {
    const cases = suiteCases(loadVectors<Vector>('welcome'), crypto);
    assert.equal(cases.length, 5);
    for (const { suite, vector } of cases) {
      const message = decode(readMlsMessage, unhex(vector.welcome));
      assert.ok(message.wireFormat === 3);
      const { welcome } = message;
      const ref = keyPackageRef(suite, readKeyPackageMessage(unhex(vector.key_package)));
      const entry = welcome.secrets.find(({ newMember }) => Buffer.from(newMember).equals(ref));
      assert.ok(entry);
      const secretBytes = decryptWithLabel(
        suite,
        unhex(vector.init_priv),
        'Welcome',
        welcome.encryptedGroupInfo,
        entry.encryptedGroupSecrets,
      );
      assert.ok(secretBytes);
      const groupSecrets = decode(readGroupSecrets, secretBytes);
      assert.deepEqual(groupSecrets.psks, []);
      const pskSecret = derivePskSecret(suite, []);
      const { key, nonce } = welcomeKey(suite, welcomeSecret(suite, groupSecrets.joinerSecret, pskSecret));
      const infoBytes = suite.aead.open(key, nonce, EMPTY, welcome.encryptedGroupInfo);
      assert.ok(infoBytes);
      const info = decode(readGroupInfo, infoBytes);
      const tbs = encode(writeUnsignedGroupInfo, info);
      assert.ok(verifyWithLabel(suite, unhex(vector.signer_pub), 'GroupInfoTBS', tbs, info.signature));
      const context = encodeGroupContext(info.groupContext);
      const { secrets } = epochKeys(suite, groupSecrets.joinerSecret, pskSecret, context);
      const tag = confirmationTag(suite, secrets.confirmationKey, info.groupContext.confirmedTranscriptHash);
      assert.deepEqual(tag, info.confirmationTag);
    }
  });
}
