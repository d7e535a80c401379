/**
 * Prometheus metrics (DESIGN 7) and health over plain HTTP, on an address of their own that is loopback unless the
 * operator says otherwise:
 *
 *   /metrics   counters, gauges, histograms
 *   /healthz   the process answers
 *   /readyz    the store takes writes, and the server is not going away
 *
 * Labels are method names, statuses and the like: a fixed number of series, and no names of people. Counting is a few
 * additions a call. What prom-client knows about the process (CPU, memory, event loop, garbage collection) is loaded at
 * the first look, so that a start does not wait for it.
 */
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { Status } from '@quicprochat/proto';
import { statusName } from '@quicprochat/transport';
import { LatencyHistogram } from './latency-histogram.ts';
import type { Observer } from './observer.ts';
import type { Store } from './store/store.ts';

/** What is asked when somebody looks. */
export interface MetricsSource {
  readonly store: Store;
  /** Undefined until the server has started and once it begins to go away. */
  server():
    | {
        readonly connections: number;
        readonly inFlight: number;
        readonly keyTransparency: { readonly size: number; readonly isFailing: boolean };
      }
    | undefined;
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
  const series: Series[] = [];
  const counter = (name: string, help: string, label?: string): Counter => {
    const made = new Counter(name, help, label);
    series.push(made);
    return made;
  };
  const enqueues = counter('enqueue_total', 'Envelopes taken from senders');
  const enqueuedBytes = counter('enqueue_bytes_total', 'Bytes of envelopes taken from senders');
  const ofMethod = new Map<string, Counter>([
    ['Fetch', counter('fetch_total', 'Fetch calls answered ok')],
    ['FetchWait', counter('fetch_wait_total', 'FetchWait calls answered ok')],
    ['UploadKeyPackage', counter('key_package_upload_total', 'UploadKeyPackage calls answered ok')],
    ['OpaqueLoginFinish', counter('auth_login_success_total', 'Password logins that succeeded')],
  ]);
  const loginFailures = counter('auth_login_failure_total', 'Password logins that were refused');
  const rateLimited = counter('rate_limit_hit_total', 'Calls refused because they came too often');
  const refusals = counter('rate_limit_refusals_total', 'What each rate limit has refused', 'limit');
  const paced = counter('calls_paced_total', 'Calls that each rate limit has made wait for their turn', 'limit');
  const turnedAway = counter('connections_turned_away_total', 'Connections refused or ended by a guard', 'why');
  const durations = new LatencyHistogram('rpc_duration_seconds', 'From the request to its answer');
  const ofPlugins = 'From the question to the verdict of a plugin';
  const plugins = new LatencyHistogram('plugin_hook_duration_seconds', ofPlugins, ['hook', 'outcome']);
  const gauge = (name: string, help: string, value: () => Promise<number> | number): void => {
    series.push({ lines: async () => [...heading(name, help, 'gauge'), `${name} ${await value()}`] });
  };
  gauge('delivery_queue_depth', 'Envelopes in all inboxes', async () => (await store.status()).queuedEnvelopes);
  gauge(
    'server_in_flight_rpcs',
    'Calls that arrive, wait for their turn, or are handled',
    () => server()?.inFlight ?? 0,
  );
  gauge('server_connections', 'Open connections', () => server()?.connections ?? 0);
  gauge('key_transparency_entries', 'Entries of the log', () => server()?.keyTransparency.size ?? 0);
  gauge('key_transparency_failing', '1 while accepted entries cannot be appended', () =>
    server()?.keyTransparency.isFailing === true ? 1 : 0,
  );
  if (certificate !== undefined) {
    gauge('tls_certificate_expiry_seconds', 'Seconds until the TLS certificate expires; negative afterwards', () => {
      const { expiresAtMs, nowMs } = certificate();
      return Math.round((expiresAtMs - nowMs) / 1000);
    });
  }
  let ofProcess: Promise<() => Promise<string>> | undefined;

  return {
    answered: (method, status, durationMs) => {
      const name = method?.slice(method.lastIndexOf('/') + 1);
      durations.observe(name ?? 'unknown', statusName(status), durationMs / 1000);
      if (status === Status.RATE_LIMITED) rateLimited.add();
      if (name === undefined) return;
      if (status === Status.OK_UNSPECIFIED) ofMethod.get(name)?.add();
      else if (name === 'OpaqueLoginFinish') loginFailures.add();
    },
    enqueued: (bytes) => {
      enqueues.add();
      enqueuedBytes.add(bytes);
    },
    limited: (limit) => refusals.add(1, limit),
    paced: (limit) => paced.add(1, limit),
    turnedAway: (why) => turnedAway.add(1, why),
    pluginAnswered: (plugin, hook, outcome, durationMs) =>
      plugins.observe(`${plugin}/${hook}`, outcome, durationMs / 1000),
    exposition: async () => {
      ofProcess ??= processMetrics();
      const ours = await Promise.all(series.map((each) => each.lines()));
      const histograms = `${durations.exposition()}${plugins.exposition()}`;
      return `${ours.flat().join('\n')}\n${histograms}${await (await ofProcess)()}`;
    },
    contentType: 'text/plain; version=0.0.4; charset=utf-8',
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

async function processMetrics(): Promise<() => Promise<string>> {
  const { Registry, collectDefaultMetrics } = await import('prom-client');
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  return () => registry.metrics();
}

/** One metric in Prometheus' text format. */
interface Series {
  lines(): Promise<string[]> | string[];
}

function heading(name: string, help: string, type: string): string[] {
  return [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`];
}

function escaped(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}

class Counter implements Series {
  readonly #name: string;
  readonly #help: string;
  readonly #label: string | undefined;
  #value = 0;
  readonly #byLabel = new Map<string, number>();

  constructor(name: string, help: string, label?: string) {
    this.#name = name;
    this.#help = help;
    this.#label = label;
  }

  add(count = 1, value?: string): void {
    if (value === undefined) this.#value += count;
    else this.#byLabel.set(value, (this.#byLabel.get(value) ?? 0) + count);
  }

  lines(): string[] {
    const lines = heading(this.#name, this.#help, 'counter');
    if (this.#label === undefined) lines.push(`${this.#name} ${this.#value}`);
    for (const [value, count] of this.#byLabel) {
      lines.push(`${this.#name}{${this.#label}="${escaped(value)}"} ${count}`);
    }
    return lines;
  }
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
