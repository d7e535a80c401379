import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CHANNEL_ID_BYTES, encodeCredentialIdentity, logHashGenesis, type VerifiedHybridKey } from '@quicprochat/core';
import { EMPTY, KemId } from '@quicprochat/crypto';
import { nodeCrypto } from '@quicprochat/crypto/node';
import {
  createGroup,
  CredentialType,
  generateKeyPackage,
  generateSignatureKeyPair,
  type GroupState,
  mergePendingCommit,
  type MlsContext,
  roster,
  verifyKeyPackage,
} from '@quicprochat/mls';
import { encodeChannelExtension, QpcExtensionType } from '../profile/channel-extension.ts';
import { CAPABILITIES, GROUP_CONFIG, keyPackageLifetime, REQUIRED_CAPABILITIES } from '../profile/group-parameters.ts';
import { SUITE_CLASSICAL, SUITE_POST_QUANTUM } from '../profile/suites.ts';
import { validateCommit } from '../profile/validate-commit.ts';
import { type AddTarget, buildCommit, CommitTooLarge, type LogPlace, REQUEST_BYTES_MAX } from './build-commit.ts';
import { splitAdds } from './split-adds.ts';

const nowSecs = 1_700_000_000;
const random = (length: number): Uint8Array => nodeCrypto.random(length);
const context: MlsContext = {
  crypto: nodeCrypto,
  random,
  now: nowSecs,
  hooks: { validateMember: () => ({ kind: 'accept' }), validateCommit },
};
const channelId = random(CHANNEL_ID_BYTES);
// One for all, and its statement left out: whom a Welcome is sealed to does not matter here.
const hybridKey = {
  publicKey: nodeCrypto.kem(KemId.XWing).deriveKeyPair(random(32)).publicKey,
} as unknown as VerifiedHybridKey;

/** What is in a leaf and a KeyPackage of ours, the certificate as long as asked for. */
function device(suite: number, certificateBytes: number) {
  const address = { identityKey: random(32), deviceId: random(16) };
  const parameters = {
    cipherSuite: suite,
    credential: { credentialType: CredentialType.Basic, identity: encodeCredentialIdentity(address) },
    signatureKeyPair: generateSignatureKeyPair(context, suite),
    capabilities: CAPABILITIES,
    lifetime: keyPackageLifetime(nowSecs),
    leafNodeExtensions: [
      { extensionType: QpcExtensionType.DeviceCertificate, extensionData: new Uint8Array(certificateBytes) },
    ],
  };
  return { address, parameters };
}

function target(suite: number, certificateBytes: number): AddTarget {
  const { address, parameters } = device(suite, certificateBytes);
  const outcome = verifyKeyPackage(context, generateKeyPackage(context, parameters).keyPackage);
  assert.ok(outcome.kind !== 'rejected');
  return { address, username: 'somebody', keyPackage: outcome.keyPackage, hybridKey };
}

/** Adds them all to a new group, and returns how many came in with each commit, and how many members there are then. */
async function partsOf(suite: number, targets: readonly AddTarget[]) {
  const { address, parameters } = device(suite, 200);
  const channel = { channelId, kind: 'group', hub: '', admins: [address.identityKey], predecessor: EMPTY } as const;
  let state: GroupState = createGroup(context, {
    ...parameters,
    groupId: random(32),
    extensions: [
      REQUIRED_CAPABILITIES,
      { extensionType: QpcExtensionType.Channel, extensionData: encodeChannelExtension(channel) },
    ],
    config: GROUP_CONFIG,
  });
  const place: LogPlace = {
    channelId,
    position: 0n,
    logHash: logHashGenesis(nodeCrypto, channelId),
    epochPosition: 0n,
    envelopeKey: random(32),
    pqSalt: suite === SUITE_POST_QUANTUM ? EMPTY : random(32),
    checkpoint: EMPTY,
  };
  const parts: number[] = [];
  const trees: number[] = [];
  const commit = async (adds: readonly AddTarget[]): Promise<void> => {
    const surroundings = { nowMs: nowSecs * 1_000, metadata: EMPTY, hybridKeys: new Map() };
    const built = buildCommit(context, state, place, { adds }, surroundings);
    assert.ok(
      built.kind === 'built' && built.pending !== undefined,
      built.kind === 'rejected' ? built.reason : 'a commit without a pending epoch',
    );
    assert.ok(built.request.length <= REQUEST_BYTES_MAX);
    state = mergePendingCommit(context, built.state, built.pending);
    parts.push(adds.length);
    trees.push(built.tree?.reference.length ?? 0);
  };
  await splitAdds(targets, suite, commit);
  return { parts, trees, members: roster(state).length };
}

test('a post-quantum commit adds at most 200, and every part passes the rules of our groups', async () => {
  const targets = Array.from({ length: 203 }, () => target(SUITE_POST_QUANTUM, 200));
  const { parts, members } = await partsOf(SUITE_POST_QUANTUM, targets);
  assert.deepEqual({ parts, members }, { parts: [200, 3], members: 204 });
});

test('a classical commit adds at most 1,000', async () => {
  const parts: number[] = [];
  const numbers = Array.from({ length: 2_001 }, (_, i) => i);
  await splitAdds(numbers, SUITE_CLASSICAL, async (part) => void parts.push(part.length));
  assert.deepEqual(parts, [1_000, 1_000, 1]);
});

test('what is larger than the server takes is halved until it fits', async () => {
  // 160 certificates of 30,000 bytes stand in the commit; the tree that has them once more goes beside the Welcome.
  const targets = Array.from({ length: 160 }, () => target(SUITE_CLASSICAL, 30_000));
  const { parts, members, trees } = await partsOf(SUITE_CLASSICAL, targets);
  assert.deepEqual({ parts, members }, { parts: [80, 80], members: 161 });
  // The second one is larger than any Welcome.
  assert.ok(trees.every((bytes) => bytes > 2_400_000) && trees[1]! > 4 * 1024 * 1024, trees.join());
});

test('one that is too large by itself, and every other failure, is the caller’s to hear', async () => {
  await assert.rejects(partsOf(SUITE_CLASSICAL, [target(SUITE_CLASSICAL, 4_200_000)]), CommitTooLarge);
  const parts: (readonly number[])[] = [];
  const failing = splitAdds([1, 2, 3], SUITE_CLASSICAL, async (part) => {
    parts.push(part);
    if (part.length > 2) throw new CommitTooLarge();
    if (part.includes(3)) throw new Error('offline');
  });
  await assert.rejects(failing, { message: 'offline' });
  assert.deepEqual(parts, [[1, 2, 3], [1, 2], [3]]);
});
