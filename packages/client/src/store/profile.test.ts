// Profiles on real files: locked against a second process, safe against kill -9, and telling a wrong password from damage
// (THREATS 11, 19, 27).
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { BadInput } from '@quicprochat/core';
import { concat, u32 } from '@quicprochat/crypto';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { KDF_FILE_LENGTH, type KdfParameters } from './profile-key.ts';
import { changeStatePassword, openProfile, type Profile, profileProtection } from './profile.node.ts';
import type { Store } from './store.ts';

/** The cheapest that is allowed. */
const kdf: KdfParameters = { memoryKib: 8192, iterations: 1, parallelism: 1 };
const statePassword = 'correct horse battery staple';

function newFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'qpc-profile-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return join(folder, 'profile');
}

function databaseIn(folder: string): string {
  const name = readdirSync(folder).find((candidate) => candidate.endsWith('.db'));
  assert.ok(name !== undefined);
  return join(folder, name);
}

/** A profile that has `setting` in it. */
async function makeProfile(folder: string, password?: string, setting = 'kept'): Promise<void> {
  const options = { folder, kdf, ...(password !== undefined && { statePassword: password }) };
  const { store, created } = await openProfile(options);
  assert.ok(created);
  store.settings.set('setting', setting);
  store.close();
}

async function settingIn(folder: string, password?: string): Promise<string | undefined> {
  const { store, created } = await openProfile({ folder, ...(password !== undefined && { statePassword: password }) });
  assert.ok(!created);
  try {
    return store.settings.get('setting');
  } finally {
    store.close();
  }
}

/** Runs `script` in a process of its own, with `openProfile` and the like at hand and `say` to write a line. */
function child(t: TestContext, script: string): ChildProcess {
  const prelude = `
    import { writeSync } from 'node:fs';
    import { changeStatePassword, openProfile } from ${JSON.stringify(import.meta.resolve('./profile.node.ts'))};
    const say = (line) => writeSync(1, line + '\\n');
    const forever = () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    const kdf = ${JSON.stringify(kdf)};
  `;
  const started = spawn(process.execPath, ['--input-type=module', '-e', prelude + script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => started.kill('SIGKILL'));
  return started;
}

async function* linesOf(process: ChildProcess): AsyncGenerator<string> {
  let rest = '';
  for await (const chunk of process.stdout ?? []) {
    const lines = (rest + String(chunk)).split('\n');
    rest = lines.pop() ?? '';
    yield* lines;
  }
}

async function kill(process: ChildProcess): Promise<void> {
  const exited = once(process, 'exit');
  process.kill('SIGKILL');
  await exited;
}

test('a new profile is made, closed and opened again', async (t) => {
  const folder = newFolder(t);
  assert.equal(profileProtection(folder), 'none');
  await assert.rejects(openProfile({ folder, mustExist: true }), { code: 'profile-missing' });
  assert.ok(!existsSync(folder));
  await makeProfile(folder);
  assert.equal(profileProtection(folder), 'key-file');
  assert.equal(await settingIn(folder), 'kept');
  assert.equal(readdirSync(folder).length, 2);
});

test('nobody else can read the folder and its files', { skip: process.platform === 'win32' }, async (t) => {
  const folder = newFolder(t);
  const { store } = await openProfile({ folder });
  const mode = (path: string): number => statSync(path).mode & 0o777;
  assert.equal(mode(folder), 0o700);
  const names = readdirSync(folder);
  assert.equal(names.length, 3, 'database, write-ahead log, key');
  for (const name of names) assert.equal(mode(join(folder, name)), 0o600, name);
  store.close();
  chmodSync(folder, 0o755);
  const other = join(folder, '..', 'protected');
  await makeProfile(other, statePassword);
  for (const name of readdirSync(other)) assert.equal(mode(join(other, name)), 0o600, name);
});

test('in memory nothing is kept', async () => {
  const first = await openProfile({ folder: ':memory:' });
  first.store.settings.set('setting', 'gone');
  const second = await openProfile({ folder: ':memory:' });
  assert.equal(second.store.settings.get('setting'), undefined);
});

// ---- One process at a time ------------------------------------------------------------------------------------------

test('a second process is refused at once, whoever came first', async (t) => {
  const folder = newFolder(t);
  const { store } = await openProfile({ folder });
  const second = child(
    t,
    `await openProfile({ folder: ${JSON.stringify(folder)} }).then(() => say('opened'), (e) => say(e.code + '|' + e.message));`,
  );
  const { value } = await linesOf(second).next();
  assert.equal(value, 'profile-in-use|This profile is in use by another process.');
  store.settings.set('setting', 'still writable');
  store.close();

  const first = child(t, `await openProfile({ folder: ${JSON.stringify(folder)} }); say('opened'); forever();`);
  await linesOf(first).next();
  await assert.rejects(openProfile({ folder }), { code: 'profile-in-use' });
  await assert.rejects(changeStatePassword({ folder, newStatePassword: 'x', kdf }), { code: 'profile-in-use' });
  await kill(first);
  // The lock died with its process: nothing to clean up by hand.
  assert.equal(await settingIn(folder), 'still writable');
});

test('several that make the same profile at once end with one profile', async (t) => {
  const folder = newFolder(t);
  const opening = (): Promise<Profile> => openProfile({ folder, statePassword, kdf });
  const outcomes = await Promise.allSettled([opening(), opening(), opening(), opening()]);
  const opened = outcomes.filter((outcome) => outcome.status === 'fulfilled');
  assert.equal(opened.length, 1);
  for (const outcome of outcomes) {
    if (outcome.status === 'rejected') assert.equal((outcome.reason as { code: string }).code, 'profile-in-use');
  }
  opened[0]!.value.store.settings.set('setting', 'one');
  opened[0]!.value.store.close();
  assert.equal(await settingIn(folder, statePassword), 'one');
  assert.equal(readdirSync(folder).length, 2);
});

test('several processes that make the same profile at once end with one profile', async (t) => {
  const folder = newFolder(t);
  const started = Array.from({ length: 3 }, () =>
    child(
      t,
      `await openProfile({ folder: ${JSON.stringify(folder)} }).then(
         ({ store }) => { store.settings.set('setting', 'one'); say('opened'); forever(); },
         (error) => say(String(error.code ?? error)));`,
    ),
  );
  const said = await Promise.all(started.map(async (process) => (await linesOf(process).next()).value));
  assert.deepEqual(said.toSorted(), ['opened', 'profile-in-use', 'profile-in-use']);
  await Promise.all(started.map((process) => (process.exitCode === null ? kill(process) : undefined)));
  assert.equal(await settingIn(folder), 'one');
  assert.equal(readdirSync(folder).length, 2);
});

// ---- kill -9 --------------------------------------------------------------------------------------------------------

test('killed in the middle of a transaction: nothing of it is there (THREATS 11)', async (t) => {
  const folder = newFolder(t);
  await makeProfile(folder);
  const writer = child(
    t,
    `const { store } = await openProfile({ folder: ${JSON.stringify(folder)} });
     store.transaction(() => {
       store.settings.set('setting', 'half');
       for (let i = 0; i < 3000; i++) store.settings.set('key' + i, 'x'.repeat(1000));
       say('in the middle');
       forever();
     });`,
  );
  await linesOf(writer).next();
  await kill(writer);
  const { store } = await openProfile({ folder });
  assert.equal(store.settings.get('setting'), 'kept');
  assert.equal(store.settings.get('key0'), undefined);
  store.close();
});

test('killed at any moment: everything that was committed is there (THREATS 11)', async (t) => {
  const folder = newFolder(t);
  await makeProfile(folder);
  const writer = child(
    t,
    `const { store } = await openProfile({ folder: ${JSON.stringify(folder)} });
     for (let i = 1; ; i++) {
       store.transaction(() => { store.inbox.advance(BigInt(i)); store.settings.set('setting', String(i)); });
       say(String(i));
     }`,
  );
  let said = 0;
  for await (const line of linesOf(writer)) {
    said = Number(line);
    if (said === 60) await kill(writer);
  }
  const { store } = await openProfile({ folder });
  const cursor = store.inbox.cursor();
  assert.ok(cursor >= BigInt(said) && said >= 60);
  assert.equal(store.settings.get('setting'), String(cursor));
  store.close();
});

const STEPS = ['copied', 'rekeyed', 'key file written', 'key file named', 'counts', 'database named'];

test('killed at any step of setting a password: nothing is lost (THREATS 11)', async (t) => {
  const original = newFolder(t);
  await makeProfile(original);
  for (const step of STEPS) {
    const folder = newFolder(t);
    cpSync(original, folder, { recursive: true });
    const changing = child(
      t,
      `await changeStatePassword({ folder: ${JSON.stringify(folder)}, newStatePassword: 'new', kdf, onStep(step) {
         if (step === ${JSON.stringify(step)}) process.kill(process.pid, 'SIGKILL');
       } });`,
    );
    const [, signal] = await once(changing, 'exit');
    assert.equal(signal, 'SIGKILL');
    await assertChanged(folder, undefined, 'new', STEPS.indexOf(step) >= STEPS.indexOf('key file named'));
  }
});

for (const [from, to] of [
  ['old', 'new'],
  ['old', undefined],
  [undefined, 'new'],
  [undefined, undefined],
] as const) {
  test(`failed at any step of a change of password (${from ?? 'none'} → ${to ?? 'none'}): nothing is lost`, async (t) => {
    const original = newFolder(t);
    await makeProfile(original, from);
    for (const step of STEPS) {
      const folder = newFolder(t);
      cpSync(original, folder, { recursive: true });
      const changing = changeStatePassword({
        folder,
        ...(from !== undefined && { statePassword: from }),
        ...(to !== undefined && { newStatePassword: to }),
        kdf,
        onStep(current) {
          if (current === step) throw new Error('power cut');
        },
      });
      await assert.rejects(changing, /power cut/);
      // profile.key counts only once profile.kdf is gone.
      const counting = from !== undefined && to === undefined ? 'counts' : 'key file named';
      await assertChanged(folder, from, to, STEPS.indexOf(step) >= STEPS.indexOf(counting));
    }
  });
}

/** Whether the profile opens with the new password, or still with the old one; tidied up either way. */
async function assertChanged(
  folder: string,
  from: string | undefined,
  to: string | undefined,
  changed: boolean,
): Promise<void> {
  assert.equal(await settingIn(folder, changed ? to : from), 'kept');
  assert.equal(readdirSync(folder).length, 2);
  if (from !== to) await assert.rejects(settingIn(folder, changed ? from : to), { code: 'wrong-state-password' });
}

test('a change of password encrypts anew: the old key opens nothing that is left', async (t) => {
  const folder = newFolder(t);
  await makeProfile(folder);
  const oldKeyFile = join(folder, '..', 'profile.key');
  copyFileSync(join(folder, 'profile.key'), oldKeyFile);
  const oldName = databaseIn(folder);
  await changeStatePassword({ folder, newStatePassword: statePassword, kdf });
  assert.deepEqual(readdirSync(folder).length, 2);
  assert.equal(profileProtection(folder), 'password');
  assert.equal(await settingIn(folder, statePassword), 'kept');

  // Someone kept a copy of the old key and tries it on the new database.
  rmSync(join(folder, 'profile.kdf'));
  copyFileSync(oldKeyFile, join(folder, 'profile.key'));
  renameSync(databaseIn(folder), oldName);
  await assert.rejects(openProfile({ folder }), { code: 'profile-damaged' });
});

test('changing from a wrong password changes nothing', async (t) => {
  const folder = newFolder(t);
  await makeProfile(folder, statePassword);
  const before = readdirSync(folder).map((name) => readFileSync(join(folder, name)).toString('hex'));
  const wrong = changeStatePassword({ folder, statePassword: 'wrong', newStatePassword: 'new', kdf });
  await assert.rejects(wrong, { code: 'wrong-state-password' });
  assert.deepEqual(
    readdirSync(folder).map((name) => readFileSync(join(folder, name)).toString('hex')),
    before,
  );
});

// ---- Passwords and damage -------------------------------------------------------------------------------------------

test('a wrong, missing, superfluous or empty state password is told apart from damage', async (t) => {
  const folder = newFolder(t);
  await makeProfile(folder, statePassword);
  const refused = { code: 'wrong-state-password' };
  await assert.rejects(settingIn(folder, 'wrong'), { ...refused, message: 'The state password is wrong.' });
  await assert.rejects(settingIn(folder), { ...refused, message: /none was given/ });
  await assert.rejects(openProfile({ folder, statePassword: '' }), BadInput);
  assert.equal(await settingIn(folder, statePassword), 'kept');

  const open = newFolder(t);
  await makeProfile(open);
  await assert.rejects(settingIn(open, 'password'), { ...refused, message: /has no state password/ });
  assert.equal(await settingIn(open), 'kept');
});

test('a password typed decomposed is the same password', async (t) => {
  const folder = newFolder(t);
  await makeProfile(folder, 'Gr\u00fc\u00dfe');
  assert.equal(await settingIn(folder, 'Gru\u0308\u00dfe'), 'kept');
});

test('every flipped bit of a key file is damage, never a wrong password', async (t) => {
  for (const [password, name] of [
    [statePassword, 'profile.kdf'],
    [undefined, 'profile.key'],
  ] as const) {
    const folder = newFolder(t);
    await makeProfile(folder, password);
    const path = join(folder, name);
    const intact = readFileSync(path);
    for (let i = 0; i < intact.length; i++) {
      const damaged = Buffer.from(intact);
      damaged[i]! ^= 1 << (i % 8);
      writeFileSync(path, damaged);
      await assert.rejects(settingIn(folder, password), { code: 'profile-damaged' }, `byte ${i}`);
    }
    for (const wrong of [Buffer.alloc(0), intact.subarray(1), Buffer.concat([intact, intact]), randomBytes(1 << 20)]) {
      writeFileSync(path, wrong);
      await assert.rejects(settingIn(folder, password), { code: 'profile-damaged' });
    }
    writeFileSync(path, intact);
    assert.equal(await settingIn(folder, password), 'kept');
  }
});

/** A key file as an attacker would write it: with a hash that fits. */
function hostileKdf(intact: Uint8Array, change: (body: Uint8Array) => void): Uint8Array {
  const body = intact.slice(0, -32);
  change(body);
  return concat(body, nodeCrypto.hash('sha256', body));
}

test('a key file that asks for absurd work is refused before any is done (THREATS 27)', async (t) => {
  const folder = newFolder(t);
  await makeProfile(folder, statePassword);
  const path = join(folder, 'profile.kdf');
  const intact = new Uint8Array(readFileSync(path));
  const [MEMORY, ITERATIONS, PARALLELISM] = [16, 20, 24];
  for (const change of [
    (body: Uint8Array) => body.set(u32(0xffff_ffff), MEMORY),
    (body: Uint8Array) => body.set(u32(0), MEMORY),
    (body: Uint8Array) => body.set(u32(0xffff_ffff), ITERATIONS),
    (body: Uint8Array) => body.set(u32(0), ITERATIONS),
    (body: Uint8Array) => body.set([0], PARALLELISM),
    (body: Uint8Array) => body.set([255], PARALLELISM),
  ]) {
    writeFileSync(path, hostileKdf(intact, change));
    const startedAt = performance.now();
    await assert.rejects(settingIn(folder, statePassword), { code: 'profile-damaged' });
    assert.ok(performance.now() - startedAt < 1000);
  }
});

test('a key file fits one password only: no oracle for guesses (THREATS 19)', async (t) => {
  const folder = newFolder(t);
  await makeProfile(folder, statePassword);
  const path = join(folder, 'profile.kdf');
  const intact = new Uint8Array(readFileSync(path));
  assert.equal(intact.length, KDF_FILE_LENGTH);
  // Everything the key depends on is under the commitment: with any of it changed, the right password is refused before
  // the database is touched, and so is every other.
  const [SALT, COMMITMENT, ITERATIONS] = [25, 41, 20];
  for (const change of [
    (body: Uint8Array) => body.set(randomBytes(16), SALT),
    (body: Uint8Array) => body.set(randomBytes(32), COMMITMENT),
    (body: Uint8Array) => body.set(u32(2), ITERATIONS),
    (body: Uint8Array) => body.set(randomBytes(8), 8),
  ]) {
    writeFileSync(path, hostileKdf(intact, change));
    for (const password of [statePassword, 'guess']) {
      await assert.rejects(settingIn(folder, password), { code: 'wrong-state-password' });
    }
  }
  // The attacker's own key file, for a password of theirs, beside this database.
  const theirs = newFolder(t);
  await makeProfile(theirs, 'theirs');
  renameSync(databaseIn(folder), databaseIn(theirs));
  for (const [password, code] of [
    [statePassword, 'wrong-state-password'],
    ['theirs', 'profile-damaged'],
  ] as const) {
    await assert.rejects(settingIn(theirs, password), { code });
  }
});

test('a missing part of a profile is damage, and nothing is made over it', async (t) => {
  const folder = newFolder(t);
  await makeProfile(folder);
  const keyPath = join(folder, 'profile.key');
  const key = readFileSync(keyPath);
  rmSync(keyPath);
  await assert.rejects(openProfile({ folder }), {
    code: 'profile-damaged',
    message: /neither profile.key nor profile.kdf/,
  });
  assert.throws(() => profileProtection(folder), { code: 'profile-damaged' });
  writeFileSync(keyPath, key);
  assert.equal(await settingIn(folder), 'kept');
  rmSync(databaseIn(folder));
  await assert.rejects(openProfile({ folder }), { code: 'profile-damaged', message: /database is missing/ });
});

test('a folder that cannot be used is named as such', async (t) => {
  const folder = newFolder(t);
  writeFileSync(folder, 'a file');
  await assert.rejects(openProfile({ folder }), { code: 'profile-unwritable' });
  await assert.rejects(openProfile({ folder: join(folder, 'below') }), { code: 'profile-unwritable' });
  await assert.rejects(openProfile({ folder: `${folder}${'x'.repeat(300)}` }), { code: 'profile-unwritable' });
});

// ---- What is on disk ------------------------------------------------------------------------------------------------

function fill(store: Store): readonly Uint8Array[] {
  const secrets = Array.from({ length: 4 }, () => new Uint8Array(randomBytes(32)));
  const channelId = new Uint8Array(randomBytes(16));
  store.account.save({
    state: 'registered',
    origin: 'chat.example.org',
    username: 'alice.username',
    identityKey: new Uint8Array(32),
    identityPrivateKey: secrets[0]!,
    deviceId: new Uint8Array(16),
    deviceKey: new Uint8Array(32),
    devicePrivateKey: secrets[1]!,
    certificate: new Uint8Array(100),
    createdAtMs: 1,
  });
  store.account.saveSession({ token: secrets[2]!, expiresAtMs: undefined, createdAtMs: 1 });
  store.conversations.save({
    channelId,
    kind: 'group',
    state: 'active',
    paused: undefined,
    name: 'the secret society',
    nameVersion: 1n,
    peerIdentity: undefined,
    position: 0n,
    logHash: new Uint8Array(32),
    rosterHash: undefined,
    epochPosition: 0n,
    groupId: undefined,
    suite: 1,
    epoch: 0n,
    memberCount: 1,
    deviceCounter: 0n,
    previousHash: undefined,
    invitedBy: undefined,
    isNew: false,
    createdAtMs: 1,
    lastMessageAtMs: undefined,
  });
  store.mlsRows.apply(channelId, [{ kind: 'set', key: 'secret/0', bytes: secrets[3]! }]);
  for (let i = 0; i < 500; i++) {
    store.messages.insert({
      channelId,
      senderIdentity: new Uint8Array(32),
      senderDevice: new Uint8Array(16),
      contentId: new Uint8Array(randomBytes(16)),
      own: false,
      state: 'received',
      kind: 'text',
      text: `attack at dawn number ${i}`,
      replyTo: undefined,
      sentAtMs: i,
      storedAtMs: i,
      acceptedAtMs: i,
      seen: false,
      messageId: undefined,
    });
  }
  return secrets;
}

test('no secret, name or word is findable in the files, open or closed', async (t) => {
  const folder = newFolder(t);
  const { store } = await openProfile({ folder, statePassword, kdf });
  const secrets = fill(store);
  const words = [
    'attack',
    'dawn',
    'alice.username',
    'secret society',
    'chat.example.org',
    statePassword,
    'CREATE TABLE',
  ];
  const needles = [...secrets, ...words].flatMap((needle) => {
    const bytes = Buffer.from(needle);
    return [bytes, ...['hex', 'base64'].map((form) => Buffer.from(bytes.toString(form as 'hex').replace(/=+$/, '')))];
  });
  const search = (): void => {
    for (const name of readdirSync(folder)) {
      const file = readFileSync(join(folder, name));
      for (const needle of needles) assert.equal(file.indexOf(needle), -1, `${name} holds ${needle.toString('hex')}`);
    }
  };
  assert.ok(readdirSync(folder).some((name) => name.endsWith('-wal')));
  assert.ok(readdirSync(folder).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0) > 100_000);
  search();
  assert.equal(store.messages.search('dawn', { limit: 10 }).length, 10);
  store.close();
  search();
});

test('a damaged database is reported as damage or reads as it was, never anything else', async (t) => {
  const original = newFolder(t);
  const { store } = await openProfile({ folder: original });
  fill(store);
  store.close();
  const database = readFileSync(databaseIn(original));
  const seed = Number(process.env['TEST_SEED'] ?? Date.now()) >>> 0;
  t.diagnostic(`TEST_SEED=${seed}`);
  let state = seed;
  let refused = 0;
  const folder = newFolder(t);
  cpSync(original, folder, { recursive: true });
  const path = databaseIn(folder);
  const rounds = 120;
  for (let round = 0; round < rounds; round++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const damagedBytes = Buffer.from(database);
    // The first rounds in the first page, which holds the schema.
    const at = (state >>> 3) % (round < 30 ? 4096 : database.length);
    damagedBytes[at]! ^= 1 << (state & 7);
    writeFileSync(path, damagedBytes);
    try {
      const opened = await openProfile({ folder });
      try {
        const [conversation] = opened.store.conversations.all();
        const history = opened.store.messages.history(conversation!.channelId, { limit: 1000 });
        assert.equal(history.length, 500);
        assert.ok(history.every(({ text }, i) => text === `attack at dawn number ${i}`));
        assert.equal(opened.store.account.get()?.username, 'alice.username');
        assert.ok(round >= 30);
      } finally {
        opened.store.close();
      }
    } catch (error) {
      assert.equal((error as { code: string }).code, 'profile-damaged', String(error));
      refused++;
    }
  }
  assert.ok(refused > 30, `${refused} refused`);

  writeFileSync(path, database);
  truncateSync(path, database.length / 2);
  const cut = openProfile({ folder }).then(({ store }) => {
    try {
      store.messages.history(store.conversations.all()[0]!.channelId, { limit: 1000 });
      store.messages.search('dawn', { limit: 1000 });
    } finally {
      store.close();
    }
  });
  await assert.rejects(cut, { code: 'profile-damaged' });
});
