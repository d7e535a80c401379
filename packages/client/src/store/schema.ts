/**
 * The tables of a profile, the same on Node and in a browser (DESIGN section 6). Conversations are keyed by channel id,
 * never by MLS group id, so history survives a rejoin. Times are milliseconds since 1970 unless the name says `_secs`.
 * Never change a migration that has been released; add one to migrations.ts.
 */
export const SCHEMA_V1 = `
-- Who we are: one account, one device. identity_private_key is NULL on devices that do not manage the account.
CREATE TABLE account (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  state TEXT NOT NULL,
  origin TEXT NOT NULL,
  username TEXT NOT NULL,
  identity_key BLOB NOT NULL,
  identity_private_key BLOB,
  device_id BLOB NOT NULL,
  device_key BLOB NOT NULL,
  device_private_key BLOB NOT NULL,
  certificate BLOB NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE session (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  token BLOB NOT NULL,
  expires_at INTEGER,
  created_at INTEGER NOT NULL
) STRICT;

-- What a server said of itself at first contact.
CREATE TABLE server_pins (
  origin TEXT PRIMARY KEY,
  receipt_key BLOB NOT NULL,
  opaque_key BLOB NOT NULL,
  log_origin TEXT NOT NULL,
  log_key BLOB NOT NULL,
  pinned_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Our X-Wing keys: the newest is published, older ones open what was sealed before.
CREATE TABLE hybrid_keys (
  serial INTEGER PRIMARY KEY,
  public_key BLOB NOT NULL,
  private_key BLOB NOT NULL,
  statement BLOB NOT NULL,
  not_before_secs INTEGER NOT NULL,
  not_after_secs INTEGER NOT NULL,
  uploaded INTEGER NOT NULL,
  superseded_at INTEGER
) STRICT;

CREATE TABLE key_packages (
  ref BLOB PRIMARY KEY,
  suite INTEGER NOT NULL,
  key_package BLOB NOT NULL,
  init_private_key BLOB NOT NULL,
  encryption_private_key BLOB NOT NULL,
  last_resort INTEGER NOT NULL,
  not_after_secs INTEGER NOT NULL,
  uploaded INTEGER NOT NULL,
  used_at INTEGER,
  created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Welcomes taken with a last-resort KeyPackage, remembered while its key lives.
CREATE TABLE welcomes_seen (
  hash BLOB PRIMARY KEY,
  ref BLOB NOT NULL REFERENCES key_packages (ref) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX welcomes_seen_by_ref ON welcomes_seen (ref);

CREATE TABLE conversations (
  channel_id BLOB PRIMARY KEY,
  kind TEXT NOT NULL,
  state TEXT NOT NULL,
  paused TEXT,
  name TEXT NOT NULL,
  name_version INTEGER NOT NULL,
  peer_identity BLOB,
  position INTEGER NOT NULL,
  log_hash BLOB NOT NULL,
  roster_hash BLOB,
  epoch_position INTEGER NOT NULL,
  group_id BLOB,
  suite INTEGER,
  epoch INTEGER,
  member_count INTEGER NOT NULL,
  device_counter INTEGER NOT NULL,
  previous_hash BLOB,
  invited_by BLOB,
  is_new INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  last_message_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX conversations_by_peer ON conversations (peer_identity) WHERE peer_identity IS NOT NULL;

-- pq_n from this position on, until the next row's.
CREATE TABLE pq_salts (
  channel_id BLOB NOT NULL REFERENCES conversations (channel_id) ON DELETE CASCADE,
  position INTEGER NOT NULL,
  salt BLOB NOT NULL,
  PRIMARY KEY (channel_id, position)
) STRICT, WITHOUT ROWID;

-- Keys of type-03 envelopes by the position their epoch began at; the current epoch's and a few past ones.
CREATE TABLE envelope_keys (
  channel_id BLOB NOT NULL REFERENCES conversations (channel_id) ON DELETE CASCADE,
  position INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  key BLOB NOT NULL,
  ended_at INTEGER,
  PRIMARY KEY (channel_id, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE mls_rows (
  channel_id BLOB NOT NULL REFERENCES conversations (channel_id) ON DELETE CASCADE,
  key TEXT NOT NULL,
  bytes BLOB NOT NULL,
  PRIMARY KEY (channel_id, key)
) STRICT, WITHOUT ROWID;

-- A commit stored before it is submitted; resubmitted byte for byte until the log took it or somebody else's.
CREATE TABLE pending_commits (
  channel_id BLOB PRIMARY KEY REFERENCES conversations (channel_id) ON DELETE CASCADE,
  message_id BLOB NOT NULL,
  after INTEGER NOT NULL,
  request BLOB NOT NULL,
  pending BLOB NOT NULL,
  intent TEXT NOT NULL,
  attempts INTEGER NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;

-- id is the order of display within a conversation.
CREATE TABLE messages (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  channel_id BLOB NOT NULL REFERENCES conversations (channel_id) ON DELETE CASCADE,
  sender_identity BLOB NOT NULL,
  sender_device BLOB NOT NULL,
  content_id BLOB NOT NULL,
  own INTEGER NOT NULL,
  state TEXT NOT NULL,
  kind TEXT NOT NULL,
  text TEXT NOT NULL,
  reply_identity BLOB,
  reply_content_id BLOB,
  sent_at INTEGER NOT NULL,
  stored_at INTEGER NOT NULL,
  accepted_at INTEGER,
  seen INTEGER NOT NULL,
  message_id BLOB,
  receipt BLOB,
  undelivered TEXT,
  UNIQUE (channel_id, sender_identity, content_id)
) STRICT;
CREATE INDEX messages_by_conversation ON messages (channel_id, id);
CREATE INDEX messages_own_by_message_id ON messages (message_id) WHERE own = 1;
CREATE INDEX messages_unseen ON messages (channel_id, id) WHERE seen = 0;

CREATE VIRTUAL TABLE messages_text USING fts5 (
  text, content='messages', content_rowid='id', tokenize="unicode61 remove_diacritics 2"
);
-- New rows are indexed by the next search: indexing each as it comes would double what a message writes.
CREATE TRIGGER messages_text_delete AFTER DELETE ON messages
WHEN old.id <= (SELECT max(id) FROM messages_text_docsize) BEGIN
  INSERT INTO messages_text (messages_text, rowid, text) VALUES ('delete', old.id, old.text);
END;

-- What was taken in and is not shown as a message: de-duplication after MLS.
CREATE TABLE contents_seen (
  channel_id BLOB NOT NULL REFERENCES conversations (channel_id) ON DELETE CASCADE,
  sender_identity BLOB NOT NULL,
  content_id BLOB NOT NULL,
  PRIMARY KEY (channel_id, sender_identity, content_id)
) STRICT, WITHOUT ROWID;

-- Last counter and hash of each sending device, by which gaps are seen.
CREATE TABLE sender_chains (
  channel_id BLOB NOT NULL REFERENCES conversations (channel_id) ON DELETE CASCADE,
  identity_key BLOB NOT NULL,
  device_id BLOB NOT NULL,
  counter INTEGER NOT NULL,
  hash BLOB NOT NULL,
  PRIMARY KEY (channel_id, identity_key, device_id)
) STRICT, WITHOUT ROWID;

-- What waits to be sent, in order within its conversation. recipient: one device's address, for what is not for the
-- whole roster. envelope, message_id and position: once protected.
CREATE TABLE outbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  channel_id BLOB NOT NULL REFERENCES conversations (channel_id) ON DELETE CASCADE,
  recipient BLOB,
  payload_kind INTEGER NOT NULL,
  body BLOB NOT NULL,
  local_id INTEGER REFERENCES messages (id) ON DELETE CASCADE,
  message_id BLOB,
  envelope BLOB,
  position INTEGER,
  attempts INTEGER NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX outbox_by_conversation ON outbox (channel_id, id);
CREATE INDEX outbox_by_local_id ON outbox (local_id) WHERE local_id IS NOT NULL;

CREATE TABLE inbox (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  cursor INTEGER NOT NULL,
  acked INTEGER NOT NULL
) STRICT;
INSERT INTO inbox (id, cursor, acked) VALUES (1, 0, 0);

-- Other accounts: one identity key per name, pinned.
CREATE TABLE contacts (
  identity_key BLOB PRIMARY KEY,
  username TEXT NOT NULL UNIQUE,
  verified_at INTEGER,
  pinned_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE contact_devices (
  identity_key BLOB NOT NULL REFERENCES contacts (identity_key) ON DELETE CASCADE,
  device_id BLOB NOT NULL,
  device_key BLOB NOT NULL,
  certificate BLOB NOT NULL,
  certificate_serial INTEGER NOT NULL,
  hybrid_key BLOB,
  hybrid_statement BLOB,
  hybrid_serial INTEGER NOT NULL,
  hybrid_not_after_secs INTEGER NOT NULL,
  revoked_at INTEGER,
  checked_at INTEGER NOT NULL,
  PRIMARY KEY (identity_key, device_id)
) STRICT, WITHOUT ROWID;

-- Outcome of the local checks of a conversation's members; no row = not yet checked.
CREATE TABLE member_checks (
  channel_id BLOB NOT NULL REFERENCES conversations (channel_id) ON DELETE CASCADE,
  identity_key BLOB NOT NULL,
  device_id BLOB NOT NULL,
  outcome TEXT NOT NULL,
  reason TEXT NOT NULL,
  checked_at INTEGER NOT NULL,
  PRIMARY KEY (channel_id, identity_key, device_id)
) STRICT, WITHOUT ROWID;

-- Our own open requests to be added again, and those of others.
CREATE TABLE rejoin_own (
  channel_id BLOB PRIMARY KEY REFERENCES conversations (channel_id) ON DELETE CASCADE,
  nonce BLOB NOT NULL,
  requested_at INTEGER NOT NULL
) STRICT;
CREATE TABLE rejoin_received (
  channel_id BLOB NOT NULL REFERENCES conversations (channel_id) ON DELETE CASCADE,
  identity_key BLOB NOT NULL,
  device_id BLOB NOT NULL,
  nonce BLOB NOT NULL,
  requested_at INTEGER NOT NULL,
  handled INTEGER NOT NULL,
  PRIMARY KEY (channel_id, identity_key, device_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE settings (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Statements and envelopes that show somebody's misbehaviour, kept for the user.
CREATE TABLE evidence (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  channel_id BLOB,
  kind TEXT NOT NULL,
  summary TEXT NOT NULL,
  data BLOB NOT NULL,
  at INTEGER NOT NULL
) STRICT;
`;

/** Key transparency (PROTOCOL section 7): what is pinned of the log, our copy of it, and what was found in it. */
export const SCHEMA_LOG = `
ALTER TABLE server_pins ADD COLUMN log_vrf_key BLOB NOT NULL DEFAULT x'';

-- The signed checkpoint that our copy adds up to, and when the server was last asked for a newer one.
CREATE TABLE log_head (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  checkpoint BLOB NOT NULL,
  size INTEGER NOT NULL,
  followed_at INTEGER NOT NULL
) STRICT;

-- Encoded entries in runs; position: that of the first in the run.
CREATE TABLE log_entries (
  position INTEGER PRIMARY KEY,
  entries BLOB NOT NULL
) STRICT;

-- Signed checkpoints that others were shown, until our copy has been compared with them; where each came from.
CREATE TABLE log_witnessed (
  checkpoint BLOB PRIMARY KEY,
  channel_id BLOB NOT NULL,
  seen_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Where accounts stand in the log, verified: our own and those of others.
CREATE TABLE log_accounts (
  identity_key BLOB PRIMARY KEY,
  log_index BLOB NOT NULL,
  version INTEGER NOT NULL,
  checked_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX log_accounts_by_index ON log_accounts (log_index);

-- Entries of our own account. statement_hash: of the statement this device signed for it, if it did. commitment and
-- due_at_size: once it was seen in the log.
CREATE TABLE log_own_entries (
  version INTEGER PRIMARY KEY,
  statement_hash BLOB,
  commitment BLOB,
  due_at_size INTEGER
) STRICT;

-- What the log was caught at, each once. identity_key: whom it is about; evidence: JSON. settled_at: the user knows.
CREATE TABLE log_findings (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  key TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  summary TEXT NOT NULL,
  identity_key BLOB,
  channel_id BLOB,
  evidence TEXT NOT NULL,
  found_at INTEGER NOT NULL,
  settled_at INTEGER
) STRICT;
`;

/** A conversation goes over into another group on its channel (ReInit). */
export const SCHEMA_REINIT = `
-- MLS rows of the group that a pending ReInit of ours opens.
CREATE TABLE successor_rows (
  channel_id BLOB NOT NULL REFERENCES pending_commits (channel_id) ON DELETE CASCADE,
  key TEXT NOT NULL,
  bytes BLOB NOT NULL,
  PRIMARY KEY (channel_id, key)
) STRICT, WITHOUT ROWID;

-- The group before the present one, for messages that were under way when the log entry at \`position\` closed it.
CREATE TABLE predecessors (
  channel_id BLOB PRIMARY KEY REFERENCES conversations (channel_id) ON DELETE CASCADE,
  position INTEGER NOT NULL,
  closed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE predecessor_rows (
  channel_id BLOB NOT NULL REFERENCES predecessors (channel_id) ON DELETE CASCADE,
  key TEXT NOT NULL,
  bytes BLOB NOT NULL,
  PRIMARY KEY (channel_id, key)
) STRICT, WITHOUT ROWID;
`;

/** Ratchet trees that travel beside their Welcome (PROTOCOL section 9). */
export const SCHEMA_TREES = `
-- To be uploaded before the pending commit is submitted.
CREATE TABLE tree_uploads (
  channel_id BLOB PRIMARY KEY REFERENCES pending_commits (channel_id) ON DELETE CASCADE,
  blob_id BLOB NOT NULL,
  blob BLOB NOT NULL,
  uploaded INTEGER NOT NULL
) STRICT;

-- Channels held up by a tree that is to be downloaded first, and the rows of the inbox that wait for it, in order.
CREATE TABLE tree_downloads (
  channel_id BLOB PRIMARY KEY,
  reference BLOB NOT NULL,
  wanted_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE held_rows (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  channel_id BLOB NOT NULL REFERENCES tree_downloads (channel_id) ON DELETE CASCADE,
  row BLOB NOT NULL
) STRICT;
CREATE INDEX held_rows_by_channel ON held_rows (channel_id, id);
`;

/** Who misbehaves often does not fill the disk with the proof of it. */
export const SCHEMA_EVIDENCE_BOUND = `
-- How many of the same kind and channel stood between this one and the one before it, and are not kept.
ALTER TABLE evidence ADD COLUMN left_out INTEGER NOT NULL DEFAULT 0;
CREATE INDEX evidence_alike ON evidence (kind, channel_id, id);
`;
