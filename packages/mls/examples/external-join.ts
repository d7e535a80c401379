// A group that lets clients in by themselves: Bob joins with nothing but the group's GroupInfo.
import assert from 'node:assert/strict';
import * as mls from '@quicprochat/mls';
import { accepted, bytes, context, person, text } from './shared.ts';

const cipherSuite = mls.CipherSuiteId.MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

// The group says in its own context that it does; every member has to understand that extension.
const capabilities = { extensions: [mls.ExtensionType.ExternalJoins] };
const extensions = [
  {
    extensionType: mls.ExtensionType.ExternalJoins,
    extensionData: mls.encodeExternalJoins({ commits: true, proposals: false }),
  },
];
let alice = mls.createGroup(context, {
  ...person('Alice', cipherSuite),
  groupId: context.random(32),
  capabilities,
  extensions,
});
// Published, and replaced after each commit, which makes it stale.
const groupInfo = mls.createGroupInfo(context, alice);

const joining = accepted(mls.joinByExternalCommit(context, { ...person('Bob', cipherSuite), groupInfo, capabilities }));
// Submit `joining.commit`. Accepted: go on with `joining.state`. Refused: wipeGroup(context, joining.state), and begin
// again with a newer GroupInfo.
const step = accepted(mls.processMessage(context, alice, joining.commit));
assert.ok(step.kind === 'commit' && step.effects.external && step.effects.added.length === 1);
alice = step.state;
const bob = joining.state;

const sent = mls.protectApplication(context, bob, bytes('I let myself in'));
const received = accepted(mls.processMessage(context, alice, sent.message));
assert.ok(received.kind === 'application');
console.log(`Alice reads: ${text(received.data)}`);

// A group without the extension lets nobody in.
const closed = mls.createGroup(context, { ...person('Charlie', cipherSuite), groupId: context.random(32) });
const info = mls.createGroupInfo(context, closed, { externalPub: true });
const refused = mls.joinByExternalCommit(context, { ...person('Bob', cipherSuite), groupInfo: info });
assert.ok(refused.kind === 'rejected' && refused.name === 'senderType');
