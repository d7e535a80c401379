import { methods } from '@quicprochat/transport';
import { safeInteger } from '../../checks.ts';
import { adminHandler, audit } from '../../handler.ts';

const LIMIT_DEFAULT = 50;
const LIMIT_MAX = 1_000;
const ANSWER_BYTES_MAX = 3 * 1024 * 1024;

export const listReports = adminHandler(methods.moderation.listReports, async (call, request) => {
  const { server, session } = call;
  audit(call, { event: 'reports_read', outcome: 'ok', by: session.address.identityKey });
  const reports = await server.store.listReports({
    afterId: safeInteger(request.afterId, 'a report id'),
    limit: Math.min(request.limit === 0 ? LIMIT_DEFAULT : request.limit, LIMIT_MAX),
    maxBytes: ANSWER_BYTES_MAX,
  });
  return {
    reports: reports.map(({ id, report, conversationId, receivedAtMs }) => ({
      id: BigInt(id),
      encryptedReport: report,
      conversationId,
      receivedAtMs: BigInt(receivedAtMs),
    })),
  };
});
