/**
 * The SQLite schema as numbered migrations, forward only (DESIGN section 5). `PRAGMA user_version` is the number of the
 * last one applied.
 *
 * An enqueue writes one append-only `message` for all recipients, and a narrow `inbox` and `dedup` row for each.
 * `message.refs` counts the inbox rows left; the last one to go takes the message along. A small payload lies in its
 * message; a large one in `payload`, so that counting never reads or rewrites it.
 */

/** Never edit one that was released; append. */
export const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE setting (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL
  ) STRICT, WITHOUT ROWID;

  -- A row stays when its account ends, so that neither name nor identity key is given out again.
  CREATE TABLE account (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    username TEXT NOT NULL UNIQUE,
    identity BLOB NOT NULL UNIQUE CHECK (length(identity) = 32),
    opaque_record BLOB NOT NULL,
    registration_signature BLOB NOT NULL,
    created_at INTEGER NOT NULL
  ) STRICT;

  -- Ids are never reused: rosters and inboxes name devices by them.
  CREATE TABLE device (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account INTEGER NOT NULL REFERENCES account,
    device_id BLOB NOT NULL CHECK (length(device_id) = 16),
    device_key BLOB NOT NULL CHECK (length(device_key) = 32),
    certificate BLOB NOT NULL,
    name TEXT NOT NULL,
    registered_at INTEGER NOT NULL,
    last_seen_day INTEGER NOT NULL,
    UNIQUE (account, device_id)
  ) STRICT;

  CREATE TABLE session (
    token_hash BLOB PRIMARY KEY CHECK (length(token_hash) = 32),
    device INTEGER NOT NULL REFERENCES device,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX session_device ON session (device, created_at);
  CREATE INDEX session_expires ON session (expires_at);

  CREATE TABLE replay (
    hash BLOB PRIMARY KEY CHECK (length(hash) = 32),
    expires_at INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX replay_expires ON replay (expires_at);

  -- A package handed out keeps its row, without data, until it expires: uploading it again must not revive it.
  -- state: 0 unused, 1 used. A last-resort package in state 1 can still be handed out.
  CREATE TABLE key_package (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    device INTEGER NOT NULL REFERENCES device,
    suite INTEGER NOT NULL,
    last_resort INTEGER NOT NULL CHECK (last_resort IN (0, 1)),
    state INTEGER NOT NULL CHECK (state IN (0, 1)),
    hash BLOB NOT NULL CHECK (length(hash) = 32),
    not_after INTEGER NOT NULL,
    data BLOB,
    UNIQUE (device, hash)
  ) STRICT;
  CREATE INDEX key_package_unused ON key_package (device, suite, id) WHERE state = 0 AND last_resort = 0;
  CREATE UNIQUE INDEX key_package_last_resort ON key_package (device, suite) WHERE last_resort = 1;
  CREATE INDEX key_package_not_after ON key_package (not_after);

  CREATE TABLE hybrid_key (
    device INTEGER PRIMARY KEY REFERENCES device,
    statement BLOB NOT NULL,
    serial INTEGER NOT NULL,
    not_after INTEGER NOT NULL
  ) STRICT;

  -- kind: 0 group, 1 direct. The pair's accounts stand in order of their ids.
  CREATE TABLE channel (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    channel_id BLOB NOT NULL UNIQUE CHECK (length(channel_id) = 16),
    kind INTEGER NOT NULL CHECK (kind IN (0, 1)),
    creator INTEGER REFERENCES device,
    pair_low INTEGER REFERENCES account,
    pair_high INTEGER REFERENCES account,
    head INTEGER NOT NULL,
    log_hash BLOB NOT NULL CHECK (length(log_hash) = 32),
    roster_hash BLOB NOT NULL CHECK (length(roster_hash) = 32),
    token_hash BLOB CHECK (length(token_hash) = 32),
    previous_token_hash BLOB,
    previous_token_until INTEGER,
    created_at INTEGER NOT NULL,
    CHECK ((kind = 0) = (pair_low IS NULL)),
    CHECK (pair_low < pair_high)
  ) STRICT;
  CREATE UNIQUE INDEX channel_pair ON channel (pair_low, pair_high) WHERE kind = 1;

  CREATE TABLE roster (
    channel INTEGER NOT NULL REFERENCES channel,
    device INTEGER NOT NULL REFERENCES device,
    PRIMARY KEY (channel, device)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE channel_admin (
    channel INTEGER NOT NULL REFERENCES channel,
    identity BLOB NOT NULL CHECK (length(identity) = 32),
    PRIMARY KEY (channel, identity)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE log_entry (
    channel INTEGER NOT NULL REFERENCES channel,
    position INTEGER NOT NULL,
    submitter INTEGER NOT NULL REFERENCES device,
    message_id BLOB NOT NULL CHECK (length(message_id) = 16),
    payload_hash BLOB NOT NULL CHECK (length(payload_hash) = 32),
    log_hash BLOB NOT NULL,
    roster_hash BLOB NOT NULL,
    accepted_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (channel, position)
  ) STRICT, WITHOUT ROWID;
  CREATE UNIQUE INDEX log_entry_message ON log_entry (channel, message_id);

  -- depth and bytes count what is under the cap: neither commits nor Welcomes.
  -- gap_reason: 0 full, 1 expired; NULL when no gap stands. gap_losses only grows.
  CREATE TABLE head (
    device INTEGER PRIMARY KEY REFERENCES device,
    next_seq INTEGER NOT NULL DEFAULT 1,
    depth INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    gap_reason INTEGER,
    gap_since INTEGER,
    gap_losses INTEGER NOT NULL DEFAULT 0
  ) STRICT;

  -- large, renewal: ids in payload. Either data or large is set.
  CREATE TABLE message (
    id INTEGER PRIMARY KEY,
    refs INTEGER NOT NULL,
    message_id BLOB NOT NULL CHECK (length(message_id) = 16),
    accepted_at INTEGER NOT NULL,
    position INTEGER,
    log_hash BLOB,
    roster_hash BLOB,
    renewal INTEGER,
    large INTEGER,
    data BLOB,
    CHECK ((data IS NULL) <> (large IS NULL))
  ) STRICT;

  CREATE TABLE payload (
    id INTEGER PRIMARY KEY,
    data BLOB NOT NULL
  ) STRICT;

  -- Per-device wraps, apart from the inbox to keep that narrow.
  CREATE TABLE wrap (
    id INTEGER PRIMARY KEY,
    data BLOB NOT NULL
  ) STRICT;

  -- counted: bytes charged to the device's cap; NULL outside the cap. channel: empty for none.
  CREATE TABLE inbox (
    device INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    message INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    counted INTEGER,
    wrap INTEGER,
    renewal_wrap INTEGER,
    channel BLOB NOT NULL CHECK (length(channel) IN (0, 16)),
    PRIMARY KEY (device, seq)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX inbox_expires ON inbox (expires_at);

  -- bucket: start of the window the row was written in. Purging goes by it, so no index by time is needed.
  CREATE TABLE dedup (
    bucket INTEGER NOT NULL,
    message_id BLOB NOT NULL,
    channel BLOB NOT NULL,
    device INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    payload_hash BLOB NOT NULL CHECK (length(payload_hash) = 32),
    PRIMARY KEY (bucket, message_id, channel, device)
  ) STRICT, WITHOUT ROWID;
  `,
  `
  -- A revoked device keeps its row: rosters name it until a commit removes it, and its id is never given out again.
  ALTER TABLE device ADD COLUMN revoked_at INTEGER;
  CREATE INDEX roster_device ON roster (device);

  -- The first statement of a device stands; it may be of a device that was never registered here.
  CREATE TABLE revocation (
    account INTEGER NOT NULL REFERENCES account,
    device_id BLOB NOT NULL CHECK (length(device_id) = 16),
    statement BLOB NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (account, device_id)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE push_token (
    device INTEGER PRIMARY KEY REFERENCES device,
    kind TEXT NOT NULL,
    token TEXT NOT NULL
  ) STRICT;

  -- Devices that are gone and whose inbox rows are still to be removed.
  CREATE TABLE emptying (
    device INTEGER PRIMARY KEY
  ) STRICT;
  `,
  `
  -- What a group calls itself, sealed by it. Version counts from 1.
  CREATE TABLE channel_metadata (
    channel INTEGER PRIMARY KEY REFERENCES channel,
    version INTEGER NOT NULL,
    data BLOB NOT NULL
  ) STRICT;
  `,
  `
  -- An account that ended keeps its row, stripped of everything but what must not be given out again.
  ALTER TABLE account ADD COLUMN ended_at INTEGER;
  `,
  `
  -- Reports name no reporter: what is to be known of one lies sealed in it.
  CREATE TABLE report (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    report BLOB NOT NULL,
    conversation BLOB NOT NULL CHECK (length(conversation) = 16),
    received_at INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX report_received ON report (received_at);

  -- until: NULL = for good.
  CREATE TABLE ban (
    identity BLOB PRIMARY KEY CHECK (length(identity) = 32),
    reason TEXT NOT NULL,
    until INTEGER
  ) STRICT, WITHOUT ROWID;
  `,
  `
  -- Complete blobs; their bytes are files beside the database. A blob lives as long as somebody owns it.
  CREATE TABLE blob (
    id INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    size INTEGER NOT NULL
  ) STRICT;

  CREATE TABLE blob_owner (
    account INTEGER NOT NULL REFERENCES account,
    blob INTEGER NOT NULL REFERENCES blob,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (account, blob)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX blob_owner_blob ON blob_owner (blob);
  CREATE INDEX blob_owner_expires ON blob_owner (expires_at);

  -- Unfinished ones. How far they are, their files say.
  CREATE TABLE upload (
    account INTEGER NOT NULL REFERENCES account,
    hash BLOB NOT NULL CHECK (length(hash) = 32),
    size INTEGER NOT NULL,
    touched_at INTEGER NOT NULL,
    PRIMARY KEY (account, hash)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX upload_touched ON upload (touched_at);
  `,
  `
  CREATE TABLE recovery (
    account INTEGER PRIMARY KEY REFERENCES account,
    sealed_data BLOB NOT NULL
  ) STRICT;

  -- fetch_token_hash: of a phrase slot only.
  CREATE TABLE recovery_slot (
    account INTEGER NOT NULL REFERENCES recovery ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('password', 'phrase')),
    sealed_key BLOB NOT NULL,
    fetch_token_hash BLOB CHECK (length(fetch_token_hash) = 32),
    PRIMARY KEY (account, kind)
  ) STRICT, WITHOUT ROWID;
  `,
  `
  CREATE TABLE endpoint (
    device INTEGER PRIMARY KEY REFERENCES device,
    statement BLOB NOT NULL,
    expires_at INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX endpoint_expires ON endpoint (expires_at);
  `,
  `
  -- The key-transparency log (PROTOCOL 7). Hashes of complete subtrees, each once, in the order of completion.
  CREATE TABLE kt_hash (
    position INTEGER PRIMARY KEY,
    hash BLOB NOT NULL CHECK (length(hash) = 32)
  ) STRICT;

  CREATE TABLE kt_entry (
    position INTEGER PRIMARY KEY,
    entry BLOB NOT NULL
  ) STRICT;

  CREATE TABLE kt_head (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    size INTEGER NOT NULL,
    checkpoint BLOB NOT NULL
  ) STRICT;

  -- The newest statement of each account. position: NULL while its entry is in the queue.
  CREATE TABLE kt_account (
    account INTEGER PRIMARY KEY REFERENCES account,
    position INTEGER,
    version INTEGER NOT NULL,
    entry BLOB NOT NULL,
    history BLOB NOT NULL CHECK (length(history) = 32),
    opening BLOB NOT NULL CHECK (length(opening) = 32),
    statement BLOB NOT NULL,
    vrf_proof BLOB NOT NULL
  ) STRICT;

  -- Accepted, on disk, and not in the log yet. Numbers are never reused: they are the order of the log.
  CREATE TABLE kt_queue (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account INTEGER NOT NULL,
    version INTEGER NOT NULL,
    entry BLOB NOT NULL
  ) STRICT;
  `,
];
