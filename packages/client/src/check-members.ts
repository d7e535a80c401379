/**
 * The local checks of members (PROTOCOL section 2): whether the identity behind a name is the one our pins, the server and
 * its log know, whether the device is one of its own, and whether its certificate still runs. Made after members came in, never part of validating a commit: a failure
 * keeps the group, marks the member, pauses sending and says why. Without a server members stay "not yet checked".
 */
import { encodeHex, equal } from '@quicprochat/crypto';
import { deviceCertificateValidity } from '@quicprochat/core';
import { roster } from '@quicprochat/mls';
import { resolveIdentity } from './contacts.ts';
import type { Engine } from './engine.ts';
import { type ClientError, toClientError } from './errors.ts';
import { type DeviceMember, verifyMember } from './profile/member.ts';
import type { MemberCheck } from './store/index.ts';
import { pauseSending, unpauseSending } from './watch-server.ts';

export class MemberChecks {
  readonly #engine: Engine;
  readonly #waiting: Map<string, Uint8Array> = new Map();
  #running = false;
  #callOff: () => void = () => {};

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  get busy(): boolean {
    return this.#running;
  }

  /** Members came into this group. */
  add(channelId: Uint8Array): void {
    this.#waiting.set(encodeHex(channelId), channelId);
    this.kick();
  }

  /** After a start: groups with members that were never checked. */
  addAll(): void {
    for (const { channelId, groupId, state } of this.#engine.store.conversations.all()) {
      if (groupId === undefined || state !== 'active') continue;
      if (this.#unchecked(channelId).length > 0) this.#waiting.set(encodeHex(channelId), channelId);
    }
    this.kick();
  }

  kick(): void {
    const { closed, server, hasSession } = this.#engine;
    if (this.#running || closed || server.state !== 'online' || !hasSession || this.#waiting.size === 0) return;
    this.#running = true;
    void this.#run().finally(() => {
      this.#running = false;
      if (!this.#engine.closed) this.#engine.conditions.check();
    });
  }

  async #run(): Promise<void> {
    for (const [key, channelId] of this.#waiting) {
      try {
        await this.#check(channelId);
        this.#waiting.delete(key);
      } catch (error) {
        // The server is away, or wants us to be slower: they stay unchecked until it is asked again.
        const { code, retryAfterMs } = toClientError(error);
        this.#engine.ports.log.debug('members could not be checked', { reason: code });
        this.#callOff();
        if (retryAfterMs > 0) this.#callOff = this.#engine.later(() => this.kick(), retryAfterMs);
        return;
      }
    }
  }

  async #check(channelId: Uint8Array): Promise<void> {
    for (const member of this.#unchecked(channelId)) {
      const failure = await this.#failureOf(member);
      if (this.#engine.closed) return;
      this.#save(channelId, member, failure);
    }
  }

  /** Why a member fails, or undefined. @throws ClientError when it cannot be said now */
  async #failureOf({ address, username, certificate }: DeviceMember): Promise<string | undefined> {
    const engine = this.#engine;
    const { contacts } = engine.store;
    if (deviceCertificateValidity(certificate, engine.nowSecs()).kind === 'expired') {
      return `the certificate of ${username} has expired`;
    }
    const changed = `the identity key of ${username} is not the one this profile knows`;
    const pinned = contacts.byUsername(username);
    if (pinned !== undefined) {
      if (!equal(pinned.identityKey, address.identityKey)) return changed;
      // Seen when the account was looked up. A device that came since has to be in the log, or the server put it there.
      const known = contacts.device(address.identityKey, address.deviceId);
      if (known !== undefined && equal(known.deviceKey, certificate.deviceKey)) return undefined;
    }
    try {
      const account = await resolveIdentity(engine, address.identityKey);
      if (account === undefined) return `the server knows no account behind the member called ${username}`;
      if (account.username !== username) return `a member poses as ${username}`;
      const isListed = account.devices.some(
        ({ deviceId, deviceKey }) => equal(deviceId, address.deviceId) && equal(deviceKey, certificate.deviceKey),
      );
      return isListed ? undefined : `a device in this conversation is not one of ${username}`;
    } catch (error) {
      const failure: ClientError = toClientError(error);
      if (failure.kind === 'verification-failed')
        return failure.code === 'identity-changed' ? changed : failure.message;
      throw failure;
    }
  }

  #save(channelId: Uint8Array, { address, certificate }: DeviceMember, failure: string | undefined): void {
    const engine = this.#engine;
    engine.change((change) => {
      const conversation = change.store.conversations.get(channelId);
      if (conversation === undefined) return;
      const check: MemberCheck = {
        identityKey: address.identityKey,
        deviceId: address.deviceId,
        outcome: failure === undefined ? 'verified' : 'failed',
        reason: failure ?? '',
        checkedAtMs: engine.nowMs(),
      };
      change.store.conversations.saveMemberCheck(channelId, check);
      if (failure !== undefined) {
        pauseSending(change, conversation, 'member', 'member-check-failed', failure, certificate.bytes);
      } else if (conversation.paused !== undefined && this.#allVerified(channelId)) {
        // They were looked up again, and what stood against one of them is gone.
        unpauseSending(change, conversation, 'member');
      }
    });
  }

  #allVerified(channelId: Uint8Array): boolean {
    const { conversations } = this.#engine.store;
    if (conversations.memberChecks(channelId).some(({ outcome }) => outcome === 'failed')) return false;
    return this.#unchecked(channelId).length === 0;
  }

  #unchecked(channelId: Uint8Array): readonly DeviceMember[] {
    const engine = this.#engine;
    const state = engine.group(channelId);
    if (state === undefined) return [];
    const checked = new Set(
      engine.store.conversations
        .memberChecks(channelId)
        .map(({ identityKey, deviceId }) => encodeHex(identityKey) + encodeHex(deviceId)),
    );
    return roster(state).flatMap((leaf) => {
      const outcome = verifyMember(engine.crypto, engine.self.origin, leaf);
      if (outcome.kind === 'invalid') return [];
      const { address } = outcome.member;
      if (equal(address.identityKey, engine.self.identityKey)) return [];
      return checked.has(encodeHex(address.identityKey) + encodeHex(address.deviceId)) ? [] : [outcome.member];
    });
  }
}
