/**
 * How often each call may be made: per connection, per network address without a session, per account with one. First its
 * pace (docs/decisions/0023-pacing.md), which makes it wait; then, in its turn, the table of what is refused. Both run before
 * the request is decoded. Limits that depend on what a request says are taken by its handler.
 */
import { methods } from '@quicprochat/transport';
import type { CallContext, Pace } from '@quicprochat/transport';
import type { ClientConnection, ConnectionState, ServerContext } from './context.ts';
import type { RateLimits, RateName } from './rate-limits.ts';

interface MethodLimit {
  readonly name: RateName;
  readonly by: 'account' | 'network';
  /** What is counted; default: calls. */
  readonly count?: 'KiB';
}

const perAccount = (name: RateName): MethodLimit => ({ name, by: 'account' });
const SENDING: MethodLimit[] = [perAccount('enqueues'), { name: 'enqueueKib', by: 'account', count: 'KiB' }];
const LOOKING_UP: MethodLimit[] = [perAccount('resolves'), { name: 'resolvesFromAddress', by: 'network' }];
const READING: MethodLimit[] = [perAccount('reads')];
const CHANGING: MethodLimit[] = [perAccount('changes')];

const LIMITS: ReadonlyMap<number, readonly MethodLimit[]> = new Map([
  [methods.delivery.enqueue.id, SENDING],
  [methods.delivery.batchEnqueue.id, SENDING],
  [methods.blob.uploadBlob.id, [{ name: 'uploadKib', by: 'account', count: 'KiB' }]],
  [methods.user.resolveUser.id, LOOKING_UP],
  [methods.user.resolveIdentity.id, LOOKING_UP],
  [methods.p2p.resolveEndpoint.id, LOOKING_UP],
  [methods.keys.fetchHybridKey.id, READING],
  [methods.keys.fetchHybridKeys.id, READING],
  [methods.keys.checkRevocation.id, READING],
  [methods.keys.countKeyPackages.id, READING],
  [methods.group.listGroupMembers.id, READING],
  [methods.device.listDevices.id, READING],
  [methods.keys.uploadHybridKey.id, CHANGING],
  [methods.keys.revokeKey.id, CHANGING],
  [methods.device.registerDevice.id, CHANGING],
  [methods.device.revokeDevice.id, CHANGING],
  [methods.device.registerPushToken.id, CHANGING],
  [methods.recovery.storeRecoveryBundle.id, CHANGING],
  [methods.recovery.deleteRecoveryBundle.id, CHANGING],
  [methods.p2p.publishEndpoint.id, CHANGING],
]);

const SENDS: ReadonlySet<number> = new Set([methods.delivery.enqueue.id, methods.delivery.batchEnqueue.id]);

/** When this call may begin; without a context, when one may be answered that was refused at its header. */
export function paceCall(
  { rates }: ServerContext,
  { state }: ClientConnection,
  context: CallContext<ConnectionState> | undefined,
): Pace {
  state.calls ??= rates.bucket('calls');
  const asCall = rates.paceOf('calls', state.calls);
  const { session } = state;
  if (asCall.kind === 'refuse' || context === undefined) return asCall;
  if (session?.kind !== 'device' || !SENDS.has(context.method.id)) return asCall;
  const asMessage = rates.pace('sends', session.device);
  return asMessage.kind === 'refuse' || asMessage.waitMs > asCall.waitMs ? asMessage : asCall;
}

/** @throws RpcError `rate limited` */
export function limitCall(server: ServerContext, context: CallContext<ConnectionState>): void {
  const { rates } = server;
  const { state } = context.connection;
  state.usedAt = server.clock.now();
  const { session } = state;
  if (session?.kind !== 'device') {
    rates.take('anonymous', state.network);
    return;
  }
  const limits = LIMITS.get(context.method.id);
  if (limits !== undefined) for (const limit of limits) take(rates, limit, session.account, state.network, context);
}

function take(
  rates: RateLimits,
  { name, by, count }: MethodLimit,
  account: string,
  network: string,
  { requestBytes }: CallContext<ConnectionState>,
): void {
  rates.take(name, by === 'account' ? account : network, count === 'KiB' ? Math.ceil(requestBytes / 1024) : 1);
}
