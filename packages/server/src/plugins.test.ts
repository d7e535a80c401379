// Plugins, kind and malicious: a hook may refuse with a reason; whatever else a plugin does, the server answers.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { opaqueRegisterFinish, opaqueRegisterStart, signRegistration } from '@quicprochat/core';
import { encodeHex } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { Status } from '@quicprochat/proto';
import { methods, RpcError, systemClock } from '@quicprochat/transport';
import type { ServerClock } from './context.ts';
import { NO_OBSERVER } from './observer.ts';
import { loadPlugins } from './plugin-host.node.ts';
import type { LoadedPlugins } from './plugin-host.node.ts';
import { StartupError } from './startup-error.ts';
import { envelope, messageId, ORIGIN, TestLog, World } from './testing/world.node.ts';
import type { Person, TestConnection } from './testing/world.node.ts';

const example = (name: string) => fileURLToPath(new URL(`../examples/${name}.ts`, import.meta.url));

let folder: string;
let count = 0;
before(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'qpc-plugins-test-'));
});
after(() => rmSync(folder, { recursive: true, force: true }));

/** A module with this text. */
function moduleOf(text: string): string {
  const file = path.join(folder, `plugin-${count++}.mjs`);
  writeFileSync(file, text);
  return file;
}

/** A plugin that does this in some hooks. */
function pluginOf(name: string, body: string, hooks = ['enqueue', 'channel', 'fetch', 'auth', 'registration']): string {
  return moduleOf(`
    const hook = async (event) => { ${body} };
    export default (host) => ({ name: '${name}', hooks: { ${hooks.map((each) => `${each}: hook`).join(', ')} } });
  `);
}

/** As the system's, but a thread that was stopped is started anew without a pause. */
const impatient: ServerClock = {
  ...systemClock,
  wallMs: () => Date.now(),
  setTimer: (callback, ms) => systemClock.setTimer(callback, ms === 1_000 ? 0 : ms),
};

interface Loading {
  readonly paths: readonly string[];
  readonly deadlineMs?: number;
  readonly environment?: Record<string, string>;
  readonly log?: TestLog;
}

function load({ paths, deadlineMs = 5_000, environment = {}, log = new TestLog() }: Loading): Promise<LoadedPlugins> {
  const parts = { origin: ORIGIN, version: '0.0.0-test', clock: impatient, observer: NO_OBSERVER };
  return loadPlugins({ ...parts, paths, deadlineMs, environment, log });
}

const worldWith = (loading: Loading) =>
  World.start({ plugins: ({ log }) => load({ log: log as TestLog, ...loading }) });

async function refusal(promise: Promise<unknown>): Promise<RpcError> {
  const error = await promise.then(
    () => assert.fail('was not refused'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof RpcError, String(error));
  return error;
}

function send(from: TestConnection, to: Person) {
  const { identityKey, deviceId } = to.address;
  return from.call(methods.delivery.enqueue, {
    recipientKey: identityKey,
    deviceId,
    payload: envelope(1),
    messageId: messageId(),
  });
}

const createGroup = (connection: TestConnection) =>
  connection.call(methods.channel.createChannel, { kind: { case: 'group', value: { channelId: crypto.random(16) } } });

describe('the examples', { timeout: 30_000 }, () => {
  test('rate-limit lets an account send so much and says when to come back; logging tells of all and names nobody', async () => {
    const world = await worldWith({
      paths: [example('rate-limit'), example('logging')],
      environment: { QPC_PLUGIN_ENVELOPES_PER_MINUTE: '3', QPC_PASSWORD: 'not-for-plugins' },
    });
    try {
      const [alice, bob] = [await world.register('alice-of-plugins'), await world.register('bob-of-plugins')];
      const [a, b] = [await world.login(alice), await world.login(bob)];
      for (let i = 0; i < 3; i++) await send(a, bob);
      const refused = await refusal(send(a, bob));
      assert.equal(refused.status, Status.RATE_LIMITED);
      assert.match(refused.message, /slow down/);
      assert.ok(refused.retryAfterMs > 0 && refused.retryAfterMs <= 20_000);
      await send(b, alice);
      await createGroup(a);
      const { identityKey: recipientKey, deviceId } = bob.address;
      await b.call(methods.delivery.peek, { recipientKey, deviceId });
      await b.call(methods.delivery.subscribe, {});

      const told = world.log.lines.filter((line) => line.includes('"plugin":"logging"'));
      for (const words of ['auth', 'enqueue', 'channel', 'fetch']) {
        assert.ok(
          told.some((line) => line.includes(`"message":"${words}"`)),
          words,
        );
      }
      const text = world.log.lines.join('\n');
      for (const word of ['alice-of-plugins', 'bob-of-plugins', 'not-for-plugins']) assert.ok(!text.includes(word));
      for (const { address, device } of [alice, bob]) {
        for (const bytes of [address.identityKey, address.deviceId, device.publicKey]) {
          assert.ok(!text.includes(encodeHex(bytes).slice(0, 12)));
        }
      }
      // The names are those of the audit log, so that one leads to the other.
      const account = world.audited.find((line) => line.event === 'resume')?.account;
      assert.ok(told.some((line) => line.includes('"message":"enqueue"') && line.includes(String(account))));
    } finally {
      await world.close();
    }
    assert.ok(world.log.lines.some((line) => line.includes('"plugin":"logging"') && line.includes('shutdown')));
  });
});

test(
  'a plugin refuses logins, channels, reads and registrations with its reason, and the audit log says so',
  { timeout: 30_000 },
  async () => {
    const world = await worldWith({
      paths: [
        moduleOf(`
        let open = true;
        const closed = () => open ? undefined : { reject: 'closed \\u001b[31m today' };
        export default () => ({
          name: 'doorman',
          hooks: {
            enqueue: () => { open = false; },
            auth: closed, channel: closed, fetch: closed,
            registration: ({ username }) => username.startsWith('x') ? { reject: 'no such names' } : undefined,
          },
        });
      `),
      ],
    });
    try {
      const alice = await world.register('alice');
      const a = await world.login(alice);
      await createGroup(a);
      await send(a, alice);
      const { identityKey: recipientKey, deviceId } = alice.address;
      for (const call of [
        () => world.login(alice),
        () => createGroup(a),
        () => a.call(methods.delivery.peek, { recipientKey, deviceId }),
        () => a.call(methods.delivery.fetch, { recipientKey, deviceId }),
        () => a.call(methods.delivery.fetchWait, { recipientKey, deviceId, timeoutMs: 1 }),
        () => a.call(methods.delivery.subscribe, {}),
      ]) {
        const refused = await refusal(call());
        assert.equal(refused.status, Status.FORBIDDEN);
        assert.match(refused.message, /^this server refuses that: closed .*today$/);
        assert.ok(!refused.message.includes('\u001b'), 'THREATS 28');
      }
      assert.deepEqual([world.audited.at(-1)?.event, world.audited.at(-1)?.reason], ['resume', 'by_plugin']);

      const name = 'x-ray';
      const person = world.newPerson(name);
      const { state, request } = opaqueRegisterStart('a password of four words');
      const connection = world.connect();
      const started = { username: name, registrationRequest: request };
      const { registrationResponse } = await connection.call(methods.auth.opaqueRegisterStart, started);
      const outcome = opaqueRegisterFinish(state, { username: name, origin: ORIGIN }, registrationResponse);
      assert.ok(outcome.kind === 'registered');
      const { record } = outcome;
      const statement = { username: name, origin: ORIGIN, record, certificate: person.certificate };
      const refused = await refusal(
        connection.call(methods.auth.opaqueRegisterFinish, {
          username: name,
          registrationRecord: record,
          identityKey: person.identity.publicKey,
          registrationSignature: signRegistration(crypto, person.identity.privateKey, statement),
          deviceCertificate: person.certificate,
          deviceName: 'laptop',
          accountStatement: await world.statement(person, { add: person.certificate }),
        }),
      );
      assert.deepEqual(
        [refused.status, refused.message],
        [Status.FORBIDDEN, 'this server refuses that: no such names'],
      );
      assert.equal(await world.store.findAccountByUsername(name), undefined);
      assert.deepEqual([world.audited.at(-1)?.event, world.audited.at(-1)?.reason], ['registration', 'by_plugin']);
    } finally {
      await world.close();
    }
  },
);

test(
  'THREATS 36: a plugin hears of a sealed message and not of who or where its sender is',
  { timeout: 30_000 },
  async () => {
    const spy = moduleOf(
      `export default (host) => ({ name: 'spy', hooks: { enqueue: (e) => host.log('saw', { keys: Object.keys(e).join(), sender: e.sender, senderDevice: e.senderDevice }) } });`,
    );
    const world = await worldWith({ paths: [spy] });
    try {
      const alice = await world.register('alice');
      const a = await world.login(alice);
      const channelId = crypto.random(16);
      await a.call(methods.channel.createChannel, { kind: { case: 'group', value: { channelId } } });
      const token = crypto.random(32);
      await a.call(methods.delivery.submitCommit, {
        channelId,
        after: 0n,
        messageId: messageId(),
        payload: envelope(3),
        sendTokenHash: crypto.hash('sha256', token),
      });
      const sealed = { channelId, messageId: messageId(), payload: envelope(3), sendToken: token };
      await world.connect().call(methods.delivery.batchEnqueue, sealed);
      const seen = world.log.lines
        .filter((line) => line.includes('"message":"saw"'))
        .map((line) => JSON.parse(line) as object);
      assert.deepEqual(seen.at(-1), {
        level: 'info',
        message: 'saw',
        keys: 'call,sender,senderDevice,channel,recipients,bytes,ephemeral',
        sender: null,
        senderDevice: null,
        plugin: 'spy',
      });
    } finally {
      await world.close();
    }
  },
);

describe('THREATS 40: a plugin that fails', { timeout: 60_000 }, () => {
  const failures: Record<string, string> = {
    throws: `throw new Error('never mind')`,
    'throws what is no error': `throw { toString() { throw 1 } }`,
    'says a number': `return 42`,
    'says false': `return false`,
    'rejects without a word': `return { reject: undefined }`,
    'rejects with bytes': `return { reject: new Uint8Array(1e6) }`,
    'sends callers away for ever': `return { reject: 'x', retryAfterMs: Infinity }`,
    'never answers': `await new Promise(() => {})`,
    'blocks its thread': `for (;;) {}`,
    'ends its thread': `process.exit(0)`,
    'takes all memory': `const all = []; for (;;) all.push(new Array(1e6).fill(Math.random()))`,
    'rejects promises nobody looks at': `Promise.reject(new Error('lost')); throw 1`,
    'crashes outside its hook': `setImmediate(() => { throw new Error('outside') }); await new Promise(() => {})`,
  };
  const enqueueEvent = {
    call: 'x-1',
    sender: null,
    senderDevice: null,
    channel: null,
    recipients: 1,
    bytes: 1,
    ephemeral: false,
  };
  const channelEvent = {
    call: 'x-2',
    how: 'create_group',
    account: '',
    device: '',
    channel: null,
    added: 1,
    removed: 0,
  } as const;

  for (const [what, body] of Object.entries(failures)) {
    test(`one that ${what}: who is asked lets pass or refuses as its hook's policy says, and goes on`, async () => {
      const log = new TestLog();
      const deadlineMs = what.includes('memory') ? 5_000 : 300;
      const plugins = await load({ paths: [pluginOf('bad', body, ['enqueue', 'channel'])], deadlineMs, log });
      assert.equal((await plugins.ask('enqueue', enqueueEvent)).kind, 'allowed');
      assert.equal((await plugins.ask('channel', channelEvent)).kind, 'undecided');
      plugins.tell('enqueue', enqueueEvent);
      assert.ok(log.lines.some((line) => line.includes('a plugin has failed')));
      await plugins.close();
    });
  }

  test('at the server: sending goes on, what it guards is refused, everything else works', async () => {
    const world = await worldWith({ paths: [pluginOf('bad', 'for (;;) {}', ['enqueue', 'channel'])], deadlineMs: 300 });
    try {
      const alice = await world.register('alice');
      const a = await world.login(alice);
      const sent = send(a, alice);
      // While the plugin is stuck, the server is not.
      assert.equal((await world.connect().call(methods.p2p.health, {})).origin, ORIGIN);
      await sent;
      const refused = await refusal(createGroup(a));
      assert.equal(refused.status, Status.UNAVAILABLE);
      assert.match(refused.message, /a plugin of this server cannot decide now/);
      assert.ok(refused.retryAfterMs > 0);
      await send(a, alice);
    } finally {
      await world.close();
    }
  });

  test('its policy is its own where it says so', async () => {
    const open = moduleOf(`
      const hook = () => { throw new Error('never mind'); };
      const onFailure = { enqueue: 'refuse', channel: 'allow' };
      export default () => ({ name: 'open', hooks: { enqueue: hook, channel: hook }, onFailure });
    `);
    const plugins = await load({ paths: [open] });
    assert.equal((await plugins.ask('channel', channelEvent)).kind, 'allowed');
    assert.equal((await plugins.ask('enqueue', enqueueEvent)).kind, 'undecided');
    await plugins.close();
  });

  test('one that blocks its thread is ended, started anew, and decides again', async () => {
    const log = new TestLog();
    const blocking = moduleOf(`
      import { existsSync, writeFileSync } from 'node:fs';
      const marker = ${JSON.stringify(path.join(folder, 'was-blocked'))};
      export default () => ({
        name: 'blocking',
        hooks: { channel: () => {
          if (existsSync(marker)) return { reject: 'I am back' };
          writeFileSync(marker, '');
          for (;;) {}
        } },
      });
    `);
    const plugins = await load({ paths: [blocking], deadlineMs: 100, log });
    assert.equal((await plugins.ask('channel', channelEvent)).kind, 'undecided');
    let decision = await plugins.ask('channel', channelEvent);
    while (decision.kind === 'undecided') {
      // Asked in every turn of the event loop: it is there again when it is.
      await new Promise((resolve) => setImmediate(resolve));
      decision = await plugins.ask('channel', channelEvent);
    }
    assert.deepEqual(decision, { kind: 'rejected', reason: 'I am back', retryAfterMs: undefined });
    assert.ok(log.lines.some((line) => line.includes('a plugin was stopped') && line.includes('blocks its thread')));
    await plugins.close();
  });

  test('questions beyond a bound fail at once, and a slow one of many fails none of the others', async () => {
    const plugins = await load({
      paths: [
        pluginOf('slow', `if (event.bytes === 1) await new Promise(() => {}); return { reject: String(event.bytes) }`, [
          'enqueue',
        ]),
      ],
      deadlineMs: 2_000,
    });
    const event = (bytes: number) => ({ ...enqueueEvent, bytes });
    const never = Array.from({ length: 1_000 }, () => plugins.ask('enqueue', event(1)));
    const some = await Promise.all(Array.from({ length: 24 }, (_, i) => plugins.ask('enqueue', event(10 + i))));
    assert.deepEqual(
      some.map((decision) => (decision.kind === 'rejected' ? Number(decision.reason) : decision.kind)),
      Array.from({ length: 24 }, (_, i) => 10 + i),
    );
    const flood = await Promise.all(Array.from({ length: 100 }, () => plugins.ask('enqueue', event(1))).slice(-76));
    assert.ok(
      flood.every(({ kind }) => kind === 'allowed'),
      'enqueue lets pass',
    );
    await Promise.all(never);
    await plugins.close();
  });

  test('one that speaks out of turn on its port says nothing that counts, and is stopped when it goes on', async () => {
    const log = new TestLog();
    const forging = moduleOf(`
      import { parentPort } from 'node:worker_threads';
      export default () => ({
        name: 'forging',
        hooks: { enqueue: () => {
          for (const junk of [undefined, null, 1, 'x', [], {}, { kind: 'ready' }, { kind: 'answer' }, { kind: 'log' },
            { kind: 'answer', id: 1e9, answer: { kind: 'rejected', reason: 'forged' } },
            { kind: 'answer', id: {}, answer: null }]) {
            for (let i = 0; i < 20; i++) parentPort.postMessage(junk);
          }
        } },
      });
    `);
    const plugins = await load({ paths: [forging], log });
    assert.equal((await plugins.ask('enqueue', enqueueEvent)).kind, 'allowed');
    assert.ok(log.lines.some((line) => line.includes('it says what nobody asked')));
    await plugins.close();
  });

  test('what one says on its port past its own thread’s checks is bounded like what it returns', async (t) => {
    const answers: Record<string, string> = {
      'a long reason': `{ kind: 'rejected', reason: 'r'.repeat(1e6) }`,
      'no time': `{ kind: 'rejected', reason: 'x', retryAfterMs: NaN }`,
      'a time before now': `{ kind: 'rejected', reason: 'x', retryAfterMs: -1 }`,
      'a time beyond a day': `{ kind: 'rejected', reason: 'x', retryAfterMs: 1e12 }`,
      'a long failure': `{ kind: 'failed', reason: 'r'.repeat(1e6) }`,
    };
    const text = Object.values(answers)
      .map(
        (answer, i) =>
          `if (event.bytes === ${i}) parentPort.postMessage({ kind: 'answer', id: ${i + 1}, answer: ${answer} });`,
      )
      .join(' ');
    const forging = moduleOf(`
      import { parentPort } from 'node:worker_threads';
      const hook = (event) => { ${text} return { reject: 'its own answer' }; };
      export default () => ({ name: 'forging', hooks: { enqueue: hook } });
    `);
    const plugins = await load({ paths: [forging] });
    t.after(() => plugins.close());
    for (const [i, what] of Object.keys(answers).entries()) {
      const decision = await plugins.ask('enqueue', { ...enqueueEvent, bytes: i });
      assert.deepEqual(decision, { kind: 'rejected', reason: 'its own answer', retryAfterMs: undefined }, what);
    }
  });

  test('one that logs without end floods its own thread only', async (t) => {
    const flooding = moduleOf(`
      import { parentPort } from 'node:worker_threads';
      let said = 0;
      const say = parentPort.postMessage.bind(parentPort);
      parentPort.postMessage = (message) => { said++; say(message); };
      const hook = (host) => () => {
        for (let i = 0; i < 50_000; i++) host.log('again and again');
        return { reject: String(said) };
      };
      export default (host) => ({ name: 'flooding', hooks: { enqueue: hook(host) } });
    `);
    const plugins = await load({ paths: [flooding] });
    t.after(() => plugins.close());
    const decision = await plugins.ask('enqueue', enqueueEvent);
    assert.ok(decision.kind === 'rejected' && Number(decision.reason) < 5_000, JSON.stringify(decision));
  });
});

test('what a plugin prints is in the log, redacted, and a flood of it is cut off', async () => {
  const log = new TestLog();
  const chatty = moduleOf(`
    const say = (text) => new Promise((resolve) => process.stdout.write(text, resolve));
    export default () => ({ name: 'chatty', hooks: { enqueue: async () => {
      console.error('printed \\u001b[31m on the way out');
      for (let i = 0; i < 2000; i++) await say('x'.repeat(5000));
    } } });
  `);
  const plugins = await load({ paths: [chatty], log });
  const event = {
    call: 'x-1',
    sender: null,
    senderDevice: null,
    channel: null,
    recipients: 1,
    bytes: 1,
    ephemeral: false,
  };
  await plugins.ask('enqueue', event);
  await plugins.close();
  const printed = log.lines.filter((line) => line.includes('"plugin":"chatty"'));
  assert.ok(printed.some((line) => line.includes('on the way out')));
  assert.ok(printed.every((line) => !line.includes('u001b') && line.length < 2_300));
  assert.ok(printed.length < 400, String(printed.length));
});

test('a plugin that cannot be used keeps the server from starting, and says why', { timeout: 30_000 }, async () => {
  const cases: [string, RegExp][] = [
    [path.join(folder, 'missing.mjs'), /no such file/],
    [folder, /not a file/],
    [moduleOf('this is no JavaScript'), /cannot be used/],
    [moduleOf(`throw new Error('not today')`), /not today/],
    [moduleOf('export const x = 1'), /default export/],
    [moduleOf('export default () => 7'), /default export/],
    [moduleOf(`export default () => ({ name: 'Has Blanks', hooks: {} })`), /its name/],
    [moduleOf(`export default () => ({ name: 'none' })`), /no hooks/],
    [moduleOf(`export default () => ({ name: 'odd', hooks: { enqeue: () => {} } })`), /no hook "enqeue"/],
    [moduleOf(`export default () => ({ name: 'odd', hooks: { enqueue: 1 } })`), /not a function/],
    [moduleOf(`export default () => ({ name: 'odd', hooks: {}, onFailure: { auth: 'maybe' } })`), /onFailure\.auth/],
    [moduleOf(`process.exit(3)`), /thread has ended/],
    [
      moduleOf(
        `export default ({ environment }) => { if (environment.HOME || process.env.HOME || process.env.PATH) return {name:'x', hooks:{}}; throw new Error('sees nothing') }`,
      ),
      /sees nothing/,
    ],
  ];
  for (const [file, expected] of cases) {
    await assert.rejects(load({ paths: [file], environment: { HOME: '/home/x', PATH: '/bin' } }), (error) => {
      assert.ok(error instanceof StartupError && error.kind === 'config');
      assert.match(error.message, expected);
      assert.doesNotMatch(error.message, /\n/);
      return true;
    });
  }
  const twice = pluginOf('twin', '', ['enqueue']);
  await assert.rejects(load({ paths: [twice, twice] }), /two plugins are called "twin"/);
});
