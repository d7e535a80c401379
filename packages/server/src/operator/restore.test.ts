// A backup is whole, or refused; a restored server goes on where the backup was.
import assert from 'node:assert/strict';
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { encodeHex } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import {
  openOperator,
  OperatorRefusal,
  resolveConfig,
  RestoreError,
  restoreServer,
  startServer,
} from '../index.node.ts';
import type { RunningServer, ServerConfig } from '../index.node.ts';
import { openBlobFiles } from '../blob-files.node.ts';
import { openDatabase } from '../store/sqlite-database.node.ts';
import { markRestored } from '../store/sqlite-restored.node.ts';
import { openSqliteStore } from '../store/sqlite.node.ts';
import { manifestSchema } from './back-up.node.ts';
import type { Manifest } from './back-up.node.ts';

const storeKey = crypto.random(32);
const ORIGIN = 'chat.example.org';
const blob = crypto.random(300_000);
const blobId = crypto.hash('sha256', blob);
const blobPath = `blobs/${encodeHex(blobId).slice(0, 2)}/${encodeHex(blobId)}`;
let folder: string;
let config: ServerConfig;
let server: RunningServer;

const at = (...parts: string[]): string => path.join(folder, ...parts);
const never = new AbortController().signal;

function configOf(dataDir: string): ServerConfig {
  const flags = {
    dataDir,
    origin: ORIGIN,
    listen: '127.0.0.1:0',
    metricsListen: 'off',
    logLevel: 'silent',
    storeKeyFile: at('key'),
  };
  const outcome = resolveConfig({ flags });
  assert.ok(outcome.kind === 'config');
  return outcome.config;
}

/** Alice's account and file, straight in the folder of a server that has been started once. */
async function furnish(dataDir: string): Promise<void> {
  const store = await openSqliteStore({ path: path.join(dataDir, 'qpc.db'), key: storeKey });
  const identityKey = crypto.random(32);
  await store.createAccount({
    username: 'alice',
    identityKey,
    opaqueRecord: crypto.random(192),
    registrationSignature: crypto.random(64),
    firstDevice: { deviceId: crypto.random(16), deviceKey: crypto.random(32), certificate: crypto.random(9), name: '' },
    nowMs: Date.now(),
  });
  const upload = { identityKey, blobId, sizeBytes: blob.length, nowMs: Date.now() };
  const files = await openBlobFiles(path.join(dataDir, 'blobs'));
  await store.beginUpload(upload);
  const name = encodeHex(crypto.random(32));
  await files.write(name, 0, blob);
  await files.finish(name, encodeHex(blobId), blob.length, blobId);
  await store.completeUpload(upload);
  await store.close();
}

before(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'qpc-restore-'));
  writeFileSync(at('key'), encodeHex(storeKey), { mode: 0o600 });
  config = configOf(at('data'));
  await (await startServer(config)).close();
  await furnish(at('data'));
  server = await startServer(config);
  const operator = await openOperator(config);
  assert.equal(operator.running, true);
  await operator.call('backUp', { target: at('plain'), withSecrets: false });
  await operator.call('backUp', { target: at('full'), withSecrets: true });
});
after(async () => {
  await server.close();
  rmSync(folder, { recursive: true, force: true });
});

const restore = (source: string, dataDir?: string, more: Partial<Parameters<typeof restoreServer>[0]> = {}) =>
  restoreServer({ source, dataDir, origin: undefined, storeKey, nowMs: Date.now(), ...more }, () => {}, never);

function manifestOf(backup: string): Manifest {
  return manifestSchema.parse(JSON.parse(readFileSync(path.join(backup, 'manifest.json'), 'utf8')));
}

describe('a backup', () => {
  test('has the database, its files and a manifest, for its owner only, and secrets when asked for', () => {
    const names = (backup: string) => manifestOf(backup).files.map((file) => file.path);
    assert.deepEqual(names(at('plain')), ['qpc.db', blobPath]);
    assert.deepEqual(names(at('full')).slice(2).sort(), [
      'secrets/audit-key',
      'secrets/cert.der',
      'secrets/cert.pem',
      'secrets/key.pem',
      'secrets/log-key',
      'secrets/log-vrf-key',
      'secrets/opaque-setup',
      'secrets/receipt-key',
    ]);
    for (const entry of readdirSync(at('full'), { recursive: true, withFileTypes: true })) {
      const { mode } = statSync(path.join(entry.parentPath, entry.name));
      assert.equal(mode & 0o077, 0, entry.name);
    }
    assert.equal(manifestOf(at('plain')).encrypted, true);
  });

  test('leaves out nothing of the data folder but what is not worth keeping', () => {
    const kept = new Set(manifestOf(at('full')).files.map((file) => path.posix.basename(file.path)));
    const left = readdirSync(at('data')).filter((name) => !kept.has(name));
    assert.deepEqual(left.sort(), ['audit.log', 'blobs', 'control.sock', 'qpc.db-shm', 'qpc.db-wal', 'qpc.db.lock']);
  });

  test('overwrites nothing, stays out of the data folder, and leaves nothing when it fails', async () => {
    const operator = await openOperator(config);
    const refusedWith = (code: string) => (error: unknown) => error instanceof OperatorRefusal && error.code === code;
    const attempt = (target: string) => operator.call('backUp', { target, withSecrets: false });
    await assert.rejects(attempt(at('plain')), refusedWith('conflict'));
    await assert.rejects(attempt(at('data', 'backup')), refusedWith('invalid-argument'));
    await assert.rejects(attempt(at('nowhere', 'backup')), refusedWith('invalid-argument'));
    await assert.rejects(attempt('relative'), refusedWith('invalid-argument'));
    await assert.rejects(attempt(at('data', '..backup')), refusedWith('invalid-argument'));
    symlinkSync(at('data'), at('link'));
    await assert.rejects(attempt(at('link', 'backup')), refusedWith('invalid-argument'));
    rmSync(at('link'));
    mkdirSync(at('killed.unfinished'));
    await assert.rejects(attempt(at('killed')), refusedWith('conflict'));
    rmSync(at('killed.unfinished'), { recursive: true });
    const file = at('data', ...blobPath.split('/'));
    writeFileSync(file, 'damaged');
    await assert.rejects(attempt(at('of-damage')), refusedWith('corrupt'));
    rmSync(file);
    await assert.rejects(attempt(at('of-loss')), refusedWith('corrupt'));
    writeFileSync(file, blob);
    assert.deepEqual(readdirSync(folder).sort(), ['data', 'full', 'key', 'plain']);
  });
});

describe('a restore', () => {
  test('gives a server that goes on: same origin, keys, account and file', async () => {
    const report = await restore(at('full'), at('restored'), { origin: ORIGIN });
    assert.deepEqual([report.accounts, report.origin, report.secretsMissing, report.restored], [1, ORIGIN, [], true]);
    assert.ok(report.logEntries >= 1);
    const again = await startServer(configOf(at('restored')));
    const operator = await openOperator(configOf(at('restored')));
    assert.equal((await operator.call('account', { account: 'alice' }, {})).username, 'alice');
    await again.close();
    assert.deepEqual(readFileSync(again.certificatePath), readFileSync(server.certificatePath));
    assert.deepEqual(new Uint8Array(readFileSync(at('restored', ...blobPath.split('/')))), blob);
    for (const name of ['qpc.db', 'opaque-setup', blobPath]) {
      assert.equal(statSync(at('restored', ...name.split('/'))).mode & 0o777, 0o600, name);
    }
  });

  test('says which secrets are missing, takes those that are there, and overwrites neither them nor a database', async () => {
    const needed = ['opaque-setup', 'receipt-key', 'log-key', 'log-vrf-key', 'cert.pem', 'key.pem'];
    assert.deepEqual((await restore(at('plain'))).secretsMissing, needed);
    const target = at('with-secrets');
    mkdirSync(target, { mode: 0o700 });
    for (const name of needed) cpSync(at('data', name), path.join(target, name));
    assert.deepEqual((await restore(at('plain'), target)).secretsMissing, []);
    await (await startServer(configOf(target))).close();
    await refused(restore(at('plain'), target), 'place', /has a database already/);
    const other = at('other-secrets');
    mkdirSync(other, { mode: 0o700 });
    writeFileSync(path.join(other, 'opaque-setup'), 'mine');
    await refused(restore(at('full'), other), 'place', /is there already, and another/);
    assert.equal(existsSync(path.join(other, 'qpc.db')), false);
    assert.equal(readFileSync(path.join(other, 'opaque-setup'), 'utf8'), 'mine');
  });

  test('of a server without accounts needs the keys of its log, which has begun', async () => {
    const first = await startServer(configOf(at('nobody')));
    const operator = await openOperator(configOf(at('nobody')));
    await operator.call('backUp', { target: at('of-nobody'), withSecrets: false });
    await first.close();
    const report = await restore(at('of-nobody'), at('nobody-again'));
    assert.deepEqual(report.secretsMissing, ['log-key', 'log-vrf-key', 'cert.pem', 'key.pem']);
    for (const name of report.secretsMissing) cpSync(at('nobody', name), at('nobody-again', name));
    await (await startServer(configOf(at('nobody-again')))).close();
  });

  test('stays away from the log that another database left, which would be replayed into this one', async () => {
    const target = at('remains');
    mkdirSync(target, { mode: 0o700 });
    cpSync(at('data', 'qpc.db-wal'), path.join(target, 'qpc.db-wal'));
    await refused(restore(at('plain'), target), 'place', /has qpc\.db-wal, a part of another database/);
    assert.deepEqual(readdirSync(target), ['qpc.db-wal']);
  });

  test('says why it could not copy, and goes on where it stopped', async () => {
    const target = at('half');
    mkdirSync(target, { mode: 0o700 });
    writeFileSync(path.join(target, 'blobs'), 'in the way');
    await refused(restore(at('full'), target), 'place', /cannot be copied to .*half: /);
    rmSync(path.join(target, 'blobs'));
    assert.equal((await restore(at('full'), target)).restored, true);
  });

  test('of the same backup a second time begins above what the first has given out since, whatever the clock says', async () => {
    const nowMs = Date.now();
    const next = async (source: string, name: string, atMs: number): Promise<number> => {
      await restore(source, at(name), { nowMs: atMs });
      const db = openDatabase({ path: at(name, 'qpc.db'), key: storeKey }, { cacheKiB: 1024 });
      const seq = db.prepare('SELECT next_seq FROM head').pluck().get();
      db.close();
      return Number(seq);
    };
    const first = await next(at('plain'), 'once', nowMs);
    const later = await next(at('plain'), 'twice', nowMs + 10_000);
    assert.ok(later - first > 10 * 100_000, `${later} after ${first}`);
    for (const wrong of [-1, 0, 9e15]) {
      const seq = await next(at('plain'), `wrong ${wrong}`, wrong);
      assert.ok(seq >= 2 ** 32 && seq <= 2 ** 52 + 2 ** 32, String(seq));
    }

    for (const name of ['opaque-setup', 'receipt-key', 'log-key', 'log-vrf-key', 'cert.pem', 'key.pem'])
      cpSync(at('data', name), at('twice', name));
    const again = await startServer(configOf(at('twice')));
    const operator = await openOperator(configOf(at('twice')));
    await operator.call('backUp', { target: at('of-restored'), withSecrets: false });
    await again.close();
    const third = await next(at('of-restored'), 'thrice', 0);
    assert.ok(third >= later + 2 ** 32, `${third} after ${later}`);
  });

  test('is told of also where something else was lost before the backup, or the device would not publish its keys', () => {
    const file = { path: at('gap.db'), key: storeKey };
    cpSync(at('plain', 'qpc.db'), file.path);
    const before = openDatabase(file, { cacheKiB: 1024 });
    before.prepare('UPDATE head SET gap_reason = 0, gap_since = 1, gap_losses = 4, next_seq = 9').run();
    before.close();
    markRestored(file, Date.now());
    const db = openDatabase(file, { cacheKiB: 1024 });
    assert.deepEqual(db.prepare('SELECT gap_reason, gap_since, gap_losses FROM head').raw().get(), [2, 1, 5]);
    db.close();
    for (const name of readdirSync(folder).filter((each) => each.startsWith('gap.db'))) rmSync(at(name));
  });

  test('that was cut short leaves nothing that gets into the next one', async () => {
    const target = at('cut');
    mkdirSync(target, { mode: 0o700 });
    const growing = path.join(target, 'qpc.db.restoring');
    cpSync(at('plain', 'qpc.db'), growing);
    const cut = openDatabase({ path: growing, key: storeKey }, { cacheKiB: 1024 });
    cut.prepare("UPDATE account SET username = 'mallory'").run();
    cpSync(`${growing}-wal`, at('cut-wal'));
    cut.close();
    cpSync(at('cut-wal'), `${growing}-wal`);
    await restore(at('plain'), target);
    const db = openDatabase({ path: path.join(target, 'qpc.db'), key: storeKey }, { cacheKiB: 1024 });
    assert.equal(db.prepare('SELECT username FROM account').pluck().get(), 'alice');
    db.close();
    assert.deepEqual(
      readdirSync(target).filter((name) => name.includes('restoring')),
      [],
    );
  });

  test('of a database that is not encrypted needs no key, and one that is set does no harm', async () => {
    const open = resolveConfig({
      flags: { dataDir: at('open'), origin: ORIGIN, listen: '127.0.0.1:0', metricsListen: 'off', logLevel: 'silent' },
    });
    assert.ok(open.kind === 'config');
    const unencrypted = await startServer(open.config);
    const operator = await openOperator(open.config);
    await operator.call('backUp', { target: at('of-open'), withSecrets: false });
    await unencrypted.close();
    assert.equal((await restore(at('of-open'), at('open-again'))).restored, true);
  });

  test('checks without touching anything', async () => {
    const names = readdirSync(folder);
    const report = await restore(at('full'));
    assert.equal(report.restored, false);
    assert.deepEqual(readdirSync(folder), names);
    assert.equal(existsSync(at('full', 'qpc.db-wal')), false);
  });

  test('refuses another origin and another key', async () => {
    await refused(restore(at('plain'), undefined, { origin: 'other.example.org' }), 'verification', /is of the server/);
    await refused(restore(at('plain'), undefined, { storeKey: crypto.random(32) }), 'key', /not the one/);
    const keyless = restore(at('plain'), undefined, { storeKey: undefined });
    await refused(keyless, 'key', /is encrypted/);
  });

  const tampering: [string, (backup: string) => void, RegExp][] = [
    ['a changed byte of the database', (backup) => flip(path.join(backup, 'qpc.db')), /qpc\.db is damaged/],
    ['a changed byte of a file', (backup) => flip(path.join(backup, blobPath)), /is damaged/],
    ['a file cut short', (backup) => writeFileSync(path.join(backup, blobPath), blob.subarray(1)), /is damaged/],
    ['a missing file', (backup) => rmSync(path.join(backup, blobPath)), /no such file/],
    ['a file too many', (backup) => writeFileSync(path.join(backup, 'qpc.db-wal'), 'x'), /does not belong/],
    ['no manifest', (backup) => rmSync(path.join(backup, 'manifest.json')), /cannot be read/],
    ['a manifest that is none', (backup) => appendFileSync(path.join(backup, 'manifest.json'), '}'), /cannot be read/],
    [
      'a manifest that leads elsewhere',
      (backup) => edit(backup, (m) => (m.files[1]!.path = '../../etc/passwd')),
      /not the manifest/,
    ],
    [
      'a write-ahead log among the secrets',
      (backup) => {
        mkdirSync(path.join(backup, 'secrets'));
        writeFileSync(path.join(backup, 'secrets/qpc.db-wal'), 'x');
        const sha256 = encodeHex(crypto.hash('sha256', new Uint8Array([0x78])));
        edit(backup, (m) => m.files.push({ path: 'secrets/qpc.db-wal', sha256, bytes: 1 }));
      },
      /not the manifest/,
    ],
    [
      'a manifest that is no file',
      (backup) => {
        rmSync(path.join(backup, 'manifest.json'));
        symlinkSync('/dev/zero', path.join(backup, 'manifest.json'));
      },
      /not a file/,
    ],
    ['a file twice', (backup) => edit(backup, (m) => m.files.push(m.files[1]!)), /not the manifest/],
    ['a manifest without the database', (backup) => edit(backup, (m) => m.files.shift()), /not the manifest/],
    [
      'a manifest that claims another origin',
      (backup) => edit(backup, (m) => (m.origin = 'evil.example.org')),
      /another server/,
    ],
    [
      'a manifest that forgets a file',
      (backup) => {
        edit(backup, (m) => m.files.pop());
        rmSync(path.join(backup, blobPath));
      },
      /names are missing: 1/,
    ],
    [
      'a file whose bytes and listed hash were both changed',
      (backup) => {
        const bytes = crypto.random(10);
        writeFileSync(path.join(backup, blobPath), bytes);
        edit(backup, (m) => Object.assign(m.files[1]!, { sha256: encodeHex(crypto.hash('sha256', bytes)), bytes: 10 }));
      },
      /is damaged/,
    ],
    ['a newer schema', newerSchema, /has schema \d+, this version knows/],
  ];
  for (const [what, tamper, expected] of tampering) {
    test(`refuses ${what}`, async () => {
      const backup = at('tampered');
      cpSync(at('plain'), backup, { recursive: true });
      tamper(backup);
      try {
        await refused(restore(backup, at('never')), 'verification', expected);
        assert.equal(existsSync(at('never')), false);
      } finally {
        rmSync(backup, { recursive: true });
      }
    });
  }
});

async function refused(attempt: Promise<unknown>, kind: RestoreError['kind'], message: RegExp): Promise<void> {
  await assert.rejects(attempt, (error: unknown) => {
    assert.ok(error instanceof RestoreError, String(error));
    assert.equal(error.kind, kind, error.message);
    assert.match(error.message, message);
    assert.notEqual(error.hint, '');
    return true;
  });
}

function flip(file: string): void {
  const bytes = readFileSync(file);
  bytes[bytes.length >> 1]! ^= 1;
  writeFileSync(file, bytes);
}

function edit(backup: string, change: (manifest: Manifest) => unknown): void {
  const manifest = manifestOf(backup);
  change(manifest);
  writeFileSync(path.join(backup, 'manifest.json'), JSON.stringify(manifest));
}

function newerSchema(backup: string): void {
  const file = path.join(backup, 'qpc.db');
  const db = openDatabase({ path: file, key: storeKey }, { cacheKiB: 100 });
  db.pragma('journal_mode = DELETE');
  db.pragma('user_version = 9999');
  db.close();
  const bytes = readFileSync(file);
  edit(backup, (m) =>
    Object.assign(m.files[0]!, { sha256: encodeHex(crypto.hash('sha256', bytes)), bytes: bytes.length }),
  );
}
