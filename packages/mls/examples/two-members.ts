// Alice makes a group, adds Bob, and they write to each other.
import assert from 'node:assert/strict';
import * as mls from '@quicprochat/mls';
import { accepted, bytes, context, person, text } from './shared.ts';

const cipherSuite = mls.CipherSuiteId.MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

// Bob publishes a KeyPackage and keeps the bundle until a Welcome comes.
const bundle = mls.generateKeyPackage(context, person('Bob', cipherSuite));
const published = bundle.keyPackage;

// Alice creates a group and adds him.
let alice = mls.createGroup(context, { ...person('Alice', cipherSuite), groupId: context.random(32) });
const { keyPackage } = accepted(mls.verifyKeyPackage(context, published));
const made = accepted(mls.createCommit(context, alice, { proposals: [{ kind: 'add', keyPackage }] }));
// Submit `made.commit` to the group's other members, if there are any. When it was accepted:
alice = mls.mergePendingCommit(context, made.state, made.pending);

// Bob joins; the Welcome names the KeyPackages it was made for.
assert.deepEqual(accepted(mls.welcomeKeyPackageRefs(made.welcome!)).refs, [bundle.keyPackageRef]);
let bob = accepted(mls.joinGroup(context, { welcome: made.welcome!, keyPackage: bundle })).state;
assert.deepEqual(mls.epochAuthenticator(alice), mls.epochAuthenticator(bob));

// Alice writes. Her new state is stored before the message leaves (see storage-sql.ts).
const sent = mls.protectApplication(context, alice, bytes('Hello, Bob'), { authenticatedData: bytes('in clear') });
alice = sent.state;

// Bob reads.
const received = accepted(mls.processMessage(context, bob, sent.message));
assert.ok(received.kind === 'application');
bob = received.state;
console.log(`Bob reads: ${text(received.data)}`);

// Reading it twice is refused: its key is gone.
const again = mls.processMessage(context, bob, sent.message);
assert.ok(again.kind === 'rejected' && again.name === 'generationUsed');

// Both can derive further secrets from the epoch, for a call for example.
const secret = mls.exportSecret(context, alice, 'my application', bytes('call 1'), 32);
assert.deepEqual(secret, mls.exportSecret(context, bob, 'my application', bytes('call 1'), 32));
