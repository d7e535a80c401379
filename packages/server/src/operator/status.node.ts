/** How a running server is: what `qpc-server status` shows, and what of it its operator should look into. */
import { statSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { EXPIRY_WARNING_MS } from '../certificate-keeper.node.ts';
import type { ServerCertificate } from '../tls.node.ts';
import type { StoreStatus } from '../store/store.ts';

const DAY_MS = 86_400_000;
const WAL_BYTES_MUCH = 256 * 1024 * 1024;
const FREE_BYTES_FEW = 1024 * 1024 * 1024;

export interface StatusParts {
  readonly version: string;
  readonly origin: string;
  readonly listen: { readonly host: string; readonly port: number };
  readonly metricsListen: { readonly host: string; readonly port: number } | undefined;
  readonly dataDir: string;
  readonly databasePath: string;
  readonly startedAtMs: number;
  readonly nowMs: number;
  readonly connections: number;
  readonly inFlight: number;
  readonly logEntries: number;
  readonly reportKey: boolean;
  readonly production: boolean;
  readonly certificate: ServerCertificate;
  readonly store: StoreStatus;
}

export interface ServerStatus {
  readonly version: string;
  readonly origin: string;
  readonly pid: number;
  readonly startedAtMs: number;
  readonly uptimeSecs: number;
  readonly listen: string;
  readonly metrics: string | undefined;
  readonly dataDir: string;
  readonly production: boolean;
  readonly connections: number;
  readonly callsInFlight: number;
  readonly accounts: number;
  readonly devices: number;
  readonly channels: number;
  readonly queuedEnvelopes: number;
  readonly queuedBytes: number;
  readonly reports: number;
  /** Of the key-transparency log. */
  readonly logEntries: number;
  readonly blobs: number;
  readonly blobBytes: number;
  readonly store: {
    readonly state: 'ok' | 'failing';
    /** What the last failed write died of. */
    readonly failure: string | undefined;
    readonly backend: string;
    readonly encrypted: boolean;
    readonly schemaVersion: number;
    readonly bytes: number;
    readonly walBytes: number;
    readonly pendingWrites: number;
    /** On the disk of the data folder. */
    readonly freeBytes: number;
  };
  readonly certificate: {
    readonly path: string;
    readonly generated: boolean;
    readonly expiresAtMs: number;
    /** Negative once it has expired. */
    readonly daysLeft: number;
  };
  readonly warnings: readonly { readonly code: string; readonly text: string }[];
}

export async function serverStatus(parts: StatusParts): Promise<ServerStatus> {
  const { store, certificate, nowMs, listen, metricsListen } = parts;
  const size = (file: string): number => statSync(file, { throwIfNoEntry: false })?.size ?? 0;
  const disk = await statfs(parts.dataDir);
  const base = {
    version: parts.version,
    origin: parts.origin,
    pid: process.pid,
    startedAtMs: parts.startedAtMs,
    uptimeSecs: Math.max(0, Math.floor((nowMs - parts.startedAtMs) / 1000)),
    listen: hostPort(listen),
    metrics: metricsListen === undefined ? undefined : hostPort(metricsListen),
    dataDir: parts.dataDir,
    production: parts.production,
    connections: parts.connections,
    callsInFlight: parts.inFlight,
    accounts: store.accounts,
    devices: store.devices,
    channels: store.channels,
    queuedEnvelopes: store.queuedEnvelopes,
    queuedBytes: store.queuedBytes,
    reports: store.reports,
    logEntries: parts.logEntries,
    blobs: store.blobs,
    blobBytes: store.blobBytes,
    store: {
      state: store.state,
      failure: store.failure,
      backend: store.backend,
      encrypted: store.encrypted,
      schemaVersion: store.schemaVersion,
      bytes: size(parts.databasePath),
      walBytes: size(`${parts.databasePath}-wal`),
      pendingWrites: store.pendingWrites,
      freeBytes: disk.bavail * disk.bsize,
    },
    certificate: {
      path: certificate.path,
      generated: certificate.generated,
      expiresAtMs: certificate.expiresAtMs,
      daysLeft: Math.floor((certificate.expiresAtMs - nowMs) / DAY_MS),
    },
  };
  return { ...base, warnings: warningsOf(base, certificate.expiresAtMs - nowMs, parts.reportKey) };
}

function warningsOf(
  status: Omit<ServerStatus, 'warnings'>,
  certificateLeftMs: number,
  hasReportKey: boolean,
): ServerStatus['warnings'] {
  const { store, certificate } = status;
  const all: [boolean, string, string][] = [
    [
      store.state === 'failing',
      'store-failing',
      store.failure === 'disk_full'
        ? 'the disk is full: nothing is stored until there is room'
        : `the last write failed (${store.failure ?? 'unknown'}): see the log`,
    ],
    [certificateLeftMs <= 0, 'certificate-expired', 'the certificate has expired: clients refuse this server'],
    [
      certificateLeftMs > 0 && certificateLeftMs <= EXPIRY_WARNING_MS,
      'certificate-expires',
      `the certificate expires in ${certificate.daysLeft} days: renew it; the server takes the new files by itself`,
    ],
    [store.freeBytes < FREE_BYTES_FEW, 'disk-nearly-full', 'less than 1 GiB is free on the disk of the data folder'],
    [store.walBytes > WAL_BYTES_MUCH, 'wal-large', 'the write-ahead log is large: something holds up its checkpoints'],
    [
      status.reports > 0,
      'reports-waiting',
      `${status.reports} ${status.reports === 1 ? 'report waits' : 'reports wait'}: see qpc-server admin reports`,
    ],
    [!hasReportKey, 'no-report-key', 'nobody can report messages: make a key with qpc-server admin report-key'],
    [!store.encrypted, 'store-unencrypted', 'the database is not encrypted: see --store-key-file'],
    [
      certificate.generated,
      'certificate-generated',
      'the certificate is one that the server made: clients have to be given it',
    ],
  ];
  return all.filter(([applies]) => applies).map(([, code, text]) => ({ code, text }));
}

function hostPort({ host, port }: { readonly host: string; readonly port: number }): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`;
}
