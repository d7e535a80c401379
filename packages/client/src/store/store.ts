/**
 * One profile's state (DESIGN section 6): a SQLite database behind the driver port, one small typed module per concern.
 * The engine composes several of them in one `transaction`: a ratchet step and what it made are on disk together or not
 * at all.
 *
 *   store.transaction(() => {
 *     store.mlsRows.apply(channelId, diffRows(previous, next));
 *     const localId = store.messages.insert(message);
 *     store.inbox.advance(seq);
 *   });
 */
import { type AccountStore, accountStore } from './account.ts';
import { type ContactStore, contactStore } from './contacts.ts';
import { type ConversationStore, conversationStore } from './conversations.ts';
import type { Driver, Synchronous } from './driver.ts';
import { type InboxStore, inboxStore } from './inbox.ts';
import { type KeyStore, keyStore } from './keys.ts';
import { type LogStore, logStore } from './log.ts';
import { type MessageStore, messageStore } from './messages.ts';
import { migrate } from './migrations.ts';
import { type MlsRowStore, mlsRowStore } from './mls-rows.ts';
import { type OutboxStore, outboxStore } from './outbox.ts';
import { type RejoinRequestStore, rejoinRequestStore } from './rejoin-requests.ts';
import { type TreeStore, treeStore } from './trees.ts';
import { type EvidenceStore, evidenceStore, type SettingsStore, settingsStore } from './settings.ts';

export interface Store {
  readonly account: AccountStore;
  readonly keys: KeyStore;
  readonly contacts: ContactStore;
  readonly conversations: ConversationStore;
  readonly mlsRows: MlsRowStore;
  /** Of the group that a pending ReInit of ours opens; gone with the pending commit. */
  readonly successorRows: MlsRowStore;
  /** Of the group that a ReInit closed; gone with `conversations.deletePredecessor`. */
  readonly predecessorRows: MlsRowStore;
  readonly messages: MessageStore;
  readonly outbox: OutboxStore;
  readonly inbox: InboxStore;
  readonly rejoinRequests: RejoinRequestStore;
  readonly trees: TreeStore;
  readonly log: LogStore;
  readonly settings: SettingsStore;
  readonly evidence: EvidenceStore;
  /** As `Driver.transaction`. */
  transaction<T>(body: () => Synchronous<T>): T;
  /** Idempotent. */
  close(): void;
}

/**
 * Brings the database to the current schema and opens the modules on it.
 * @throws LocalStateError `profile-newer`, `profile-damaged`, `profile-in-use`, `profile-unwritable`
 */
export function openStore(driver: Driver): Store {
  migrate(driver);
  return {
    account: accountStore(driver),
    keys: keyStore(driver),
    contacts: contactStore(driver),
    conversations: conversationStore(driver),
    mlsRows: mlsRowStore(driver, 'mls_rows'),
    successorRows: mlsRowStore(driver, 'successor_rows'),
    predecessorRows: mlsRowStore(driver, 'predecessor_rows'),
    messages: messageStore(driver),
    outbox: outboxStore(driver),
    inbox: inboxStore(driver),
    rejoinRequests: rejoinRequestStore(driver),
    trees: treeStore(driver),
    log: logStore(driver),
    settings: settingsStore(driver),
    evidence: evidenceStore(driver),
    transaction: (body) => driver.transaction(body),
    close: () => driver.close(),
  };
}
