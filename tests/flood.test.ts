// THREATS 24: one client floods the real server in a process of its own, limited to a small pace. Told by counts.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { methods, RpcClient } from '@quicprochat/transport';
import { connectQuic } from '@quicprochat/transport/quic';
import { flagsFor, ServerProcess, UNLIMITED } from './server-process.ts';
import { login, newPerson, type Person, register } from './wire.ts';

const ORIGIN = 'flood.test';
const PASSWORD = 'a password';
const { delivery, auth } = methods;
/** 20 messages a second, of which `BURST` at once. */
const SENDS_PER_HOUR = 72_000;
const BURST = 7;

const folder = mkdtempSync(path.join(tmpdir(), 'qpc-flood-test-'));
let server: ServerProcess;
let metricsPort = 0;
let connect: () => Promise<RpcClient>;

before(async () => {
  metricsPort = await freePort();
  const settings = {
    ...UNLIMITED,
    'rates.sends': SENDS_PER_HOUR,
    dataDir: folder,
    listen: '127.0.0.1:0',
    metricsListen: `127.0.0.1:${metricsPort}`,
    origin: ORIGIN,
    logLevel: 'error',
  };
  const started = await ServerProcess.start({ args: flagsFor(settings) });
  server = started.server;
  const { host, port, caCert } = started.ready;
  const trustAnchor = readFileSync(caCert);
  connect = async () => new RpcClient(await connectQuic({ host, port, trustAnchor }));
});
after(async () => {
  await server.end('SIGTERM');
  rmSync(folder, { recursive: true, force: true });
});

const to = ({ address }: Person) => ({
  recipientKey: address.identityKey,
  deviceId: address.deviceId,
  payload: Buffer.concat([Buffer.from([3]), crypto.random(200)]),
  messageId: crypto.random(16),
});

test('one who floods is held to the pace and not refused, and others are answered meanwhile', async () => {
  const [mallory, bob] = [newPerson(ORIGIN, 'mallory'), newPerson(ORIGIN, 'bob')];
  const [m, b] = [await connect(), await connect()];
  for (const [rpc, person] of [
    [m, mallory],
    [b, bob],
  ] as const) {
    await register(rpc, ORIGIN, person, PASSWORD);
    await login(rpc, ORIGIN, person, PASSWORD);
  }
  // Closed loop: as many in flight as have room, each answer followed by the next.
  const flood = { answered: 0, over: false };
  const started = performance.now();
  const floods = Array.from({ length: 16 }, async () => {
    while (!flood.over) {
      await m.call(delivery.enqueue, to(mallory));
      flood.answered += 1;
    }
  });
  // Bob's own pace is not touched by it.
  for (let i = 0; i < BURST - 1; i += 1) {
    await b.call(delivery.enqueue, to(bob));
    for (let j = 0; j < 4; j += 1) await b.call(auth.getNonce, {});
  }
  while (flood.answered < 2 * BURST) await b.call(auth.getNonce, {});
  flood.over = true;
  await Promise.all(floods);
  const { answered } = flood;
  const elapsedMs = performance.now() - started;
  const allowed = BURST + (elapsedMs * SENDS_PER_HOUR) / 3_600_000;
  assert.ok(answered <= allowed + 1, `${answered} of ${allowed} messages`);
  const paced = await metric('calls_paced_total{limit="sends"}');
  assert.ok(paced > 0 && paced < answered, `${paced} of ${answered} waited`);
  assert.equal(await metric('rate_limit_hit_total'), 0, 'nobody was refused');
  for (const rpc of [m, b]) rpc.close();
});

async function metric(name: string): Promise<number> {
  const text = await (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text();
  const line = text.split('\n').find((each) => each.startsWith(`${name} `));
  return Number(line?.slice(name.length));
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = createServer();
    socket.once('error', reject);
    socket.listen(0, '127.0.0.1', () => {
      const address = socket.address();
      socket.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });
}
