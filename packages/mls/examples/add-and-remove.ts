// A group grows by one commit for three, gives itself fresh keys, and removes a member, who reads nothing more.
import assert from 'node:assert/strict';
import * as mls from '@quicprochat/mls';
import { accepted, bytes, context, person, text } from './shared.ts';

const cipherSuite = mls.CipherSuiteId.MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
const bundles = ['Bob', 'Charlie', 'Dana'].map((name) => mls.generateKeyPackage(context, person(name, cipherSuite)));

// Everybody is added by one commit and joins with the same Welcome.
let alice = mls.createGroup(context, { ...person('Alice', cipherSuite), groupId: context.random(32) });
const proposals = bundles.map((bundle) => ({
  kind: 'add' as const,
  keyPackage: accepted(mls.verifyKeyPackage(context, bundle.keyPackage)).keyPackage,
}));
const added = accepted(mls.createCommit(context, alice, { proposals }));
alice = mls.mergePendingCommit(context, added.state, added.pending);
let [bob, charlie, dana] = bundles.map(
  (keyPackage) => accepted(mls.joinGroup(context, { welcome: added.welcome!, keyPackage })).state,
) as [mls.GroupState, mls.GroupState, mls.GroupState];

// An empty commit gives its sender fresh keys. In a group just made it also makes later commits small.
const update = accepted(mls.createCommit(context, bob));
alice = accepted(mls.processMessage(context, alice, update.commit)).state;
charlie = accepted(mls.processMessage(context, charlie, update.commit)).state;
dana = accepted(mls.processMessage(context, dana, update.commit)).state;
bob = mls.mergePendingCommit(context, update.state, update.pending);

// Charlie proposes to remove Dana; everyone keeps the proposal, and Alice commits to it by reference.
const proposed = accepted(mls.createProposal(context, charlie, { kind: 'remove', removed: mls.ownLeafIndex(dana) }));
charlie = proposed.state;
alice = accepted(mls.processMessage(context, alice, proposed.message)).state;
bob = accepted(mls.processMessage(context, bob, proposed.message)).state;
dana = accepted(mls.processMessage(context, dana, proposed.message)).state;
assert.equal(mls.pendingProposals(alice).length, 1);
const removal = accepted(mls.createCommit(context, alice));

// The others go on to the next epoch; Dana learns that she is out.
bob = accepted(mls.processMessage(context, bob, removal.commit)).state;
charlie = accepted(mls.processMessage(context, charlie, removal.commit)).state;
alice = mls.mergePendingCommit(context, removal.state, removal.pending);
const last = accepted(mls.processMessage(context, dana, removal.commit));
assert.ok(last.kind === 'commit' && last.effects.selfRemoved);
assert.ok(!mls.isActive(last.state));

const sent = mls.protectApplication(context, charlie, bytes('Is Dana gone?'));
assert.equal(mls.processMessage(context, last.state, sent.message).kind, 'rejected');
const received = accepted(mls.processMessage(context, alice, sent.message));
assert.ok(received.kind === 'application');
const names = mls
  .roster(alice)
  .map(({ credential }) => (credential.credentialType === 1 ? text(credential.identity) : ''));
console.log(`Alice reads: ${text(received.data)} (${names.join(', ')} are here)`);
