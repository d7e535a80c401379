// A certificate's life: made once however many start at once, replaced while people are connected, warned of in time.
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { encodeHex } from '@quicprochat/crypto';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { methods, RpcClient } from '@quicprochat/transport';
import { connectQuic } from '@quicprochat/transport/quic';
import { CertificateKeeper } from './certificate-keeper.node.ts';
import { findRunning, resolveConfig, startServer, StartupError } from './index.node.ts';
import type { RunningServer, ServerConfig } from './index.node.ts';
import { listenAgain } from './listen-again.ts';
import { makeTestCertificate, makeTestChain } from './testing/certificates.node.ts';
import type { TestCertificate } from './testing/certificates.node.ts';
import { TestClock, TestLog } from './testing/world.node.ts';
import type { ServerCertificate } from './tls.node.ts';

let folder: string;
before(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'qpc-certificate-'));
});
after(() => rmSync(folder, { recursive: true, force: true }));
const file = (name: string): string => path.join(folder, name);

function configOf(name: string, more: Record<string, unknown> = {}): ServerConfig {
  const flags = { dataDir: file(name), listen: '127.0.0.1:0', metricsListen: 'off', logLevel: 'silent', ...more };
  const outcome = resolveConfig({ flags });
  assert.ok(outcome.kind === 'config', JSON.stringify(outcome));
  return outcome.config;
}

/** Whole files appear, as certbot and every careful program does it. */
function give({ certificate, privateKey }: TestCertificate): void {
  for (const [name, content] of [
    ['cert', certificate],
    ['key', privateKey],
  ] as const) {
    writeFileSync(file(`${name}.new`), content, { mode: 0o600 });
    renameSync(file(`${name}.new`), file(name));
  }
}

async function connect(
  server: RunningServer,
  { certificate }: TestCertificate,
  onClose: () => void = () => {},
): Promise<RpcClient> {
  const trustAnchor = new TextEncoder().encode(certificate);
  return new RpcClient(await connectQuic({ host: '127.0.0.1', port: server.port, trustAnchor }), {
    onPush: () => {},
    onClose,
  });
}

test('of servers that start at once on a new folder one runs, with the certificate of its key', async () => {
  const attempts = await Promise.allSettled(Array.from({ length: 4 }, () => startServer(configOf('race'))));
  const running = attempts.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
  assert.equal(running.length, 1);
  for (const each of attempts) {
    if (each.status === 'rejected') assert.ok(each.reason instanceof StartupError && each.reason.kind === 'data');
  }
  const server = running[0]!;
  const trustAnchor = readFileSync(server.certificatePath);
  const connection = await connectQuic({ host: '127.0.0.1', port: server.port, trustAnchor });
  connection.close(0, '');
  const der = new X509Certificate(readFileSync(path.join(server.dataDir, 'cert.der')));
  assert.equal(der.fingerprint256, new X509Certificate(trustAnchor).fingerprint256);
  await server.close();
});

test('a new pair is taken up on the same port, and what cannot be used changes nothing', async () => {
  const [first, second] = [
    await makeTestCertificate(['localhost']),
    await makeTestCertificate(['localhost'], { days: 20 }),
  ];
  give(first);
  const server = await startServer(configOf('swap', { tlsCert: file('cert'), tlsKey: file('key') }));
  try {
    const closed = Promise.withResolvers<void>();
    const client = await connect(server, first, closed.resolve);
    await client.call(methods.p2p.health, {});
    assert.equal((await server.reloadCertificate()).kind, 'unchanged');
    await client.call(methods.p2p.health, {});

    // Half of the new pair, then no certificate, then one that has expired: each refused, nobody notices.
    writeFileSync(file('cert'), second.certificate);
    await assert.rejects(server.reloadCertificate(), /is not the key of/);
    writeFileSync(file('cert'), 'garbage');
    await assert.rejects(server.reloadCertificate(), /is not a certificate/);
    give(await makeTestCertificate(['localhost'], { fromDays: -9, days: -1 }));
    await assert.rejects(server.reloadCertificate(), /has expired/);
    // A kind of key no client takes; a chain whose first certificate the engine sees and we do not.
    give(await makeTestCertificate(['localhost'], { namedCurve: 'P-521' }));
    await assert.rejects(server.reloadCertificate(), /of a kind that clients do not take/);
    const hidden = first.certificate.replaceAll(' CERTIFICATE', ' X509 CERTIFICATE');
    give({ certificate: hidden + second.certificate, privateKey: second.privateKey });
    await assert.rejects(server.reloadCertificate(), /the QUIC engine cannot use the certificate/);
    await client.call(methods.p2p.health, {});

    give(second);
    const [one, two] = await Promise.all([server.reloadCertificate(), server.reloadCertificate()]);
    assert.deepEqual([one.kind, two.kind], ['replaced', 'unchanged']);
    await closed.promise;
    await assert.rejects(connect(server, first), /not trusted/);
    const again = await connect(server, second);
    await again.call(methods.p2p.health, {});
    const status = await (await findRunning({ dataDir: file('swap') }))!.call('status', {});
    assert.equal(status.certificate.daysLeft, 19);
    assert.ok(status.warnings.some(({ code }) => code === 'certificate-expires'));
    again.close();
    assert.match(readFileSync(path.join(server.dataDir, 'audit.log'), 'utf8'), /"certificate_replaced"/);
  } finally {
    await server.close();
  }
});

test('a chain in which one is not signed by the next is refused at the start and at a reload, and which one is said', async () => {
  const { leaf, intermediate, root, privateKey } = await makeTestChain(['localhost']);
  const other = await makeTestChain(['localhost']);
  const config = configOf('chain', { tlsCert: file('cert'), tlsKey: file('key') });
  const broken: readonly (readonly [string, RegExp])[] = [
    // Of the same name, as after an authority has renewed its own.
    [
      leaf + other.intermediate + other.root,
      /certificate 1 \(localhost\) is not signed by certificate 2 \(Test Intermediate\)$/,
    ],
    [
      leaf + intermediate + other.root,
      /certificate 2 \(Test Intermediate\) is not signed by certificate 3 \(Test Root\)$/,
    ],
    [leaf + root + intermediate, /certificate 1 \(localhost\) is not signed by certificate 2 \(Test Root\)$/],
    [leaf + root, /certificate 1 \(localhost\) is not signed by certificate 2 \(Test Root\)$/],
  ];
  for (const [certificate, message] of broken) {
    give({ certificate, privateKey });
    await assert.rejects(startServer(config), { kind: 'config', message, hint: /leave others out/ });
  }
  give({ certificate: leaf + intermediate, privateKey });
  const server = await startServer(config);
  try {
    for (const [certificate, message] of broken) {
      give({ certificate, privateKey });
      await assert.rejects(server.reloadCertificate(), { message });
    }
    give({ certificate: leaf + intermediate + root, privateKey });
    assert.equal((await server.reloadCertificate()).kind, 'replaced');
    const client = await connect(server, { certificate: root, privateKey });
    await client.call(methods.p2p.health, {});
    client.close();
  } finally {
    await server.close();
  }
});

/** A keeper on a clock whose timers the test fires. */
function keeperOf(load: () => ServerCertificate, replace: () => Promise<void> = () => Promise.resolve()) {
  const clock = new TestClock();
  const log = new TestLog();
  let timer: (() => void) | undefined;
  let armed = (): void => {};
  clock.setTimer = (callback) => {
    timer = callback;
    armed();
    return 0;
  };
  clock.clearTimer = () => {
    timer = undefined;
  };
  const keeper = new CertificateKeeper(load(), { load, replace, clock, log });
  const look = async (): Promise<void> => {
    const over = new Promise<void>((resolve) => {
      armed = resolve;
    });
    timer?.();
    await over;
  };
  return { keeper, clock, log, look };
}

const certificateOf = (name: string, expiresAtMs: number): ServerCertificate => ({
  certificate: new TextEncoder().encode(name),
  privateKey: new TextEncoder().encode(`${name}'s key`),
  path: name,
  keyPath: name,
  generated: false,
  expiresAtMs,
});

const DAY_MS = 86_400_000;

test('what production refuses is refused in a running server as well', async () => {
  writeFileSync(file('store-key'), encodeHex(nodeCrypto.random(32)), { mode: 0o600 });
  give(await makeTestCertificate(['chat.example.org']));
  const more = { tlsCert: file('cert'), tlsKey: file('key'), storeKeyFile: file('store-key'), production: true };
  const server = await startServer(configOf('fit', { ...more, origin: 'chat.example.org' }));
  try {
    give(await makeTestCertificate(['other.example.org']));
    await assert.rejects(server.reloadCertificate(), /the certificate is not for chat\.example\.org/);
    give(await makeTestCertificate(['chat.example.org']));
    assert.equal((await server.reloadCertificate()).kind, 'replaced');
  } finally {
    await server.close();
  }
});

test('a port that somebody took in that moment is waited for, and given up in the end', async () => {
  const clock = new TestClock();
  const log = new TestLog();
  clock.setTimer = (callback, ms) => {
    clock.advance(ms);
    queueMicrotask(callback);
    return 0;
  };
  let tries = 0;
  const taken = (times: number) => () => {
    if (tries++ < times) return Promise.reject(new Error('in use'));
    return Promise.resolve('listening');
  };
  assert.equal(await listenAgain(taken(20), clock, log), 'listening');
  assert.equal(log.lines.length, 1);
  await assert.rejects(listenAgain(taken(Infinity), clock, log), /in use/);
});

test('it warns from thirty days before the end, once a day, and takes up what has changed by itself', async () => {
  let present = certificateOf('old', Date.now() + 31 * DAY_MS);
  let replaced = 0;
  const { keeper, clock, log, look } = keeperOf(
    () => present,
    async () => void replaced++,
  );
  const warnings = (): number => log.lines.filter((line) => line.includes('expires soon')).length;
  assert.equal(warnings(), 0);
  clock.advance(2 * DAY_MS);
  await look();
  await look();
  assert.equal(warnings(), 1);
  assert.match(log.lines.at(-1) ?? '', /"daysLeft":2[89]/);
  clock.advance(DAY_MS);
  await look();
  assert.equal(warnings(), 2);
  clock.advance(40 * DAY_MS);
  await look();
  assert.ok(log.lines.some((line) => line.includes('has expired')));
  present = certificateOf('new', Date.now() + 200 * DAY_MS);
  await look();
  assert.equal(replaced, 1);
  assert.equal(keeper.current.path, 'new');
  await keeper.stop();
});

test('files that cannot be used are said once, and not while they may be half written', async () => {
  let present: () => ServerCertificate = () => certificateOf('old', Date.now() + 90 * DAY_MS);
  const { keeper, log, look } = keeperOf(() => present());
  const complaints = (): number => log.lines.filter((line) => line.includes('goes on with the old one')).length;
  present = () => {
    throw new StartupError('config', 'not a pair', 'Give a pair.');
  };
  await look();
  assert.equal(complaints(), 0);
  await look();
  await look();
  assert.equal(complaints(), 1);
  assert.equal(keeper.current.path, 'old');
  present = () => certificateOf('new', Date.now() + 90 * DAY_MS);
  await look();
  assert.equal(keeper.current.path, 'new');
  await keeper.stop();
});
