// The server on Node, over real QUIC: start, secrets on disk, restart, draining, and what a failed start says.
import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { X509Certificate } from 'node:crypto';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { signResumeProof } from '@quicprochat/core';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { PushEvent, Status, StoreState } from '@quicprochat/proto';
import { ConnectionLost, methods, RpcClient, RpcError } from '@quicprochat/transport';
import { connectQuic } from '@quicprochat/transport/quic';
import { resolveConfig, startServer, StartupError } from './index.node.ts';
import type { RunningServer } from './index.node.ts';
import { outcomeOf } from './server.node.ts';
import { openSqliteStore } from './store/sqlite.node.ts';
import { TestLog } from './testing/world.node.ts';
import { generateSigningKey, signDeviceCertificate } from '@quicprochat/core';

let folder: string;
before(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'qpc-server-node-'));
});
after(() => rmSync(folder, { recursive: true, force: true }));

async function start(name: string, flags: Record<string, unknown> = {}): Promise<RunningServer> {
  const outcome = resolveConfig({
    flags: { dataDir: path.join(folder, name), listen: '127.0.0.1:0', logLevel: 'silent', ...flags },
  });
  assert.ok(outcome.kind === 'config', JSON.stringify(outcome));
  return startServer(outcome.config);
}

async function startupError(promise: Promise<RunningServer>): Promise<StartupError> {
  const error = await promise.then(
    async (server) => {
      await server.close();
      assert.fail('started');
    },
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof StartupError, String(error));
  assert.ok(error.message !== '' && error.hint !== '');
  return error;
}

async function connect(server: RunningServer, onPush: (event: number) => void = () => {}): Promise<RpcClient> {
  const trustAnchor = readFileSync(server.certificatePath);
  const connection = await connectQuic({ host: '127.0.0.1', port: server.port, trustAnchor });
  return new RpcClient(connection, { onPush });
}

describe('a first start', () => {
  let server: RunningServer;
  before(async () => {
    server = await start('first');
  });
  after(() => server.close());

  test('listens on a real port, answers Health, and names itself after the port', async () => {
    const client = await connect(server);
    const health = await client.call(methods.p2p.health, {});
    assert.equal(health.origin, `localhost:${server.port}`);
    assert.equal(health.store, StoreState.OK);
    assert.deepEqual([health.receiptKey.length, health.receiptKeyId.length, health.opaqueKey.length], [32, 8, 32]);
    assert.equal(health.logOrigin, `localhost:${server.port}/key-transparency`);
    assert.deepEqual([health.logKey.length, health.logVrfKey.length], [32, 32]);
    assert.equal(health.limits?.sealedSender, false);
    client.close();
  });

  test('makes a folder, secrets and a key that only the owner reads', () => {
    const mode = (name: string): number => statSync(path.join(server.dataDir, name)).mode & 0o777;
    assert.equal(mode('.'), 0o700);
    for (const name of ['key.pem', 'opaque-setup', 'receipt-key', 'log-key', 'log-vrf-key', 'qpc.db'])
      assert.equal(mode(name), 0o600, name);
    assert.ok(existsSync(path.join(server.dataDir, 'cert.der')));
  });

  test('makes a certificate that can be an anchor, for this machine’s names', () => {
    const certificate = new X509Certificate(readFileSync(server.certificatePath));
    assert.equal(certificate.ca, true);
    for (const name of ['DNS:localhost', 'IP Address:127.0.0.1', 'IP Address:0:0:0:0:0:0:0:1']) {
      assert.ok(certificate.subjectAltName?.includes(name), name);
    }
    assert.ok(certificate.verify(certificate.publicKey));
    const der = new X509Certificate(readFileSync(path.join(server.dataDir, 'cert.der')));
    assert.equal(der.fingerprint256, certificate.fingerprint256);
  });

  test('a second server on the same folder, and one on the same port, say what to do', async () => {
    const sameFolder = await startupError(start('first'));
    assert.equal(sameFolder.kind, 'data');
    assert.match(sameFolder.hint, /--data-dir/);
    const samePort = await startupError(start('elsewhere', { listen: `127.0.0.1:${server.port}` }));
    assert.equal(samePort.kind, 'listen');
    assert.match(samePort.message, /in use/);
  });
});

test('a restart keeps origin, secrets and certificate; another origin is refused', async () => {
  const health = async (server: RunningServer) => {
    const client = await connect(server);
    const { origin, receiptKey, opaqueKey, logOrigin, logKey, logVrfKey } = await client.call(methods.p2p.health, {});
    const { checkpoint } = await client.call(methods.keys.getTreeHead, {});
    client.close();
    const keys = [receiptKey, opaqueKey, logKey, logVrfKey, checkpoint].map((key) => [...key]);
    return { origin, logOrigin, keys };
  };
  const one = await start('again', { origin: 'chat.example.org' });
  const before = await health(one);
  const certificate = readFileSync(one.certificatePath, 'utf8');
  assert.ok(new X509Certificate(certificate).subjectAltName?.includes('DNS:chat.example.org'));
  await one.close();
  await one.close();
  await one.stopped;
  const two = await start('again');
  assert.deepEqual(await health(two), before);
  assert.equal(readFileSync(two.certificatePath, 'utf8'), certificate);
  await two.close();
  const other = await startupError(start('again', { origin: 'other.example.org' }));
  assert.match(other.message, /belongs to the server "chat.example.org"/);
});

test('a first start that was cut short between key and certificate makes both anew; a lost certificate does not', async () => {
  const dataDir = path.join(folder, 'cut');
  mkdirSync(dataDir);
  writeFileSync(path.join(dataDir, 'key.pem'), '-----BEGIN PRIVATE');
  const server = await start('cut');
  const client = await connect(server);
  assert.equal((await client.call(methods.p2p.health, {})).store, StoreState.OK);
  client.close();
  await server.close();
  assert.equal(statSync(path.join(dataDir, 'key.pem')).mode & 0o777, 0o600);
  // Clients know this one by now.
  rmSync(server.certificatePath);
  assert.match((await startupError(start('cut'))).message, /no such file/);
});

test('shutting down finishes the calls in flight, tells subscribers, and refuses new ones', async () => {
  const name = 'drain';
  const first = await start(name);
  const { port, dataDir } = first;
  await first.close();
  // An account straight in the store, so that this test needs no password.
  const identity = generateSigningKey(crypto);
  const device = generateSigningKey(crypto);
  const deviceId = crypto.random(16);
  const store = await openSqliteStore({ path: path.join(dataDir, 'qpc.db') });
  const nowMs = Date.now();
  const certificate = signDeviceCertificate(crypto, identity.privateKey, {
    origin: `localhost:${port}`,
    username: 'alice',
    identityKey: identity.publicKey,
    deviceId,
    deviceKey: device.publicKey,
    manager: true,
    serial: 1n,
    notBeforeSecs: Math.floor(nowMs / 1000),
    notAfterSecs: Math.floor(nowMs / 1000) + 3_600,
  });
  await store.createAccount({
    username: 'alice',
    identityKey: identity.publicKey,
    opaqueRecord: crypto.random(192),
    registrationSignature: crypto.random(64),
    firstDevice: { deviceId, deviceKey: device.publicKey, certificate, name: '' },
    nowMs,
  });
  const token = crypto.random(32);
  const address = { identityKey: identity.publicKey, deviceId };
  const tokenHash = crypto.hash('sha256', token);
  await store.putSession({ tokenHash, address, expiresAtMs: nowMs + 60_000, nowMs });
  await store.close();

  const server = await start(name);
  const events: number[] = [];
  const client = await connect(server, (event) => events.push(event));
  const { nonce } = await client.call(methods.auth.getNonce, {});
  const proof = { origin: server.origin, nonce, deviceId, token };
  const deviceSignature = signResumeProof(crypto, device.privateKey, proof);
  await client.call(methods.auth.resumeSession, { token, deviceId, deviceSignature });
  await client.call(methods.delivery.subscribe, {});

  const inbox = { recipientKey: identity.publicKey, deviceId };
  const waiting = client.call(methods.delivery.fetchWait, { ...inbox, timeoutMs: 60_000 });
  const payload = crypto.random(2_000);
  payload[0] = 1;
  const writes = Array.from({ length: 50 }, () =>
    client.call(methods.delivery.enqueue, { ...inbox, payload, messageId: crypto.random(16) }),
  );
  // The first answer shows that the calls have reached the server.
  await writes[0];
  const closing = server.close();
  const settled = await Promise.allSettled(writes);
  const queued = settled.filter((result) => result.status === 'fulfilled').length;
  for (const result of settled) {
    if (result.status === 'fulfilled') continue;
    const reason: unknown = result.reason;
    assert.ok(
      reason instanceof ConnectionLost || (reason instanceof RpcError && reason.status === Status.UNAVAILABLE),
      String(reason),
    );
  }
  await waiting;
  await closing;
  assert.ok(events.includes(PushEvent.SERVER_NOTICE));
  const late = await client.call(methods.p2p.health, {}).then(
    () => undefined,
    (error: unknown) => error,
  );
  assert.ok(late instanceof ConnectionLost || (late instanceof RpcError && late.status === Status.UNAVAILABLE));

  // Whatever was answered is on disk.
  const reopened = await openSqliteStore({ path: path.join(dataDir, 'qpc.db') });
  const read = await reopened.readInbox({ address, afterSeq: 0, maxRows: 100 });
  assert.ok(read.kind === 'read');
  assert.ok(read.rows.length >= queued && queued >= 1);
  await reopened.close();
});

describe('a start that cannot succeed says why and what to do', () => {
  test('a file where the folder should be', async () => {
    writeFileSync(path.join(folder, 'file'), '');
    const error = await startupError(start('file'));
    assert.equal(error.kind, 'data');
    assert.match(error.message, /not a folder/);
  });

  test('damaged and readable secrets, and a lost one', async () => {
    const server = await start('secrets');
    await server.close();
    const file = path.join(server.dataDir, 'receipt-key');
    const content = readFileSync(file);
    writeFileSync(file, 'zz');
    assert.match((await startupError(start('secrets'))).message, /damaged/);
    writeFileSync(file, content);
    chmodSync(file, 0o644);
    assert.match((await startupError(start('secrets'))).hint, /chmod 600/);
    chmodSync(file, 0o600);
    // With accounts in the database a new OPAQUE setup would void every password.
    const store = await openSqliteStore({ path: path.join(server.dataDir, 'qpc.db') });
    const identityKey = crypto.random(32);
    const firstDevice = {
      deviceId: crypto.random(16),
      deviceKey: crypto.random(32),
      certificate: crypto.random(9),
      name: '',
    };
    await store.createAccount({
      username: 'alice',
      identityKey,
      opaqueRecord: crypto.random(192),
      registrationSignature: crypto.random(64),
      firstDevice,
      nowMs: Date.now(),
    });
    await store.close();
    rmSync(path.join(server.dataDir, 'opaque-setup'));
    const error = await startupError(start('secrets'));
    assert.match(error.message, /opaque-setup is missing/);
    assert.ok(!existsSync(path.join(server.dataDir, 'opaque-setup')));
  });

  test('lost keys of a log that has entries', async () => {
    const server = await start('log');
    await server.close();
    for (const name of ['log-key', 'log-vrf-key']) {
      const file = path.join(server.dataDir, name);
      const content = readFileSync(file);
      rmSync(file);
      const error = await startupError(start('log'));
      assert.match(error.message, new RegExp(`${name} is missing, and the entries of the key-transparency log`));
      assert.ok(!existsSync(file), 'nothing is made in its place');
      writeFileSync(file, content, { mode: 0o600 });
    }
    await (await start('log')).close();
  });

  test('certificates that are none, do not match or are missing', async () => {
    const one = await start('tls-one');
    await one.close();
    const two = await start('tls-two');
    await two.close();
    const tlsCert = one.certificatePath;
    const tlsKey = path.join(two.dataDir, 'key.pem');
    assert.match((await startupError(start('tls', { tlsCert, tlsKey }))).message, /not the key/);
    const missing = await startupError(start('tls', { tlsCert, tlsKey: path.join(folder, 'nowhere') }));
    assert.match(missing.message, /no such file/);
    const noise = path.join(folder, 'noise.pem');
    writeFileSync(noise, 'noise');
    assert.match((await startupError(start('tls', { tlsCert: noise, tlsKey }))).message, /not a certificate/);
  });

  test('a store key that is malformed, or not the one', async () => {
    const key = (name: string, content: string): string => {
      const file = path.join(folder, name);
      writeFileSync(file, content);
      return file;
    };
    const right = key('right', `${'11'.repeat(32)}\n`);
    const server = await start('encrypted', { storeKeyFile: right });
    await server.close();
    assert.match((await startupError(start('encrypted', { storeKeyFile: key('bad', 'zz') }))).message, /64 hex digits/);
    const wrong = await startupError(start('encrypted', { storeKeyFile: key('wrong', '22'.repeat(32)) }));
    assert.match(wrong.hint, /--store-key-file/);
    const plain = readFileSync(path.join(server.dataDir, 'qpc.db')).subarray(0, 15);
    assert.notEqual(plain.toString('latin1'), 'SQLite format 3');
    await (await start('encrypted', { storeKeyFile: right })).close();
  });

  test('an address of another machine', async () => {
    const error = await startupError(start('address', { listen: '192.0.2.1:5001' }));
    assert.equal(error.kind, 'listen');
    assert.match(error.hint, /--listen/);
  });
});

test('a server that could not go on ends with what it died of, however tidily it then stopped', async () => {
  const finished = Promise.withResolvers<void>();
  const close = (): Promise<void> => {
    finished.resolve();
    return finished.promise;
  };
  const log = new TestLog();
  await assert.rejects(
    outcomeOf({ finished: finished.promise, close }, Promise.resolve(new Error('engine')), log),
    /engine/,
  );
  assert.match(log.lines.join(), /cannot go on/);
  await outcomeOf({ finished: finished.promise, close }, new Promise(() => {}), log);
});
