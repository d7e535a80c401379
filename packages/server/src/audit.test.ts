// The audit log: every event of accounts and keys appears in it, nothing that names anybody does, and floods of it are
// bounded. The calls are real ones.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs, {
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { DescMessage, MessageInitShape } from '@bufbuild/protobuf';
import {
  generateSigningKey,
  opaqueLoginFinish,
  opaqueLoginStart,
  opaqueRegisterFinish,
  opaqueRegisterStart,
  signHybridKey,
  signLoginProof,
  signRegistration,
  signRevocation,
} from '@quicprochat/core';
import { encodeHex } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import {
  DeleteAccountBodySchema,
  DeleteRecoveryBundleBodySchema,
  RegisterDeviceBodySchema,
  RevokeDeviceBodySchema,
  RevokeKeyBodySchema,
  StoreRecoveryBundleBodySchema,
  UploadHybridKeyBodySchema,
} from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import type { AuditLine } from './audit.ts';
import { openAuditFile } from './audit-file.node.ts';
import { ORIGIN, resume, TestLog, World } from './testing/world.node.ts';
import type { Person, TestConnection } from './testing/world.node.ts';

const { auth, recovery } = methods;
const DAY_SECS = 86_400;
const PASSWORD = 'correct horse battery staple';

describe('what happens to accounts and keys', () => {
  const identity = generateSigningKey(crypto);
  let world: World;
  before(async () => {
    world = await World.start({ admins: [encodeHex(identity.publicKey)] });
  });
  after(() => world.close());

  /** The lines since the last look, as event, outcome and reason. */
  let seen = 0;
  function since(): string[] {
    const lines = world.audited.slice(seen);
    seen = world.audited.length;
    return lines.map(({ event, outcome, reason }) => [event, outcome, reason].filter(Boolean).join(' '));
  }

  test('THREATS 41: each event appears once and names nobody, refusals with their reason', async () => {
    assert.deepEqual(since(), ['server_started']);
    const alice = world.newPerson('alice-the-audited');
    const a = world.connect();
    const record = await opaqueRecord(a, alice.username);
    const statement = { username: alice.username, origin: ORIGIN, record, certificate: alice.certificate };
    const registration = {
      username: alice.username,
      registrationRecord: record,
      identityKey: alice.identity.publicKey,
      registrationSignature: signRegistration(crypto, alice.identity.privateKey, statement),
      deviceCertificate: alice.certificate,
      deviceName: 'laptop',
      accountStatement: await world.statement(alice, { add: alice.certificate }),
    };
    const forged = { ...registration, registrationSignature: crypto.random(64) };
    await assert.rejects(a.call(auth.opaqueRegisterFinish, forged));
    await a.call(auth.opaqueRegisterFinish, registration);
    await assert.rejects(a.call(auth.opaqueRegisterFinish, registration));
    assert.deepEqual(since(), [
      'registration refused wrong_signature',
      'registration ok',
      'registration refused name_taken',
    ]);

    const { token } = await login(a, alice, PASSWORD);
    await assert.rejects(login(world.connect(), alice, 'wrong'));
    await assert.rejects(login(world.connect(), { ...alice, username: 'nobody-there' }, PASSWORD));
    await assert.rejects(login(world.connect(), { ...alice, device: generateSigningKey(crypto) }, PASSWORD));
    const stranger = world.newDevice(alice);
    await login(world.connect(), stranger, PASSWORD);
    await resume(world.connect(), alice, token);
    await assert.rejects(resume(world.connect(), { ...alice, device: stranger.device }, token));
    assert.deepEqual(since(), [
      'login ok',
      'login refused wrong_credentials',
      'login refused wrong_credentials',
      'login refused wrong_device_key',
      'login limited',
      'resume ok',
      'resume refused wrong_credentials',
    ]);

    const { device, keys } = methods;
    const signed = <D extends DescMessage>(method: { readonly id: number }, schema: D, body: MessageInitShape<D>) => ({
      signed: world.sign(alice.identity, method.id, schema, body),
    });
    const registered = {
      deviceCertificate: stranger.certificate,
      name: 'phone',
      accountStatement: await world.statement(alice, { add: stranger.certificate }),
    };
    await a.call(device.registerDevice, signed(device.registerDevice, RegisterDeviceBodySchema, registered));
    const { deviceId } = stranger.address;
    const ofPhone = revocation(stranger);
    const gone = {
      deviceId,
      revocation: ofPhone,
      accountStatement: await world.statement(alice, { remove: deviceId, revocation: ofPhone }),
    };
    await a.call(device.revokeDevice, signed(device.revokeDevice, RevokeDeviceBodySchema, gone));
    const ofNobody = revocation(world.newDevice(alice));
    const never = {
      revocation: ofNobody,
      accountStatement: await world.statement(alice, { revocation: ofNobody }),
    };
    await a.call(keys.revokeKey, signed(keys.revokeKey, RevokeKeyBodySchema, never));
    const notAfterSecs = nowSecs() + 30 * DAY_SECS;
    const hybridKey = signHybridKey(crypto, alice.device.privateKey, {
      origin: ORIGIN,
      address: alice.address,
      publicKey: crypto.random(1_216),
      serial: 1n,
      notBeforeSecs: nowSecs() - 60,
      notAfterSecs,
    });
    const published = { hybridKey, serial: 1n, notAfter: BigInt(notAfterSecs) };
    await a.call(keys.uploadHybridKey, {
      signed: world.sign(alice.device, keys.uploadHybridKey.id, UploadHybridKeyBodySchema, published),
    });
    assert.deepEqual(since(), [
      'device_registered ok',
      'device_revoked ok',
      'key_revoked ok',
      'hybrid_key_published ok',
    ]);

    const phrase = crypto.random(32);
    const slot = { kind: 'phrase', sealedKey: crypto.random(92), fetchTokenHash: crypto.hash('sha256', phrase) };
    const bundle = { sealedData: crypto.random(500), slots: [slot] };
    const { storeRecoveryBundle: store, fetchRecoveryBundle: fetch, deleteRecoveryBundle: remove } = recovery;
    await a.call(store, signed(store, StoreRecoveryBundleBodySchema, bundle));
    await a.call(fetch, {});
    await world.connect().call(fetch, { username: alice.username, fetchToken: phrase });
    await assert.rejects(world.connect().call(fetch, { username: 'nobody-there', fetchToken: phrase }));
    const changed = { ...bundle, registrationRecord: await opaqueRecord(a, alice.username) };
    await a.call(store, signed(store, StoreRecoveryBundleBodySchema, changed));
    await a.call(remove, signed(remove, DeleteRecoveryBundleBodySchema, {}));
    assert.deepEqual(since(), [
      'recovery_stored ok',
      'recovery_fetched ok',
      'recovery_fetched ok',
      'recovery_fetched refused wrong_credentials',
      'password_changed ok',
      'recovery_deleted ok',
    ]);

    const admin = await world.login(await world.registerAs('admin-of-all', identity));
    const { moderation } = methods;
    const { identityKey } = alice.address;
    await admin.call(moderation.listReports, {});
    await admin.call(moderation.listBanned, {});
    await admin.call(moderation.banUser, { identityKey, reason: 'sold umbrellas', durationSecs: 3_600n });
    await assert.rejects(world.login(alice));
    await admin.call(moderation.unbanUser, { identityKey });
    const deletion = {
      username: alice.username,
      accountStatement: await world.statement(alice, { deleted: true }),
    };
    await world.login(alice).then((connection) => connection.call(auth.logout, {}));
    const last = await world.login(alice);
    await last.call(
      methods.account.deleteAccount,
      signed(methods.account.deleteAccount, DeleteAccountBodySchema, deletion),
    );
    await a.closed;
    assert.deepEqual(since(), [
      'resume ok',
      'reports_read ok',
      'bans_read ok',
      'ban ok',
      'resume refused banned',
      'unban ok',
      'resume ok',
      'logout ok',
      'resume ok',
      'account_deleted ok',
    ]);
    assertNobody(alice, [PASSWORD, 'sold umbrellas', 'memory', 'laptop', 'nobody-there', 'admin-of-all']);
    for (const secret of [token, phrase, record]) assertAbsent(secret);
  });

  test('an account is the same in all its lines and no other’s, and every line leads to its call in the logs', () => {
    const named = world.audited.filter((line) => line.account !== undefined);
    const ofAlice = named.filter((line) => line.event === 'registration').map((line) => line.account);
    assert.match(ofAlice[0] ?? '', /^[0-9a-f]{16}$/);
    const ban = named.find((line) => line.event === 'ban');
    assert.equal(ban?.account, ofAlice[0]);
    assert.match(ban?.by ?? '', /^[0-9a-f]{16}$/);
    assert.notEqual(ban?.by, ban?.account);
    for (const { call, event } of world.audited) {
      if (event === 'server_started') continue;
      assert.match(call ?? '', /^[0-9a-f]{8}-\d+$/);
      assert.ok(world.log.lines.some((line) => line.includes('"answered"') && line.includes(`"${String(call)}"`)));
    }
  });

  test('THREATS 41: a flood of refusals is written in part, and then says how much is missing', async () => {
    const before = world.audited.length;
    const connection = world.connect();
    const thief = world.newPerson('thief');
    for (let i = 0; i < 100; i++) await assert.rejects(resume(connection, thief, crypto.random(32)));
    assert.ok(world.audited.length - before < 70, String(world.audited.length - before));
    world.clock.advance(3_600_000);
    await assert.rejects(resume(connection, thief, crypto.random(32)));
    assert.ok((world.audited.at(-1)?.suppressed ?? 0) > 30);
  });

  function nowSecs(): number {
    return Math.floor(world.clock.wallMs() / 1000);
  }

  function revocation(of: Person): Uint8Array {
    const { address } = of;
    const statement = { origin: ORIGIN, address, deviceKey: of.device.publicKey, signer: 'identity' as const };
    return signRevocation(crypto, of.identity.privateKey, { ...statement, revokedAtSecs: nowSecs() });
  }

  async function opaqueRecord(connection: TestConnection, username: string): Promise<Uint8Array> {
    const { state, request } = opaqueRegisterStart(PASSWORD);
    const { registrationResponse } = await connection.call(auth.opaqueRegisterStart, {
      username,
      registrationRequest: request,
    });
    const outcome = opaqueRegisterFinish(state, { username, origin: ORIGIN }, registrationResponse);
    assert.ok(outcome.kind === 'registered');
    return outcome.record;
  }

  async function login(connection: TestConnection, person: Person, password: string): Promise<{ token: Uint8Array }> {
    const { username, address, device } = person;
    const { state, ke1 } = opaqueLoginStart(password);
    const { ke2, loginId, nonce } = await connection.call(auth.opaqueLoginStart, { username, ke1 });
    const outcome = opaqueLoginFinish(state, { username, origin: ORIGIN }, ke2);
    const ke3 = outcome.kind === 'proven' ? outcome.ke3 : crypto.random(64);
    const { deviceId } = address;
    const deviceSignature = signLoginProof(crypto, device.privateKey, { origin: ORIGIN, nonce, deviceId });
    const answer = await connection.call(auth.opaqueLoginFinish, { loginId, ke3, deviceId, deviceSignature });
    return { token: answer.outcome.case === 'session' ? answer.outcome.value.token.slice() : new Uint8Array(0) };
  }

  function assertNobody(person: Person, words: readonly string[]): void {
    const text = JSON.stringify(world.audited);
    for (const word of [person.username, ...words]) assert.ok(!text.includes(word), word);
    for (const bytes of [person.address.identityKey, person.address.deviceId, person.device.publicKey]) {
      assertAbsent(bytes);
    }
  }

  function assertAbsent(bytes: Uint8Array): void {
    const text = JSON.stringify(world.audited);
    const buffer = Buffer.from(bytes);
    // Not even the first eight bytes, in any spelling.
    for (const encoding of ['hex', 'base64', 'base64url'] as const) {
      assert.ok(!text.includes(buffer.toString(encoding).slice(0, 10)));
    }
  }
});

describe('the file', () => {
  let folder: string;
  before(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'qpc-audit-test-'));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));
  const line = (call: string): AuditLine => ({ v: 1, time: '2030-01-01T00:00:00.000Z', event: 'logout', call });
  const calls = (file: string) =>
    readFileSync(file, 'utf8')
      .trim()
      .split('\n')
      .map((text) => (JSON.parse(text) as AuditLine).call);

  test('is appended to, private, and goes on where it was', async () => {
    const file = path.join(folder, 'appended.log');
    writeFileSync(file, `${JSON.stringify(line('old'))}\n`, { mode: 0o644 });
    const audit = openAuditFile(file, { bytesMax: 65_536, files: 3 }, new TestLog());
    audit.write(line('first'));
    audit.write(line('second'));
    await nextTurn();
    assert.deepEqual(calls(file), ['old', 'first', 'second']);
    audit.write(line('third'));
    audit.close();
    assert.deepEqual(calls(file), ['old', 'first', 'second', 'third']);
    assert.equal(statSync(file).mode & 0o777, 0o600);
    audit.write(line('too late'));
    audit.close();
  });

  test('what was written is synced within a second, in the background; the rest when it is put away or closed', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const later = t.mock.method(fs, 'fdatasync');
    const now = t.mock.method(fs, 'fdatasyncSync');
    syncBuiltinESMExports();
    t.after(() => {
      t.mock.restoreAll();
      syncBuiltinESMExports();
    });
    const log = new TestLog();
    const audit = openAuditFile(path.join(folder, 'synced.log'), { bytesMax: 300, files: 3 }, log);
    audit.write(line('one'));
    await nextTurn();
    t.mock.timers.tick(900);
    audit.write(line('two'));
    await nextTurn();
    assert.equal(later.mock.callCount(), 0);
    t.mock.timers.tick(100);
    assert.equal(later.mock.callCount(), 1);
    t.mock.timers.tick(5_000);
    assert.equal(later.mock.callCount(), 1, 'nothing new, nothing to sync');
    for (let i = 0; i < 3; i++) audit.write(line(String(i)));
    await nextTurn();
    assert.equal(later.mock.callCount(), 2, 'the one put away');
    audit.close();
    assert.equal(now.mock.callCount(), 1);
    t.mock.timers.tick(5_000);
    assert.equal(later.mock.callCount(), 2, 'not after its end');
    assert.deepEqual(log.lines, []);
  });

  test('THREATS 27: is bounded: at its size a new one begins, and the oldest goes', async () => {
    const file = path.join(folder, 'rotated.log');
    const audit = openAuditFile(file, { bytesMax: 300, files: 3 }, new TestLog());
    for (let i = 0; i < 20; i++) {
      audit.write(line(String(i)));
      await nextTurn();
    }
    audit.close();
    const files = readdirSync(folder)
      .filter((name) => name.startsWith('rotated'))
      .sort();
    assert.deepEqual(files, ['rotated.log', 'rotated.log.1', 'rotated.log.2']);
    const kept = files.toReversed().flatMap((name) => calls(path.join(folder, name)));
    assert.deepEqual(
      kept,
      Array.from({ length: kept.length }, (_, i) => String(20 - kept.length + i)),
    );
    for (const name of files) {
      const { mode, size } = statSync(path.join(folder, name));
      assert.equal(mode & 0o777, 0o600);
      assert.ok(size <= 300);
    }
  });

  test('where an old one cannot be put away nothing is lost, and it goes on when it can', async () => {
    const log = new TestLog();
    const file = path.join(folder, 'stuck.log');
    mkdirSync(path.join(`${file}.1`, 'in the way'), { recursive: true });
    const audit = openAuditFile(file, { bytesMax: 300, files: 2 }, log);
    for (let i = 0; i < 8; i++) {
      audit.write(line(String(i)));
      await nextTurn();
    }
    assert.ok(statSync(file).size <= 300);
    assert.equal(log.lines.filter((each) => each.includes('the audit log cannot be written')).length, 1);
    rmSync(`${file}.1`, { recursive: true });
    audit.write(line('8'));
    audit.close();
    const kept = [...calls(`${file}.1`), ...calls(file)];
    assert.deepEqual(
      kept,
      Array.from({ length: 9 }, (_, i) => String(i)),
    );
  });

  test('a process that can rename, but has no file descriptor for a new one, loses nothing however often it tries', () => {
    const file = path.join(folder, 'crowded.log');
    const script = `
      import { closeSync, openSync } from 'node:fs';
      import { setImmediate as nextTurn } from 'node:timers/promises';
      import { openAuditFile } from ${JSON.stringify(new URL('./audit-file.node.ts', import.meta.url).href)};
      const quiet = { debug() {}, info() {}, warn() {}, error() {} };
      const audit = openAuditFile(${JSON.stringify(file)}, { bytesMax: 300, files: 3 }, quiet);
      const write = async (i) => {
        audit.write({ ...${JSON.stringify(line(''))}, call: String(i) });
        await nextTurn();
      };
      for (let i = 0; i < 6; i++) await write(i);
      const taken = [];
      try {
        for (;;) taken.push(openSync('/dev/null'));
      } catch {}
      for (let i = 6; i < 12; i++) await write(i);
      taken.forEach((each) => closeSync(each));
      await write(12);
      audit.close();
    `;
    const shell = 'ulimit -n 64 && exec "$0" --input-type=module -e "$1"';
    const { status, stderr } = spawnSync('sh', ['-c', shell, process.execPath, script], { encoding: 'utf8' });
    assert.equal(status, 0, stderr);
    const kept = [`${file}.2`, `${file}.1`, file].flatMap(calls).map(Number);
    // Six lines before, of which the oldest two may have gone in order.
    assert.deepEqual(
      kept,
      Array.from({ length: kept.length }, (_, i) => 13 - kept.length + i),
    );
    assert.ok(kept.length >= 9, String(kept));
  });

  test('a line that a crash cut off costs no other line', async () => {
    const file = path.join(folder, 'torn.log');
    writeFileSync(file, `${JSON.stringify(line('whole'))}\n{"v":1,"time":"2030-01`);
    const audit = openAuditFile(file, { bytesMax: 65_536, files: 3 }, new TestLog());
    audit.write(line('after'));
    audit.close();
    const [whole, torn, after] = readFileSync(file, 'utf8').split('\n');
    assert.deepEqual([whole, after], [JSON.stringify(line('whole')), JSON.stringify(line('after'))]);
    assert.equal(torn, '{"v":1,"time":"2030-01');
    await nextTurn();
  });

  test('one that somebody has moved away meanwhile is begun anew; a device is never put away', async () => {
    const log = new TestLog();
    const file = path.join(folder, 'moved.log');
    const audit = openAuditFile(file, { bytesMax: 200, files: 1 }, log);
    for (let i = 0; i < 3; i++) {
      audit.write(line(String(i)));
      await nextTurn();
      if (i === 0) renameSync(file, `${file}.mine`);
    }
    audit.close();
    assert.deepEqual([calls(`${file}.mine`), calls(file)], [['0', '1'], ['2']]);
    assert.deepEqual(log.lines, []);

    const pipe = path.join(folder, 'pipe');
    assert.equal(spawnSync('sh', ['-c', 'mkfifo "$0"', pipe]).status, 0);
    const reader = openSync(pipe, constants.O_RDONLY | constants.O_NONBLOCK);
    const piped = openAuditFile(pipe, { bytesMax: 150, files: 3 }, log);
    for (let i = 0; i < 4; i++) {
      piped.write(line(String(i)));
      await nextTurn();
    }
    piped.close();
    closeSync(reader);
    assert.ok(!existsSync(`${pipe}.1`));
  });

  const hasFullDisk = existsSync('/dev/full');
  test(
    'a full disk stops nobody: the log says so once, and what fits is written later',
    { skip: !hasFullDisk },
    async () => {
      const log = new TestLog();
      const audit = openAuditFile('/dev/full', { bytesMax: 65_536, files: 1 }, log);
      for (let i = 0; i < 5; i++) {
        audit.write(line(String(i)));
        await nextTurn();
      }
      audit.close();
      assert.equal(log.lines.filter((each) => each.includes('the audit log cannot be written')).length, 1);
    },
  );

  test('one that cannot be made says what to set', () => {
    const nowhere = path.join(folder, 'missing', 'audit.log');
    assert.throws(
      () => openAuditFile(nowhere, { bytesMax: 65_536, files: 1 }, new TestLog()),
      /cannot be written: no such file/,
    );
  });
});
