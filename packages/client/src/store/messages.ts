/**
 * Messages as shown, their full-text index, and de-duplication: whatever arrives is taken in once per (conversation,
 * sender identity, content id), never by the outer message id (PROTOCOL section 8).
 */
import type { Driver, SqlRow } from './driver.ts';
import { booleanOf, bytesOf, columns, numberOf, optional, textOf, wordOf } from './sql.ts';

const STATES = ['queued', 'sent', 'failed', 'received'] as const;
const KINDS = ['text', 'unsupported'] as const;

export interface NewMessage {
  readonly channelId: Uint8Array;
  readonly senderIdentity: Uint8Array;
  readonly senderDevice: Uint8Array;
  readonly contentId: Uint8Array;
  readonly own: boolean;
  readonly state: (typeof STATES)[number];
  readonly kind: (typeof KINDS)[number];
  /** As its author wrote it. */
  readonly text: string;
  readonly replyTo: { readonly senderIdentity: Uint8Array; readonly contentId: Uint8Array } | undefined;
  /** The author's clock. */
  readonly sentAtMs: number;
  /** Our clock. */
  readonly storedAtMs: number;
  /** The server's clock; undefined while queued. */
  readonly acceptedAtMs: number | undefined;
  readonly seen: boolean;
  /** Of the envelope it came or went in; undefined until it is protected. */
  readonly messageId: Uint8Array | undefined;
}

export interface StoredMessage extends NewMessage {
  /** Unique in this profile and in order of display within a conversation. */
  readonly localId: number;
  /** The server's delivery receipt, encoded by the engine. */
  readonly receipt: Uint8Array | undefined;
  /** Recipients that could not be delivered to, in the engine's own words (JSON). */
  readonly undelivered: string | undefined;
}

export interface MessageStore {
  /**
   * Remembers a content that is not shown as a message (`insert` remembers those that are).
   * @returns false when it was taken in before: drop it
   */
  rememberContent(channelId: Uint8Array, senderIdentity: Uint8Array, contentId: Uint8Array): boolean;
  /** Stores a message and returns its localId; undefined when the sender's content id is there already. */
  insert(message: NewMessage): number | undefined;
  get(localId: number): StoredMessage | undefined;
  /** Whether a message of ours went out in this envelope. */
  isOwn(channelId: Uint8Array, messageId: Uint8Array): boolean;
  find(channelId: Uint8Array, senderIdentity: Uint8Array, contentId: Uint8Array): StoredMessage | undefined;
  /** The newest `limit` messages before `before` (a localId), oldest first. */
  history(
    channelId: Uint8Array,
    options: { readonly limit: number; readonly before?: number },
  ): readonly StoredMessage[];
  /** Not yet seen, oldest first, of all conversations or of one. */
  unseen(options: { readonly channelId?: Uint8Array; readonly limit: number }): readonly StoredMessage[];
  unseenCount(channelId: Uint8Array): number;
  markSeen(localIds: readonly number[]): void;
  /** A message of ours: how it fared. `undefined` fields stay as they are. */
  setState(
    localId: number,
    outcome: {
      readonly state: StoredMessage['state'];
      readonly messageId?: Uint8Array;
      readonly acceptedAtMs?: number;
      readonly receipt?: Uint8Array;
      readonly undelivered?: string;
    },
  ): void;
  /** Messages with all words of `query`, the last one as a beginning; newest first. Nothing for a query without words. */
  search(query: string, options: { readonly channelId?: Uint8Array; readonly limit: number }): readonly StoredMessage[];
}

const MESSAGE = columns<NewMessage>({
  channel_id: (message) => message.channelId,
  sender_identity: (message) => message.senderIdentity,
  sender_device: (message) => message.senderDevice,
  content_id: (message) => message.contentId,
  own: (message) => message.own,
  state: (message) => message.state,
  kind: (message) => message.kind,
  text: (message) => message.text,
  reply_identity: (message) => message.replyTo?.senderIdentity,
  reply_content_id: (message) => message.replyTo?.contentId,
  sent_at: (message) => message.sentAtMs,
  stored_at: (message) => message.storedAtMs,
  accepted_at: (message) => message.acceptedAtMs,
  seen: (message) => message.seen,
  message_id: (message) => message.messageId,
});

export function messageStore(driver: Driver): MessageStore {
  const rememberContent = driver.prepare(
    'INSERT INTO contents_seen (channel_id, sender_identity, content_id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING',
  );
  const insert = driver.prepare(
    `${MESSAGE.insert('messages')} ON CONFLICT (channel_id, sender_identity, content_id) DO NOTHING`,
  );
  const touch = driver.prepare('UPDATE conversations SET last_message_at = ? WHERE channel_id = ?');
  const get = driver.prepare('SELECT * FROM messages WHERE id = ?');
  const own = driver.prepare('SELECT 1 AS own FROM messages WHERE message_id = ? AND channel_id = ? AND own = 1');
  const find = driver.prepare('SELECT * FROM messages WHERE channel_id = ? AND sender_identity = ? AND content_id = ?');
  const history = driver.prepare('SELECT * FROM messages WHERE channel_id = ? AND id < ? ORDER BY id DESC LIMIT ?');
  const unseen = driver.prepare('SELECT * FROM messages WHERE seen = 0 ORDER BY id LIMIT ?');
  const unseenIn = driver.prepare('SELECT * FROM messages WHERE seen = 0 AND channel_id = ? ORDER BY id LIMIT ?');
  const unseenCount = driver.prepare('SELECT count(*) AS n FROM messages WHERE seen = 0 AND channel_id = ?');
  const markSeen = driver.prepare('UPDATE messages SET seen = 1 WHERE id = ?');
  const setState = driver.prepare(
    `UPDATE messages SET state = ?, message_id = coalesce(?, message_id), accepted_at = coalesce(?, accepted_at),
       receipt = coalesce(?, receipt), undelivered = coalesce(?, undelivered) WHERE id = ?`,
  );
  const index = driver.prepare(
    `INSERT INTO messages_text (rowid, text)
     SELECT id, text FROM messages WHERE id > coalesce((SELECT max(id) FROM messages_text_docsize), 0)`,
  );
  const search = driver.prepare(
    `SELECT messages.* FROM messages_text JOIN messages ON messages.id = messages_text.rowid
     WHERE messages_text MATCH ? ORDER BY messages.id DESC LIMIT ?`,
  );
  const searchIn = driver.prepare(
    `SELECT messages.* FROM messages_text JOIN messages ON messages.id = messages_text.rowid
     WHERE messages_text MATCH ? AND messages.channel_id = ? ORDER BY messages.id DESC LIMIT ?`,
  );

  return {
    rememberContent: (channelId, senderIdentity, contentId) =>
      rememberContent.run(channelId, senderIdentity, contentId).changes === 1,
    insert: (message) =>
      driver.transaction(() => {
        const { changes, lastInsertRowid } = insert.run(...MESSAGE.values(message));
        if (changes === 0) return undefined;
        touch.run(message.storedAtMs, message.channelId);
        return Number(lastInsertRowid);
      }),
    get(localId) {
      const row = get.get(localId);
      return row && messageOf(row);
    },
    isOwn: (channelId, messageId) => own.get(messageId, channelId) !== undefined,
    find(channelId, senderIdentity, contentId) {
      const row = find.get(channelId, senderIdentity, contentId);
      return row && messageOf(row);
    },
    history: (channelId, { limit, before }) =>
      history
        .all(channelId, before ?? Number.MAX_SAFE_INTEGER, limit)
        .map(messageOf)
        .reverse(),
    unseen: ({ channelId, limit }) =>
      (channelId === undefined ? unseen.all(limit) : unseenIn.all(channelId, limit)).map(messageOf),
    unseenCount: (channelId) => numberOf(unseenCount.get(channelId) ?? {}, 'n'),
    markSeen(localIds) {
      driver.transaction(() => {
        for (const localId of localIds) markSeen.run(localId);
      });
    },
    setState(localId, { state, messageId, acceptedAtMs, receipt, undelivered }) {
      setState.run(state, messageId ?? null, acceptedAtMs ?? null, receipt ?? null, undelivered ?? null, localId);
    },
    search(query, { channelId, limit }) {
      const match = matchExpression(query);
      if (match === undefined) return [];
      driver.transaction(() => index.run().changes);
      return (channelId === undefined ? search.all(match, limit) : searchIn.all(match, channelId, limit)).map(
        messageOf,
      );
    },
  };
}

/** FTS5's own syntax never reaches it: each word is a quoted string, the last one a prefix. */
function matchExpression(query: string): string | undefined {
  const words = query.match(/[\p{L}\p{N}\p{M}]+/gu);
  return words === null ? undefined : `${words.map((word) => `"${word}"`).join(' ')}*`;
}

function messageOf(row: SqlRow): StoredMessage {
  const replyIdentity = optional(bytesOf, row, 'reply_identity');
  return {
    localId: numberOf(row, 'id'),
    channelId: bytesOf(row, 'channel_id'),
    senderIdentity: bytesOf(row, 'sender_identity'),
    senderDevice: bytesOf(row, 'sender_device'),
    contentId: bytesOf(row, 'content_id'),
    own: booleanOf(row, 'own'),
    state: wordOf(row, 'state', STATES),
    kind: wordOf(row, 'kind', KINDS),
    text: textOf(row, 'text'),
    replyTo: replyIdentity && { senderIdentity: replyIdentity, contentId: bytesOf(row, 'reply_content_id') },
    sentAtMs: numberOf(row, 'sent_at'),
    storedAtMs: numberOf(row, 'stored_at'),
    acceptedAtMs: optional(numberOf, row, 'accepted_at'),
    seen: booleanOf(row, 'seen'),
    messageId: optional(bytesOf, row, 'message_id'),
    receipt: optional(bytesOf, row, 'receipt'),
    undelivered: optional(textOf, row, 'undelivered'),
  };
}
