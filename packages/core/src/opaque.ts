/**
 * OPAQUE (RFC 9807, ristretto255) over @serenity-kit/opaque: bytes at the edge, typed outcomes instead of exceptions.
 * Await `opaqueReady` once before the first call; everything else is synchronous.
 *
 *   client                                   server (holds the setup, outside the database)
 *   opaqueRegisterStart ── request ────────▶ opaqueRegistrationResponse
 *   opaqueRegisterFinish ◀── response ──────
 *        └── record ───────────────────────▶ kept
 *   opaqueLoginStart ── KE1 ───────────────▶ opaqueServerLoginStart (record, or none: an answer like any other)
 *   opaqueLoginFinish ◀── KE2 ──────────────
 *        └── KE3 ──────────────────────────▶ opaqueServerLoginFinish
 *
 * The credential identifier is the canonical username; the identities in the envelope are username and server origin.
 * The password is stretched with Argon2id (64 MiB, 3 passes, 1 lane) on the client: about 180 ms per finish. The library
 * keeps passwords and states in JavaScript strings, which nobody can wipe.
 */
import { equal } from '@quicprochat/crypto';
import { decodeBase64Url, encodeBase64Url } from './base64url.ts';
import { Internal, Misuse } from './errors.ts';

export const OPAQUE_REGISTRATION_REQUEST_BYTES = 32;
export const OPAQUE_REGISTRATION_RESPONSE_BYTES = 64;
export const OPAQUE_RECORD_BYTES = 192;
export const OPAQUE_KE1_BYTES = 96;
export const OPAQUE_KE2_BYTES = 320;
export const OPAQUE_KE3_BYTES = 64;
export const OPAQUE_SETUP_BYTES = 128;
export const OPAQUE_PUBLIC_KEY_BYTES = 32;

type Library = typeof import('@serenity-kit/opaque');
let library: Library | undefined;
let loading: Promise<void> | undefined;

async function load(): Promise<void> {
  const loaded = await import('@serenity-kit/opaque');
  await loaded.ready;
  library = loaded;
}

/**
 * Awaiting it loads the WebAssembly module, once. Not before: most processes that import this package never see a
 * password, and the module costs them 40 ms.
 */
export const opaqueReady: PromiseLike<void> = {
  // oxlint-disable-next-line unicorn/no-thenable -- being awaited is what it is for
  then: (fulfilled, rejected) => (loading ??= load()).then(fulfilled, rejected),
};

function opaque(): Library {
  if (library === undefined) throw new Misuse('OPAQUE is used before opaqueReady was awaited');
  return library;
}

/** Argon2id over what the password became, so that whoever has server and database pays this for each guess. */
export interface PasswordStretching {
  /** Passes over the memory. */
  readonly iterations: number;
  /** KiB. */
  readonly memory: number;
  readonly parallelism: number;
}

const PASSWORD_STRETCHING: PasswordStretching = { iterations: 3, memory: 65_536, parallelism: 1 };

/** Who the two sides are; both must say the same at registration and at every login. */
export interface OpaqueParties {
  /** Canonical account name. */
  readonly username: string;
  /** The server's origin. */
  readonly origin: string;
}

function identifiers(parties: OpaqueParties): { client: string; server: string } {
  return { client: parties.username, server: parties.origin };
}

// Two keyboards may write one password in two Unicode forms.
function canonicalPassword(password: string): string {
  return password.normalize('NFC');
}

function bytesOf(text: string): Uint8Array {
  const bytes = decodeBase64Url(text);
  if (bytes === undefined) throw new Internal('the OPAQUE library returned something that is not base64url');
  return bytes;
}

/** What the client keeps between start and finish of a registration or login. Secret, used once. */
export interface OpaqueClientState {
  readonly password: string;
  readonly state: string;
}

export function opaqueRegisterStart(password: string): {
  readonly state: OpaqueClientState;
  readonly request: Uint8Array;
} {
  const canonical = canonicalPassword(password);
  const started = opaque().client.startRegistration({ password: canonical });
  return {
    state: { password: canonical, state: started.clientRegistrationState },
    request: bytesOf(started.registrationRequest),
  };
}

export type OpaqueRegisterOutcome =
  | {
      readonly kind: 'registered';
      /** For the server, 192 bytes. */
      readonly record: Uint8Array;
      /** 64 bytes that only this password on this server gives; keys recovery later. */
      readonly exportKey: Uint8Array;
      /** To be pinned: 32 bytes. */
      readonly serverPublicKey: Uint8Array;
    }
  | { readonly kind: 'bad-response' }
  | { readonly kind: 'server-key-changed'; readonly serverPublicKey: Uint8Array };

/**
 * @param pinnedServerKey the OPAQUE key of Health, where the client has one
 * @param stretching has to be the same at every login
 */
export function opaqueRegisterFinish(
  started: OpaqueClientState,
  parties: OpaqueParties,
  response: Uint8Array,
  pinnedServerKey?: Uint8Array,
  stretching = PASSWORD_STRETCHING,
): OpaqueRegisterOutcome {
  if (response.length !== OPAQUE_REGISTRATION_RESPONSE_BYTES) return { kind: 'bad-response' };
  // The server's key stands at the end of its answer; comparing it first saves the stretching.
  const claimedKey = response.slice(OPAQUE_REGISTRATION_RESPONSE_BYTES - OPAQUE_PUBLIC_KEY_BYTES);
  if (pinnedServerKey !== undefined && !equal(claimedKey, pinnedServerKey)) {
    return { kind: 'server-key-changed', serverPublicKey: claimedKey };
  }
  const finished = attempt((opaque) =>
    opaque.client.finishRegistration({
      password: started.password,
      clientRegistrationState: started.state,
      registrationResponse: encodeBase64Url(response),
      identifiers: identifiers(parties),
      keyStretching: { 'argon2id-custom': stretching },
    }),
  );
  if (finished === undefined) return { kind: 'bad-response' };
  return {
    kind: 'registered',
    record: bytesOf(finished.registrationRecord),
    exportKey: bytesOf(finished.exportKey),
    serverPublicKey: bytesOf(finished.serverStaticPublicKey),
  };
}

export function opaqueLoginStart(password: string): { readonly state: OpaqueClientState; readonly ke1: Uint8Array } {
  const canonical = canonicalPassword(password);
  const started = opaque().client.startLogin({ password: canonical });
  return { state: { password: canonical, state: started.clientLoginState }, ke1: bytesOf(started.startLoginRequest) };
}

export type OpaqueLoginOutcome =
  | {
      readonly kind: 'proven';
      /** For the server, 64 bytes. */
      readonly ke3: Uint8Array;
      readonly exportKey: Uint8Array;
      readonly sessionKey: Uint8Array;
      readonly serverPublicKey: Uint8Array;
    }
  /** Wrong password or unknown account: OPAQUE does not say which. */
  | { readonly kind: 'wrong-password' }
  | { readonly kind: 'bad-response' }
  | { readonly kind: 'server-key-changed'; readonly serverPublicKey: Uint8Array };

/**
 * @param pinnedServerKey the key kept from registration; another one ends the login
 * @param stretching as at registration
 */
export function opaqueLoginFinish(
  started: OpaqueClientState,
  parties: OpaqueParties,
  ke2: Uint8Array,
  pinnedServerKey?: Uint8Array,
  stretching = PASSWORD_STRETCHING,
): OpaqueLoginOutcome {
  if (ke2.length !== OPAQUE_KE2_BYTES) return { kind: 'bad-response' };
  const finished = attempt((opaque) => ({
    result: opaque.client.finishLogin({
      password: started.password,
      clientLoginState: started.state,
      loginResponse: encodeBase64Url(ke2),
      identifiers: identifiers(parties),
      keyStretching: { 'argon2id-custom': stretching },
    }),
  }));
  if (finished === undefined) return { kind: 'bad-response' };
  if (finished.result === undefined) return { kind: 'wrong-password' };
  const serverPublicKey = bytesOf(finished.result.serverStaticPublicKey);
  if (pinnedServerKey !== undefined && !equal(serverPublicKey, pinnedServerKey)) {
    return { kind: 'server-key-changed', serverPublicKey };
  }
  return {
    kind: 'proven',
    ke3: bytesOf(finished.result.finishLoginRequest),
    exportKey: bytesOf(finished.result.exportKey),
    sessionKey: bytesOf(finished.result.sessionKey),
    serverPublicKey,
  };
}

/** The server's long-term OPAQUE secret: OPRF seed 64 ‖ private key 32 ‖ key for made-up records 32. */
export function opaqueCreateSetup(): Uint8Array {
  return bytesOf(opaque().server.createSetup());
}

/** The public key of a setup, 32 bytes; undefined when the setup is damaged. */
export function opaqueServerPublicKey(setup: Uint8Array): Uint8Array | undefined {
  if (setup.length !== OPAQUE_SETUP_BYTES) return undefined;
  const key = attempt((opaque) => opaque.server.getPublicKey(encodeBase64Url(setup)));
  return key === undefined ? undefined : bytesOf(key);
}

/** The answer to a RegistrationRequest, 64 bytes; undefined when the request is malformed. */
export function opaqueRegistrationResponse(
  setup: Uint8Array,
  username: string,
  request: Uint8Array,
): Uint8Array | undefined {
  if (request.length !== OPAQUE_REGISTRATION_REQUEST_BYTES) return undefined;
  const answered = attempt((opaque) =>
    opaque.server.createRegistrationResponse({
      serverSetup: encodeBase64Url(setup),
      userIdentifier: username,
      registrationRequest: encodeBase64Url(request),
    }),
  );
  return answered === undefined ? undefined : bytesOf(answered.registrationResponse);
}

/** Whether these bytes are a RegistrationRecord that a login can be answered from. */
export function isOpaqueRecord(setup: Uint8Array, username: string, record: Uint8Array): boolean {
  if (record.length !== OPAQUE_RECORD_BYTES) return false;
  const { ke1 } = opaqueLoginStart('');
  return opaqueServerLoginStart(setup, { username, origin: '' }, record, ke1).kind === 'started';
}

export type OpaqueServerLoginStart =
  | {
      readonly kind: 'started';
      /** For `opaqueServerLoginFinish`. Secret, used once. */
      readonly state: string;
      readonly ke2: Uint8Array;
    }
  | { readonly kind: 'malformed' };

/** @param record the account's record; undefined for an unknown name, which is answered from a made-up one */
export function opaqueServerLoginStart(
  setup: Uint8Array,
  parties: OpaqueParties,
  record: Uint8Array | undefined,
  ke1: Uint8Array,
): OpaqueServerLoginStart {
  if (setup.length !== OPAQUE_SETUP_BYTES) throw new Misuse('an OPAQUE server setup has another length');
  if (ke1.length !== OPAQUE_KE1_BYTES) return { kind: 'malformed' };
  const started = attempt((opaque) =>
    opaque.server.startLogin({
      serverSetup: encodeBase64Url(setup),
      userIdentifier: parties.username,
      registrationRecord: record === undefined ? undefined : encodeBase64Url(record),
      startLoginRequest: encodeBase64Url(ke1),
      identifiers: identifiers(parties),
    }),
  );
  if (started === undefined) return { kind: 'malformed' };
  return { kind: 'started', state: started.serverLoginState, ke2: bytesOf(started.loginResponse) };
}

export type OpaqueServerLoginFinish =
  | { readonly kind: 'proven'; readonly sessionKey: Uint8Array }
  | { readonly kind: 'refused' };

/** Whether KE3 proves the password. */
export function opaqueServerLoginFinish(
  state: string,
  parties: OpaqueParties,
  ke3: Uint8Array,
): OpaqueServerLoginFinish {
  if (ke3.length !== OPAQUE_KE3_BYTES) return { kind: 'refused' };
  const finished = attempt((opaque) =>
    opaque.server.finishLogin({
      serverLoginState: state,
      finishLoginRequest: encodeBase64Url(ke3),
      identifiers: identifiers(parties),
    }),
  );
  return finished === undefined ? { kind: 'refused' } : { kind: 'proven', sessionKey: bytesOf(finished.sessionKey) };
}

// The library throws for every malformed message; which field it was helps nobody but an attacker.
function attempt<T>(call: (opaque: Library) => T): T | undefined {
  const loaded = opaque();
  try {
    return call(loaded);
  } catch {
    return undefined;
  }
}
