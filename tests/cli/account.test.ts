// Accounts and profiles through the command line: the good path, and every way it can be refused. Each refusal names its
// cause and the next step, has the documented exit code, and loses nothing.
import assert from 'node:assert/strict';
import { cpSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { before, test } from 'node:test';
import { findRunning } from '@quicprochat/server';
import { QPC_MAIN, World, type Person } from './world.ts';

const world = new World();
let alice: Person;
let bob: Person;

before(async () => {
  await world.startServer();
  [alice, bob] = await world.people('alice', 'bob');
});

test('ping and health need no account', async () => {
  const visitor = world.person('visitor');
  const ping = await visitor.result(['ping']);
  assert.ok(typeof ping['roundTripMs'] === 'number' && ping['roundTripMs'] > 0);
  const health = await visitor.result(['health']);
  assert.match(String(health['origin']), /^localhost:\d+$/u);
  assert.equal(health['store'], 'ok');
  assert.throws(() => statSync(visitor.profile));
});

test('a new account has an identity, is logged in, and its profile is private', async () => {
  const whoami = await alice.result(['whoami']);
  assert.equal(whoami['username'], 'alice');
  assert.match(String(whoami['identityKey']), /^[0-9a-f]{64}$/u);
  assert.match(String(whoami['deviceId']), /^[0-9a-f]{32}$/u);
  assert.equal(whoami['loggedIn'], true);
  assert.equal(statSync(alice.profile).mode & 0o077, 0);
  for (const name of readdirSync(alice.profile)) {
    assert.equal(statSync(path.join(alice.profile, name)).mode & 0o077, 0, name);
  }
});

test('the profile remembers its server: later commands need no flags', async () => {
  const program = world.run('alice', QPC_MAIN, ['--json', '--state', alice.profile, 'resolve', 'bob']);
  assert.equal((await program.result())['username'], 'bob');
});

test('a qpc beside its own server trusts the certificate in its data folder', async () => {
  const env = { ...world.env, QPC_DATA_DIR: world.serverFolder };
  const program = world.run('qpc', QPC_MAIN, ['--json', 'ping', '--server', `127.0.0.1:${world.port}`], env);
  await program.result();
});

test('somebody looked up has the same key each time', async () => {
  const own = await bob.result(['whoami']);
  const first = await alice.result(['check-key', 'bob']);
  assert.equal(first['identityKey'], own['identityKey']);
  assert.ok(Array.isArray(first['hybridKeys']) && first['hybridKeys'].length === 1);
  const again = await alice.result(['resolve', 'bob']);
  assert.deepEqual([again['identityKey'], again['pin']], [own['identityKey'], 'same']);
});

test('who follows when the server ends the session is told so, and holds the profile no longer', async () => {
  const [carol, dora] = await world.people('carol', 'dora');
  await carol.result(['dm', 'dora', 'first']);
  const chat = await carol.chat('@dora');
  chat.type('before');
  await chat.event('it was sent', (event) => event.type === 'sent');
  const waiting = dora.start(['recv', '--follow']);
  await waiting.event('the connection', (event) => event.type === 'connection' && event['state'] === 'online');
  const server = await findRunning({ dataDir: world.serverFolder });
  assert.ok(server !== undefined);
  for (const account of ['carol', 'dora']) await server.call('endSessions', { account });
  for (const [program, name] of [
    [chat, 'carol'],
    [waiting, 'dora'],
  ] as const) {
    const failure = await program.failure();
    assert.deepEqual([failure.exitCode, failure['code']], [6, 'not-logged-in']);
    assert.match(String(failure['hint']), new RegExp(`qpc login ${name}`));
    assert.ok(program.events.some((event) => event.type === 'warning' && event['code'] === 'session-ended'));
  }
  await dora.result(['login', 'dora', '--password-stdin'], `${dora.password}\n`);
});

test('who follows when the account is banned is told why; the ban lifted, no password is needed', async () => {
  const [ivan] = await world.people('ivan', 'judy');
  await ivan.result(['dm', 'judy', 'first']);
  const chat = await ivan.chat('@judy');
  chat.type('before');
  await chat.event('it was sent', (event) => event.type === 'sent');
  const server = await findRunning({ dataDir: world.serverFolder });
  assert.ok(server !== undefined);
  await server.call('ban', { account: 'ivan', reason: 'sells umbrellas', durationSecs: 0 });
  const failure = await chat.failure();
  assert.deepEqual([failure.exitCode, failure['code']], [4, 'session-refused']);
  assert.match(String(failure['message']), /this account is banned: sells umbrellas/);
  assert.ok(chat.events.some((event) => event.type === 'warning' && event['code'] === 'session-refused'));
  await ivan.refused(4, 'session-refused', ['send', '@judy', 'meanwhile']);
  await server.call('unban', { account: 'ivan' });
  await ivan.result(['send', '@judy', 'after']);
});

test('fresh KeyPackages can be published', async () => {
  const { uploaded } = await alice.result(['refresh-keypackage', '--all']);
  assert.ok(Number(uploaded) > 0);
});

test('a taken name is refused, and the profile can still take another', async () => {
  const late = world.person('late');
  const words = ['register-user', 'alice', '--password-stdin'];
  await late.refused(4, 'name-taken', words, 'some other password\n');
  await late.register();
  assert.equal((await late.result(['whoami']))['username'], 'late');
});

test('one profile holds one account', async () => {
  const words = ['register-user', 'mallory', '--password-stdin'];
  await alice.refused(6, 'other-account', words, 'some password\n');
  assert.equal((await alice.result(['whoami']))['username'], 'alice');
});

test('somebody unknown is refused', async () => {
  for (const words of [
    ['resolve', 'nobody'],
    ['dm', 'nobody', 'hi'],
    ['check-key', 'nobody'],
  ]) {
    await alice.refused(4, 'unknown-user', words);
  }
});

// THREATS 20
test('wrong password and unknown user are told apart by nothing', async () => {
  await alice.result(['logout']);
  await alice.refused(6, 'not-logged-in', ['resolve', 'bob']);
  const wrong = await alice.refused(4, 'wrong-credentials', ['login', '--password-stdin'], 'not it\n');
  const blank = world.person('blank');
  await blank.refused(2, 'no-password', ['register-user', 'blank']);
  const unknown = await blank.refused(4, 'wrong-credentials', ['login', 'nobody', '--password-stdin'], 'not it\n');
  const elsewhere = await blank.refused(4, 'wrong-credentials', ['login', 'alice', '--password-stdin'], 'not it\n');
  assert.equal(unknown['hint'], wrong['hint']);
  assert.equal(String(unknown['message']).replace('nobody', 'alice'), elsewhere['message']);
  const back = await alice.result(['login', '--password-stdin'], `${alice.password}\n`);
  assert.equal(back['loggedIn'], true);
  await alice.result(['resolve', 'bob']);
});

test('an account cannot be used from a profile without its keys', async () => {
  const stranger = world.person('stranger');
  await stranger.register();
  await stranger.refused(6, 'other-account', ['login', 'alice', '--password-stdin'], `${alice.password}\n`);
});

test('the password may come from the environment or a file, never both ways at once', async () => {
  const carol = world.person('carol');
  const program = carol.start(['register-user', 'carol'], { QPC_PASSWORD: carol.password });
  program.endInput();
  await program.result();
  await carol.result(['logout']);
  const file = path.join(world.folder, 'password-of-carol');
  writeFileSync(file, `${carol.password}\n`, { mode: 0o600 });
  await carol.refused(2, 'usage', ['login', '--password-file', file, '--password-stdin'], 'x\n');
  await carol.result(['login', '--password-file', file]);
});

test('without a terminal and without a password the command says how to give one', async () => {
  await alice.refused(2, 'no-password', ['login']);
});

test('a certificate that does not vouch for the server is refused, and nothing is sent', async () => {
  const wrong = path.join(world.folder, 'system-roots.pem');
  writeFileSync(wrong, SOME_CERTIFICATE);
  await alice.refused(3, 'untrusted-certificate', ['--ca-cert', wrong, 'resolve', 'bob']);
  // Without any certificate the system's roots count, and none of them made this server's.
  const program = world.run('qpc', QPC_MAIN, ['--json', 'ping', '--server', `127.0.0.1:${world.port}`]);
  const failure = await program.failure();
  assert.deepEqual([failure.exitCode, failure['code']], [3, 'untrusted-certificate']);
  assert.match(String(failure['hint']), /--ca-cert/u);
  await alice.result(['resolve', 'bob']);
});

test('a profile with its own password opens with that password only', async () => {
  const fiona = world.person('fiona');
  const own = { QPC_STATE_PASSWORD: 'only for this profile' };
  const program = fiona.start(['register-user', 'fiona', '--password-stdin'], own);
  program.write(`${fiona.password}\n`);
  await program.result();
  const wrong = fiona.start(['whoami'], { QPC_STATE_PASSWORD: fiona.password });
  const failure = await wrong.failure();
  assert.deepEqual([failure.exitCode, failure['code']], [6, 'wrong-state-password']);
  await fiona.refused(2, 'no-password', ['whoami']);
  assert.equal(
    (await fiona.result(['whoami', '--state-password-stdin'], `${own.QPC_STATE_PASSWORD}\n`))['username'],
    'fiona',
  );
});

test('a second process on the same profile is refused, and the first goes on', async () => {
  const chat = await alice.chat('@bob').catch(async () => {
    await alice.result(['dm', 'bob']);
    return alice.chat('@bob');
  });
  await alice.refused(6, 'profile-in-use', ['whoami']);
  chat.type('still here');
  await chat.event('the message was sent', (event) => event.type === 'sent');
  chat.endInput();
  await chat.result();
  assert.deepEqual(await bob.reads(['--wait']), ['still here']);
});

test('a damaged profile is told as such and is left as it is', async () => {
  const copy = path.join(world.folder, 'damaged');
  cpSync(alice.profile, copy, { recursive: true });
  const databases = readdirSync(copy).filter((name) => /\.(?:db|sqlite)$/u.test(name));
  assert.equal(databases.length, 1, readdirSync(copy).join());
  const database = path.join(copy, String(databases[0]));
  const bytes = readFileSync(database);
  for (let at = 20; at < bytes.length; at += 512) bytes[at] = (bytes[at] ?? 0) ^ 0xff;
  writeFileSync(database, bytes);
  const program = world.run('alice', QPC_MAIN, ['--json', '--state', copy, ...world.connection, 'whoami']);
  const failure = await program.failure();
  assert.deepEqual([failure.exitCode, failure['code']], [6, 'profile-damaged']);
  assert.deepEqual(readFileSync(database), bytes);
  rmSync(copy, { recursive: true });
});

test('a profile folder that cannot be written is told as such', async () => {
  const file = path.join(world.folder, 'a-file');
  writeFileSync(file, 'not a folder');
  const program = world.run('qpc', QPC_MAIN, [
    '--json',
    '--state',
    file,
    ...world.connection,
    'register-user',
    'eve',
    '--password',
    'x y z',
  ]);
  const failure = await program.failure();
  assert.equal(failure.exitCode, 6, program.outcome());
  assert.equal(readFileSync(file, 'utf8'), 'not a folder');
});

test('registering by hand asks for the password twice and shows none of it', async () => {
  const screen = world.terminal(world.person('erin'), [...world.connection, 'register-user', 'erin']);
  await screen.shows('New password for erin: ');
  screen.type('a good long password\r');
  await screen.shows('The same again: ');
  screen.type('a good long password\r');
  await screen.shows('Welcome, ');
  assert.equal(await screen.ended, 0);
  assert.ok(!screen.text.includes('good long'));
});

/** Self-signed by nobody in particular; vouches for no server. */
const SOME_CERTIFICATE = `-----BEGIN CERTIFICATE-----
MIIBlTCCATugAwIBAgIUe3CP7qxKCgUXcJlRB+kUcPt9wc0wCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTEyMTA0MloYDzIxMjYxMDI4
MTIxMDQyWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAT3BvZggnWfIjEE+PJ8kmOkJld/GW/mNmo+92GxBhEiVdTLY2fGYURO
aSwpGC5e6PZAxwOssDgaPg0RcTRVVzLDo2kwZzAdBgNVHQ4EFgQU3a4ZV+FOfwyF
heQZKUonjiMm2DEwHwYDVR0jBBgwFoAU3a4ZV+FOfwyFheQZKUonjiMm2DEwDwYD
VR0TAQH/BAUwAwEB/zAUBgNVHREEDTALgglsb2NhbGhvc3QwCgYIKoZIzj0EAwID
SAAwRQIhAILleSTT4w78Tl+t8rsFKfPsJI0NAt3wA4huNIhUBHr/AiBzqVeaNITJ
whc5T7y8EpsX2TQX39tqUL1Supar1KsJjw==
-----END CERTIFICATE-----
`;
