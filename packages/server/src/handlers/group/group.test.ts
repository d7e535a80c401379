// Hints to a group, and its sealed metadata.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { fromBinary } from '@bufbuild/protobuf';
import { encodeHex } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { MembershipHintEvent_Kind, MembershipHintEventSchema, PushEvent, Status } from '@quicprochat/proto';
import { methods, RpcError } from '@quicprochat/transport';
import { envelope, messageId, World } from '../../testing/world.node.ts';
import type { Person, TestConnection } from '../../testing/world.node.ts';

const { group } = methods;

let world: World;
let [alice, bob, carol]: Person[] = [];
let [a, b, c]: TestConnection[] = [];
let channelId: Uint8Array;

before(async () => {
  world = await World.start();
  [alice, bob, carol] = [await world.register('alice'), await world.register('bob'), await world.register('carol')];
  [a, b, c] = [await world.subscribe(alice), await world.subscribe(bob), await world.subscribe(carol)];
  channelId = crypto.random(16);
  await a.call(methods.channel.createChannel, { kind: { case: 'group', value: { channelId } } });
  const invite = { channelId, after: 0n, messageId: messageId(), payload: envelope(3), rosterAdd: [bob.address] };
  await a.call(methods.delivery.submitCommit, invite);
});
after(() => world.close());

async function status(promise: Promise<unknown>): Promise<number> {
  const error = await promise.then(
    () => assert.fail('was not refused'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof RpcError, String(error));
  return error.status;
}

/** The hints a connection got so far. */
const hintsOf = (connection: TestConnection) =>
  connection.events
    .filter((event) => event.eventType === (PushEvent.MEMBERSHIP_HINT as number))
    .map((event) => fromBinary(MembershipHintEventSchema, event.payload));
const hex = (bytes: Uint8Array | undefined) => encodeHex(bytes ?? new Uint8Array(0));

test('a member asks for a removal and for new keys; the live roster hears it, nobody else', async () => {
  const { identityKey } = alice!.address;
  await b!.call(group.removeMember, { channelId, address: { identityKey } });
  await b!.call(group.removeMember, { channelId, address: bob!.address });
  await b!.call(group.rotateKeys, { channelId });
  for (const connection of [a!, b!]) {
    await connection.until(() => hintsOf(connection).length === 3);
    const [all, one, rotate] = hintsOf(connection);
    assert.equal(all?.kind, MembershipHintEvent_Kind.REMOVE_MEMBER);
    assert.equal(hex(all.channelId), hex(channelId));
    assert.equal(hex(all.address?.identityKey), hex(identityKey));
    assert.equal(all.address?.deviceId.length, 0);
    assert.equal(hex(one?.address?.deviceId), hex(bob!.address.deviceId));
    assert.equal(rotate?.kind, MembershipHintEvent_Kind.ROTATE_KEYS);
    assert.equal(rotate.address, undefined);
  }
  const { roster, head } = await a!.call(group.listGroupMembers, { channelId });
  assert.deepEqual([roster.length, head], [2, 1n], 'hints change nothing');
  assert.deepEqual(hintsOf(c!), []);
});

test('strangers hear what they hear about a channel that does not exist', async () => {
  const elsewhere = crypto.random(16);
  for (const id of [channelId, elsewhere]) {
    assert.equal(await status(c!.call(group.rotateKeys, { channelId: id })), Status.NOT_FOUND);
    assert.equal(await status(c!.call(group.removeMember, { channelId: id, address: bob!.address })), Status.NOT_FOUND);
    const change = { channelId: id, expectedVersion: 0n, metadata: crypto.random(9) };
    assert.equal(await status(c!.call(group.updateGroupMetadata, change)), Status.NOT_FOUND);
  }
  const stranger = { channelId, address: carol!.address };
  assert.equal(await status(a!.call(group.removeMember, stranger)), Status.NOT_FOUND);
});

test('metadata: the faster one wins, the slower one sees what won, members read and administrators write', async () => {
  const change = (by: TestConnection, expectedVersion: bigint, metadata = crypto.random(100)) =>
    by.call(group.updateGroupMetadata, { channelId, expectedVersion, metadata });
  const none = await change(a!, 7n);
  assert.deepEqual([none.outcome.case, none.outcome.value?.version], ['conflict', 0n]);
  const metadata = crypto.random(60_000);
  const first = await change(a!, 0n, metadata);
  assert.deepEqual([first.outcome.case, first.outcome.value?.version], ['updated', 1n]);
  await b!.until(() => hintsOf(b!).some((hint) => hint.kind === MembershipHintEvent_Kind.METADATA));
  const late = await change(a!, 0n);
  assert.equal(late.outcome.case, 'conflict');
  assert.equal(hex(late.outcome.value?.metadata), hex(metadata));
  const seen = (await b!.call(group.listGroupMembers, { channelId })).metadata;
  assert.equal(seen?.version, 1n);
  assert.equal(hex(seen.metadata), hex(metadata));
  assert.equal(await status(change(b!, 1n)), Status.FORBIDDEN);
  assert.equal(await status(change(a!, 1n, new Uint8Array(0))), Status.INVALID_ARGUMENT);
  assert.equal(await status(change(a!, 1n, crypto.random(60_001))), Status.INVALID_ARGUMENT);
  assert.equal(await status(change(a!, 2n ** 63n)), Status.INVALID_ARGUMENT);
});

test('hints are limited per device', async () => {
  const strict = await World.start({ rates: { hints: { burst: 2, perHour: 60 } } });
  try {
    const dave = await strict.login(await strict.register('dave'));
    const id = crypto.random(16);
    await dave.call(methods.channel.createChannel, { kind: { case: 'group', value: { channelId: id } } });
    for (let i = 0; i < 2; i++) await dave.call(group.rotateKeys, { channelId: id });
    assert.equal(await status(dave.call(group.rotateKeys, { channelId: id })), Status.RATE_LIMITED);
  } finally {
    await strict.close();
  }
});
