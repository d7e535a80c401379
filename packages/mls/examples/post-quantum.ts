// A group of two moves from the classical suite to the post-quantum one: a ReInit closes the old group, and the new one
// begins with the old one's members, bound to it by its resumption secret.
import assert from 'node:assert/strict';
import * as mls from '@quicprochat/mls';
import { accepted, bytes, context, person, text } from './shared.ts';

const classical = mls.CipherSuiteId.MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
const postQuantum = mls.CipherSuiteId.MLS_128_MLKEM768X25519_AES256GCM_SHA384_Ed25519;

// Both suites sign with Ed25519, so signature keys stay.
const [alicesKeys, bobsKeys] = [person('Alice', classical), person('Bob', classical)];
let alice = mls.createGroup(context, { ...alicesKeys, groupId: context.random(32) });
const bundle = mls.generateKeyPackage(context, bobsKeys);
const { keyPackage } = accepted(mls.verifyKeyPackage(context, bundle.keyPackage));
const added = accepted(mls.createCommit(context, alice, { proposals: [{ kind: 'add', keyPackage }] }));
alice = mls.mergePendingCommit(context, added.state, added.pending);
let bob = accepted(mls.joinGroup(context, { welcome: added.welcome!, keyPackage: bundle })).state;

// Closing: nobody can send in this group afterwards.
const groupId = context.random(32);
const closing = accepted(
  mls.createCommit(context, alice, { proposals: [{ kind: 'reInit', groupId, cipherSuite: postQuantum }] }),
);
bob = accepted(mls.processMessage(context, bob, closing.commit)).state;
alice = mls.mergePendingCommit(context, closing.state, closing.pending);
assert.equal(mls.reInitOf(bob)?.cipherSuite, postQuantum);

// Any member makes the new group, with KeyPackages of all others in the new suite.
const newBundle = mls.generateKeyPackage(context, { ...bobsKeys, cipherSuite: postQuantum });
const { keyPackage: newKeyPackage } = accepted(mls.verifyKeyPackage(context, newBundle.keyPackage));
const opened = accepted(mls.createReinitializedGroup(context, alice, { ...alicesKeys, keyPackages: [newKeyPackage] }));
alice = opened.state;

// Bob accepts only a Welcome that continues exactly this group.
bob = accepted(mls.joinGroup(context, { welcome: opened.welcome, keyPackage: newBundle, previous: bob })).state;
const sent = mls.protectApplication(context, bob, bytes('Harvest this now, decrypt it never'));
const received = accepted(mls.processMessage(context, alice, sent.message));
assert.ok(received.kind === 'application');
console.log(`Alice reads, in suite 0x${mls.groupContext(alice).cipherSuite.toString(16)}: ${text(received.data)}`);
