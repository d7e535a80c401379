/**
 * A classical conversation goes over into the post-quantum suite, on the same channel (RFC 9420 section 11.2, PROTOCOL
 * section 9; THREATS 31):
 *
 *   those who asked to leave go first ─▶ a KeyPackage of every device in it ─▶ one log entry (commit/build-reinit.ts)
 *                                            └─ a device has none: nothing is changed, its people are named
 *
 * Somebody else's entry may be faster: then it is built again upon theirs, with the KeyPackages that are there already.
 */
import { encodeHex, equal } from '@quicprochat/crypto';
import { addressesEqual, type DeviceAddress, encodeAddress } from '@quicprochat/core';
import { groupView, type GroupState, roster, type VerifiedKeyPackage } from '@quicprochat/mls';
import { requireAdmin } from './change-members.ts';
import { CommitTooLarge, leavingProposals } from './commit/build-commit.ts';
import { activeGroup, commitWith } from './commit/submit-commit.ts';
import { fetchKeyPackages, resolveIdentity } from './contacts.ts';
import { creatorParameters, newGroup } from './create-group.ts';
import type { Engine } from './engine.ts';
import { addressesOf, beginEpoch, conversationOf } from './epoch.ts';
import { ClientError } from './errors.ts';
import { isPostQuantum, nameOfSuite, SUITE_POST_QUANTUM } from './profile/suites.ts';
import { channelOf } from './profile/validate-commit.ts';
import { nameOf } from './views.ts';

/** As when inviting (change-members.ts). */
const LOOK_UPS_AT_ONCE = 16;

/** By address in hex. */
type KeyPackages = Map<string, VerifiedKeyPackage>;

/** @throws ClientError `not-admin`, `devices-not-ready`, `too-large`, and as `commitWith` */
export async function upgrade(engine: Engine, channelId: Uint8Array): Promise<'upgraded' | 'already'> {
  if (conversationOf(engine, channelId).kind === 'note') {
    throw new ClientError('usage', 'invalid-argument', 'a note to yourself never leaves this device', {
      hint: 'There is nothing to protect on its way.',
    });
  }
  const { state } = activeGroup(engine, channelId);
  if (isUpgraded(state)) return 'already';
  requireAdmin(engine, state);
  const fetched: KeyPackages = new Map();
  let outcome: 'committed' | 'moot';
  try {
    // A ReInit stands alone in its commit.
    await commitWith(engine, channelId, async (now) =>
      leavingProposals(now).length === 0 ? undefined : { coverLeaving: true },
    );
    outcome = await commitWith(engine, channelId, async (now) => {
      if (isUpgraded(now)) return undefined;
      requireAdmin(engine, now);
      const others = addressesOf(now).filter((address) => !addressesEqual(address, engine.address));
      if (others.length === 0) return undefined;
      const keyPackages = await keyPackagesOf(engine, channelId, others, fetched);
      return { cipherSuite: SUITE_POST_QUANTUM, successor: { ...creatorParameters(engine), keyPackages } };
    });
  } catch (error) {
    if (!(error instanceof CommitTooLarge)) throw error;
    throw new ClientError('refused', 'too-large', 'this group is larger than can be moved at once');
  }
  if (outcome === 'committed') return 'upgraded';
  return upgradeAlone(engine, channelId);
}

function isUpgraded(state: GroupState): boolean {
  return isPostQuantum(groupView(state).cipherSuite);
}

/** With nobody to take along there is nothing to announce: the group is made anew where it stands. */
function upgradeAlone(engine: Engine, channelId: Uint8Array): 'upgraded' | 'already' {
  return engine.change((change) => {
    const { state, conversation } = activeGroup(engine, channelId);
    const view = groupView(state);
    const channel = channelOf(view);
    if (isUpgraded(state) || channel === undefined || roster(state).length > 1) return 'already';
    const made = newGroup(engine, SUITE_POST_QUANTUM, { ...channel, predecessor: view.groupId });
    change.succeedGroup(channelId, state, made.state, conversation.epochPosition);
    beginEpoch(change, { ...conversation, position: conversation.epochPosition }, made.state, made.pqSalt);
    change.store.conversations.save({
      ...conversationOf(engine, channelId),
      position: conversation.position,
      logHash: conversation.logHash,
    });
    change.emit({
      type: 'suite-changed',
      conversationId: encodeHex(channelId),
      suiteName: nameOfSuite(SUITE_POST_QUANTUM),
      by: engine.self.username,
    });
    change.store.outbox.dropUnsentProtection(channelId, -1n);
    change.after(() => engine.reactions.outboxChanged());
    return 'upgraded';
  });
}

/** A KeyPackage of each device. @throws ClientError `devices-not-ready` */
async function keyPackagesOf(
  engine: Engine,
  channelId: Uint8Array,
  devices: readonly DeviceAddress[],
  fetched: KeyPackages,
): Promise<readonly VerifiedKeyPackage[]> {
  const identities = new Map(devices.map(({ identityKey }) => [encodeHex(identityKey), identityKey]));
  const missingOf = (identityKey: Uint8Array): readonly DeviceAddress[] =>
    devices.filter((address) => equal(address.identityKey, identityKey) && !fetched.has(keyOf(address)));
  const wanted = [...identities.values()].filter((identityKey) => missingOf(identityKey).length > 0);
  let done = identities.size - wanted.length;
  const lookUp = async (identityKey: Uint8Array): Promise<void> => {
    const account = await resolveIdentity(engine, identityKey);
    const found = account === undefined ? [] : await fetchKeyPackages(engine, account, SUITE_POST_QUANTUM);
    for (const { address, keyPackage } of found) fetched.set(keyOf(address), keyPackage);
    done += 1;
    engine.events.emit({
      type: 'upgrade-progress',
      conversationId: encodeHex(channelId),
      done,
      total: identities.size,
    });
  };
  for (let start = 0; start < wanted.length; start += LOOK_UPS_AT_ONCE) {
    await Promise.all(wanted.slice(start, start + LOOK_UPS_AT_ONCE).map(lookUp));
  }
  const missing = devices.filter((address) => !fetched.has(keyOf(address)));
  if (missing.length > 0) throw devicesNotReady(engine, channelId, missing);
  return devices.map((address) => fetched.get(keyOf(address))!);
}

function keyOf(address: DeviceAddress): string {
  return encodeHex(encodeAddress(address));
}

/** `3 devices have no keys for it yet: bob (2), carol`. */
function devicesNotReady(engine: Engine, channelId: Uint8Array, devices: readonly DeviceAddress[]): ClientError {
  const counts = new Map<string, number>();
  for (const { identityKey } of devices) {
    const name = nameOf(engine, identityKey, channelId);
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  const names = [...counts].map(([name, count]) => (count === 1 ? name : `${name} (${count})`)).join(', ');
  const who = devices.length === 1 ? '1 device has' : `${devices.length} devices have`;
  return new ClientError('refused', 'devices-not-ready', `${who} no keys for it yet: ${names}`, {
    hint: 'Nothing was changed. Ask them to start an up-to-date qpc once, or remove who is gone; then try again.',
  });
}
