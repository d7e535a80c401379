/** A profile's state, portable part. On Node, profile.node.ts opens one. */
export type * from './account.ts';
export type * from './contacts.ts';
export type * from './conversations.ts';
export type * from './driver.ts';
export type * from './inbox.ts';
export type * from './keys.ts';
export type * from './log.ts';
export { LocalStateError } from './local-state-error.ts';
export type * from './messages.ts';
export type * from './mls-rows.ts';
export type * from './outbox.ts';
export type * from './rejoin-requests.ts';
export type * from './settings.ts';
export type { Store } from './store.ts';
