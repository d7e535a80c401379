// THREATS 31, 1, 30: what a member must not do with a ReInit. The attacker builds entries by hand, without our rules, and
// puts them into the log: everybody skips them alike, and the group goes on as it was.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { encodeCredentialIdentity, logHashNext } from '@quicprochat/core';
import { EMPTY } from '@quicprochat/crypto';
import { nodeCrypto } from '@quicprochat/crypto/node';
import {
  createCommit,
  createGroup,
  createReinitializedGroup,
  CredentialType,
  type GroupState,
  groupView,
  memoryRows,
  mergePendingCommit,
  type MlsContext,
  restoreGroup,
  roster,
  verifyKeyPackage,
  type VerifiedKeyPackage,
} from '@quicprochat/mls';
import { Status } from '@quicprochat/proto';
import { methods, RpcError } from '@quicprochat/transport';
import type { HandshakeBundle } from '../packages/client/src/message/index.ts';
import {
  createMessageId,
  encodeHandshakeBundle,
  encodeWelcomeBody,
  PayloadKind,
  sealDirect,
  sealGroup,
} from '../packages/client/src/message/index.ts';
import { encodeCommitAuthenticatedData } from '../packages/client/src/profile/authenticated-data.ts';
import { QpcExtensionType } from '../packages/client/src/profile/channel-extension.ts';
import { CAPABILITIES, keyPackageLifetime } from '../packages/client/src/profile/group-parameters.ts';
import { addressOf } from '../packages/client/src/profile/member.ts';
import { SUITE_CLASSICAL, SUITE_POST_QUANTUM } from '../packages/client/src/profile/suites.ts';
import { successorExtensions } from '../packages/client/src/profile/validate-commit.ts';
import { Meddler } from './meddler.ts';
import { type Person, World } from './world.ts';

let world: World;
let alice: Person;
let bob: Person;
let mallory: Person;
const forBob = new Meddler();
const forMallory = new Meddler();

before(async () => {
  world = await World.start();
  [alice, bob, mallory] = await Promise.all([
    world.person('alice', { treeInlineBytesMax: 1 }),
    world.person('bob', { wrapDialer: forBob.wrap }),
    world.person('mallory', { wrapDialer: forMallory.wrap }),
  ]);
});
after(async () => {
  await world[Symbol.asyncDispose]();
});

const random = (length: number): Uint8Array => nodeCrypto.random(length);
const hexBytes = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex, 'hex'));
const nowSecs = (): number => Math.floor(Date.now() / 1000);

/** MLS without our rules. */
const lawless = (): MlsContext => ({ crypto: nodeCrypto, random, now: nowSecs() });

interface Crafted {
  readonly commit: Uint8Array;
  readonly welcome: Uint8Array;
}

/** Mallory's group as it is on disk, and where it stands. */
function stateOf(channelId: Uint8Array): GroupState {
  return restoreGroup(lawless(), memoryRows([...mallory.store.mlsRows.reader(channelId).list('')]));
}

async function keyPackageOf(identityKey: Uint8Array, suite: number): Promise<VerifiedKeyPackage> {
  const { keyPackages } = await forMallory.call(methods.keys.fetchKeyPackage, { identityKey, suite });
  const outcome = verifyKeyPackage(lawless(), keyPackages[0]!.keyPackage.slice());
  assert.ok(outcome.kind === 'verified');
  return outcome.keyPackage;
}

/** A ReInit of Mallory's and the Welcome to the group it opens. */
async function craft(channelId: Uint8Array, suite: number, strangers: readonly Uint8Array[] = []): Promise<Crafted> {
  const state = stateOf(channelId);
  const { logHash } = mallory.store.conversations.get(channelId)!;
  const made = createCommit(lawless(), state, {
    proposals: [
      { kind: 'reInit', groupId: random(32), cipherSuite: suite, extensions: successorExtensions(groupView(state))! },
    ],
    byReference: 'none',
    path: true,
    authenticatedData: encodeCommitAuthenticatedData({
      channelId,
      logHash,
      pqCommitment: undefined,
      checkpoint: EMPTY,
    }),
  });
  assert.ok(made.kind === 'committed');
  const account = mallory.store.account.get()!;
  const others = roster(state)
    .map((member) => addressOf(member)!.identityKey)
    .filter((key) => Buffer.compare(key, account.identityKey) !== 0);
  const created = createReinitializedGroup(lawless(), mergePendingCommit(lawless(), made.state, made.pending), {
    ...mallorysPart(),
    keyPackages: await Promise.all([...others, ...strangers].map((key) => keyPackageOf(key, suite))),
  });
  assert.ok(created.kind === 'created');
  return { commit: made.commit, welcome: created.welcome };
}

/** Puts an entry of Mallory's into the log, in the epoch that began with this position. */
async function submit(channelId: Uint8Array, bundle: HandshakeBundle, epoch?: bigint): Promise<void> {
  const { epochPosition, position } = mallory.store.conversations.get(channelId)!;
  const began = epoch ?? epochPosition;
  const { key } = mallory.store.conversations.envelopeKey(channelId, began)!;
  const place = { key, position: began, channelId };
  const payload = sealGroup(lawless(), place, PayloadKind.Handshake, encodeHandshakeBundle(bundle));
  const { outcome } = await forMallory.call(methods.delivery.submitCommit, {
    channelId,
    after: position,
    messageId: createMessageId(Date.now(), random),
    payload,
  });
  assert.equal(outcome.case, 'accepted');
}

/** What Mallory is in a group of her own making. */
function mallorysPart() {
  const account = mallory.store.account.get()!;
  const { identityKey, deviceId } = account;
  return {
    credential: { credentialType: CredentialType.Basic, identity: encodeCredentialIdentity({ identityKey, deviceId }) },
    signatureKeyPair: { publicKey: account.deviceKey, privateKey: account.devicePrivateKey },
    capabilities: CAPABILITIES,
    lifetime: keyPackageLifetime(nowSecs()),
    leafNodeExtensions: [{ extensionType: QpcExtensionType.DeviceCertificate, extensionData: account.certificate }],
  } as const;
}

function skipped(person: Person, conversationId: string, words: RegExp): boolean {
  return person.events.some(
    (event) =>
      event.type === 'warning' &&
      event.code === 'skipped-entry' &&
      event.conversationId === conversationId &&
      words.test(event.text),
  );
}

/** Everybody passes the last entry over for this reason, and goes on in the group they were in. */
async function allSkip(id: string, name: string, words: RegExp, suite: number): Promise<void> {
  for (const one of [alice, bob]) await one.until(`skipped: ${words}`, () => skipped(one, id, words));
  await alice.say(name, 'still here');
  await bob.until('heard', async () => (await bob.texts(name)).at(-1) === 'still here');
  for (const one of [alice, bob]) assert.equal((await one.conversation(name)).suite, suite);
}

async function groupWithMallory(name: string, suite: 'classical' | 'post-quantum', admin: boolean): Promise<string> {
  const { id } = await alice.client.createGroup(name, { suite });
  await alice.client.invite(id, ['bob', 'mallory']);
  for (const one of [bob, mallory]) await one.joined(name);
  if (admin) {
    await alice.client.setAdmin(id, 'mallory', true);
    for (const one of [bob, mallory]) {
      await one.until('administrator', async () =>
        (await one.client.members(id)).some(({ username, admin: isAdmin }) => username === 'mallory' && isAdmin),
      );
    }
  }
  return id;
}

test('who is no administrator moves nobody; half a ReInit, or one with strangers, moves nobody', async () => {
  const name = 'not yours';
  const id = await groupWithMallory(name, 'classical', false);
  const channelId = hexBytes(id);
  const { commit, welcome } = await craft(channelId, SUITE_POST_QUANTUM);
  await submit(channelId, { proposals: [], commit, successor: { tree: undefined, welcome } });
  await allSkip(id, name, /P26/, SUITE_CLASSICAL);

  await alice.client.setAdmin(id, 'mallory', true);
  await mallory.until('administrator', async () =>
    (await mallory.client.members(id)).every(({ self, admin }) => !self || admin),
  );
  const half = await craft(channelId, SUITE_POST_QUANTUM);
  await submit(channelId, { proposals: [], commit: half.commit });
  await allSkip(id, name, /without opening another/, SUITE_CLASSICAL);

  // Mallory's own client has skipped its entry like everybody's.
  await mallory.until('skipped', () => skipped(mallory, id, /without opening another|own/));
  const eve = await world.person('eve');
  const stranger = hexBytes((await eve.client.whoami())!.identityKey);
  const crowded = await craft(channelId, SUITE_POST_QUANTUM, [stranger]);
  await submit(channelId, {
    proposals: [],
    commit: crowded.commit,
    successor: { tree: undefined, welcome: crowded.welcome },
  });
  await allSkip(id, name, /not for all members/, SUITE_CLASSICAL);
  await eve.close();
});

test('nobody, administrator or not, moves a group back into a classical suite', async () => {
  const name = 'not down';
  const id = await groupWithMallory(name, 'post-quantum', true);
  const channelId = hexBytes(id);
  const { commit, welcome } = await craft(channelId, SUITE_CLASSICAL);
  await submit(channelId, { proposals: [], commit, successor: { tree: undefined, welcome } });
  await allSkip(id, name, /P27/, SUITE_POST_QUANTUM);
});

/** In the inbox of somebody, past the log. */
async function sendWelcome(to: Person, channelId: Uint8Array, body: Uint8Array): Promise<void> {
  const { identityKey, deviceId } = to.store.account.get()!;
  const address = { identityKey, deviceId };
  const hybridKey = to.store.keys.newestHybridKey()!.publicKey;
  await forMallory.call(methods.delivery.enqueue, {
    recipientKey: identityKey,
    deviceId,
    channelId,
    messageId: createMessageId(Date.now(), random),
    payload: sealDirect(lawless(), { address, hybridKey }, channelId, PayloadKind.Welcome, body),
  });
}

function refused(person: Person, words: RegExp): boolean {
  return person.events.some(
    (event) => event.type === 'warning' && event.code === 'welcome-refused' && words.test(event.text),
  );
}

test('the Welcome of a group that no ReInit announced is refused, whoever gets it and however', async () => {
  const name = 'unannounced';
  const id = await groupWithMallory(name, 'classical', true);
  const channelId = hexBytes(id);
  const { welcome } = await craft(channelId, SUITE_POST_QUANTUM);
  const { position, logHash } = mallory.store.conversations.get(channelId)!;
  const body = encodeWelcomeBody({
    position: position + 1n,
    logHash: logHashNext(nodeCrypto, logHash, position + 1n, random(32)),
    pqSalt: EMPTY,
    metadata: EMPTY,
    welcome,
  });
  await sendWelcome(bob, channelId, body);
  await bob.until('refused', () => refused(bob, /already there/));
  await alice.say(name, 'still here');
  await bob.until('heard', async () => (await bob.texts(name)).at(-1) === 'still here');
  // To somebody who has no group here any more it is no better: it is bound to one.
  await alice.client.removeMember(id, 'bob');
  await bob.until('removed', async () => (await bob.conversation(name)).state === 'removed');
  await sendWelcome(bob, channelId, body);
  await bob.until('refused', () => refused(bob, /welcomePsks/));
});

test('who was not let into the new group is not led on in the old one, and gets in later', async () => {
  const name = 'left behind';
  const id = await groupWithMallory(name, 'classical', true);
  const channelId = hexBytes(id);
  const old = stateOf(channelId);
  const { epochPosition } = mallory.store.conversations.get(channelId)!;
  forBob.request(methods.blob.downloadBlob, () => {
    throw new RpcError(Status.NOT_FOUND, 'gone');
  });
  // His request to be added again comes late.
  forBob.request(methods.delivery.enqueue, () => {
    throw new RpcError(Status.UNAVAILABLE, 'not now');
  });
  await alice.client.upgrade(id);
  await bob.until('outside', async () => (await bob.conversation(name)).state === 'awaiting-welcome');
  await mallory.until('moved', async () => (await mallory.conversation(name)).suite === SUITE_POST_QUANTUM);
  const made = createCommit(lawless(), old, {
    proposals: [],
    byReference: 'none',
    path: true,
    authenticatedData: encodeCommitAuthenticatedData({
      channelId,
      logHash: mallory.store.conversations.get(channelId)!.logHash,
      pqCommitment: undefined,
      checkpoint: EMPTY,
    }),
  });
  assert.ok(made.kind === 'committed');
  await submit(channelId, { proposals: [], commit: made.commit }, epochPosition);
  for (const one of [alice, bob]) await one.until('skipped', () => skipped(one, id, /./));
  assert.equal(bob.store.conversations.get(channelId)!.epochPosition, epochPosition);
  forBob.honest();
  await bob.restart();
  await bob.until('in', async () => (await bob.conversation(name)).state === 'active');
  await bob.say(name, 'here I am');
  await alice.until('heard', async () => (await alice.texts(name)).at(-1) === 'here I am');
});

test('who was in a post-quantum group is not let into a classical one on its channel, after a removal neither', async () => {
  const name = 'weaker';
  const id = await groupWithMallory(name, 'post-quantum', true);
  const channelId = hexBytes(id);
  await mallory.client.removeMember(id, 'bob');
  await bob.until('removed', async () => (await bob.conversation(name)).state === 'removed');
  const alone = createGroup(lawless(), {
    ...mallorysPart(),
    cipherSuite: SUITE_CLASSICAL,
    groupId: random(32),
    extensions: [...groupView(stateOf(channelId)).extensions],
  });
  const made = createCommit(lawless(), alone, {
    proposals: [{ kind: 'add', keyPackage: await keyPackageOf(bob.store.account.get()!.identityKey, SUITE_CLASSICAL) }],
    byReference: 'none',
    path: true,
    authenticatedData: EMPTY,
  });
  assert.ok(made.kind === 'committed' && made.welcome !== undefined);
  const { position, logHash } = mallory.store.conversations.get(channelId)!;
  const { welcome } = made;
  const body = encodeWelcomeBody({ position, logHash, pqSalt: random(32), metadata: EMPTY, welcome });
  await sendWelcome(bob, channelId, body);
  await bob.until('refused', () => refused(bob, /classical/));
  assert.equal((await bob.conversation(name)).state, 'removed');
  await alice.client.invite(id, ['bob']);
  await bob.until('back', async () => (await bob.conversation(name)).suite === SUITE_POST_QUANTUM);
});
