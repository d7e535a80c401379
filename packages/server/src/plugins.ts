/**
 * Asking plugins. Handlers ask at the point where they know what they are about to do; without plugins that is one look
 * at an undefined field. The threads behind it are in plugin-host.node.ts.
 */
import type { DeviceSession, ServerContext } from './context.ts';
import type { Call, DeviceCall } from './handler.ts';
import type { AuthEvent, ChannelEvent, FetchEvent, HookEvents, HookName } from './plugin.ts';
import { deviceGone, forbidden, rateLimited, unavailable } from './refusals.ts';
import type { Target } from './store/store.ts';

/** What plugins say together: the first that does not allow decides. */
export type Decision =
  | { readonly kind: 'allowed' }
  | { readonly kind: 'rejected'; readonly reason: string; readonly retryAfterMs: number | undefined }
  /** A plugin failed, and this hook refuses then. */
  | { readonly kind: 'undecided' };

/** All plugins of a server. */
export interface Plugins {
  has(hook: HookName): boolean;
  ask<Hook extends HookName>(hook: Hook, event: HookEvents[Hook]): Promise<Decision>;
  /** Without waiting for a verdict. */
  tell<Hook extends HookName>(hook: Hook, event: HookEvents[Hook]): void;
}

const UNDECIDED_RETRY_MS = 2_000;

async function ask<Hook extends HookName>(plugins: Plugins, hook: Hook, event: HookEvents[Hook]): Promise<void> {
  const decision = await plugins.ask(hook, event);
  if (decision.kind === 'allowed') return;
  if (decision.kind === 'undecided') {
    throw unavailable('a plugin of this server cannot decide now', UNDECIDED_RETRY_MS);
  }
  const words = decision.reason === '' ? 'this server refuses that' : `this server refuses that: ${decision.reason}`;
  throw decision.retryAfterMs === undefined ? forbidden(words) : rateLimited(words, decision.retryAfterMs);
}

const callOf = ({ server, context }: Call): string => server.callId(context.sequence);

/** @throws RpcError when a plugin does not want the envelope */
export async function askEnqueue(
  call: Call,
  {
    target,
    channelId,
    data,
    ephemeral,
  }: {
    readonly target: Target;
    readonly channelId: Uint8Array | undefined;
    readonly data: Uint8Array;
    readonly ephemeral: boolean;
  },
): Promise<void> {
  const { server, connection } = call;
  if (server.plugins?.has('enqueue') !== true) return;
  const { auditor } = server;
  // A sealed sender's network address would lead to the named connections from there: it is in no such event.
  const session = target.kind !== 'sealed' && connection.state.session?.kind === 'device' && connection.state.session;
  await ask(server.plugins, 'enqueue', {
    call: callOf(call),
    sender: session === false ? null : auditor.reference('account', session.address.identityKey),
    senderDevice: session === false ? null : auditor.reference('device', session.address.deviceId),
    channel: channelId === undefined ? null : auditor.reference('channel', channelId),
    recipients: target.kind === 'recipients' ? target.recipients.length : null,
    bytes: data.length,
    ephemeral,
  });
  // Whoever was revoked or banned while a plugin thought sends nothing any more.
  if (session !== false && connection.state.session !== session) throw deviceGone();
}

/** @throws RpcError when a plugin does not want the device to read */
export async function askFetch(call: DeviceCall, how: FetchEvent['how']): Promise<void> {
  const { server, session } = call;
  if (server.plugins?.has('fetch') !== true) return;
  await ask(server.plugins, 'fetch', { call: callOf(call), how, ...namesOf(server, session) });
}

/** @throws RpcError when a plugin does not want the session to begin */
export async function askAuth(
  call: Call,
  how: AuthEvent['how'],
  who: { readonly identityKey: Uint8Array; readonly deviceId: Uint8Array },
): Promise<void> {
  const { plugins } = call.server;
  if (plugins?.has('auth') === true) await ask(plugins, 'auth', authEvent(call, how, 'proven', who));
}

/** Tells plugins that somebody could not prove who they are. */
export function tellRefused(
  call: Call,
  how: AuthEvent['how'],
  who: { readonly identityKey: Uint8Array | undefined; readonly deviceId: Uint8Array },
): void {
  const { plugins } = call.server;
  if (plugins?.has('auth') === true) plugins.tell('auth', authEvent(call, how, 'refused', who));
}

function authEvent(
  call: Call,
  how: AuthEvent['how'],
  outcome: AuthEvent['outcome'],
  { identityKey, deviceId }: { readonly identityKey: Uint8Array | undefined; readonly deviceId: Uint8Array },
): AuthEvent {
  const { auditor } = call.server;
  // Hashed also for nobody, which must not take less time (THREATS 20).
  const account = auditor.reference('account', identityKey ?? deviceId);
  return {
    call: callOf(call),
    how,
    outcome,
    account: identityKey === undefined ? null : account,
    device: auditor.reference('device', deviceId),
    network: auditor.networkReference(call.connection.state.network),
  };
}

/** @throws RpcError when a plugin does not want the channel or its commit */
export async function askChannel(
  call: DeviceCall,
  how: ChannelEvent['how'],
  channelId: Uint8Array | undefined,
  roster: { readonly added: number; readonly removed: number },
): Promise<void> {
  const { server, session } = call;
  if (server.plugins?.has('channel') !== true) return;
  await ask(server.plugins, 'channel', {
    call: callOf(call),
    how,
    channel: channelId === undefined ? null : server.auditor.reference('channel', channelId),
    ...namesOf(server, session),
    ...roster,
  });
}

/** @throws RpcError when a plugin does not want the account */
export async function askRegistration(call: Call, username: string): Promise<void> {
  const { plugins, auditor } = call.server;
  if (plugins?.has('registration') !== true) return;
  const network = auditor.networkReference(call.connection.state.network);
  await ask(plugins, 'registration', { call: callOf(call), username, network });
}

function namesOf({ auditor }: ServerContext, { address }: DeviceSession): { account: string; device: string } {
  const { identityKey, deviceId } = address;
  return { account: auditor.reference('account', identityKey), device: auditor.reference('device', deviceId) };
}
