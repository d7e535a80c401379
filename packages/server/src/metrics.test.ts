// The metrics of DESIGN 7, as Prometheus reads them, and the two health checks.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { after, before, test } from 'node:test';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { methods } from '@quicprochat/transport';
import { createMetrics, listenMetrics } from './metrics.node.ts';
import type { Metrics, MetricsListener } from './metrics.node.ts';
import { envelope, messageId, World } from './testing/world.node.ts';

let world: World;
let metrics: Metrics;
let listener: MetricsListener;
let going = false;

before(async () => {
  world = await World.start({
    rates: { resolves: { burst: 1, perHour: 1 } },
    observer: (store) => (metrics = createMetrics({ store, server: () => (going ? undefined : world.server) })),
  });
  listener = await listenMetrics({ host: '127.0.0.1', port: 0 }, metrics);
});
after(async () => {
  await listener.close();
  await world.close();
});

const get = async (path: string, method = 'GET') => {
  const response = await fetch(`http://127.0.0.1:${listener.port}${path}`, { method });
  return { status: response.status, body: await response.text() };
};

/** The value of a series. */
async function value(series: string): Promise<number> {
  const { body } = await get('/metrics');
  const line = body.split('\n').find((each) => each.startsWith(`${series} `));
  assert.ok(line !== undefined, `${series} is missing`);
  return Number(line.slice(series.length + 1));
}

const isLoaded = () => Object.keys(createRequire(import.meta.url).cache).some((file) => file.includes('prom-client'));

test('what only a look at the metrics needs is loaded at the first look', async () => {
  assert.equal(isLoaded(), false);
  await get('/healthz');
  assert.equal(isLoaded(), false);
  await get('/metrics');
  assert.equal(isLoaded(), true);
});

test('what happens is counted, by method and status, and nobody is named', async () => {
  const alice = await world.register('alice-in-metrics');
  const a = await world.login(alice);
  const { identityKey, deviceId } = alice.address;
  const own = { recipientKey: identityKey, deviceId };
  const payload = envelope(1, 2_000);
  await a.call(methods.delivery.enqueue, { ...own, payload, messageId: messageId() });
  assert.equal(await value('delivery_queue_depth'), 1);
  await world.keyTransparency.flush();
  await a.call(methods.delivery.fetchWait, own);
  await a.call(methods.delivery.fetch, own);
  const notAfter = BigInt(Math.floor(world.clock.wallMs() / 1000) + 86_400);
  await a.call(methods.keys.uploadKeyPackage, {
    keyPackages: [{ keyPackage: crypto.random(300), suite: 1, notAfter }],
  });
  await a.call(methods.user.resolveUser, { username: 'nobody' });
  await assert.rejects(a.call(methods.user.resolveUser, { username: 'nobody' }));
  const login = { loginId: crypto.random(16), ke3: crypto.random(64), deviceId, deviceSignature: crypto.random(64) };
  await assert.rejects(a.call(methods.auth.opaqueLoginFinish, login));
  for (const [series, expected] of [
    ['enqueue_total', 1],
    ['enqueue_bytes_total', 2_000],
    ['fetch_total', 1],
    ['fetch_wait_total', 1],
    ['key_package_upload_total', 1],
    ['auth_login_success_total', 0],
    ['auth_login_failure_total', 1],
    ['rate_limit_hit_total', 1],
    ['delivery_queue_depth', 0],
    ['server_in_flight_rpcs', 0],
    ['server_connections', 1],
    ['key_transparency_entries', 2],
    ['key_transparency_failing', 0],
    ['rpc_duration_seconds_count{method="Enqueue",status="ok"}', 1],
  ] as const) {
    assert.equal(await value(series), expected, series);
  }
  assert.doesNotMatch((await get('/metrics')).body, /alice/);
});

test('what operators’ dashboards rely on is there from the first look, and well formed', async () => {
  const { status, body } = await get('/metrics');
  assert.equal(status, 200);
  const types = new Map([...body.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name = '', type = '']) => [name, type]));
  for (const [name, type] of [
    // The list of DESIGN 7.
    ['enqueue_total', 'counter'],
    ['enqueue_bytes_total', 'counter'],
    ['fetch_total', 'counter'],
    ['fetch_wait_total', 'counter'],
    ['key_package_upload_total', 'counter'],
    ['auth_login_success_total', 'counter'],
    ['auth_login_failure_total', 'counter'],
    ['rate_limit_hit_total', 'counter'],
    ['delivery_queue_depth', 'gauge'],
    ['server_in_flight_rpcs', 'gauge'],
    ['rpc_duration_seconds', 'histogram'],
    ['rate_limit_refusals_total', 'counter'],
    ['connections_turned_away_total', 'counter'],
    ['plugin_hook_duration_seconds', 'histogram'],
    ['process_cpu_seconds_total', 'counter'],
    ['nodejs_eventloop_lag_p99_seconds', 'gauge'],
  ] as const) {
    assert.equal(types.get(name), type, name);
  }
  for (const line of body.split('\n')) {
    assert.match(
      line,
      /^(?:|# (?:HELP|TYPE) .+|[a-z_]\w*(?:\{(?:\w+="[^"\n]*",?)+\})? (?:-?[\d.e+-]+|NaN)(?: \d+)?)$/i,
    );
  }
  assert.equal(await value('rate_limit_refusals_total{limit="resolves"}'), 1);
});

test('a histogram counts each bucket and all below it', async () => {
  for (const ms of [0.4, 3, 90_000]) metrics.pluginAnswered('spy', 'enqueue', 'allowed', ms);
  const labels = 'hook="spy/enqueue",outcome="allowed"';
  for (const [le, count] of [
    ['0.0005', 1],
    ['0.0025', 1],
    ['0.005', 2],
    ['60', 2],
    ['+Inf', 3],
  ] as const) {
    assert.equal(await value(`plugin_hook_duration_seconds_bucket{le="${le}",${labels}}`), count);
  }
  assert.equal(await value(`plugin_hook_duration_seconds_count{${labels}}`), 3);
});

test('healthy while the process answers, ready while the store takes writes and the server stays', async () => {
  assert.deepEqual(await get('/healthz'), { status: 200, body: 'ok\n' });
  assert.deepEqual(await get('/readyz'), { status: 200, body: 'ready\n' });
  going = true;
  assert.equal((await get('/readyz')).status, 503);
  assert.equal((await get('/healthz')).status, 200);
  going = false;
  assert.equal((await get('/elsewhere')).status, 404);
  assert.equal((await get('/metrics', 'POST')).status, 405);
});
