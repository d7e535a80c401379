import { CHANNEL_ID_BYTES } from '@quicprochat/core';
import { encodeHex } from '@quicprochat/crypto';
import { methods } from '@quicprochat/transport';
import { exactBytes } from '../../checks.ts';
import { deviceHandler } from '../../handler.ts';
import { exhausted, invalidArgument } from '../../refusals.ts';

const REPORT_BYTES_MAX = 128_000;

/** Sealed to the operator; who reported is for the operator to read in it, and for nobody to read in the store. */
export const reportMessage = deviceHandler(methods.moderation.reportMessage, async (call, request) => {
  const { server, session, writes } = call;
  const { encryptedReport: report } = request;
  if (report.length === 0 || report.length > REPORT_BYTES_MAX) {
    throw invalidArgument(`a report has between 1 and ${REPORT_BYTES_MAX} bytes`);
  }
  const conversationId = exactBytes(request.conversationId, CHANNEL_ID_BYTES, 'a conversation id');
  server.rates.take('reports', encodeHex(session.address.identityKey));
  const outcome = await server.store.addReport({ report, conversationId, receivedAtMs: server.clock.wallMs() }, writes);
  if (outcome.kind === 'full')
    throw exhausted('this server has no room for more reports', 'Ask its operator directly.');
  return {};
});
