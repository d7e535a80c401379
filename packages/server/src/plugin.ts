/**
 * What a server plugin is (docs/plugins.md): a module whose default export says which hooks it has. It runs in a thread
 * of its own; what it sees are the events below and nothing else of the server. Accounts, devices and channels are keyed
 * hashes, the same as in the audit log; network addresses are hashed under a key that each start draws anew; payloads,
 * keys, passwords and tokens are in no event.
 */

/** In every event of a call. */
interface CallEvent {
  /** Name of the call, as in the logs. */
  readonly call: string;
}

/** Before an envelope is taken from its sender. */
export interface EnqueueEvent extends CallEvent {
  /** Null when nobody says who it is: a sealed sender. */
  readonly sender: string | null;
  readonly senderDevice: string | null;
  /** Null for an envelope outside any channel. */
  readonly channel: string | null;
  /** How many recipients the request names; null: the roster of the channel. */
  readonly recipients: number | null;
  readonly bytes: number;
  readonly ephemeral: boolean;
}

/** Before a device reads its inbox. */
export interface FetchEvent extends CallEvent {
  readonly how: 'fetch' | 'fetch_wait' | 'peek' | 'subscribe';
  readonly account: string;
  readonly device: string;
}

/** After somebody has proven who they are, before the session begins; or after they could not. */
export interface AuthEvent extends CallEvent {
  readonly how: 'login' | 'resume';
  /** `refused` is told, not asked: the verdict counts for nothing. */
  readonly outcome: 'proven' | 'refused';
  /** Null when nobody is known by what was given. */
  readonly account: string | null;
  readonly device: string;
  readonly network: string;
}

/** Before a channel is opened or a commit appended to it. */
export interface ChannelEvent extends CallEvent {
  readonly how: 'create_group' | 'create_direct' | 'commit';
  readonly account: string;
  readonly device: string;
  /** Null for a direct channel that has no id yet. */
  readonly channel: string | null;
  /** Devices that come to the roster, and that leave it. */
  readonly added: number;
  readonly removed: number;
}

/** Before an account is made; everything about it has been checked but whether the name is free. */
export interface RegistrationEvent extends CallEvent {
  /** The name asked for, since it is what a plugin may want to decide on: the one name that any event has. */
  readonly username: string;
  readonly network: string;
}

/** Whatever each hook is given. */
export interface HookEvents {
  readonly enqueue: EnqueueEvent;
  readonly fetch: FetchEvent;
  readonly auth: AuthEvent;
  readonly channel: ChannelEvent;
  readonly registration: RegistrationEvent;
  /** The server stops; the thread ends at the deadline of this hook at the latest. */
  readonly shutdown: Readonly<Record<string, never>>;
}

export type HookName = keyof HookEvents;

export const HOOK_NAMES: readonly HookName[] = ['enqueue', 'fetch', 'auth', 'channel', 'registration', 'shutdown'];

/** Nothing lets the call go on. */
export type Verdict =
  | undefined
  | null
  // oxlint-disable-next-line typescript/no-invalid-void-type -- a hook that only looks returns nothing
  | void
  | {
      /** What the caller is told, at most 200 characters. */
      readonly reject: string;
      /** The call may be tried again after so many milliseconds: it is then `rate limited`, else `forbidden`. */
      readonly retryAfterMs?: number;
    };

export type Hooks = {
  readonly [Hook in HookName]?: (event: HookEvents[Hook]) => Verdict | Promise<Verdict>;
};

/** What becomes of a call whose plugin throws, is late, says what is no verdict, or is not there. */
export type OnFailure = 'allow' | 'refuse';

export interface Plugin {
  /** For logs and metrics: `[a-z0-9-]`, at most 32 characters. */
  readonly name: string;
  readonly hooks: Hooks;
  /** Default: `enqueue` and `fetch` allow, `auth`, `channel` and `registration` refuse. */
  readonly onFailure?: { readonly [Hook in HookName]?: OnFailure };
}

export const ON_FAILURE: Readonly<Record<HookName, OnFailure>> = {
  enqueue: 'allow',
  fetch: 'allow',
  auth: 'refuse',
  channel: 'refuse',
  registration: 'refuse',
  shutdown: 'allow',
};

/** What a plugin is given when it starts. */
export interface PluginHost {
  readonly origin: string;
  readonly version: string;
  /** The variables QPC_PLUGIN_* of the server's environment; no others reach a plugin. */
  readonly environment: Readonly<Record<string, string>>;
  /** Into the server's log, under the plugin's name, with the redaction of every line there. */
  log(message: string, fields?: Readonly<Record<string, string | number | boolean | null>>): void;
}

/** The default export of a plugin's module. */
export type PluginModule = (host: PluginHost) => Plugin | Promise<Plugin>;

/** Gives a plugin its types; otherwise it changes nothing. */
export function definePlugin(module: PluginModule): PluginModule {
  return module;
}
