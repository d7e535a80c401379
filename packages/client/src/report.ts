// Reporting messages to the operator of the server (DESIGN 4, ReportMessage): what this device received, sealed to the
// operator's key, so that not even the server reads who complains about whom.
//
//   messages of one conversation ─▶ Health: the operator's key ─▶ sealReport (core) ─▶ ReportMessage
import { BadInput, type ReportContent, REPORTED_MESSAGES_MAX, sealReport } from '@quicprochat/core';
import { equal } from '@quicprochat/crypto';
import { methods } from '@quicprochat/transport';
import type { Engine } from './engine.ts';
import { ClientError } from './errors.ts';
import { pinServer } from './session.ts';
import type { StoredMessage } from './store/index.ts';
import { nameOf } from './views.ts';

/**
 * @param localIds received messages of one conversation
 * @throws ClientError `no-report-key` when the operator takes no reports; `invalid-argument`
 */
export async function report(engine: Engine, localIds: readonly number[], reason: string): Promise<void> {
  const messages = messagesOf(engine, localIds);
  const { channelId } = messages[0]!;
  const health = await engine.server.call(methods.p2p.health, {});
  const { origin } = pinServer(engine, health);
  if (health.reportKey.length === 0) {
    throw new ClientError('refused', 'no-report-key', 'the operator of this server takes no reports', {
      hint: 'Tell the operator in another way.',
    });
  }
  const { username, identityKey, deviceId, devicePrivateKey } = engine.self;
  const content: ReportContent = {
    reporterUsername: username,
    reporter: { identityKey, deviceId },
    reportedAtMs: engine.nowMs(),
    reason,
    messages: messages.map((message) => ({
      senderUsername: nameOf(engine, message.senderIdentity, channelId),
      senderIdentity: message.senderIdentity,
      contentId: message.contentId,
      sentAtMs: message.sentAtMs,
      text: message.text,
    })),
  };
  const reportKey = health.reportKey.slice();
  const encryptedReport = sealed(() =>
    sealReport(engine.crypto, { reportKey, origin, channelId, devicePrivateKey, content }),
  );
  await engine.server.call(methods.moderation.reportMessage, { encryptedReport, conversationId: channelId });
}

function sealed(seal: () => Uint8Array): Uint8Array {
  try {
    return seal();
  } catch (error) {
    if (!(error instanceof BadInput)) throw error;
    throw new ClientError('usage', 'invalid-argument', error.message, { hint: error.hint, cause: error });
  }
}

/** In the order in which they were received. */
function messagesOf(engine: Engine, localIds: readonly number[]): readonly StoredMessage[] {
  const refuse = (message: string, hint: string): never => {
    throw new ClientError('usage', 'invalid-argument', message, { hint });
  };
  if (localIds.length === 0) refuse('there is no message to report', 'Name at least one.');
  if (localIds.length > REPORTED_MESSAGES_MAX) {
    refuse(`a report has at most ${REPORTED_MESSAGES_MAX} messages`, 'Report fewer at once.');
  }
  const ids = [...new Set(localIds)].toSorted((a, b) => a - b);
  const messages = ids.map(
    (id) => engine.store.messages.get(id) ?? refuse(`there is no message ${id}`, 'See localId in qpc history --json.'),
  );
  for (const message of messages) {
    if (message.own) refuse('one’s own messages are nothing to report', 'Name messages of others.');
    if (!equal(message.channelId, messages[0]!.channelId)) {
      refuse('the messages are of several conversations', 'Report each conversation for itself.');
    }
  }
  return messages;
}
