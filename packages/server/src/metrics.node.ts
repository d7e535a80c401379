/**
 * Prometheus metrics (DESIGN 7) and health over plain HTTP, on an address of their own that is loopback unless the
 * operator says otherwise:
 *
 *   /metrics   counters, gauges, histograms
 *   /healthz   the process answers
 *   /readyz    the store takes writes, and the server is not going away
 *
 * Labels are method names and statuses: a fixed number of series, and no names of people.
 */
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { Status } from '@quicprochat/proto';
import { statusName } from '@quicprochat/transport';
import { Counter, Gauge, Registry, collectDefaultMetrics } from 'prom-client';
import { LatencyHistogram } from './latency-histogram.ts';
import type { Observer } from './observer.ts';
import type { Store } from './store/store.ts';

/** What is asked when somebody looks. */
export interface MetricsSource {
  readonly store: Store;
  /** Undefined until the server has started and once it begins to go away. */
  server(): { readonly connections: number; readonly inFlight: number } | undefined;
  /** When the certificate expires, milliseconds since 1970, and the time now. */
  readonly certificate?: () => { readonly expiresAtMs: number; readonly nowMs: number };
}

export interface Metrics extends Observer {
  /** In Prometheus' text format. */
  exposition(): Promise<string>;
  readonly contentType: string;
  isReady(): Promise<boolean>;
}

export function createMetrics({ store, server, certificate }: MetricsSource): Metrics {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });
  const counter = (name: string, help: string) => new Counter({ name, help, registers });
  const enqueues = counter('enqueue_total', 'Envelopes taken from senders');
  const enqueuedBytes = counter('enqueue_bytes_total', 'Bytes of envelopes taken from senders');
  const rateLimited = counter('rate_limit_hit_total', 'Calls refused because they came too often');
  const ofMethod = new Map<string, Counter>([
    ['Fetch', counter('fetch_total', 'Fetch calls answered ok')],
    ['FetchWait', counter('fetch_wait_total', 'FetchWait calls answered ok')],
    ['UploadKeyPackage', counter('key_package_upload_total', 'UploadKeyPackage calls answered ok')],
    ['OpaqueLoginFinish', counter('auth_login_success_total', 'Password logins that succeeded')],
  ]);
  const loginFailures = counter('auth_login_failure_total', 'Password logins that were refused');
  const durations = new LatencyHistogram('rpc_duration_seconds', 'From the request to its answer');
  const gauge = (name: string, help: string, value: () => Promise<number> | number) =>
    new Gauge({
      name,
      help,
      registers,
      async collect() {
        this.set(await value());
      },
    });
  gauge('delivery_queue_depth', 'Envelopes in all inboxes', async () => (await store.status()).queuedEnvelopes);
  gauge('server_in_flight_rpcs', 'Calls whose handler is running', () => server()?.inFlight ?? 0);
  gauge('server_connections', 'Open connections', () => server()?.connections ?? 0);
  if (certificate !== undefined) {
    gauge('tls_certificate_expiry_seconds', 'Seconds until the TLS certificate expires; negative afterwards', () => {
      const { expiresAtMs, nowMs } = certificate();
      return Math.round((expiresAtMs - nowMs) / 1000);
    });
  }

  return {
    answered: (method, status, durationMs) => {
      const name = method?.slice(method.lastIndexOf('/') + 1);
      durations.observe(name ?? 'unknown', statusName(status), durationMs / 1000);
      if (status === Status.RATE_LIMITED) rateLimited.inc();
      if (name === undefined) return;
      if (status === Status.OK_UNSPECIFIED) ofMethod.get(name)?.inc();
      else if (name === 'OpaqueLoginFinish') loginFailures.inc();
    },
    enqueued: (bytes) => {
      enqueues.inc();
      enqueuedBytes.inc(bytes);
    },
    exposition: async () => `${await registry.metrics()}${durations.exposition()}`,
    contentType: registry.contentType,
    isReady: async () => {
      if (server() === undefined) return false;
      try {
        return (await store.ping()).state === 'ok';
      } catch {
        return false;
      }
    },
  };
}

export interface MetricsListener {
  readonly host: string;
  readonly port: number;
  close(): Promise<void>;
}

/** @throws the socket's error, `EADDRINUSE` among them */
export async function listenMetrics(at: { host: string; port: number }, metrics: Metrics): Promise<MetricsListener> {
  const server = http.createServer((request, response) => {
    const answer = (code: number, type: string, body: string): void => {
      response.writeHead(code, { 'content-type': type, 'content-length': Buffer.byteLength(body) }).end(body);
    };
    const text = (code: number, body: string): void => answer(code, 'text/plain; charset=utf-8', `${body}\n`);
    const fail = (): void => text(503, 'the metrics cannot be read now');
    if (request.method !== 'GET' && request.method !== 'HEAD') text(405, 'only GET');
    else if (request.url === '/metrics') {
      metrics.exposition().then((body) => answer(200, metrics.contentType, body), fail);
    } else if (request.url === '/healthz') text(200, 'ok');
    else if (request.url === '/readyz') {
      metrics.isReady().then((ready) => text(ready ? 200 : 503, ready ? 'ready' : 'not ready'), fail);
    } else text(404, 'there is /metrics, /healthz and /readyz');
  });
  server.requestTimeout = 10_000;
  server.maxConnections = 64;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(at.port, at.host, resolve);
  });
  const { port } = server.address() as AddressInfo;
  return {
    host: at.host,
    port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
