/**
 * One entry of a channel's commit log, opened and applied (PROTOCOL section 5). Pure: state and bytes in, outcome out.
 *
 *   type-03 envelope → handshake bundle → its proposals, then its commit → the next state (→ a ReInit's Welcome)
 *
 * All or nothing: an entry that does not open, does not validate or is for another epoch is skipped by every member alike,
 * and leaves no trace in the state. So the first valid commit of an epoch is the same for everyone (THREATS 30).
 */
import {
  type CommitEffects,
  type GroupState,
  type MlsContext,
  processMessage,
  reInitOf,
  roster,
  welcomeKeyPackageRefs,
} from '@quicprochat/mls';
import {
  decodeHandshakeBundle,
  EnvelopeType,
  groupPosition,
  type HandshakeBundle,
  kindAgrees,
  openGroup,
} from '../message/index.ts';
import {
  type CommitAuthenticatedData,
  decodeCommitAuthenticatedData,
  isMessageAuthenticatedData,
} from '../profile/authenticated-data.ts';
import type { LogPlace } from './build-commit.ts';

export type EntryOutcome =
  /** `claimedPosition`: it claims an epoch that began there, after ours. Nobody vouches for the claim. */
  | { readonly kind: 'skipped'; readonly reason: string; readonly claimedPosition?: bigint }
  | { readonly kind: 'proposals'; readonly state: GroupState }
  | {
      readonly kind: 'commit';
      readonly state: GroupState;
      readonly effects: CommitEffects;
      readonly authenticatedData: CommitAuthenticatedData;
      /** By whose Welcome the group goes on; `state` is closed. */
      readonly successor: HandshakeBundle['successor'];
    }
  /** A commit of our own whose pending state is gone: the group has moved on and we cannot follow. */
  | { readonly kind: 'lost-own-commit' };

export function openEntry(context: MlsContext, state: GroupState, place: LogPlace, envelope: Uint8Array): EntryOutcome {
  const position = groupPosition(envelope);
  if (position === undefined) return skipped('it is not a group envelope');
  if (position !== place.epochPosition) {
    const claim = position > place.epochPosition ? { claimedPosition: position } : {};
    return { kind: 'skipped', reason: 'it is for another epoch', ...claim };
  }
  const opened = openGroup(context.crypto, { key: place.envelopeKey, channelId: place.channelId }, envelope);
  if (opened.kind === 'refused') return skipped(`its envelope is ${opened.reason}`);
  const bundle = decodeHandshakeBundle(opened.body);
  if (bundle === undefined) return skipped('its contents are malformed');
  const messages = [...bundle.proposals, ...(bundle.commit === undefined ? [] : [bundle.commit])];
  if (!messages.every((message) => kindAgrees(opened.payloadKind, EnvelopeType.Group, 'logEntry', message))) {
    return skipped('its contents are of another kind');
  }

  let next = state;
  for (const message of bundle.proposals) {
    const outcome = processMessage(context, next, message);
    if (outcome.kind === 'rejected') return skipped(`${outcome.rule} ${outcome.name}: ${outcome.reason}`);
    // Our own proposal is in the state since we made it.
    if (outcome.kind === 'own') continue;
    if (outcome.kind !== 'proposal') return skipped('its contents are of another kind');
    if (!isMessageAuthenticatedData(outcome.authenticatedData, place.channelId)) {
      return skipped('a proposal is for another channel');
    }
    next = outcome.state;
  }
  if (bundle.commit === undefined) return { kind: 'proposals', state: next };

  const outcome = processMessage(context, next, bundle.commit);
  if (outcome.kind === 'own') return { kind: 'lost-own-commit' };
  if (outcome.kind === 'rejected') return skipped(`${outcome.rule} ${outcome.name}: ${outcome.reason}`);
  if (outcome.kind !== 'commit') return skipped('its contents are of another kind');
  const authenticatedData = decodeCommitAuthenticatedData(outcome.authenticatedData);
  if (authenticatedData === undefined) return skipped('its authenticated_data is malformed');
  const { state: following, effects } = outcome;
  const { successor } = bundle;
  const reason = whyNotContinued(following, successor);
  return reason === undefined
    ? { kind: 'commit', state: following, effects, authenticatedData, successor }
    : skipped(reason);
}

/**
 * What every member can tell alike of a ReInit and the Welcome beside it: one does not come without the other, and the
 * Welcome is for the new suite and for as many members as there are. Whether it opens is for each to see (join-group.ts).
 */
function whyNotContinued(state: GroupState, successor: HandshakeBundle['successor']): string | undefined {
  const reInit = reInitOf(state);
  if (reInit === undefined) return successor === undefined ? undefined : 'it opens a group without closing this one';
  if (successor === undefined) return 'it closes the group without opening another';
  const welcome = welcomeKeyPackageRefs(successor.welcome);
  if (welcome.kind === 'rejected' || welcome.cipherSuite !== reInit.cipherSuite) return 'its Welcome is malformed';
  return welcome.refs.length === roster(state).length - 1 ? undefined : 'its Welcome is not for all members';
}

function skipped(reason: string): EntryOutcome {
  return { kind: 'skipped', reason };
}
