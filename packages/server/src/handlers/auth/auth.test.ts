// Registration, login, resume, logout: with the real OPAQUE client, the real store and the real dispatcher.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import {
  HISTORY_START,
  opaqueLoginFinish,
  opaqueLoginStart,
  opaqueRegisterFinish,
  opaqueRegisterStart,
  parseAccountStatement,
  signAccountStatement,
  signLoginProof,
  signRegistration,
  signResumeProof,
} from '@quicprochat/core';
import type { AccountStatement } from '@quicprochat/core';
import { encodeHex } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { Status } from '@quicprochat/proto';
import type { OpaqueLoginFinishResponse, Session } from '@quicprochat/proto';
import { methods, RpcError } from '@quicprochat/transport';
import { envelope, messageId, ORIGIN, resume, World } from '../../testing/world.node.ts';
import { DEFAULT_RATES } from '../../rate-limits.ts';
import type { Person, TestConnection } from '../../testing/world.node.ts';

const { auth } = methods;
const PASSWORD = 'correct horse battery staple';

let world: World;
let alice: Person;
let registration: Parameters<typeof signRegistration>[2];

before(async () => {
  world = await World.start();
  alice = world.newPerson('alice');
  const connection = world.connect();
  registration = await opaqueRegistration(connection, alice);
  await connection.call(auth.opaqueRegisterFinish, finish(alice, registration));
});
after(() => world.close());

async function opaqueRegistration(connection: TestConnection, person: Person) {
  const { state, request } = opaqueRegisterStart(PASSWORD);
  const started = await connection.call(auth.opaqueRegisterStart, {
    username: person.username,
    registrationRequest: request,
  });
  const parties = { username: person.username, origin: ORIGIN };
  const outcome = opaqueRegisterFinish(state, parties, started.registrationResponse);
  assert.ok(outcome.kind === 'registered');
  return { ...parties, record: outcome.record, certificate: person.certificate };
}

function finish(person: Person, statement: typeof registration) {
  return {
    username: statement.username,
    registrationRecord: statement.record,
    identityKey: person.identity.publicKey,
    registrationSignature: signRegistration(crypto, person.identity.privateKey, statement),
    deviceCertificate: statement.certificate,
    deviceName: 'laptop',
    accountStatement: signAccountStatement(crypto, person.identity.privateKey, {
      kind: 'keys',
      origin: ORIGIN,
      username: statement.username,
      identityKey: person.identity.publicKey,
      version: 0,
      history: HISTORY_START,
      certificates: [statement.certificate],
      revocations: [],
    }),
  };
}

async function login(
  connection: TestConnection,
  person: Person,
  change: { password?: string; username?: string; deviceId?: Uint8Array; device?: Person['device'] } = {},
): Promise<OpaqueLoginFinishResponse> {
  const username = change.username ?? person.username;
  const deviceId = change.deviceId ?? person.address.deviceId;
  const { state, ke1 } = opaqueLoginStart(change.password ?? PASSWORD);
  const { ke2, loginId, nonce } = await connection.call(auth.opaqueLoginStart, { username, ke1 });
  const outcome = opaqueLoginFinish(state, { username, origin: ORIGIN }, ke2);
  // A client with the wrong password stops here; an attacker goes on and guesses.
  const ke3 = outcome.kind === 'proven' ? outcome.ke3 : crypto.random(64);
  const proof = { origin: ORIGIN, nonce, deviceId };
  const deviceSignature = signLoginProof(crypto, (change.device ?? person.device).privateKey, proof);
  return connection.call(auth.opaqueLoginFinish, { loginId, ke3, deviceId, deviceSignature });
}

function sessionOf(response: OpaqueLoginFinishResponse): Session {
  assert.equal(response.outcome.case, 'session');
  return response.outcome.value as Session;
}

async function refusal(promise: Promise<unknown>): Promise<RpcError> {
  const error = await promise.then(
    () => assert.fail('was not refused'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof RpcError, String(error));
  return error;
}

describe('registration', () => {
  test('a taken name, and a taken identity key under another name, already exist', async () => {
    const connection = world.connect();
    const again = await refusal(connection.call(auth.opaqueRegisterFinish, finish(alice, registration)));
    assert.equal(again.status, Status.ALREADY_EXISTS);
    assert.match(again.message, /username is taken/);
    const { username: _, ...account } = alice;
    const other = world.newDevice({ ...account, username: 'alice2' }, true);
    const statement = { ...registration, username: 'alice2', certificate: other.certificate };
    const second = await refusal(connection.call(auth.opaqueRegisterFinish, finish(other, statement)));
    assert.equal(second.status, Status.ALREADY_EXISTS);
    assert.match(second.message, /identity key/);
  });

  test('THREATS 37: nobody registers an identity key that is not theirs', async () => {
    const mallory = world.newPerson('mallory');
    const connection = world.connect();
    const statement = { ...registration, username: 'mallory', certificate: mallory.certificate };
    const refusals = new Set<number>([Status.UNAUTHENTICATED, Status.INVALID_ARGUMENT]);
    const cases = {
      'signed by another key': {
        ...finish(mallory, statement),
        registrationSignature: signRegistration(crypto, alice.identity.privateKey, statement),
      },
      'with the identity key of Alice': { ...finish(mallory, statement), identityKey: alice.identity.publicKey },
      'with the certificate of Alice': { ...finish(mallory, statement), deviceCertificate: alice.certificate },
      'with a signature made for another name': {
        ...finish(mallory, statement),
        registrationSignature: signRegistration(crypto, mallory.identity.privateKey, { ...statement, username: 'x1' }),
      },
      'with a signature made for another server': {
        ...finish(mallory, statement),
        registrationSignature: signRegistration(crypto, mallory.identity.privateKey, { ...statement, origin: 'x' }),
      },
      'with another OPAQUE record than signed': {
        ...finish(mallory, statement),
        registrationRecord: crypto.random(192),
      },
    };
    for (const [name, request] of Object.entries(cases)) {
      const error = await refusal(connection.call(auth.opaqueRegisterFinish, request));
      assert.ok(refusals.has(error.status), `${name}: ${error.message}`);
    }
    assert.equal(await world.store.findAccountByUsername('mallory'), undefined);
  });

  test('a record no login could be answered from, and a first device that is no manager, are refused', async () => {
    const eve = world.newPerson('eve');
    const connection = world.connect();
    const broken = {
      ...registration,
      username: 'eve',
      record: new Uint8Array(192).fill(0xff),
      certificate: eve.certificate,
    };
    assert.match((await refusal(connection.call(auth.opaqueRegisterFinish, finish(eve, broken)))).message, /record/);
    const guest = world.newDevice(eve, false);
    const statement = { ...registration, username: 'eve', certificate: guest.certificate };
    assert.match(
      (await refusal(connection.call(auth.opaqueRegisterFinish, finish(guest, statement)))).message,
      /first device/,
    );
  });

  test('an account begins with a statement of itself, version 0, and of nothing else', async () => {
    const ivan = world.newPerson('ivan');
    const other = world.newDevice(ivan);
    const good = finish(ivan, await opaqueRegistration(world.connect(), ivan));
    const stated = (change: Partial<AccountStatement>, by = ivan) => ({
      ...good,
      accountStatement: signAccountStatement(crypto, by.identity.privateKey, {
        ...parseAccountStatement(good.accountStatement)!.claims,
        ...change,
      } as AccountStatement),
    });
    const cases: [string, typeof good, number][] = [
      ['none', { ...good, accountStatement: new Uint8Array(0) }, Status.INVALID_ARGUMENT],
      ['of another version', stated({ version: 1 }), Status.CONFLICT],
      ['with a history', stated({ history: crypto.random(32) }), Status.CONFLICT],
      ['of two devices', stated({ certificates: [ivan.certificate, other.certificate] }), Status.CONFLICT],
      ['of no device', stated({ certificates: [] }), Status.CONFLICT],
      ['of the end', stated({ kind: 'deleted' }), Status.CONFLICT],
      ['for another name', stated({ username: 'ivan2' }), Status.INVALID_ARGUMENT],
      ['for another server', stated({ origin: 'else' }), Status.INVALID_ARGUMENT],
      ['by somebody else', stated({}, alice), Status.INVALID_ARGUMENT],
    ];
    for (const [name, request, status] of cases) {
      const error = await refusal(world.connect().call(auth.opaqueRegisterFinish, request));
      assert.equal(error.status, status, name);
    }
    assert.equal(await world.store.findAccountByUsername('ivan'), undefined);
    await world.connect().call(auth.opaqueRegisterFinish, good);
    assert.equal((await world.store.findStatedAccount({ username: 'ivan' }))?.stated?.version, 0);
  });

  test('THREATS 28: names with control characters are refused with a reason', async () => {
    const connection = world.connect();
    const bad = { username: 'al\u001b[31m', registrationRequest: crypto.random(32) };
    const error = await refusal(connection.call(auth.opaqueRegisterStart, bad));
    assert.equal(error.status, Status.INVALID_ARGUMENT);
    assert.match(error.message, /only the characters/);
    const device = { ...finish(alice, registration), deviceName: 'a\u0007b' };
    assert.match((await refusal(connection.call(auth.opaqueRegisterFinish, device))).message, /control characters/);
  });
});

describe('login', () => {
  test('the right password and the device key open a session on this connection only', async () => {
    const connection = world.connect();
    assert.equal((await refusal(connection.call(methods.device.listDevices, {}))).status, Status.UNAUTHENTICATED);
    const session = sessionOf(await login(connection, alice));
    assert.equal(session.token.length, 32);
    assert.equal(session.username, 'alice');
    assert.deepEqual(new Uint8Array(session.identityKey), alice.identity.publicKey);
    const { devices } = await connection.call(methods.device.listDevices, {});
    assert.deepEqual(
      devices.map((device) => device.name),
      ['laptop'],
    );
    const other = world.connect();
    assert.equal((await refusal(other.call(methods.device.listDevices, {}))).status, Status.UNAUTHENTICATED);
  });

  test('THREATS 27: a connection has eight logins begun at once; another one drops the oldest', async () => {
    const connection = world.connect();
    const { ke1 } = opaqueLoginStart(PASSWORD);
    const begun: { readonly loginId: Uint8Array; readonly nonce: Uint8Array }[] = [];
    for (let i = 0; i < 9; i++) begun.push(await connection.call(auth.opaqueLoginStart, { username: 'alice', ke1 }));
    const finishing = async (i: number) => {
      const { loginId, nonce } = begun[i]!;
      const { deviceId } = alice.address;
      const deviceSignature = signLoginProof(crypto, alice.device.privateKey, { origin: ORIGIN, nonce, deviceId });
      const ke3 = crypto.random(64);
      return refusal(connection.call(auth.opaqueLoginFinish, { loginId, ke3, deviceId, deviceSignature }));
    };
    assert.match((await finishing(0)).message, /attempt is over/);
    assert.match((await finishing(1)).message, /username or the password/);
    assert.match((await finishing(8)).message, /username or the password/);
  });

  test('THREATS 20: unknown name and wrong password are alike in bytes', async () => {
    const seen = [];
    for (const attempt of [{ password: 'wrong' }, { username: 'nobody' }]) {
      const connection = world.connect();
      const { ke1 } = opaqueLoginStart('wrong');
      const started = await connection.call(auth.opaqueLoginStart, { username: attempt.username ?? 'alice', ke1 });
      const error = await refusal(login(connection, alice, { password: 'wrong', ...attempt }));
      seen.push({
        lengths: [started.ke2.length, started.loginId.length, started.nonce.length],
        status: error.status,
        message: error.message,
        hint: error.hint,
      });
    }
    assert.deepEqual(seen[0], seen[1]);
    assert.equal(seen[0]?.status, Status.UNAUTHENTICATED);
  });

  test('THREATS 20: unknown name and wrong password are alike in time', async () => {
    const connection = world.connect();
    const { ke1 } = opaqueLoginStart('wrong');
    const samples: Record<'alice' | 'nobody', number[]> = { alice: [], nobody: [] };
    for (let i = 0; i < 60; i++) {
      for (const username of ['alice', 'nobody'] as const) {
        // Of this thread, which does the evaluation: on the clock, a busy machine would be in the figures.
        const before = process.threadCpuUsage();
        await connection.call(auth.opaqueLoginStart, { username, ke1 });
        const { user, system } = process.threadCpuUsage(before);
        if (i >= 10) samples[username].push(user + system);
      }
    }
    const median = (values: number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;
    const ratio = median(samples.alice) / median(samples.nobody);
    assert.ok(ratio > 0.6 && ratio < 1.7, `ratio ${ratio}`);
  });

  test('the device key has to sign: the password alone is not enough', async () => {
    const connection = world.connect();
    const error = await refusal(login(connection, alice, { device: world.newPerson('x1').device }));
    assert.equal(error.status, Status.UNAUTHENTICATED);
    assert.equal((await refusal(connection.call(methods.device.listDevices, {}))).status, Status.UNAUTHENTICATED);
  });

  test('an unregistered device gets a session that opens nothing but its end', async () => {
    const connection = world.connect();
    const response = await login(connection, alice, { deviceId: crypto.random(16) });
    assert.equal(response.outcome.case, 'deviceUnknown');
    const error = await refusal(connection.call(methods.device.listDevices, {}));
    assert.equal(error.status, Status.FORBIDDEN);
    assert.match(error.hint, /profile/);
    await connection.call(auth.logout, {});
    assert.equal((await refusal(connection.call(auth.logout, {}))).status, Status.UNAUTHENTICATED);
    // THREATS 36: whoever has been named on a connection sends nothing sealed on it.
    const sealed = {
      channelId: crypto.random(16),
      messageId: messageId(),
      payload: envelope(3),
      sendToken: crypto.random(32),
    };
    const mixed = await refusal(connection.call(methods.delivery.batchEnqueue, sealed));
    assert.equal(mixed.status, Status.INVALID_ARGUMENT);
  });

  test('a login attempt is for one connection, one use and one minute', async () => {
    const connection = world.connect();
    const start = async () => {
      const { state, ke1 } = opaqueLoginStart(PASSWORD);
      const started = await connection.call(auth.opaqueLoginStart, { username: 'alice', ke1 });
      const outcome = opaqueLoginFinish(state, { username: 'alice', origin: ORIGIN }, started.ke2);
      assert.ok(outcome.kind === 'proven');
      const { deviceId } = alice.address;
      const proof = { origin: ORIGIN, nonce: started.nonce, deviceId };
      const deviceSignature = signLoginProof(crypto, alice.device.privateKey, proof);
      return { loginId: started.loginId, ke3: outcome.ke3, deviceId, deviceSignature };
    };
    const first = await start();
    const elsewhere = await refusal(world.connect().call(auth.opaqueLoginFinish, first));
    assert.match(elsewhere.message, /attempt is over/);
    sessionOf(await connection.call(auth.opaqueLoginFinish, first));
    assert.match((await refusal(connection.call(auth.opaqueLoginFinish, first))).message, /attempt is over/);
    const late = await start();
    world.clock.advance(60_001);
    assert.match((await refusal(connection.call(auth.opaqueLoginFinish, late))).message, /attempt is over/);
    // Wrong KE3 uses the attempt up as well: one guess per evaluation.
    const guessed = await start();
    await refusal(connection.call(auth.opaqueLoginFinish, { ...guessed, ke3: crypto.random(64) }));
    assert.match((await refusal(connection.call(auth.opaqueLoginFinish, guessed))).message, /attempt is over/);
  });
});

describe('resume and logout', () => {
  let token: Uint8Array;
  before(async () => {
    token = sessionOf(await login(world.connect(), alice)).token.slice();
  });

  test('token and device key resume the session on a new connection, again and again', async () => {
    for (let i = 0; i < 2; i++) {
      const connection = world.connect();
      const { session } = await resume(connection, alice, token);
      assert.equal(session?.username, 'alice');
      assert.equal(session.token.length, 0);
      await connection.call(methods.device.listDevices, {});
    }
  });

  test('THREATS 13, 37: a stolen token resumes nothing without the device key', async () => {
    const thief = world.newPerson('thief');
    const error = await refusal(resume(world.connect(), { ...alice, device: thief.device }, token));
    assert.equal(error.status, Status.UNAUTHENTICATED);
    const otherDevice = { ...alice, address: { ...alice.address, deviceId: crypto.random(16) } };
    const other = await refusal(resume(world.connect(), otherDevice, token));
    const made = await refusal(resume(world.connect(), alice, crypto.random(32)));
    // All reasons sound alike.
    assert.deepEqual([other.message, other.status], [error.message, error.status]);
    assert.deepEqual([made.message, made.status], [error.message, error.status]);
  });

  test('THREATS 12, 13: a nonce is for one connection, one use, one minute, and the newest counts', async () => {
    const { deviceId } = alice.address;
    const signed = (nonce: Uint8Array) => ({
      token,
      deviceId,
      deviceSignature: signResumeProof(crypto, alice.device.privateKey, { origin: ORIGIN, nonce, deviceId, token }),
    });
    const connection = world.connect();
    const { nonce } = await connection.call(auth.getNonce, {});
    const request = signed(nonce.slice());
    assert.match((await refusal(world.connect().call(auth.resumeSession, request))).message, /nonce/);
    const eavesdropper = world.connect();
    await eavesdropper.call(auth.getNonce, {});
    assert.match((await refusal(eavesdropper.call(auth.resumeSession, request))).message, /session has ended/);
    await connection.call(auth.resumeSession, request);
    assert.match((await refusal(connection.call(auth.resumeSession, request))).message, /nonce/);

    const late = signed((await connection.call(auth.getNonce, {})).nonce.slice());
    world.clock.advance(60_001);
    assert.match((await refusal(connection.call(auth.resumeSession, late))).message, /nonce/);
    const replaced = signed((await connection.call(auth.getNonce, {})).nonce.slice());
    await connection.call(auth.getNonce, {});
    assert.match((await refusal(connection.call(auth.resumeSession, replaced))).message, /session has ended/);
  });

  test('a session of thirty idle days has ended; one that was used has not', async () => {
    const own = sessionOf(await login(world.connect(), alice)).token.slice();
    world.clock.advance(29 * 86_400_000);
    await resume(world.connect(), alice, own);
    world.clock.advance(29 * 86_400_000);
    await resume(world.connect(), alice, own);
    world.clock.advance(31 * 86_400_000);
    assert.equal((await refusal(resume(world.connect(), alice, own))).status, Status.UNAUTHENTICATED);
  });

  test('logout ends the session everywhere the device has it, and its tokens', async () => {
    const one = world.connect();
    const own = sessionOf(await login(one, alice)).token.slice();
    const other = world.connect();
    await resume(other, alice, own);
    await one.call(auth.logout, {});
    for (const connection of [one, other]) {
      assert.equal((await refusal(connection.call(methods.device.listDevices, {}))).status, Status.UNAUTHENTICATED);
    }
    assert.equal((await refusal(resume(world.connect(), alice, own))).status, Status.UNAUTHENTICATED);
  });
});

test('rate limits name the wait, and are per network address', async () => {
  const strict = await World.start({ rates: { passwords: { burst: 2, perHour: 3_600 } } });
  try {
    const connection = strict.connect();
    const { ke1 } = opaqueLoginStart('x');
    for (let i = 0; i < 2; i++) await connection.call(auth.opaqueLoginStart, { username: 'nobody', ke1 });
    // Another connection from the same address shares the bucket.
    const error = await refusal(strict.connect().call(auth.opaqueLoginStart, { username: 'nobody', ke1 }));
    assert.equal(error.status, Status.RATE_LIMITED);
    assert.ok(error.retryAfterMs > 0 && error.retryAfterMs <= 1_000);
    assert.match(error.hint, /second/);
    strict.clock.advance(error.retryAfterMs);
    await connection.call(auth.opaqueLoginStart, { username: 'nobody', ke1 });
  } finally {
    await strict.close();
  }
});

describe('guessing at one name', () => {
  const { passwords, passwordsOfOne } = DEFAULT_RATES;
  let ke1: Uint8Array;
  let registrationRequest: Uint8Array;
  const begin = (connection: TestConnection, username: string) =>
    connection.call(auth.opaqueLoginStart, { username, ke1 });
  const evaluate = (connection: TestConnection, username: string) =>
    connection.call(auth.opaqueRegisterStart, { username, registrationRequest });
  let strict: World;

  before(async () => {
    strict = await World.start({ rates: { passwords, passwordsOfOne } });
    strict.clock.stop();
    ({ ke1 } = opaqueLoginStart('guess'));
    ({ request: registrationRequest } = opaqueRegisterStart('guess'));
    const person = strict.newPerson('known');
    const statement = await opaqueRegistration(strict.connect('192.0.2.9'), person);
    await strict.connect('192.0.2.9').call(auth.opaqueRegisterFinish, finish(person, statement));
  });
  after(() => strict.close());

  test('one network address has its burst and its hourly rate, not the rate of the whole address', async () => {
    const from = '192.0.2.1';
    const hour = 3_600;
    let connection = strict.connect(from);
    let guesses = 0;
    for (let second = 0; second < hour; second++) {
      // Neither another connection nor the other call that evaluates a password is a way around.
      if (second % 900 === 0) connection = strict.connect(from);
      const guess = second % 2 === 0 ? begin : evaluate;
      const refused = await guess(connection, 'known').then(
        () => undefined,
        (error: unknown) => error,
      );
      if (refused === undefined) guesses += 1;
      else assert.ok(refused instanceof RpcError && refused.status === Status.RATE_LIMITED, String(refused));
      strict.clock.advance(1_000);
    }
    const most = passwordsOfOne.burst + passwordsOfOne.perHour;
    assert.ok(guesses <= most && guesses >= most - 1, `${guesses} guesses in an hour`);
  });

  test('THREATS 20: names that exist and names that do not are refused at the same call, in the same words, for as long', async () => {
    const heard = async (from: string, username: string) => {
      const answers: string[] = [];
      for (let i = 0; i < passwordsOfOne.burst + 4; i++) {
        const guess = i % 2 === 0 ? begin : evaluate;
        answers.push(
          await guess(strict.connect(from), username).then(
            () => 'answered',
            (error: unknown) => {
              assert.ok(error instanceof RpcError);
              return [error.status, error.message, error.hint, error.retryAfterMs].join(' | ');
            },
          ),
        );
      }
      return answers;
    };
    const known = await heard('192.0.2.2', 'known');
    assert.deepEqual(await heard('192.0.2.3', 'unknown'), known);
    assert.ok(known.slice(0, passwordsOfOne.burst).every((answer) => answer === 'answered'));
    const refused = known.slice(passwordsOfOne.burst);
    const words = new RegExp(`^${Status.RATE_LIMITED} \\| too many password attempts at this name .* \\| 15000$`);
    assert.ok(refused.length === 4 && refused.every((answer) => words.test(answer)), refused.join('; '));
  });

  test('nobody is kept out: not from elsewhere, not others, and not for long', async () => {
    const from = '192.0.2.4';
    for (let i = 0; i < passwordsOfOne.burst; i++) await begin(strict.connect(from), 'known');
    const error = await refusal(begin(strict.connect(from), 'known'));
    assert.equal(error.status, Status.RATE_LIMITED);
    await begin(strict.connect('192.0.2.5'), 'known');
    await begin(strict.connect('[2001:db8::1]'), 'known');
    await begin(strict.connect(from), 'unknown');
    strict.clock.advance(error.retryAfterMs);
    await begin(strict.connect(from), 'known');
    assert.equal((await refusal(begin(strict.connect(from), 'known'))).status, Status.RATE_LIMITED);
  });

  test('what is no name counts as no attempt at one', async () => {
    for (const username of ['x'.repeat(33), 'x'.repeat(300), 'known ', 'Known']) {
      for (let i = 0; i <= passwordsOfOne.burst; i++) {
        const error = await refusal(begin(strict.connect('192.0.2.6'), username));
        assert.equal(error.status, Status.INVALID_ARGUMENT);
      }
    }
  });
});

test('logs name nobody and hold no secret', () => {
  const text = world.log.lines.join('\n');
  assert.match(text, /login ok/);
  for (const secret of [PASSWORD, 'alice', encodeHex(alice.identity.publicKey), encodeHex(alice.address.deviceId)]) {
    assert.ok(!text.includes(secret), secret);
  }
});
