import { isOpaqueRecord, OPAQUE_RECORD_BYTES, SIGNATURE_BYTES, verifyRegistration } from '@quicprochat/core';
import { methods } from '@quicprochat/transport';
import { checkStatement } from '../../account-statement.ts';
import { deviceName, exactBytes, identityKey, username } from '../../checks.ts';
import { currentCertificate } from '../../certificates.ts';
import { handler } from '../../handler.ts';
import { networkOf } from '../../rate-limits.ts';
import { alreadyExists, invalidArgument, unauthenticated } from '../../refusals.ts';

export const opaqueRegisterFinish = handler(
  methods.auth.opaqueRegisterFinish,
  async ({ server, connection, writes }, request) => {
    const name = username(request.username);
    const key = identityKey(request.identityKey);
    const record = exactBytes(request.registrationRecord, OPAQUE_RECORD_BYTES, 'an OPAQUE registration record');
    const signature = exactBytes(request.registrationSignature, SIGNATURE_BYTES, 'a signature');
    server.rates.take('registrations', networkOf(connection));

    const certificate = currentCertificate(server, request.deviceCertificate, key, name);
    if (!certificate.manager) throw invalidArgument('the first device of an account holds its identity key');
    // THREATS 37: whoever registers an identity key has it.
    const statement = { origin: server.origin, username: name, record, certificate: certificate.bytes };
    if (!verifyRegistration(server.crypto, key, statement, signature)) {
      throw unauthenticated('the registration is not signed by its identity key');
    }
    // A record that no login could be answered from would set this name apart from unknown ones (THREATS 20).
    if (!isOpaqueRecord(server.opaqueSetup, name, record)) {
      throw invalidArgument('the OPAQUE registration record is malformed');
    }

    const stated = checkStatement(
      server,
      request.accountStatement,
      { account: { username: name, identityKey: key }, stated: undefined, revocationCount: 0 },
      { kind: 'keys', certificates: [certificate.bytes], revocations: [] },
    );
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
        server.log.info({ connection: connection.id, account: server.reference(key) }, 'account registered');
        return {};
      case 'username_taken':
        throw alreadyExists('this username is taken', 'Choose another one, or log in if it is yours.');
      case 'identity_taken':
        throw alreadyExists('this identity key has an account already', 'Log in to that account.');
    }
  },
);
