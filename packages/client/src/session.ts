/**
 * What happens on each new connection, in this order (DESIGN section 3, PROTOCOL sections 3 and 10):
 *
 *   Health ─▶ the server is the one we know? ─▶ GetNonce, ResumeSession ─▶ Subscribe from the cursor ─▶ online
 *
 * A server is known by its origin and its receipt, OPAQUE and log keys, pinned at first contact. A change of any is
 * refused: only the old key's signature could vouch for a new one, and no server signs such a thing today.
 */
import { equal } from '@quicprochat/crypto';
import { DEVICE_KEY_BYTES, LOG_ORIGIN_CHARS_MAX, signResumeProof, VRF_PUBLIC_KEY_BYTES } from '@quicprochat/core';
import { type HealthResponse, Status } from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import type { Engine } from './engine.ts';
import { ClientError } from './errors.ts';
import { statusOf } from './server-errors.ts';
import type { ServerPin } from './store/index.ts';

const ORIGIN_CHARS_MAX = 255;

/** Asks the server who it is and compares that with the pins. @throws ClientError `server-changed` */
export async function greetServer(engine: Engine): Promise<ServerPin> {
  const health = await engine.server.call(methods.p2p.health, {});
  return pinServer(engine, health);
}

export function pinServer(engine: Engine, health: HealthResponse): ServerPin {
  const told = pinOf(engine, health);
  const home = engine.account?.origin;
  if (home !== undefined && told.origin !== home) {
    throw serverChanged(`this server calls itself ${told.origin}, but the account of this profile is at ${home}`);
  }
  const known = engine.store.account.serverPin(told.origin);
  if (known === undefined) {
    engine.change((change) => change.store.account.saveServerPin(told));
    return told;
  }
  if (!equal(known.opaqueKey, told.opaqueKey)) throw serverChanged('the server’s login key has changed');
  if (!equal(known.receiptKey, told.receiptKey)) throw serverChanged('the server’s receipt key has changed');
  if (known.logKey.length > 0 && !isSameLog(known, told)) {
    throw serverChanged(
      told.logKey.length === 0
        ? 'the server no longer shows its key-transparency log'
        : 'the server’s key-transparency log is another one than before',
    );
  }
  if (known.logKey.length === 0 && told.logKey.length > 0) {
    // A log that begins later is a first contact with it.
    engine.change((change) => change.store.account.saveServerPin({ ...told, pinnedAtMs: known.pinnedAtMs }));
    return told;
  }
  return known;
}

/** The pin of the server we are connected to. @throws ClientError `bug` before the greeting */
export function currentPin(engine: Engine): ServerPin {
  if (engine.pin === undefined) throw new ClientError('bug', 'bug', 'the server has not been greeted yet');
  return engine.pin;
}

/**
 * Resumes the session if the profile has one. One that the server has ended, or whose device is gone, is forgotten, and
 * said so. One that it refuses without saying that (`forbidden`: a ban, or a rule of the operator's) is kept: it may be
 * good again on another connection.
 */
export async function resumeSession(engine: Engine): Promise<void> {
  engine.hasSession = false;
  const session = engine.store.account.session();
  const { account } = engine;
  if (session === undefined || account === undefined || account.state !== 'registered') return;
  const { nonce } = await engine.server.call(methods.auth.getNonce, {});
  const { origin, deviceId, devicePrivateKey } = account;
  const { token } = session;
  try {
    const answer = await engine.server.call(methods.auth.resumeSession, {
      token,
      deviceId,
      deviceSignature: signResumeProof(engine.crypto, devicePrivateKey, { origin, nonce, deviceId, token }),
    });
    const identity = answer.session?.identityKey;
    if (identity !== undefined && identity.length > 0 && !equal(identity, account.identityKey)) {
      throw serverChanged('the server takes this session for somebody else’s');
    }
    engine.hasSession = true;
    engine.sessionRefusal = undefined;
  } catch (error) {
    const status = statusOf(error);
    if (status === Status.FORBIDDEN && error instanceof ClientError) return refused(engine, error);
    if (status !== Status.UNAUTHENTICATED) throw error;
    engine.sessionRefusal = undefined;
    engine.change((change) => {
      change.store.account.clearSession();
      change.emit({
        type: 'warning',
        code: 'session-ended',
        conversationId: undefined,
        text: 'the server has ended this session; log in again',
      });
    });
  }
}

// Each connection asks again; said is it when there is something new to say.
function refused(engine: Engine, { message, hint }: ClientError): void {
  const before = engine.sessionRefusal;
  engine.sessionRefusal = { message, hint };
  if (before?.message === message && before.hint === hint) return;
  const text = `the server refuses this session: ${message}. ${hint}`.trimEnd();
  engine.change((change) => change.emit({ type: 'warning', code: 'session-refused', conversationId: undefined, text }));
}

/** Starts the push of our inbox from where it was left. */
export async function subscribe(engine: Engine): Promise<void> {
  // What the server pushes may overtake its answer, and moves the cursor on.
  const afterSeq = engine.inboxCursor;
  let { headSeq } = await engine.server.call(methods.delivery.subscribe, { afterSeq });
  if (headSeq < afterSeq) {
    // The server counts anew, as after a restored backup. What it still has is read from the beginning: what we have
    // already is recognised by what it contains.
    engine.change((change) => {
      change.store.inbox.restart();
      change.emit({
        type: 'warning',
        code: 'inbox-restarted',
        conversationId: undefined,
        text: 'the server has gone back to an earlier state; messages may be missing',
      });
    });
    engine.inboxPassed = 0n;
    ({ headSeq } = await engine.server.call(methods.delivery.subscribe, { afterSeq: 0n }));
  }
  engine.inboxHead = headSeq;
  engine.conditions.check();
}

function pinOf(engine: Engine, health: HealthResponse): ServerPin {
  const { origin, receiptKey, opaqueKey, logOrigin, logKey, logVrfKey } = health;
  const keysFit = [receiptKey, opaqueKey].every((key) => key.length === DEVICE_KEY_BYTES);
  const hasLog = logOrigin !== '' || logKey.length > 0 || logVrfKey.length > 0;
  const logFits =
    !hasLog ||
    (logOrigin !== '' &&
      logOrigin.length <= LOG_ORIGIN_CHARS_MAX &&
      logKey.length === DEVICE_KEY_BYTES &&
      logVrfKey.length === VRF_PUBLIC_KEY_BYTES);
  if (origin === '' || origin.length > ORIGIN_CHARS_MAX || !keysFit || !logFits) {
    throw serverChanged('the server does not say properly who it is');
  }
  return {
    origin,
    receiptKey: receiptKey.slice(),
    opaqueKey: opaqueKey.slice(),
    logOrigin,
    logKey: logKey.slice(),
    logVrfKey: logVrfKey.slice(),
    pinnedAtMs: engine.nowMs(),
  };
}

function isSameLog(a: ServerPin, b: ServerPin): boolean {
  return a.logOrigin === b.logOrigin && equal(a.logKey, b.logKey) && equal(a.logVrfKey, b.logVrfKey);
}

function serverChanged(reason: string): ClientError {
  return new ClientError('verification-failed', 'server-changed', reason, {
    hint: 'Check the address. If the server really was set up anew, its old accounts are gone: use another profile.',
  });
}
