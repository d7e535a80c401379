/**
 * What surrounds every handler: who may call (`authorize`), the caller's session as a type, and what becomes of errors.
 *
 *   dispatcher → authorize → handler(call, request) → response | RpcError
 *                                └ StoreError → unavailable | internal;  anything else → internal, with a reference
 */
import type { DescMessage, MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import { encodeHex } from '@quicprochat/crypto';
import { Status } from '@quicprochat/proto';
import { route, RpcError } from '@quicprochat/transport';
import type { CallContext, MethodAuth, MethodDescriptor, Route } from '@quicprochat/transport';
import type { AuditEvent } from './audit.ts';
import type { ClientConnection, ConnectionState, DeviceSession, ServerContext } from './context.ts';
import { forbidden, passwordChanged, unauthenticated } from './refusals.ts';
import { isStillThePassword } from './sessions.ts';
import { StoreError } from './store/store.ts';
import type { WriteContext } from './store/store.ts';

/** One call, for its handler. */
export interface Call {
  readonly server: ServerContext;
  readonly connection: ClientConnection;
  readonly context: CallContext<ConnectionState>;
  /** Goes with every write to the store. */
  readonly writes: WriteContext;
  /** Aborted when nobody waits for the answer any more. */
  signal(): AbortSignal;
}

/** A call by a registered device. */
export interface DeviceCall extends Call {
  readonly session: DeviceSession;
}

/** Binds a handler to a server. */
export type RouteMaker = (server: ServerContext) => Route<ConnectionState>;

type Answer<O extends DescMessage> = MessageInitShape<O> | Promise<MessageInitShape<O>>;

/** Into the audit log. */
export function audit({ server, connection, context }: Call, event: AuditEvent): void {
  server.auditor.record(event, { network: connection.state.network, call: server.callId(context.sequence) });
}

/** A handler for callers with or without a session. */
export function handler<I extends DescMessage, O extends DescMessage>(
  method: MethodDescriptor<I, O>,
  run: (call: Call, request: MessageShape<I>) => Answer<O>,
): RouteMaker {
  return (server) => route(method, guarded(server, method, run));
}

/** A handler for registered devices. */
export function deviceHandler<I extends DescMessage, O extends DescMessage>(
  method: MethodDescriptor<I, O>,
  run: (call: DeviceCall, request: MessageShape<I>) => Answer<O>,
): RouteMaker {
  return handler(method, (call, request) => {
    const { session } = call.connection.state;
    if (session?.kind !== 'device') throw noSession();
    return run({ ...call, session }, request);
  });
}

/** A call by somebody who has proven an account's password, from a registered device or from another. */
interface AccountCall extends Call {
  readonly session: NonNullable<ConnectionState['session']>;
}

/** A handler for both. */
export function accountHandler<I extends DescMessage, O extends DescMessage>(
  method: MethodDescriptor<I, O>,
  run: (call: AccountCall, request: MessageShape<I>) => Answer<O>,
): RouteMaker {
  return handler(method, async (call, request) => {
    const session = await accountSession(call);
    if (session === undefined) throw noSession();
    return run({ ...call, session }, request);
  });
}

/** The session of a connection; one that a password alone has opened ends when that is changed. */
export async function accountSession({ server, connection }: Call): Promise<AccountCall['session'] | undefined> {
  const { session } = connection.state;
  if (session?.kind === 'recovery' && !(await isStillThePassword(server, session))) {
    connection.state.session = undefined;
    throw passwordChanged();
  }
  return session;
}

/** A large read, in its device's turn, for as long as somebody waits for it and the session lasts. */
export function readInTurn<T>(call: DeviceCall, read: () => Promise<T>): Promise<T> {
  return call.server.readTurns.take(call.session.address, async () => {
    if (call.signal().aborted) throw new RpcError(Status.CANCELLED, 'nobody waits for this any more');
    if (call.connection.state.session !== call.session) throw noSession();
    return read();
  });
}

/** A handler for devices of the administrators that the configuration names. */
export function adminHandler<I extends DescMessage, O extends DescMessage>(
  method: MethodDescriptor<I, O>,
  run: (call: DeviceCall, request: MessageShape<I>) => Answer<O>,
): RouteMaker {
  return deviceHandler(method, (call, request) => {
    if (!call.server.admins.has(encodeHex(call.session.address.identityKey))) {
      throw forbidden('only an administrator of this server may do that');
    }
    return run(call, request);
  });
}

/** Whether this connection may call this method; runs before the request is decoded. */
export function authorize(context: CallContext<ConnectionState>): void {
  const { session } = context.connection.state;
  const auth = context.method.auth as MethodAuth;
  switch (auth) {
    case 'anyone':
      return;
    case 'device-or-sealed':
      // Without a session the handler wants a send token.
      if (session === undefined || session.kind === 'device') return;
      throw keysElsewhere();
    case 'admin':
    // Which devices are an administrator's, `adminHandler` knows.
    case 'device':
      if (session?.kind === 'device') return;
      throw session === undefined ? noSession() : keysElsewhere();
    case 'recovery':
      if (session !== undefined) return;
      throw noSession();
    case 'server':
      throw forbidden('this server offers that to nobody');
    default:
      throw new Error(`no such auth rule: ${String(auth satisfies never)}`);
  }
}

function noSession(): RpcError {
  return unauthenticated('this connection has no session', 'Log in first.');
}

function keysElsewhere(): RpcError {
  return forbidden(
    'the password is right, but this device is not registered',
    'Use the profile that holds the keys of this account.',
  );
}

function guarded<I extends DescMessage, O extends DescMessage>(
  server: ServerContext,
  method: MethodDescriptor<I, O>,
  run: (call: Call, request: MessageShape<I>) => Answer<O>,
): (context: CallContext<ConnectionState>, request: MessageShape<I>) => Answer<O> {
  return (context, request) => {
    const { connection } = context;
    const failed = (error: unknown): RpcError => asRpcError(server, method, context, error);
    // Several connections of one device take turns like one.
    const { session } = connection.state;
    const fairnessKey = session?.kind === 'device' ? session.device : connection.id;
    try {
      const answer = run(
        { server, connection, context, writes: { fairnessKey }, signal: () => context.signal },
        request,
      );
      return answer instanceof Promise
        ? answer.catch((error: unknown) => {
            throw failed(error);
          })
        : answer;
    } catch (error) {
      throw failed(error);
    }
  };
}

function asRpcError(
  server: ServerContext,
  method: MethodDescriptor,
  { connection, sequence }: CallContext<ConnectionState>,
  error: unknown,
): RpcError {
  if (error instanceof RpcError) return error;
  const call = server.callId(sequence);
  const fields = { method: method.name, connection: connection.id, call, err: error };
  if (error instanceof StoreError && error.kind !== 'internal' && error.kind !== 'misuse') {
    server.log.warn({ ...fields, store: error.kind }, 'the store could not serve a call');
    return new RpcError(Status.UNAVAILABLE, STORE_WORDS[error.kind] ?? 'the server cannot read or write its data now', {
      hint: 'Try again later; nothing was kept of this request.',
      retryAfterMs: error.kind === 'unavailable' ? 500 : 30_000,
    });
  }
  server.log.error(fields, 'a handler failed');
  return new RpcError(Status.INTERNAL, `a fault of the server, recorded there under reference ${call}`);
}

const STORE_WORDS: Record<string, string> = {
  unavailable: 'the server is overloaded',
  disk_full: 'the disk of the server is full',
};
