// X.509 credentials. To the library they are opaque chains, leaf first; whether one is genuine, and belongs to the
// signature key it stands beside, says the application's hook. Here: issued by our authority for that very key.
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import * as mls from '@quicprochat/mls';
import { authority, issue } from './certificates.ts';
import { accepted, context, newContext } from './shared.ts';

const cipherSuite = mls.CipherSuiteId.MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

/** Asked for each member when joining and for every leaf that comes in, alike by all members: so not of the clock. */
function validateMember({ credential, signatureKey }: mls.Member): mls.Verdict {
  if (credential.credentialType !== mls.CredentialType.X509) return { kind: 'reject', reason: 'not a certificate' };
  const [leaf] = credential.certificates;
  if (leaf === undefined) return { kind: 'reject', reason: 'no certificate' };
  try {
    const certificate = new X509Certificate(leaf);
    const key = certificate.publicKey.export({ format: 'jwk' }).x;
    if (key !== Buffer.from(signatureKey).toString('base64url')) return { kind: 'reject', reason: 'of another key' };
    const issued = certificate.checkIssued(authority.certificate) && certificate.verify(authority.publicKey);
    return issued ? { kind: 'accept' } : { kind: 'reject', reason: 'not issued by us' };
  } catch {
    return { kind: 'reject', reason: 'malformed' };
  }
}

const checked = newContext({ validateMember });

function certified(name: string, certificates: (publicKey: Uint8Array) => Uint8Array[]) {
  const signatureKeyPair = mls.generateSignatureKeyPair(context, cipherSuite);
  const credential = {
    credentialType: mls.CredentialType.X509,
    certificates: certificates(signatureKeyPair.publicKey),
  } as const;
  return { name, cipherSuite, signatureKeyPair, credential };
}

let alice = mls.createGroup(checked, {
  ...certified('Alice', (publicKey) => [issue('Alice', publicKey)]),
  groupId: context.random(32),
});
const add = (bundle: mls.KeyPackageBundle): mls.CommitOutcome => {
  const { keyPackage } = accepted(mls.verifyKeyPackage(checked, bundle.keyPackage));
  return mls.createCommit(checked, alice, { proposals: [{ kind: 'add', keyPackage }] });
};

const bundle = mls.generateKeyPackage(
  checked,
  certified('Bob', (publicKey) => [issue('Bob', publicKey)]),
);
const made = accepted(add(bundle));
alice = mls.mergePendingCommit(checked, made.state, made.pending);
const bob = accepted(mls.joinGroup(checked, { welcome: made.welcome!, keyPackage: bundle })).state;
assert.equal(mls.roster(bob).length, 2);

// Mallory shows Bob's certificate, beside a key of her own.
const [bobsCertificate] = [issue('Bob', mls.roster(bob)[1]!.signatureKey)];
const refused = add(
  mls.generateKeyPackage(
    checked,
    certified('Mallory', () => [bobsCertificate]),
  ),
);
assert.ok(refused.kind === 'rejected' && refused.name === 'leafCredential');
console.log(`Mallory is refused: ${refused.reason}`);
