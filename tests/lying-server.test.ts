// A server that lies, and members that misbehave, against real clients: what they do is refused, shown, and healed.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { encodeAddress, parseReceipt, signDeviceCertificate } from '@quicprochat/core';
import { concat } from '@quicprochat/crypto';
import { nodeCrypto } from '@quicprochat/crypto/node';
import type { ClientEvent } from '@quicprochat/client/node';
import { create, toBinary } from '@bufbuild/protobuf';
import { type Envelope, InboxGap_Reason, InboxGapEventSchema, PushEvent, Status } from '@quicprochat/proto';
import { methods, RpcError } from '@quicprochat/transport';
import { createMessageId, openDirect, PayloadKind, sealDirect } from '../packages/client/src/message/index.ts';
import { SUITE_DEFAULT } from '../packages/client/src/profile/suites.ts';
import { Meddler } from './meddler.ts';
import { type Person, World } from './world.ts';

let world: World;
let alice: Person;
let bob: Person;
let carol: Person;
const forAlice = new Meddler();
const forBob = new Meddler();

before(async () => {
  world = await World.start();
  [alice, bob, carol] = await Promise.all([
    world.person('alice', { wrapDialer: forAlice.wrap }),
    world.person('bob', { wrapDialer: forBob.wrap }),
    world.person('carol'),
  ]);
});
after(async () => {
  await world[Symbol.asyncDispose]();
});
afterEach(() => {
  forAlice.honest();
  forBob.honest();
});

const random = (length: number): Uint8Array => nodeCrypto.random(length);
const freshId = (): Uint8Array => createMessageId(Date.now(), random);
const hexBytes = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex, 'hex'));

/** @param conversationId only warnings about this conversation */
function warned(person: Person, code: string, words: RegExp, conversationId?: string): boolean {
  return person.events.some(
    (event) =>
      event.type === 'warning' &&
      event.code === code &&
      words.test(event.text) &&
      (conversationId === undefined || event.conversationId === conversationId),
  );
}

const isGap = (event: ClientEvent): boolean => event.type === 'gap';

/** A group of Alice (administrator), Bob and Carol. */
async function groupOfThree(name: string): Promise<{ readonly id: string; readonly channelId: Uint8Array }> {
  const { id } = await alice.client.createGroup(name);
  await alice.client.invite(id, ['bob', 'carol']);
  for (const one of [bob, carol]) await one.joined(name);
  return { id, channelId: hexBytes(id) };
}

/** Makes Alice commit something that changes nothing else. */
async function commitByAlice(id: string, admin: boolean): Promise<void> {
  await alice.client.setAdmin(id, 'carol', admin);
}

test('THREATS 12: everything twice, and again under new numbers: shown once', async () => {
  const { id } = await groupOfThree('twice');
  forBob.envelopes = (envelope) => {
    queueMicrotask(() => forBob.pushAgain(envelope));
    return [envelope];
  };
  for (const text of ['one', 'two', 'three']) await alice.client.send(id, text);
  await bob.sees('twice', ['one', 'two', 'three']);
  forBob.honest();
  for (const envelope of forBob.seen.slice(-3)) forBob.push(envelope);
  await bob.until('refused', () => warned(bob, 'skipped-envelope', /generationUsed/));
  await alice.client.send(id, 'four');
  await bob.sees('twice', ['one', 'two', 'three', 'four']);
  await bob.restart();
  for (const envelope of forBob.seen.slice(-4)) forBob.push(envelope);
  await alice.client.send(id, 'five');
  await bob.sees('twice', ['one', 'two', 'three', 'four', 'five']);
});

test('what arrives before the answer to the subscription is no sign that the server has gone back', async () => {
  const { id } = await groupOfThree('too soon');
  await carol.client.send(id, 'before');
  await bob.sees('too soon', ['before']);
  await bob.close();
  await bob.open();
  forBob.answer(methods.delivery.subscribe, async (real) => {
    forBob.answer(methods.delivery.subscribe, (again) => again);
    await carol.client.send(id, 'meanwhile');
    await bob.sees('too soon', ['before', 'meanwhile']);
    return real;
  });
  await bob.client.connect();
  await carol.client.send(id, 'after');
  await bob.sees('too soon', ['before', 'meanwhile', 'after']);
  assert.ok(!warned(bob, 'inbox-restarted', /./));
});

test('THREATS 12: a dropped message shows as a gap, a reflected one as nothing', async () => {
  const { id } = await groupOfThree('gaps');
  await alice.client.send(id, 'one');
  await bob.sees('gaps', ['one']);
  let dropped = false;
  forBob.envelopes = (envelope) => {
    if (dropped || envelope.entry !== undefined) return [envelope];
    dropped = true;
    return [];
  };
  await alice.client.send(id, 'two');
  await alice.client.flush();
  await alice.client.send(id, 'three');
  await bob.sees('gaps', ['one', 'three']);
  const gap = bob.events.find(isGap);
  assert.equal(gap?.type === 'gap' && gap.missing, 1);
  assert.equal(gap?.type === 'gap' && gap.username, 'alice');
  // Alice's own words come back to her under another message id.
  const mine = forAlice.seen.findLast((envelope) => envelope.entry === undefined && envelope.data[0] === 3);
  assert.ok(mine);
  forAlice.push({ ...mine, messageId: freshId() });
  await bob.say('gaps', 'four');
  await alice.sees('gaps', ['one', 'two', 'three', 'four']);
});

test('THREATS 3: an envelope on another channel than it was sent on does not open', async () => {
  const one = await groupOfThree('channel one');
  const two = await groupOfThree('channel two');
  forBob.envelopes = (envelope) => [
    envelope.entry === undefined ? { ...envelope, channelId: two.channelId } : envelope,
  ];
  await alice.client.send(one.id, 'not for here');
  await bob.until('refused', () => warned(bob, 'skipped-envelope', /./));
  forBob.honest();
  assert.deepEqual(await bob.texts('channel two'), []);
  await alice.client.send(two.id, 'for here');
  await bob.sees('channel two', ['for here']);
});

test('THREATS 4: a Welcome for another channel is refused, nothing is written, nothing overwritten', async () => {
  const { id } = await groupOfThree('real');
  // Bob is welcomed to another group; a member passes that Welcome on as one for a channel of their choice.
  let welcome: Envelope | undefined;
  forBob.envelopes = (envelope) => {
    if (envelope.data[0] !== 1) return [envelope];
    welcome = envelope;
    return [];
  };
  const other = await alice.client.createGroup('other');
  await alice.client.invite(other.id, ['bob']);
  await bob.until('the Welcome', () => welcome !== undefined);
  const account = bob.store.account.get()!;
  const address = { identityKey: account.identityKey, deviceId: account.deviceId };
  assert.equal(encodeAddress(address).length, 48);
  const [hybridKey] = bob.store.keys.hybridKeys();
  const opened = openDirect(
    nodeCrypto,
    { address, hybridPrivateKey: hybridKey!.privateKey, channelId: hexBytes(other.id) },
    welcome!.data,
  );
  assert.equal(opened.kind, 'opened');
  const body = opened.kind === 'opened' ? opened.body : new Uint8Array(0);
  const conversationsBefore = await bob.client.conversations({ includeGone: true });
  const keyPackagesBefore = bob.store.keys.keyPackagesToUpload().length;
  const forge = (channelId: Uint8Array): void => {
    const data = sealDirect(
      { crypto: nodeCrypto, random },
      { address, hybridKey: hybridKey!.publicKey },
      channelId,
      PayloadKind.Welcome,
      body,
    );
    forBob.push({ data, channelId, messageId: freshId(), acceptedAtMs: 1n });
  };
  forBob.honest();
  forge(random(16));
  await bob.until('refused', () => warned(bob, 'welcome-refused', /another channel/));
  // And on the channel of a group that Bob is in.
  forge(hexBytes(id));
  await bob.until('refused', () => warned(bob, 'welcome-refused', /already there/));
  assert.deepEqual(await bob.client.conversations({ includeGone: true }), conversationsBefore);
  assert.equal(bob.store.keys.keyPackagesToUpload().length, keyPackagesBefore);
  // The real one still works: its key was not used up by the forgeries. Once.
  forBob.push({ ...welcome! });
  await bob.joined('other');
  forBob.push({ ...welcome! });
  await bob.until(
    'refused',
    () => bob.events.filter((e) => e.type === 'warning' && /already there/.test(e.text)).length > 1,
  );
  await alice.client.send(id, 'still here');
  await bob.restart();
  await bob.sees('real', ['still here']);
});

test('THREATS 10, 33: an entry withheld from one member: it asks to be added again, and goes on with its history', async () => {
  const { id } = await groupOfThree('withheld');
  await alice.client.send(id, 'before');
  await bob.sees('withheld', ['before']);
  let withheld = false;
  forBob.envelopes = (envelope) => {
    if (withheld || envelope.entry === undefined) return [envelope];
    withheld = true;
    return [];
  };
  await commitByAlice(id, true);
  await alice.client.send(id, 'not for Bob');
  await bob.until('asked', () => warned(bob, 'rejoin-requested', /./, id));
  await bob.client.send(id, 'am I back?');
  await bob.joined('withheld');
  await alice.until('Bob heard', async () => (await alice.texts('withheld')).includes('am I back?'));
  await carol.until('Bob heard', async () => (await carol.texts('withheld')).includes('am I back?'));
  await alice.client.send(id, 'welcome back');
  await bob.until('Alice heard', async () => (await bob.texts('withheld')).includes('welcome back'));
  assert.equal((await bob.texts('withheld'))[0], 'before');
});

test('a request to be added again that cannot be served holds up nothing else', async () => {
  const { id } = await groupOfThree('held up');
  let fetches = 0;
  forAlice.answer(methods.keys.fetchKeyPackage, (real) => {
    fetches += 1;
    return { ...real, keyPackages: [] };
  });
  let withheld = false;
  forBob.envelopes = (envelope) => {
    if (withheld || envelope.entry === undefined) return [envelope];
    withheld = true;
    return [];
  };
  await commitByAlice(id, true);
  await commitByAlice(id, false);
  await alice.client.send(id, 'not for Bob');
  await bob.until('asked', () => warned(bob, 'rejoin-requested', /./, id));
  await alice.until('tried', () => fetches > 0);

  // While Bob's request stays open, the server is wrong about the roster once: Alice has to see to that.
  let lied: bigint | undefined;
  const lie = <Entry extends { position: bigint; rosterHash: Uint8Array }>(entry: Entry): Entry => {
    lied ??= entry.position;
    return entry.position === lied ? { ...entry, rosterHash: random(32) } : entry;
  };
  forAlice.envelopes = (envelope) => [
    envelope.entry === undefined ? envelope : { ...envelope, entry: lie(envelope.entry) },
  ];
  forAlice.answer(methods.delivery.submitCommit, (real) => {
    const { outcome } = real;
    if (outcome.case === 'accepted' && outcome.value.entry) outcome.value.entry = lie(outcome.value.entry);
    return real;
  });
  // Bob cannot follow, so nobody but Alice is there to do anything.
  await alice.client.setAdmin(id, 'bob', true);
  await alice.until('noticed', () => warned(alice, 'roster-mismatch', /./, id));
  await alice.until('restored', async () => (await alice.conversation('held up')).paused === undefined);
});

test('THREATS 30: garbage takes a position: skipped by all, the group goes on', async () => {
  const { id, channelId } = await groupOfThree('garbage');
  for (const one of [bob, carol]) await one.client.sync();
  const { head } = await forBob.call(methods.group.listGroupMembers, { channelId });
  const garbage = new Uint8Array(512).fill(7);
  garbage[0] = 3;
  const { outcome } = await forBob.call(methods.delivery.submitCommit, {
    channelId,
    after: head,
    messageId: freshId(),
    payload: garbage,
  });
  assert.equal(outcome.case, 'accepted');
  await alice.until('skipped', () => warned(alice, 'skipped-entry', /./, id));
  await commitByAlice(id, true);
  await alice.client.send(id, 'going on');
  for (const one of [bob, carol]) await one.sees('garbage', ['going on']);
  const epochs = await Promise.all([alice, bob, carol].map(async (one) => (await one.conversation('garbage')).epoch));
  assert.equal(new Set(epochs).size, 1);
});

test('THREATS 30: garbage that claims an epoch begun by other garbage: the group goes on all the same', async () => {
  const { id, channelId } = await groupOfThree('claims');
  const submit = async (position: bigint): Promise<bigint> => {
    const { head } = await forBob.call(methods.group.listGroupMembers, { channelId });
    const payload = random(512);
    payload[0] = 3;
    new DataView(payload.buffer).setBigUint64(1, position);
    const answer = await forBob.call(methods.delivery.submitCommit, {
      channelId,
      after: head,
      messageId: freshId(),
      payload,
    });
    assert.equal(answer.outcome.case, 'accepted');
    return head + 1n;
  };
  // A position that does not exist yet alarms nobody.
  const skipped = await submit(99n);
  await carol.until('skipped', () => warned(carol, 'skipped-entry', /another epoch/, id));
  await submit(skipped);
  for (const one of [alice, carol]) {
    await one.until('doubted', () => warned(one, 'rejoin-requested', /may have lost track/, id));
  }
  // Alice can still commit, and does: for herself, and to add those again who asked for it.
  await commitByAlice(id, true);
  await alice.client.send(id, 'nothing happened');
  for (const one of [bob, carol]) {
    await one.until('heard', async () => (await one.texts('claims')).includes('nothing happened'));
    await one.joined('claims');
    await one.client.send(id, `${one.name} is here`);
  }
  await alice.until('both', async () => (await alice.texts('claims')).length === 3);
  assert.equal((await alice.conversation('claims')).state, 'active');
});

test('THREATS 33: the server’s roster is not the group’s: sending pauses, and an administrator restores it', async () => {
  const { id, channelId } = await groupOfThree('roster');
  const carols = carol.store.account.get()!;
  const { head } = await forAlice.call(methods.group.listGroupMembers, { channelId });
  // An administrator’s session can take a device off the roster without any commit that says so.
  const garbage = random(512);
  garbage[0] = 3;
  const { outcome } = await forAlice.call(methods.delivery.submitCommit, {
    channelId,
    after: head,
    messageId: freshId(),
    payload: garbage,
    rosterRemove: [{ identityKey: carols.identityKey, deviceId: carols.deviceId }],
  });
  assert.equal(outcome.case, 'accepted');
  await bob.until('noticed', () => warned(bob, 'roster-mismatch', /other devices/, id));
  await alice.until('restored', async () => {
    const { roster } = await forAlice.call(methods.group.listGroupMembers, { channelId });
    return roster.length === 3 && (await alice.conversation('roster')).paused === undefined;
  });
  await bob.until('lifted', async () => (await bob.conversation('roster')).paused === undefined);
  // Carol was given no entry while she was off the roster, so she has to be added anew; then she hears everybody.
  await alice.client.send(id, 'all here?');
  await bob.until('heard', async () => (await bob.texts('roster')).includes('all here?'));
  await carol.until('asked', () => warned(carol, 'rejoin-requested', /./, id));
  await carol.until('added', async () => (await carol.conversation('roster')).state === 'active');
  await carol.client.send(id, 'yes');
  for (const one of [alice, bob]) {
    await one.until('heard', async () => (await one.texts('roster')).includes('yes'));
  }
});

test('THREATS 32: the answer to an accepted commit is lost: the same bytes again, the same position', async () => {
  const { id, channelId } = await groupOfThree('lost answer');
  const sent: Uint8Array[] = [];
  const positions: bigint[] = [];
  let lose = true;
  forAlice.request(methods.delivery.submitCommit, (request) => {
    sent.push(request.payload.slice());
    return request;
  });
  forAlice.answer(methods.delivery.submitCommit, (answer) => {
    if (answer.outcome.case === 'accepted') positions.push(answer.outcome.value.entry!.position);
    if (lose) {
      lose = false;
      forAlice.cut();
    }
    return answer;
  });
  // The inbox must not tell it before the retry does.
  forAlice.envelopes = (envelope) => (envelope.entry === undefined ? [envelope] : []);
  await commitByAlice(id, true);
  forAlice.honest();
  assert.equal(sent.length, 2);
  assert.deepEqual(sent[0], sent[1]);
  assert.equal(positions[0], positions[1]);
  await alice.client.send(id, 'fine');
  for (const one of [bob, carol]) await one.sees('lost answer', ['fine']);
  const { head } = await forBob.call(methods.group.listGroupMembers, { channelId });
  assert.equal(head, positions[0]);
});

test('a message is flushed when its answer is there, not when one’s own copy has overtaken it', async () => {
  const { id } = await groupOfThree('overtaken');
  await alice.client.flush();
  const order: string[] = [];
  forAlice.answer(methods.delivery.batchEnqueue, async (real) => {
    await alice.until('own copy', async () => (await alice.client.history(id)).at(-1)?.state === 'sent');
    order.push('answer');
    return real;
  });
  await alice.client.send(id, 'who got this?');
  await alice.client.flush({ conversationId: id });
  order.push('flushed');
  assert.deepEqual(order, ['answer', 'flushed']);
});

test('THREATS 33: a log that does not follow, two logs, and a lie about the roster pause sending', async () => {
  const { id } = await groupOfThree('watched');
  forBob.envelopes = (envelope) => [
    envelope.entry === undefined ? envelope : { ...envelope, entry: { ...envelope.entry, rosterHash: random(32) } },
  ];
  await commitByAlice(id, true);
  await bob.until('noticed', () => warned(bob, 'roster-mismatch', /other devices/, id));
  await assert.rejects(bob.client.send(id, 'psst'), { code: 'sending-paused' });
  forBob.honest();
  await commitByAlice(id, false);
  await bob.until('lifted', async () => (await bob.conversation('watched')).paused === undefined);
  await bob.client.send(id, 'now it is right');
  await alice.sees('watched', ['now it is right']);

  forBob.envelopes = (envelope) => [
    envelope.entry === undefined ? envelope : { ...envelope, entry: { ...envelope.entry, logHash: random(32) } },
  ];
  await commitByAlice(id, true);
  await bob.until('noticed', () => warned(bob, 'log-mismatch', /does not follow/, id));
  await assert.rejects(bob.client.send(id, 'psst'), { code: 'sending-paused' });
  assert.notEqual(bob.store.evidence.list(10).length, 0);
  // The user has looked into it.
  await bob.client.resumeSending(id);
  forBob.honest();
  await bob.client.send(id, 'I know');
  await alice.sees('watched', ['now it is right', 'I know']);

  // Another entry at a position that Bob has seen already.
  const entry = forBob.seen.findLast((envelope) => envelope.entry !== undefined)!;
  forBob.push({ ...entry, data: random(512), entry: { ...entry.entry!, logHash: random(32) } });
  await bob.until('noticed', () => warned(bob, 'log-mismatch', /two different logs/, id));
});

test('THREATS 1: another identity, another device’s key, another server: refused before anything is sent', async () => {
  const carolsKey = (await alice.client.resolve('carol')).identityKey;
  forAlice.answer(methods.user.resolveUser, async (real) => {
    const { outcome } = await forBob.call(methods.user.resolveUser, { username: 'bob' });
    if (outcome.case !== 'found' || real.outcome.case !== 'found') return real;
    return { outcome: { case: 'found' as const, value: { ...outcome.value, username: real.outcome.value.username } } };
  });
  await assert.rejects(alice.client.resolve('carol'), { code: 'identity-changed' });
  forAlice.honest();
  assert.equal((await alice.client.resolve('carol')).identityKey, carolsKey);

  const { id } = await alice.client.createGroup('careful');
  const bobsKey = hexBytes((await alice.client.resolve('bob')).identityKey);
  const submittedTo: string[] = [];
  forAlice.request(methods.delivery.submitCommit, (sent) => {
    submittedTo.push(Buffer.from(sent.channelId).toString('hex'));
    return sent;
  });
  forAlice.answer(methods.keys.fetchKeyPackage, async (real) => {
    const swapped = await forAlice.call(methods.keys.fetchKeyPackage, {
      identityKey: bobsKey,
      suite: SUITE_DEFAULT,
    });
    return {
      keyPackages: real.keyPackages.map((one, i) => ({ ...one, keyPackage: swapped.keyPackages[i]!.keyPackage })),
    };
  });
  await assert.rejects(alice.client.invite(id, ['carol']), { code: 'bad-key-package' });
  // Her duties in other groups go on meanwhile.
  assert.ok(!submittedTo.includes(id));
  forAlice.honest();

  forBob.answer(methods.p2p.health, (real) => ({ ...real, receiptKey: random(32) }));
  await bob.close();
  await bob.open();
  await assert.rejects(bob.client.connect(), { code: 'server-changed', kind: 'verification-failed' });
  forBob.answer(methods.p2p.health, (real) => ({ ...real, origin: 'elsewhere.example' }));
  await assert.rejects(bob.client.connect(), { code: 'server-changed' });
  forBob.honest();
  await bob.client.connect();
});

test('a receipt that does not verify is kept as evidence and shown', async () => {
  const { id } = await groupOfThree('receipts');
  let honest = new Uint8Array(0);
  forAlice.answer(methods.delivery.batchEnqueue, (real) => {
    honest = real.deliveryProof.slice();
    return real;
  });
  await alice.client.send(id, 'honest');
  await alice.client.flush();
  assert.equal(warned(alice, 'bad-receipt', /./), false);

  const signatureAt = (proof: Uint8Array): number => proof.length - 64;
  const placeAt = (proof: Uint8Array): number => parseReceipt(proof)!.place.statementBytes;
  const changed = (proof: Uint8Array, at: number): Uint8Array => proof.with(at, proof[at]! ^ 1);
  const lies: Record<string, (proof: Uint8Array) => Uint8Array> = {
    'another signature': (proof) => changed(proof, proof.length - 1),
    'the receipt of the message before': () => honest,
    'another size of its batch': (proof) => changed(proof, placeAt(proof) + 1),
    'another place in its batch': (proof) => changed(proof, placeAt(proof) + 3),
    'a neighbour that was not there': (proof) => {
      const at = placeAt(proof);
      const place = new Uint8Array([0, 2, 0, 0]);
      return concat(proof.subarray(0, at), place, random(32), proof.subarray(signatureAt(proof)));
    },
    'the statement of this message in the place of another': (proof) =>
      concat(proof.subarray(0, placeAt(proof)), honest.subarray(placeAt(honest))),
    'a hash too many': (proof) =>
      concat(proof.subarray(0, signatureAt(proof)), random(32), proof.subarray(signatureAt(proof))),
    'a part of it': (proof) => proof.subarray(0, -1),
    'something else': () => random(300),
    none: () => new Uint8Array(0),
  };
  const said = ['honest'];
  let shown: Uint8Array = honest;
  for (const [what, lie] of Object.entries(lies)) {
    forAlice.answer(methods.delivery.batchEnqueue, (real) => {
      shown = lie(real.deliveryProof);
      return { ...real, deliveryProof: shown };
    });
    const before = alice.events.length;
    await alice.client.send(id, what);
    await alice.client.flush();
    const warnings = alice.events.slice(before).filter((event) => event.type === 'warning');
    assert.equal(warnings.filter(({ code }) => code === 'bad-receipt').length, 1, what);
    const [evidence] = alice.store.evidence.list(1);
    assert.equal(evidence?.kind, 'bad-receipt');
    assert.deepEqual(evidence.data, new Uint8Array(shown), what);
    said.push(what);
  }
  // Recipients that are none.
  forAlice.answer(methods.delivery.batchEnqueue, (real) => ({
    ...real,
    results: real.results.map((result) => ({
      ...result,
      ...(result.address === undefined ? {} : { address: { ...result.address, deviceId: random(3) } }),
    })),
  }));
  const before = alice.events.length;
  await alice.client.send(id, 'to nobody');
  await alice.client.flush();
  assert.ok(alice.events.slice(before).some((event) => event.type === 'warning' && event.code === 'bad-receipt'));
  await bob.sees('receipts', [...said, 'to nobody']);
});

test('the receipt of an accepted commit is checked like that of a message; the commit counts all the same', async () => {
  const { id } = await groupOfThree('commit receipts');
  await commitByAlice(id, true);
  assert.equal(warned(alice, 'bad-receipt', /./, id), false);
  forAlice.answer(methods.delivery.submitCommit, (real) => {
    if (real.outcome.case === 'accepted') real.outcome.value.results.pop();
    return real;
  });
  await commitByAlice(id, false);
  await alice.until('noticed', () => warned(alice, 'bad-receipt', /a change of the group does not verify/, id));
  forAlice.honest();
  await alice.client.send(id, 'going on');
  for (const one of [bob, carol]) await one.sees('commit receipts', ['going on']);
  // An answer that was lost and is given again carries a receipt that fits.
  const before = alice.events.length;
  let lose = true;
  forAlice.answer(methods.delivery.submitCommit, (answer) => {
    if (lose) forAlice.cut();
    lose = false;
    return answer;
  });
  forAlice.envelopes = (envelope) => (envelope.entry === undefined ? [envelope] : []);
  await commitByAlice(id, true);
  const since = alice.events.slice(before);
  assert.equal(since.filter((event) => event.type === 'warning' && event.code === 'bad-receipt').length, 0);
});

test('THREATS 39: the same message id with other bytes: the first one stands', async () => {
  const { channelId } = await groupOfThree('same id');
  const messageId = freshId();
  const payload = new Uint8Array(512).fill(3);
  const first = await forBob.call(methods.delivery.batchEnqueue, { channelId, messageId, payload });
  assert.ok(first.results.every(({ outcome }) => outcome.case === 'queued'));
  const again = await forBob.call(methods.delivery.batchEnqueue, { channelId, messageId, payload });
  assert.ok(again.results.every(({ outcome }) => outcome.case === 'duplicate'));
  await assert.rejects(
    forBob.call(methods.delivery.batchEnqueue, { channelId, messageId, payload: new Uint8Array(512).fill(4) }),
    (error) => error instanceof RpcError && error.message !== '',
  );
});

test('THREATS 13, 37: a stolen token opens nothing without the device key', async () => {
  const session = alice.store.account.session()!;
  const thief = await world.person('thief');
  thief.store.account.saveSession(session);
  await thief.restart();
  await thief.until('refused', () => warned(thief, 'session-ended', /log in again/));
  await assert.rejects(thief.client.sync(), { code: 'not-logged-in' });
  await alice.restart();
  assert.equal((await alice.client.whoami())?.loggedIn, true);
  await alice.client.sync();
});

test('THREATS 1, 2: a member who poses as somebody else is found out: marked, and sending pauses', async () => {
  const forMallory = new Meddler();
  const mallory = await world.stranger('mallory', { wrapDialer: forMallory.wrap });
  // Her client would put the certificate right as soon as it sees that the server has another one.
  forMallory.request(methods.device.registerDevice, () => {
    throw new RpcError(Status.FORBIDDEN, 'not now');
  });
  await mallory.client.connect();
  await mallory.client.register('mallory', mallory.password);
  const real = mallory.store.account.get()!;
  // The certificate says "erin" now, signed by Mallory's own identity key as it should be.
  mallory.store.account.save({
    ...real,
    certificate: signDeviceCertificate(nodeCrypto, real.identityPrivateKey!, {
      origin: real.origin,
      username: 'erin',
      identityKey: real.identityKey,
      deviceId: real.deviceId,
      deviceKey: real.deviceKey,
      manager: true,
      serial: 2n,
      notBeforeSecs: Math.floor(Date.now() / 1000) - 60,
      notAfterSecs: Math.floor(Date.now() / 1000) + 86_400,
    }),
  });
  await mallory.restart();
  const { id } = await mallory.client.openDirect('carol');
  await mallory.client.send(id, 'hi, this is Erin');
  await carol.until('found out', () => warned(carol, 'member-check-failed', /poses as erin/));
  const [poser] = (await carol.client.members(id)).filter(({ self }) => !self);
  assert.equal(poser?.check, 'failed');
  await assert.rejects(carol.client.send(id, 'hello Erin'), { code: 'sending-paused' });
});

test('THREATS 27: a server that says again and again that it was put back, and takes no keys, does not fill the disk with them', async () => {
  let refused = 0;
  forBob.request(methods.keys.uploadKeyPackage, () => {
    refused += 1;
    throw new RpcError(Status.UNAVAILABLE, 'not now');
  });
  const before = bob.store.keys.keyPackagesToUpload().length;
  const gap = { reason: InboxGap_Reason.RESTORED, sinceSeq: 1n };
  const told = (): number => bob.events.filter(({ type }) => type === 'gap').length;
  const waiting: number[] = [];
  for (let i = 1; i <= 8; i++) {
    forBob.pushEvent(PushEvent.INBOX_GAP, toBinary(InboxGapEventSchema, create(InboxGapEventSchema, { gap })));
    await bob.until('the gap to be told', () => told() === i);
    if (i <= 3) await bob.until('keys refused', () => refused >= i);
    await bob.client.sync();
    waiting.push(bob.store.keys.keyPackagesToUpload().length - before);
  }
  assert.ok(waiting[0]! > 0, 'keys were made');
  assert.equal(waiting.at(-1), waiting[3], `made after the ${refused} attempts of an hour: ${waiting}`);
});
