import { isOpaqueRecord, OPAQUE_RECORD_BYTES, SIGNATURE_BYTES, verifyRegistration } from '@quicprochat/core';
import { methods } from '@quicprochat/transport';
import { checkStatement } from '../../account-statement.ts';
import { deviceName, exactBytes, identityKey, username } from '../../checks.ts';
import { currentCertificate } from '../../certificates.ts';
import { audit, handler } from '../../handler.ts';
import { askRegistration } from '../../plugins.ts';
import { alreadyExists, invalidArgument, unauthenticated } from '../../refusals.ts';

export const opaqueRegisterFinish = handler(methods.auth.opaqueRegisterFinish, async (call, request) => {
  const { server, connection, writes } = call;
  const name = username(request.username);
  const key = identityKey(request.identityKey);
  const record = exactBytes(request.registrationRecord, OPAQUE_RECORD_BYTES, 'an OPAQUE registration record');
  const signature = exactBytes(request.registrationSignature, SIGNATURE_BYTES, 'a signature');
  server.rates.take('registrations', connection.state.network);

  const certificate = currentCertificate(server, request.deviceCertificate, key, name);
  if (!certificate.manager) throw invalidArgument('the first device of an account holds its identity key');
  // THREATS 37: whoever registers an identity key has it.
  const statement = { origin: server.origin, username: name, record, certificate: certificate.bytes };
  if (!verifyRegistration(server.crypto, key, statement, signature)) {
    audit(call, { event: 'registration', outcome: 'refused', reason: 'wrong_signature' });
    throw unauthenticated('the registration is not signed by its identity key');
  }
  // A record that no login could be answered from would set this name apart from unknown ones (THREATS 20).
  if (!isOpaqueRecord(server.opaqueSetup, name, record)) {
    throw invalidArgument('the OPAQUE registration record is malformed');
  }

  const stated = await checkStatement(
    server,
    request.accountStatement,
    { account: { username: name, identityKey: key }, stated: undefined, revocationCount: 0 },
    { kind: 'keys', certificates: [certificate.bytes], revocations: [] },
  );
  try {
    await askRegistration(call, name);
  } catch (error) {
    audit(call, { event: 'registration', outcome: 'refused', reason: 'by_plugin' });
    throw error;
  }
  const outcome = await server.store.createAccount(
    {
      username: name,
      identityKey: key,
      opaqueRecord: record,
      registrationSignature: signature,
      firstDevice: {
        deviceId: certificate.deviceId,
        deviceKey: certificate.deviceKey,
        certificate: certificate.bytes,
        name: deviceName(request.deviceName),
      },
      stated,
      nowMs: server.clock.wallMs(),
    },
    writes,
  );
  switch (outcome.kind) {
    case 'created':
      server.keyTransparency.accepted();
      audit(call, { event: 'registration', outcome: 'ok', account: key, device: certificate.deviceId });
      return {};
    case 'username_taken':
      audit(call, { event: 'registration', outcome: 'refused', reason: 'name_taken' });
      throw alreadyExists('this username is taken', 'Choose another one, or log in if it is yours.');
    case 'identity_taken':
      audit(call, { event: 'registration', outcome: 'refused', reason: 'key_taken', account: key });
      throw alreadyExists('this identity key has an account already', 'Log in to that account.');
  }
});
