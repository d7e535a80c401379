import { OPAQUE_REGISTRATION_REQUEST_BYTES, opaqueRegistrationResponse } from '@quicprochat/core';
import { methods } from '@quicprochat/transport';
import { exactBytes, username } from '../../checks.ts';
import { handler } from '../../handler.ts';
import { invalidArgument } from '../../refusals.ts';
import { countPasswordAttempt } from './password-attempt.ts';

/** Says nothing about whether the name is taken: only RegisterFinish does. */
export const opaqueRegisterStart = handler(methods.auth.opaqueRegisterStart, (call, request) => {
  const { server } = call;
  const name = username(request.username);
  exactBytes(request.registrationRequest, OPAQUE_REGISTRATION_REQUEST_BYTES, 'an OPAQUE registration request');
  countPasswordAttempt(call, name);
  const registrationResponse = opaqueRegistrationResponse(server.opaqueSetup, name, request.registrationRequest);
  if (registrationResponse === undefined) throw invalidArgument('the OPAQUE registration request is malformed');
  return { registrationResponse };
});
