// The store's modules, each by its own contract, on an in-memory database with the real schema.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import type { StoredConversation } from './conversations.ts';
import type { NewMessage } from './messages.ts';
import type { OutboxEntry } from './outbox.ts';
import { openMemorySqlite, openMemoryStore } from './sqlite.node.ts';
import { openStore, type Store } from './store.ts';

const alice = { identityKey: crypto.random(32), deviceId: crypto.random(16) };
const bob = { identityKey: crypto.random(32), deviceId: crypto.random(16) };

function conversation(change: Partial<StoredConversation> = {}): StoredConversation {
  return {
    channelId: crypto.random(16),
    kind: 'group',
    state: 'active',
    paused: undefined,
    name: 'Climbing',
    nameVersion: 1n,
    peerIdentity: undefined,
    position: 0n,
    logHash: crypto.random(32),
    rosterHash: undefined,
    epochPosition: 0n,
    groupId: crypto.random(32),
    suite: 1,
    epoch: 0n,
    memberCount: 1,
    deviceCounter: 0n,
    previousHash: undefined,
    invitedBy: undefined,
    isNew: false,
    createdAtMs: 1000,
    lastMessageAtMs: undefined,
    ...change,
  };
}

function withConversation(change: Partial<StoredConversation> = {}): { store: Store; channelId: Uint8Array } {
  const store = openMemoryStore();
  const saved = conversation(change);
  store.conversations.save(saved);
  return { store, channelId: saved.channelId };
}

function message(channelId: Uint8Array, text: string, change: Partial<NewMessage> = {}): NewMessage {
  return {
    channelId,
    senderIdentity: bob.identityKey,
    senderDevice: bob.deviceId,
    contentId: crypto.random(16),
    own: false,
    state: 'received',
    kind: 'text',
    text,
    replyTo: undefined,
    sentAtMs: 5,
    storedAtMs: 2000,
    acceptedAtMs: 6,
    seen: false,
    messageId: crypto.random(16),
    ...change,
  };
}

test('account: keys are there before the server confirms, and can be given up', () => {
  const { account } = openMemoryStore();
  assert.equal(account.get(), undefined);
  const registering = {
    state: 'registering',
    origin: 'localhost:5001',
    username: 'alice',
    identityKey: alice.identityKey,
    identityPrivateKey: crypto.random(32),
    deviceId: alice.deviceId,
    deviceKey: crypto.random(32),
    devicePrivateKey: crypto.random(32),
    certificate: crypto.random(200),
    createdAtMs: 1,
  } as const;
  account.save(registering);
  assert.deepEqual(account.get(), registering);
  const linked = { ...registering, state: 'registered', identityPrivateKey: undefined } as const;
  account.save(linked);
  assert.deepEqual(account.get(), linked);
  account.clear();
  assert.equal(account.get(), undefined);
});

test('session and server pins', () => {
  const { account } = openMemoryStore();
  const session = { token: crypto.random(32), expiresAtMs: undefined, createdAtMs: 3 };
  account.saveSession({ ...session, token: crypto.random(32) });
  account.saveSession(session);
  assert.deepEqual(account.session(), session);
  account.clearSession();
  assert.equal(account.session(), undefined);
  const pin = {
    origin: 'localhost:5001',
    receiptKey: crypto.random(32),
    opaqueKey: crypto.random(32),
    logOrigin: '',
    logKey: new Uint8Array(0),
    logVrfKey: new Uint8Array(0),
    pinnedAtMs: 4,
  };
  account.saveServerPin(pin);
  assert.deepEqual(account.serverPin(pin.origin), pin);
  assert.equal(account.serverPin('elsewhere'), undefined);
  assert.deepEqual(account.serverPins(), [pin]);
});

test('hybrid keys: newest first; the private half goes 30 days after its successor came', () => {
  const { keys } = openMemoryStore();
  const key = (serial: bigint): Parameters<typeof keys.saveHybridKey>[0] => ({
    serial,
    publicKey: crypto.random(1216),
    privateKey: crypto.random(32),
    statement: crypto.random(100),
    notBeforeSecs: 1,
    notAfterSecs: 2,
    uploaded: false,
    supersededAtMs: undefined,
  });
  const [first, second] = [key(1n), key(2n)];
  assert.equal(keys.newestHybridKey(), undefined);
  keys.saveHybridKey(first);
  keys.hybridKeyUploaded(1n, 100);
  keys.saveHybridKey(second);
  assert.deepEqual(keys.newestHybridKey(), second);
  assert.equal(keys.deleteHybridKeysSuperseded(10_000), 0, 'the successor is not published yet');
  keys.hybridKeyUploaded(2n, 200);
  assert.deepEqual(keys.hybridKeys(), [
    { ...second, uploaded: true },
    { ...first, uploaded: true, supersededAtMs: 200 },
  ]);
  assert.equal(keys.deleteHybridKeysSuperseded(200), 0);
  assert.equal(keys.deleteHybridKeysSuperseded(201), 1);
  assert.deepEqual(keys.hybridKeys().length, 1);
});

test('KeyPackages: used once; the last-resort one stays and takes a Welcome once (PROTOCOL section 4)', () => {
  const { keys } = openMemoryStore();
  const keyPackage = (lastResort: boolean): Parameters<typeof keys.saveKeyPackage>[0] => ({
    keyPackageRef: crypto.random(32),
    suite: 1,
    keyPackage: crypto.random(300),
    initPrivateKey: crypto.random(32),
    encryptionPrivateKey: crypto.random(32),
    lastResort,
    notAfterSecs: 1000,
    uploaded: false,
    usedAtMs: undefined,
    createdAtMs: 1,
  });
  const [once, lastResort] = [keyPackage(false), keyPackage(true)];
  keys.saveKeyPackage(once);
  keys.saveKeyPackage(lastResort);
  assert.equal(keys.keyPackagesToUpload().length, 2);
  keys.keyPackagesUploaded([once.keyPackageRef, lastResort.keyPackageRef]);
  assert.deepEqual(keys.keyPackagesToUpload(), []);
  assert.deepEqual(keys.keyPackage(once.keyPackageRef), { ...once, uploaded: true });
  assert.equal(keys.keyPackage(crypto.random(32)), undefined);

  keys.keyPackageUsed(once.keyPackageRef, 50);
  assert.equal(keys.keyPackage(once.keyPackageRef), undefined);
  keys.keyPackageUsed(lastResort.keyPackageRef, 50);
  assert.deepEqual(keys.lastResort(1), { ...lastResort, uploaded: true, usedAtMs: 50 });
  assert.equal(keys.lastResort(2), undefined);

  const welcome = crypto.random(32);
  assert.equal(keys.rememberWelcome(welcome, lastResort.keyPackageRef), true);
  assert.equal(keys.rememberWelcome(welcome, lastResort.keyPackageRef), false);
  assert.equal(keys.deleteKeyPackagesExpired(1000), 0);
  assert.equal(keys.deleteKeyPackagesExpired(1001), 1);
  assert.equal(keys.lastResort(1), undefined);
});

test('conversations: whole records, found by channel, peer and group id; newest activity first', () => {
  const store = openMemoryStore();
  const { conversations } = store;
  const direct = conversation({ kind: 'direct', name: '', peerIdentity: bob.identityKey, createdAtMs: 2000 });
  const group = conversation({
    position: 5n,
    epochPosition: 4n,
    rosterHash: crypto.random(32),
    invitedBy: bob.identityKey,
    isNew: true,
  });
  conversations.save(direct);
  conversations.save(group);
  assert.deepEqual(conversations.get(group.channelId), group);
  assert.deepEqual(conversations.direct(bob.identityKey), direct);
  assert.equal(conversations.direct(alice.identityKey), undefined);
  assert.deepEqual(conversations.byGroupId(group.groupId!), group);
  assert.deepEqual(conversations.all(), [direct, group]);
  store.messages.insert(message(group.channelId, 'newest', { storedAtMs: 3000 }));
  assert.deepEqual(
    conversations.all().map(({ channelId }) => channelId),
    [group.channelId, direct.channelId],
  );
  const paused = { ...group, paused: 'the roster differs', state: 'leaving', lastMessageAtMs: 3000 } as const;
  conversations.save(paused);
  assert.deepEqual(conversations.get(group.channelId), paused);
  assert.equal(store.messages.unseenCount(group.channelId), 1, 'saving a record keeps what belongs to it');
});

test('envelope keys: one current, a few past ones', () => {
  const { store, channelId } = withConversation();
  const { conversations } = store;
  const keys = Array.from({ length: 8 }, () => crypto.random(32));
  keys.forEach((key, i) => {
    conversations.beginEpoch(channelId, { position: BigInt(i), epoch: BigInt(10 + i), key }, 100 * i);
  });
  const stored = { position: 6n, epoch: 16n, key: keys[6]!, endedAtMs: 700 };
  assert.deepEqual(conversations.envelopeKey(channelId, 6n), stored);
  assert.equal(conversations.envelopeKey(channelId, 7n)?.endedAtMs, undefined);

  conversations.deleteEnvelopeKeys(channelId, 5, 0);
  const present = (): number[] =>
    [0, 1, 2, 3, 4, 5, 6, 7].filter((i) => conversations.envelopeKey(channelId, BigInt(i)) !== undefined);
  assert.deepEqual(present(), [2, 3, 4, 5, 6, 7]);
  conversations.deleteEnvelopeKeys(channelId, 5, 500);
  assert.deepEqual(present(), [4, 5, 6, 7], 'those that ended before 500 are gone');
  conversations.deleteEnvelopeKeys(channelId, 0, 1_000_000);
  assert.deepEqual(present(), [7], 'never the current one');
  conversations.clearEnvelopeKeys(channelId);
  assert.deepEqual(present(), []);
});

test('post-quantum salts: the one in force where an epoch began', () => {
  const { store, channelId } = withConversation();
  const { conversations } = store;
  const [first, second] = [crypto.random(32), crypto.random(32)];
  assert.equal(conversations.pqSalt(channelId, 3n), undefined);
  conversations.setPqSalt(channelId, 0n, first);
  conversations.setPqSalt(channelId, 5n, second);
  assert.deepEqual(conversations.pqSalt(channelId, 4n), first);
  assert.deepEqual(conversations.pqSalt(channelId, 5n), second);
  assert.deepEqual(conversations.pqSalt(channelId, 90n), second);
  conversations.deletePqSaltsBefore(channelId, 4n);
  assert.deepEqual(conversations.pqSalt(channelId, 4n), first, 'still needed by the epoch that began at 4');
  conversations.deletePqSaltsBefore(channelId, 7n);
  assert.equal(conversations.pqSalt(channelId, 4n), undefined);
  assert.deepEqual(conversations.pqSalt(channelId, 7n), second);
});

test('one pending commit per conversation', () => {
  const { store, channelId } = withConversation();
  const { conversations } = store;
  const pending = {
    messageId: crypto.random(16),
    after: 4n,
    request: crypto.random(2000),
    pending: crypto.random(3000),
    intent: '{"kind":"update"}',
    attempts: 0,
    createdAtMs: 9,
  };
  assert.equal(conversations.pendingCommit(channelId), undefined);
  conversations.savePendingCommit(channelId, { ...pending, after: 3n });
  conversations.savePendingCommit(channelId, pending);
  assert.deepEqual(conversations.pendingCommit(channelId), pending);
  assert.deepEqual(conversations.pendingCommits(), [channelId]);
  conversations.clearPendingCommit(channelId);
  assert.deepEqual(conversations.pendingCommits(), []);
});

test('sender chains and member checks', () => {
  const { store, channelId } = withConversation();
  const { conversations } = store;
  const chain = { counter: 7n, hash: crypto.random(32) };
  assert.equal(conversations.senderChain(channelId, bob.identityKey, bob.deviceId), undefined);
  conversations.saveSenderChain(channelId, bob.identityKey, bob.deviceId, { ...chain, counter: 6n });
  conversations.saveSenderChain(channelId, bob.identityKey, bob.deviceId, chain);
  assert.deepEqual(conversations.senderChain(channelId, bob.identityKey, bob.deviceId), chain);
  assert.equal(conversations.senderChain(channelId, bob.identityKey, alice.deviceId), undefined);

  const check = { ...bob, outcome: 'failed', reason: 'its key is revoked', checkedAtMs: 3 } as const;
  conversations.saveMemberCheck(channelId, { ...check, outcome: 'verified', reason: '' });
  conversations.saveMemberCheck(channelId, check);
  assert.deepEqual(conversations.memberChecks(channelId), [check]);
  conversations.deleteMemberCheck(channelId, bob.identityKey, bob.deviceId);
  assert.deepEqual(conversations.memberChecks(channelId), []);
});

test('MLS rows: changes apply in order, prefixes reach no neighbour, conversations are apart', () => {
  const { store, channelId } = withConversation();
  const other = conversation();
  store.conversations.save(other);
  const { mlsRows } = store;
  const bytes = (n: number): Uint8Array => new Uint8Array([n]);
  const set = (key: string, n: number) => ({ kind: 'set', key, bytes: bytes(n) }) as const;
  mlsRows.apply(channelId, [set('tree/1', 1), set('tree/2', 2), set('tree', 3), set('tree0', 4), set('tref/1', 5)]);
  mlsRows.apply(other.channelId, [set('tree/1', 9)]);
  const rows = mlsRows.reader(channelId);
  assert.deepEqual(rows.get('tree/1'), bytes(1));
  assert.equal(rows.get('tree/3'), undefined);
  assert.deepEqual(
    [...rows.list('tree/')],
    [
      { key: 'tree/1', bytes: bytes(1) },
      { key: 'tree/2', bytes: bytes(2) },
    ],
  );
  assert.equal([...rows.list('')].length, 5);

  mlsRows.apply(channelId, [set('tree/1', 7), { kind: 'deletePrefix', prefix: 'tree/' }, set('tree/2', 8)]);
  mlsRows.apply(channelId, [
    { kind: 'delete', key: 'tref/1' },
    { kind: 'delete', key: 'missing' },
  ]);
  assert.deepEqual([...rows.list('')].map(({ key }) => key).toSorted(), ['tree', 'tree/2', 'tree0']);
  assert.deepEqual(rows.get('tree/2'), bytes(8));
  assert.deepEqual(mlsRows.reader(other.channelId).get('tree/1'), bytes(9));
  mlsRows.clear(channelId);
  assert.equal([...rows.list('')].length, 0);
});

test('messages: history pages backwards, oldest first', () => {
  const { store, channelId } = withConversation();
  const { messages } = store;
  const ids = Array.from({ length: 10 }, (_, i) => messages.insert(message(channelId, `number ${i}`))!);
  const texts = (options: { limit: number; before?: number }): string[] =>
    messages.history(channelId, options).map(({ text }) => text);
  assert.deepEqual(texts({ limit: 3 }), ['number 7', 'number 8', 'number 9']);
  assert.deepEqual(texts({ limit: 3, before: ids[2]! }), ['number 0', 'number 1']);
  assert.deepEqual(texts({ limit: 3, before: ids[0]! }), []);
  const reply = message(channelId, 'yes', {
    replyTo: { senderIdentity: alice.identityKey, contentId: crypto.random(16) },
  });
  const localId = messages.insert(reply)!;
  assert.deepEqual(messages.get(localId), { ...reply, localId, receipt: undefined, undelivered: undefined });
  assert.equal(messages.find(channelId, bob.identityKey, reply.contentId)?.localId, localId);
  assert.equal(messages.get(999), undefined);
});

test('messages: a content is taken in once, by sender and content id, never by message id (THREATS 12)', () => {
  const { store, channelId } = withConversation();
  const { messages } = store;
  const first = message(channelId, 'hello');
  assert.ok(messages.insert(first) !== undefined);
  assert.equal(messages.insert({ ...first, messageId: crypto.random(16), text: 'hello again' }), undefined);
  // The same id from somebody else, or elsewhere, is another content.
  assert.ok(messages.insert({ ...first, senderIdentity: alice.identityKey }) !== undefined);
  assert.equal(messages.history(channelId, { limit: 10 }).length, 2);
  // What is not shown is remembered on its own.
  const hidden = crypto.random(16);
  assert.ok(messages.rememberContent(channelId, bob.identityKey, hidden));
  assert.ok(!messages.rememberContent(channelId, bob.identityKey, hidden));
  assert.ok(messages.rememberContent(channelId, alice.identityKey, hidden));
});

test('messages: seen and unseen, per conversation and over all', () => {
  const { store, channelId } = withConversation();
  const other = conversation();
  store.conversations.save(other);
  const { messages } = store;
  const ids = ['a', 'b'].map((text) => messages.insert(message(channelId, text))!);
  messages.insert(message(other.channelId, 'c'));
  messages.insert(message(channelId, 'mine', { own: true, seen: true, state: 'queued' }));
  const texts = (options: { limit: number; channelId?: Uint8Array }): string[] =>
    messages.unseen(options).map(({ text }) => text);
  assert.deepEqual(texts({ limit: 10 }), ['a', 'b', 'c']);
  assert.deepEqual(texts({ limit: 1, channelId }), ['a']);
  messages.markSeen(ids);
  assert.deepEqual(texts({ limit: 10 }), ['c']);
  assert.equal(messages.unseenCount(channelId), 0);
  assert.equal(messages.unseenCount(other.channelId), 1);
});

test('messages: how one of ours fared is added, never taken back', () => {
  const { store, channelId } = withConversation();
  const { messages } = store;
  const queued = message(channelId, 'out', {
    own: true,
    state: 'queued',
    seen: true,
    acceptedAtMs: undefined,
    messageId: undefined,
  });
  const localId = messages.insert(queued)!;
  const sent = { messageId: crypto.random(16), acceptedAtMs: 77, receipt: crypto.random(64) };
  messages.setState(localId, { state: 'sent', ...sent });
  messages.setState(localId, { state: 'sent', undelivered: '[]' });
  assert.deepEqual(messages.get(localId), { ...queued, ...sent, state: 'sent', localId, undelivered: '[]' });
});

test('search: words in any order, the last one as a beginning, accents aside; no query is syntax', () => {
  const { store, channelId } = withConversation();
  const other = conversation();
  store.conversations.save(other);
  const { messages } = store;
  for (const text of ['The café opens at nine', 'nine lives', 'open source café'])
    messages.insert(message(channelId, text));
  messages.insert(message(other.channelId, 'café elsewhere'));
  const found = (query: string, options: { channelId?: Uint8Array } = {}): string[] =>
    messages.search(query, { limit: 10, ...options }).map(({ text }) => text);
  assert.deepEqual(found('cafe open', { channelId }), ['open source café', 'The café opens at nine']);
  assert.deepEqual(found('NINE'), ['nine lives', 'The café opens at nine']);
  assert.equal(found('caf').length, 3);
  assert.deepEqual(found('af'), []);
  assert.deepEqual(found(''), []);
  assert.deepEqual(found('*"()'), []);
  for (const query of [
    'nine OR lives',
    '"nine',
    'text:nine',
    'nine*',
    'NEAR(nine lives)',
    "nine' --",
    '-nine',
    'a AND',
    '^nine',
  ]) {
    assert.doesNotThrow(() => found(query), query);
  }
  assert.deepEqual(found('nine OR lives'), [], 'OR is a word like any other');
  store.conversations.delete(channelId);
  assert.deepEqual(found('nine'), [], 'the index forgets with the conversation');
  assert.equal(found('cafe').length, 1);
});

function entry(channelId: Uint8Array, change: Partial<OutboxEntry> = {}): Omit<OutboxEntry, 'id' | 'attempts'> {
  return {
    channelId,
    recipient: undefined,
    payloadKind: 3,
    body: crypto.random(50),
    localId: undefined,
    protection: undefined,
    createdAtMs: 1,
    ...change,
  };
}

test('outbox: in order within a conversation, the longest waiting conversation first', () => {
  const { store, channelId } = withConversation();
  const other = conversation();
  store.conversations.save(other);
  const { outbox } = store;
  const protection = { messageId: crypto.random(16), envelope: crypto.random(512), position: 4n };
  const first = entry(channelId, { protection, localId: store.messages.insert(message(channelId, 'x'))! });
  const firstId = outbox.add(first);
  const elsewhere = outbox.add(entry(other.channelId, { recipient: bob, payloadKind: 4 }));
  const secondId = outbox.add(entry(channelId));
  assert.deepEqual(outbox.first(channelId), { ...first, id: firstId, attempts: 0 });
  assert.deepEqual(outbox.get(elsewhere)?.recipient, bob);
  assert.deepEqual(
    outbox.list(channelId).map(({ id }) => id),
    [firstId, secondId],
  );
  assert.deepEqual(outbox.channels(), [channelId, other.channelId]);
  assert.deepEqual([outbox.count(), outbox.count(channelId)], [3, 2]);
  outbox.remove(firstId);
  assert.equal(outbox.first(channelId)?.id, secondId);
  assert.deepEqual(outbox.channels(), [other.channelId, channelId]);
  outbox.remove(secondId);
  assert.equal(outbox.first(channelId), undefined);
});

test('outbox: when the epoch moves, only what was never sent is protected anew (PROTOCOL section 9)', () => {
  const { store, channelId } = withConversation();
  const { outbox } = store;
  const protection = (position: bigint) => ({ messageId: crypto.random(16), envelope: crypto.random(512), position });
  const tried = outbox.add(entry(channelId, { protection: protection(4n) }));
  const untried = outbox.add(entry(channelId, { protection: protection(4n) }));
  const current = outbox.add(entry(channelId, { protection: protection(5n) }));
  const toOne = outbox.add(entry(channelId, { protection: protection(0n), recipient: bob }));
  outbox.countAttempt(tried);
  assert.equal(outbox.dropUnsentProtection(channelId, 5n), 1);
  const isProtected = (id: number): boolean => outbox.get(id)?.protection !== undefined;
  assert.deepEqual([tried, untried, current, toOne].map(isProtected), [true, false, true, true]);
  assert.equal(outbox.get(tried)?.attempts, 1);
  const anew = protection(5n);
  outbox.protect(untried, anew);
  assert.deepEqual(outbox.get(untried)?.protection, anew);
});

test('inbox: the cursor only moves forward', () => {
  const { inbox } = openMemoryStore();
  assert.deepEqual([inbox.cursor(), inbox.acked()], [0n, 0n]);
  inbox.advance(2n ** 60n);
  inbox.advance(5n);
  inbox.setAcked(7n);
  inbox.setAcked(6n);
  assert.deepEqual([inbox.cursor(), inbox.acked()], [2n ** 60n, 7n]);
});

test('contacts: one key per name and one name per key, pinned at first contact', () => {
  const { contacts } = openMemoryStore();
  assert.deepEqual(contacts.pin('bob', bob.identityKey, 10), { kind: 'new' });
  assert.deepEqual(contacts.pin('bob', bob.identityKey, 20), { kind: 'same' });
  const pinned = { identityKey: bob.identityKey, username: 'bob', verifiedAtMs: undefined, pinnedAtMs: 10 };
  assert.deepEqual(contacts.pin('bob', crypto.random(32), 30), { kind: 'changed', pinned });
  assert.deepEqual(contacts.pin('bobby', bob.identityKey, 30), { kind: 'changed', pinned });
  assert.deepEqual(contacts.byUsername('bob'), pinned);
  assert.equal(contacts.byUsername('bobby'), undefined);
  contacts.pin('alice', alice.identityKey, 40);
  assert.equal(contacts.pin('bob', alice.identityKey, 50).kind, 'changed');
  contacts.setVerified(bob.identityKey, 60);
  assert.equal(contacts.byIdentity(bob.identityKey)?.verifiedAtMs, 60);
});

test('contacts: a device comes with higher serials or not at all', () => {
  const { contacts } = openMemoryStore();
  contacts.pin('bob', bob.identityKey, 10);
  const hybridKey = { publicKey: crypto.random(1216), statement: crypto.random(90), serial: 3n, notAfterSecs: 99 };
  const device = {
    ...bob,
    deviceKey: crypto.random(32),
    certificate: crypto.random(200),
    certificateSerial: 2n,
    hybridKey,
    revokedAtMs: undefined,
    checkedAtMs: 5,
  };
  assert.ok(contacts.saveDevice({ ...device, hybridKey: undefined }));
  assert.equal(contacts.device(bob.identityKey, bob.deviceId)?.hybridKey, undefined);
  assert.ok(contacts.saveDevice(device));
  assert.ok(contacts.saveDevice(device), 'the same again');
  assert.ok(!contacts.saveDevice({ ...device, certificateSerial: 1n }));
  assert.ok(!contacts.saveDevice({ ...device, hybridKey: { ...hybridKey, serial: 2n } }));
  assert.ok(!contacts.saveDevice({ ...device, hybridKey: undefined }));
  assert.deepEqual(contacts.devices(bob.identityKey), [device]);
});

test('rejoin requests: our own, and each device’s newest one once', () => {
  const { store, channelId } = withConversation();
  const { rejoinRequests } = store;
  const own = { nonce: crypto.random(16), requestedAtMs: 100 };
  rejoinRequests.saveOwn(channelId, own);
  assert.deepEqual(rejoinRequests.own(channelId), own);
  const received = { channelId, device: bob, nonce: crypto.random(16), requestedAtMs: 200 };
  assert.ok(rejoinRequests.receive(received));
  assert.ok(!rejoinRequests.receive(received), 'a replay');
  assert.ok(!rejoinRequests.receive({ ...received, requestedAtMs: 150 }), 'an older one');
  assert.deepEqual(rejoinRequests.open(channelId), [{ ...received, handled: false }]);
  rejoinRequests.markHandled(channelId, bob);
  assert.deepEqual(rejoinRequests.open(channelId), []);
  assert.ok(!rejoinRequests.receive(received), 'a replay after it was handled');
  assert.ok(rejoinRequests.receive({ ...received, requestedAtMs: 201 }));
  assert.equal(rejoinRequests.open(channelId).length, 1);
  rejoinRequests.deleteExpired(201);
  assert.equal(rejoinRequests.own(channelId), undefined);
  assert.equal(rejoinRequests.open(channelId).length, 1);
  rejoinRequests.saveOwn(channelId, own);
  rejoinRequests.clearOwn(channelId);
  assert.equal(rejoinRequests.own(channelId), undefined);
});

test('log: entries grow at the end and come back in pages, the head with them', () => {
  const { log } = openMemoryStore();
  assert.equal(log.head(), undefined);
  const all = Array.from({ length: 5_000 }, () => crypto.random(73));
  const join = (entries: readonly Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(entries));
  const head = { checkpoint: crypto.random(200), size: 4_500, followedAtMs: 7 };
  log.advance(0, join(all.slice(0, 4_500)), head);
  assert.deepEqual(log.head(), head);
  log.advance(4_500, join(all.slice(4_500)), { ...head, size: 5_000 });
  log.followed(8);
  assert.deepEqual(log.head(), { ...head, size: 5_000, followedAtMs: 8 });
  assert.deepEqual(log.entries(0, 10), all.slice(0, 10));
  assert.deepEqual(log.entries(4_000, 1_000), all.slice(4_000), 'across runs');
  assert.throws(() => log.entries(5_000, 1), { code: 'profile-damaged' });
});

test('log: what others were shown, where accounts stand, and findings once each', () => {
  const { log } = openMemoryStore();
  const witnessed = { checkpoint: crypto.random(200), channelId: crypto.random(16), seenAtMs: 1 };
  log.addWitnessed(witnessed);
  log.addWitnessed({ ...witnessed, seenAtMs: 2 });
  assert.deepEqual(log.witnessed(), [witnessed]);
  log.removeWitnessed(witnessed.checkpoint);
  assert.deepEqual(log.witnessed(), []);

  const account = { identityKey: alice.identityKey, index: crypto.random(32), version: 0, checkedAtMs: 1 };
  log.saveAccount(account);
  log.saveAccount({ ...account, version: 1 });
  assert.deepEqual(log.account(alice.identityKey), { ...account, version: 1 });
  assert.deepEqual(log.accountAt(account.index), { ...account, version: 1 });
  assert.equal(log.accountAt(crypto.random(32)), undefined);
  assert.deepEqual(log.accounts(), [{ ...account, version: 1 }]);

  const signed = { version: 0, statementHash: crypto.random(32), seen: undefined };
  log.saveOwnEntry(signed);
  assert.deepEqual(log.ownEntries(), [signed]);
  const seen = { version: 0, statementHash: undefined, seen: { commitment: crypto.random(32), dueAtSize: 3 } };
  log.saveOwnEntry(seen);
  assert.deepEqual(log.ownEntries(), [seen]);

  const finding = {
    key: 'rollback/1',
    kind: 'rollback',
    summary: 'The log offers fewer entries.',
    identityKey: undefined,
    channelId: undefined,
    evidence: '{}',
    foundAtMs: 5,
    settledAtMs: undefined,
  };
  assert.equal(log.addFinding(finding), true);
  assert.equal(log.addFinding({ ...finding, foundAtMs: 6 }), false);
  assert.deepEqual(log.findings(), [finding]);
  log.settleFindings(9);
  assert.deepEqual(log.findings(), [{ ...finding, settledAtMs: 9 }]);
});

test('settings and evidence', () => {
  const { settings, evidence } = openMemoryStore();
  settings.set('theme', 'dark');
  settings.set('theme', 'light');
  assert.equal(settings.get('theme'), 'light');
  settings.set('theme', undefined);
  assert.equal(settings.get('theme'), undefined);
  const shown = { channelId: undefined, kind: 'log-mismatch', summary: 'two logs', data: crypto.random(64), atMs: 3 };
  const id = evidence.add(shown);
  evidence.add({ ...shown, channelId: crypto.random(16) });
  assert.deepEqual(evidence.list(5)[1], { ...shown, id, leftOut: 0 });
  assert.equal(evidence.list(1).length, 1);
});

test('of evidence that does not end the first and the newest are kept, and how many were not (THREATS 27)', () => {
  const { evidence } = openMemoryStore();
  const channels = [undefined, crypto.random(16), crypto.random(16)];
  const one = { summary: 'another log', data: crypto.random(64 * 1024) };
  for (let atMs = 0; atMs < 300; atMs++) {
    for (const channelId of channels) evidence.add({ ...one, channelId, kind: 'key-transparency', atMs });
  }
  evidence.add({ ...one, channelId: undefined, kind: 'log-mismatch', atMs: 0 });
  const all = evidence.list(1_000);
  assert.equal(all.length, 3 * 32 + 1);
  for (const channelId of channels) {
    const alike = all
      .filter((each) => each.kind === 'key-transparency' && each.channelId?.toString() === channelId?.toString())
      .toReversed();
    const newest = Array.from({ length: 24 }, (_, i) => 276 + i);
    assert.deepEqual(
      alike.map(({ atMs }) => atMs),
      [0, 1, 2, 3, 4, 5, 6, 7, ...newest],
    );
    assert.deepEqual(
      alike.map(({ leftOut }) => leftOut),
      alike.map(({ atMs }) => (atMs === 276 ? 268 : 0)),
    );
  }
});

test('a step of the engine is whole or not at all, across modules (THREATS 11)', () => {
  const { store, channelId } = withConversation();
  const step = (fail: boolean): void =>
    store.transaction(() => {
      store.mlsRows.apply(channelId, [{ kind: 'set', key: 'ratchet/0', bytes: new Uint8Array([1]) }]);
      const localId = store.messages.insert(message(channelId, 'hi'))!;
      store.outbox.add(entry(channelId, { localId }));
      store.inbox.advance(9n);
      if (fail) throw new Error('crash');
    });
  const seen = (): unknown => [
    store.mlsRows.reader(channelId).get('ratchet/0'),
    store.messages.unseenCount(channelId),
    store.messages.search('hi', { limit: 5 }).length,
    store.outbox.count(),
    store.inbox.cursor(),
  ];
  assert.throws(() => step(true), /crash/);
  assert.deepEqual(seen(), [undefined, 0, 0, 0, 0n]);
  step(false);
  assert.deepEqual(seen(), [new Uint8Array([1]), 1, 1, 1, 9n]);
});

test('deleting a conversation leaves nothing of it', () => {
  const driver = openMemorySqlite();
  const store = openStore(driver);
  const { channelId } = conversation();
  store.conversations.save(conversation({ channelId }));
  const localId = store.messages.insert(message(channelId, 'gone'))!;
  store.messages.rememberContent(channelId, bob.identityKey, crypto.random(16));
  store.outbox.add(entry(channelId, { localId }));
  store.mlsRows.apply(channelId, [{ kind: 'set', key: 'k', bytes: new Uint8Array(1) }]);
  store.conversations.setPqSalt(channelId, 0n, crypto.random(32));
  store.conversations.beginEpoch(channelId, { position: 0n, epoch: 0n, key: crypto.random(32) }, 1);
  store.conversations.saveSenderChain(channelId, bob.identityKey, bob.deviceId, {
    counter: 1n,
    hash: crypto.random(32),
  });
  store.conversations.saveMemberCheck(channelId, { ...bob, outcome: 'verified', reason: '', checkedAtMs: 1 });
  store.rejoinRequests.saveOwn(channelId, { nonce: crypto.random(16), requestedAtMs: 1 });
  store.conversations.delete(channelId);
  const tables = driver
    .prepare(
      `SELECT m.name FROM sqlite_schema m, pragma_table_info(m.name) c WHERE m.type = 'table' AND c.name = 'channel_id'`,
    )
    .all();
  assert.ok(tables.length >= 11);
  for (const { name } of tables) {
    assert.equal(driver.prepare(`SELECT count(*) AS n FROM ${String(name)}`).get()?.['n'], 0n, String(name));
  }
});

test('a value no version of ours could have written is damage, not a crash further on', () => {
  const driver = openMemorySqlite();
  const store = openStore(driver);
  const { channelId } = conversation();
  store.conversations.save(conversation({ channelId }));
  driver.exec(`UPDATE conversations SET state = 'enlightened'`);
  assert.throws(() => store.conversations.get(channelId), { code: 'profile-damaged', message: /state/ });
});

test('hot lookups use an index', () => {
  const driver = openMemorySqlite();
  openStore(driver);
  for (const sql of [
    'SELECT * FROM messages WHERE channel_id = ? AND id < ? ORDER BY id DESC LIMIT ?',
    'SELECT count(*) AS n FROM messages WHERE seen = 0 AND channel_id = ?',
    'SELECT * FROM outbox WHERE channel_id = ? ORDER BY id LIMIT 1',
    'SELECT key, bytes FROM mls_rows WHERE channel_id = ? AND key >= ? AND key < ?',
    'SELECT * FROM conversations WHERE peer_identity = ?',
  ]) {
    const plan = driver.prepare(`EXPLAIN QUERY PLAN ${sql}`).all(...Array<null>(sql.split('?').length - 1).fill(null));
    const detail = plan.map((row) => String(row['detail'])).join('; ');
    assert.ok(detail.includes('SEARCH') && !detail.includes('SCAN') && !detail.includes('TEMP B-TREE'), detail);
  }
});
test('a profile full of evidence from before there was a bound is brought within it', () => {
  const driver = openMemorySqlite();
  const { evidence } = openStore(driver);
  driver.exec(
    `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 19999)
     INSERT INTO evidence (channel_id, kind, summary, data, at) SELECT NULL, 'bad-receipt', '', x'00', i FROM n`,
  );
  evidence.add({ channelId: undefined, kind: 'bad-receipt', summary: '', data: crypto.random(8), atMs: 20_000 });
  const left = evidence.list(1_000).toReversed();
  assert.deepEqual(
    left.map(({ atMs }) => atMs),
    [0, 1, 2, 3, 4, 5, 6, 7, ...Array.from({ length: 24 }, (_, i) => 19_977 + i)],
  );
  assert.equal(left[8]?.leftOut, 19_969);
});
