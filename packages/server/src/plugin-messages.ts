/** What the server and a plugin's thread say to each other. */
import type { HookName, OnFailure } from './plugin.ts';

/** Given to the thread when it starts. */
export interface PluginWorkerData {
  readonly url: string;
  readonly origin: string;
  readonly version: string;
  readonly environment: Readonly<Record<string, string>>;
}

export type ToPlugin =
  | { readonly kind: 'ask'; readonly id: number; readonly hook: HookName; readonly event: object }
  /** Answered as soon as the thread's event loop turns. */
  | { readonly kind: 'ping' };

export type FromPlugin =
  | { readonly kind: 'ready'; readonly name: string; readonly hooks: readonly HookName[]; readonly onFailure: object }
  | { readonly kind: 'unusable'; readonly reason: string }
  | { readonly kind: 'answer'; readonly id: number; readonly answer: PluginAnswer }
  | { readonly kind: 'log'; readonly message: string; readonly fields: Readonly<Record<string, unknown>> }
  | { readonly kind: 'pong' };

export type PluginAnswer =
  | { readonly kind: 'allowed' }
  | { readonly kind: 'rejected'; readonly reason: string; readonly retryAfterMs: number | undefined }
  | { readonly kind: 'failed'; readonly reason: string };

export type FailurePolicy = Readonly<Record<HookName, OnFailure>>;

export const REASON_CHARACTERS_MAX = 200;
export const RETRY_MS_MAX = 86_400_000;
/** Of an error's message, of a log line. */
export const WORDS_MAX = 500;
