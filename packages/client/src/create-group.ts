/** New groups: the MLS group with our extensions, and the channel it belongs to (PROTOCOL sections 5 and 9). */
import { EMPTY } from '@quicprochat/crypto';
import { CHANNEL_ID_BYTES, encodeCredentialIdentity } from '@quicprochat/core';
import { createGroup as createMlsGroup, CredentialType, type GroupState } from '@quicprochat/mls';
import { methods } from '@quicprochat/transport';
import type { Engine } from './engine.ts';
import { beginEpoch, blankConversation } from './epoch.ts';
import { ClientError } from './errors.ts';
import { encodeGroupInfo, PQ_SALT_LENGTH } from './message/index.ts';
import { type ChannelExtension, encodeChannelExtension, QpcExtensionType } from './profile/channel-extension.ts';
import { CAPABILITIES, GROUP_CONFIG, keyPackageLifetime, REQUIRED_CAPABILITIES } from './profile/group-parameters.ts';
import { isPostQuantum, suiteNamed } from './profile/suites.ts';
import { GROUP_ID_BYTES } from './profile/validate-commit.ts';
import type { NewConversationOptions } from './types.ts';

/** What this device says of itself in a group it makes. */
export function creatorParameters(engine: Engine) {
  const { deviceKey, devicePrivateKey, certificate } = engine.self;
  return {
    credential: { credentialType: CredentialType.Basic, identity: encodeCredentialIdentity(engine.address) } as const,
    signatureKeyPair: { publicKey: deviceKey, privateKey: devicePrivateKey },
    capabilities: CAPABILITIES,
    lifetime: keyPackageLifetime(engine.nowSecs()),
    leafNodeExtensions: [{ extensionType: QpcExtensionType.DeviceCertificate, extensionData: certificate }],
    config: GROUP_CONFIG,
  };
}

/** A group with only this device in it, and its post-quantum salt (empty in post-quantum suites). */
export function newGroup(
  engine: Engine,
  suite: number,
  channel: ChannelExtension,
): { readonly state: GroupState; readonly pqSalt: Uint8Array } {
  const state = createMlsGroup(engine.mls(), {
    ...creatorParameters(engine),
    cipherSuite: suite,
    groupId: engine.ports.random(GROUP_ID_BYTES),
    extensions: [
      REQUIRED_CAPABILITIES,
      { extensionType: QpcExtensionType.Channel, extensionData: encodeChannelExtension(channel) },
    ],
  });
  return { state, pqSalt: isPostQuantum(suite) ? EMPTY : engine.ports.random(PQ_SALT_LENGTH) };
}

/** The suite asked for, else the profile's. @throws ClientError `invalid-argument` */
export function suiteOf(engine: Engine, { suite: name }: NewConversationOptions): number {
  if (name === undefined) return engine.ports.suite;
  const suite = suiteNamed(name);
  if (suite !== undefined) return suite;
  throw new ClientError('usage', 'invalid-argument', 'there is no such cipher suite', {
    hint: 'Say post-quantum or classical.',
  });
}

/** The channel id of a new group whose only member is this device. */
export async function createGroup(engine: Engine, name: string, options: NewConversationOptions): Promise<Uint8Array> {
  refuseBadName(name);
  const suite = suiteOf(engine, options);
  const channelId = engine.ports.random(CHANNEL_ID_BYTES);
  // The channel first: a crash in between leaves an empty channel at the server and nothing here.
  await engine.server.call(methods.channel.createChannel, { kind: { case: 'group', value: { channelId } } });
  engine.change((change) => {
    const conversation = {
      ...blankConversation(engine, channelId),
      kind: 'group' as const,
      state: 'active' as const,
      name,
      nameVersion: 1n,
    };
    change.store.conversations.save(conversation);
    const { state, pqSalt } = newGroup(engine, suite, {
      channelId,
      kind: 'group',
      hub: '',
      admins: [engine.self.identityKey],
      predecessor: EMPTY,
    });
    change.replaceGroup(channelId, state);
    beginEpoch(change, conversation, state, pqSalt);
  });
  return channelId;
}

/** @throws ClientError `invalid-argument` */
export function refuseBadName(name: string): void {
  if (encodeGroupInfo({ version: 1n, name }) !== undefined) return;
  throw new ClientError('usage', 'invalid-argument', 'a group name has at least one character and at most 256 bytes');
}
