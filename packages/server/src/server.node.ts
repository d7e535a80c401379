/**
 * The server on Node: data folder, secrets, certificate, SQLite, QUIC. Everything is opened in the order in which its
 * failure is easiest to explain, and closed in reverse:
 *
 *   folder → certificate given → store → certificate of our own → secrets → listen → origin → serve → control socket
 *   stop listening to new calls → answers in flight → connections → socket → store
 */
import { existsSync } from 'node:fs';
import {
  generateVrfKeyPair,
  opaqueCreateSetup,
  opaqueReady,
  OPAQUE_SETUP_BYTES,
  VRF_PRIVATE_KEY_BYTES,
  VRF_PUBLIC_KEY_BYTES,
  vrfReady,
} from '@quicprochat/core';
import { concat, encodeUtf8 } from '@quicprochat/crypto';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { ConnectError, systemClock } from '@quicprochat/transport';
import type { Connection, Listener } from '@quicprochat/transport';
import { listenQuic } from '@quicprochat/transport/quic';
import packageJson from '../package.json' with { type: 'json' };
import { openAuditFile } from './audit-file.node.ts';
import type { AuditFile } from './audit-file.node.ts';
import { openBlobFiles } from './blob-files.node.ts';
import type { BlobFiles } from './blobs.ts';
import { CertificateKeeper } from './certificate-keeper.node.ts';
import type { ReloadOutcome } from './certificate-keeper.node.ts';
import { METRICS_LISTEN, rateSettingsOf, storeLimitsOf } from './config.ts';
import type { ServerConfig } from './config.ts';
import { ConnectionGuard } from './connection-guard.ts';
import type { Log, ServerClock } from './context.ts';
import { loadSecret, openDataDirectory, reasonOf } from './data-directory.node.ts';
import type { DataDirectory } from './data-directory.node.ts';
import { KeyTransparency } from './key-transparency.ts';
import type { LogSecrets } from './key-transparency.ts';
import type { MetricsListener } from './metrics.node.ts';
import { createLog } from './log.node.ts';
import type { LoadedPlugins } from './plugin-host.node.ts';
import { listenAgain } from './listen-again.ts';
import { createServer } from './server.ts';
import type { Observer } from './observer.ts';
import type { QuicprochatServer } from './server.ts';
import { ORIGIN_SETTING, openStore, readStoreKey } from './open-store.node.ts';
import { listenControl } from './operator/control-socket.node.ts';
import type { ControlListener } from './operator/control-socket.node.ts';
import { controlHandlers, readReportKey } from './operator/operator.node.ts';
import { openReportKey } from './operator/report-key.ts';
import { serverStatus } from './operator/status.node.ts';
import { refuseForProduction } from './production.node.ts';
import { StartupError } from './startup-error.ts';
import { inWordsOfStart } from './store-failure.ts';
import type { Store } from './store/store.ts';
import { loadCertificate, makeFirstCertificate } from './tls.node.ts';
import type { ServerCertificate } from './tls.node.ts';
import { createWebhookNotifier } from './webhook-notifier.node.ts';

/** A server that takes connections. */
export interface RunningServer {
  /** The address bound, with the port the system chose when 0 was asked for. */
  readonly host: string;
  readonly port: number;
  readonly origin: string;
  readonly dataDir: string;
  /** PEM file with the certificate chain. */
  readonly certificatePath: string;
  /** Whether the server made it, so that it is what clients can trust; else they trust who signed it. */
  readonly certificateGenerated: boolean;
  /**
   * Looks whether the certificate's files have changed, and listens with what is in them: calls in flight are finished,
   * and clients come back. Happens by itself soon after a change. @throws StartupError when they cannot be used; the old
   * certificate stays
   */
  reloadCertificate(): Promise<ReloadOutcome>;
  /** Finishes calls in flight, then closes everything. Safe to call twice. */
  close(): Promise<void>;
  readonly log: Log;
  /** Settles when the server has stopped: normally after `close`, with an error when it could not go on. */
  readonly stopped: Promise<void>;
}

/** What tests and embedders may replace. */
export interface ServerSurroundings {
  readonly clock?: ServerClock;
  readonly log?: Log;
}

const RECEIPT_KEY_BYTES = 32;
const CHECKPOINT_KEY_BYTES = 32;
const LOG_VRF_KEY = 'log-vrf-key';
// Set once there was a certificate of its own: losing it then is not the same as never having had one.
const CERTIFICATE_SETTING = 'certificate-made';
const AUDIT_KEY_BYTES = 32;

export const systemServerClock: ServerClock = { ...systemClock, wallMs: () => Date.now() };

/** Starts a server. @throws StartupError saying what to do about it */
export async function startServer(config: ServerConfig, surroundings: ServerSurroundings = {}): Promise<RunningServer> {
  const log = surroundings.log ?? createLog(config.logLevel);
  const directory = openDataDirectory(config.dataDir);
  const clock = surroundings.clock ?? systemServerClock;
  // One that was given is looked at before anything is made; one of our own under the store's lock.
  const given = config.tlsCert === undefined ? undefined : checkedCertificate(config, directory, clock.wallMs());
  const configuredReportKey = readReportKey(config);
  const storeLimits = storeLimitsOf(config);
  // Loaded while the store opens in its threads.
  const [store, { createMetrics, listenMetrics }] = await Promise.all([
    openStore(config, directory, storeLimits),
    import('./metrics.node.ts'),
    opaqueReady,
    // A first start makes a key of it.
    existsSync(directory.file(LOG_VRF_KEY)) ? undefined : vrfReady(),
  ]);
  let listener: Listener | undefined;
  let metricsListener: MetricsListener | undefined;
  let control: ControlListener | undefined;
  let keeper: CertificateKeeper | undefined;
  let auditFile: AuditFile | undefined;
  let plugins: LoadedPlugins | undefined;
  try {
    const certificate = given ?? (await ownCertificate(config, directory, store, clock.wallMs()));
    // A database with accounts and no OPAQUE setup was moved without it; making a new one would void every password.
    const isNew = (await store.status()).accounts === 0;
    const opaqueLoss = {
      neededBy: 'the accounts',
      hint: 'Restore it from a backup; without it nobody can log in with a password.',
    };
    const opaqueSetup = loadSecret(
      directory,
      'opaque-setup',
      OPAQUE_SETUP_BYTES,
      opaqueCreateSetup,
      isNew ? undefined : opaqueLoss,
    );
    const receiptPrivateKey = loadSecret(
      directory,
      'receipt-key',
      RECEIPT_KEY_BYTES,
      () => nodeCrypto.random(RECEIPT_KEY_BYTES),
      undefined,
    );
    const logSecrets = await loadLogSecrets(directory, (await store.readLogHead()) === undefined);
    const makeAuditKey = (): Uint8Array => nodeCrypto.random(AUDIT_KEY_BYTES);
    const auditKey = loadSecret(directory, 'audit-key', AUDIT_KEY_BYTES, makeAuditKey, undefined);
    auditFile = openAudit(config, directory, log);

    let failed: (error: Error) => void = () => {};
    const failure = new Promise<Error>((resolve) => {
      failed = resolve;
    });
    const blobFiles = await blobFilesIn(directory);
    // The origin may depend on the port, so the first connections wait until there is a server for them.
    const early: Connection[] = [];
    let accept = (connection: Connection): void => void early.push(connection);
    const rates = rateSettingsOf(config);
    const limits = { perAddressMax: config.connectionsPerAddress, connects: rates.connects };
    let running: QuicprochatServer | undefined;
    const metrics = createMetrics({
      store,
      server: () => running,
      certificate: () => ({ expiresAtMs: (keeper?.current ?? certificate).expiresAtMs, nowMs: clock.wallMs() }),
    });
    const guard = new ConnectionGuard(clock, limits, metrics);
    const listenWith = (next: ServerCertificate, port: number): Promise<Listener> =>
      listen(config, port, next, guard, failed, (connection) => accept(connection));
    listener = await listenWith(certificate, config.listen.port);
    metricsListener = await openMetrics(config, log, (at) => listenMetrics(at, metrics));
    const origin = await settleOrigin(store, config.origin, listener.address.port);
    const reportKey = await openReportKey(store, configuredReportKey);
    plugins = await openPlugins(config, { origin, clock, log, observer: metrics });
    const keyTransparency = await KeyTransparency.open({
      crypto: nodeCrypto,
      store,
      clock,
      log,
      origin,
      secrets: logSecrets,
    });
    const server = createServer({
      observer: metrics,
      crypto: nodeCrypto,
      store,
      clock,
      log,
      version: packageJson.version,
      origin,
      opaqueSetup,
      receiptPrivateKey,
      atEndOfTurn: setImmediate,
      keyTransparency,
      storeLimits,
      rates,
      audit: { key: auditKey, sink: auditFile },
      plugins,
      loginDeadlineMs: config.loginDeadlineSecs * 1000,
      blobFiles,
      allowSealedSender: config.allowSealedSender,
      ...(config.admins === undefined ? {} : { admins: config.admins }),
      reportKey,
      notifiers: new Map([['webhook', createWebhookNotifier({ allowPrivate: config.pushPrivate })]]),
    });
    running = server;
    accept = server.accept;
    for (const connection of early.splice(0)) accept(connection);
    const { host, port } = listener.address;
    log.info({ host, port, origin, generatedCertificate: certificate.generated }, 'listening');
    const graceMs = config.shutdownGraceSecs * 1000;
    const certificates = new CertificateKeeper(certificate, {
      clock,
      log,
      load: () => loadCertificate(config, directory, clock.wallMs()),
      replace: async (next) => {
        refuseUnfit(config, directory, next);
        // The engine is stricter than our checks, and says so before anybody is sent away.
        const trial = await listen(config, 0, next, guard, failed, (connection) => connection.close(0, ''));
        await trial.close();
        await server.pause(graceMs);
        await listener?.close();
        listener = undefined;
        try {
          listener = await listenAgain(() => listenWith(next, port), clock, log);
        } catch (error) {
          failed(error instanceof Error ? error : new Error('nothing can be listened on any more', { cause: error }));
          throw error;
        } finally {
          server.resume();
        }
        server.auditor.record({ event: 'certificate_replaced', outcome: 'ok' });
      },
    });
    keeper = certificates;
    const handlers = new Map([
      ...controlHandlers({
        store,
        clock,
        directory,
        version: packageJson.version,
        origin,
        reportKey,
        reportKeyConfigured: configuredReportKey !== undefined,
        operations: server.operations,
        hold: () => server.blobs.hold(),
        audit: (event) => server.auditor.record({ event, outcome: 'ok', by: 'operator' }),
        log,
      }),
      ['reloadCertificate', () => certificates.reload()] as const,
      [
        'status',
        async () =>
          serverStatus({
            version: packageJson.version,
            origin,
            listen: { host, port },
            metricsListen: metricsListener,
            dataDir: directory.path,
            databasePath: directory.file('qpc.db'),
            startedAtMs: server.startedAtMs,
            nowMs: clock.wallMs(),
            connections: server.connections,
            inFlight: server.inFlight,
            logEntries: keyTransparency.size,
            reportKey: reportKey.publicKey !== undefined,
            production: config.production,
            certificate: certificates.current,
            store: await store.status(),
          }),
      ] as const,
    ]);
    control = await listenControl(directory.path, handlers, log);
    const beforehand = async (): Promise<{ controlClosed: Promise<void> | undefined }> => {
      running = undefined;
      // Giving up a large backup takes a while, in which people are sent away already.
      const controlClosed = control?.close();
      await certificates.stop();
      return { controlClosed };
    };
    const rest = { metrics: metricsListener, auditFile, plugins };
    const stop = stopper(server, () => listener, store, log, graceMs, beforehand, rest);
    const stopped = outcomeOf(stop, failure, log);
    // Whoever does not look at `stopped` still sees the failure in the log.
    stopped.catch(() => {});
    return {
      host,
      port,
      origin,
      dataDir: directory.path,
      certificatePath: certificate.path,
      certificateGenerated: certificate.generated,
      log,
      reloadCertificate: () => certificates.reload(),
      close: stop.close,
      stopped,
    };
  } catch (error) {
    await control?.close();
    await keeper?.stop();
    await listener?.close();
    await metricsListener?.close();
    await plugins?.close();
    auditFile?.close();
    await store.close();
    throw inWordsOfStart(error, directory.path);
  }
}

/** @throws StartupError when the files cannot be used, or not for production */
function checkedCertificate(config: ServerConfig, directory: DataDirectory, nowMs: number): ServerCertificate {
  const certificate = loadCertificate(config, directory, nowMs);
  refuseUnfit(config, directory, certificate);
  return certificate;
}

/** @throws StartupError when it, or another secret beside it, is not for production */
function refuseUnfit(config: ServerConfig, directory: DataDirectory, certificate: ServerCertificate): void {
  const storeKey = config.production ? readStoreKey(config.storeKeyFile) : undefined;
  try {
    refuseForProduction(config, directory, certificate, storeKey);
  } finally {
    storeKey?.fill(0);
  }
}

/** Clients know it once there is one: a lost one is not replaced behind their backs. */
async function ownCertificate(
  config: ServerConfig,
  directory: DataDirectory,
  store: Store,
  nowMs: number,
): Promise<ServerCertificate> {
  const made = (await store.getSetting(CERTIFICATE_SETTING)) !== undefined;
  if (!made && (await store.status()).accounts === 0) await makeFirstCertificate(config, directory);
  const certificate = checkedCertificate(config, directory, nowMs);
  if (!made) await store.putSetting(CERTIFICATE_SETTING, new Uint8Array([1]));
  return certificate;
}

/** Settles with the stop; with an error if that was why, so that whoever watches the process starts it again. */
export async function outcomeOf(
  { finished, close }: { readonly finished: Promise<void>; close(): Promise<void> },
  failure: Promise<Error>,
  log: Log,
): Promise<void> {
  const error = await Promise.race([finished, failure]);
  if (error === undefined) return;
  log.error({ err: error }, 'the server cannot go on');
  await close();
  throw error;
}

function stopper(
  server: QuicprochatServer,
  listener: () => Listener | undefined,
  store: Store,
  log: Log,
  graceMs: number,
  beforehand: () => Promise<{ readonly controlClosed: Promise<void> | undefined }>,
  rest: {
    readonly metrics: MetricsListener | undefined;
    readonly auditFile: AuditFile | undefined;
    readonly plugins: LoadedPlugins | undefined;
  },
): { close: () => Promise<void>; finished: Promise<void> } {
  let closing: Promise<void> | undefined;
  let finish: () => void = () => {};
  const finished = new Promise<void>((resolve) => {
    finish = resolve;
  });
  const close = async (): Promise<void> => {
    log.info({ connections: server.connections }, 'stopping');
    const { controlClosed } = await beforehand();
    await server.drain(graceMs);
    await listener()?.close();
    await controlClosed;
    await rest.metrics?.close();
    await rest.plugins?.close();
    rest.auditFile?.close();
    await store.close();
    log.info({}, 'stopped');
    finish();
  };
  return { close: () => (closing ??= close()), finished };
}

async function listen(
  config: ServerConfig,
  port: number,
  certificate: { readonly certificate: Uint8Array; readonly privateKey: Uint8Array },
  guard: ConnectionGuard,
  onFailure: (error: Error) => void,
  accept: (connection: Connection) => void,
): Promise<Listener> {
  const { host } = config.listen;
  try {
    return await listenQuic(
      {
        host,
        port,
        certificate: certificate.certificate,
        privateKey: certificate.privateKey,
        connectionsMax: config.connectionsMax,
        admit: guard.admit,
        onFailure,
      },
      accept,
    );
  } catch (error) {
    if (error instanceof ConnectError)
      throw new StartupError('listen', error.message, 'See the README.', { cause: error });
    const message = error instanceof Error ? error.message : String(error);
    const at = `${host.includes(':') ? `[${host}]` : host}:${port}`;
    if (/TlsFail/.test(message)) {
      throw new StartupError(
        'config',
        'the QUIC engine cannot use the certificate or its key',
        'Give a chain in PEM form, its first certificate that of the key: --tls-cert and --tls-key.',
        { cause: error },
      );
    }
    if (/in use|EADDRINUSE/i.test(message)) {
      throw new StartupError(
        'listen',
        `UDP port ${port} is in use on ${host}`,
        'Stop the program that has it, or give another one with --listen.',
        { cause: error },
      );
    }
    if (/permission|EACCES/i.test(message)) {
      throw new StartupError(
        'listen',
        `${at} may not be listened on by this user`,
        'Give a port above 1023 with --listen.',
        {
          cause: error,
        },
      );
    }
    throw new StartupError(
      'listen',
      `${at} cannot be listened on: ${message}`,
      'Give an address of this machine with --listen.',
      {
        cause: error,
      },
    );
  }
}

function openAudit(config: ServerConfig, directory: DataDirectory, log: Log): AuditFile | undefined {
  const { auditLog = directory.file('audit.log'), auditLogBytes, auditLogFiles } = config;
  if (auditLog === 'off') return undefined;
  return openAuditFile(auditLog, { bytesMax: auditLogBytes, files: auditLogFiles }, log);
}

/** Without plugins not even the code for them is loaded. */
async function openPlugins(
  config: ServerConfig,
  parts: { origin: string; clock: ServerClock; log: Log; observer: Observer },
): Promise<LoadedPlugins | undefined> {
  const { plugin: paths = [], pluginDeadlineMs: deadlineMs } = config;
  if (paths.length === 0) return undefined;
  const { loadPlugins } = await import('./plugin-host.node.ts');
  const { version } = packageJson;
  return loadPlugins({ ...parts, paths, deadlineMs, version, environment: process.env });
}

/** A second server on this machine goes without the standard address; one that was asked for has to be there. */
async function openMetrics(
  config: ServerConfig,
  log: Log,
  listen: (at: { host: string; port: number }) => Promise<MetricsListener>,
): Promise<MetricsListener | undefined> {
  const at = config.metricsListen;
  if (at === undefined) return undefined;
  try {
    return await listen(at);
  } catch (error) {
    const where = `${at.host.includes(':') ? `[${at.host}]` : at.host}:${at.port}`;
    if (where === METRICS_LISTEN) {
      log.warn({ err: error }, `no metrics: ${where} cannot be listened on`);
      return undefined;
    }
    throw new StartupError(
      'listen',
      `${where} cannot be listened on for metrics`,
      'Give another one with --metrics-listen.',
      { cause: error },
    );
  }
}

/** The origin is chosen once (PROTOCOL 10): every certificate and receipt names it. */
async function settleOrigin(store: Store, configured: string | undefined, port: number): Promise<string> {
  const wanted = configured ?? `localhost:${port}`;
  const settled = new TextDecoder().decode(await store.putSettingOnce(ORIGIN_SETTING, encodeUtf8(wanted)));
  if (configured !== undefined && configured !== settled) {
    throw new StartupError(
      'config',
      `this data folder belongs to the server "${settled}", not to "${configured}"`,
      'Leave --origin out, or use a new data folder.',
    );
  }
  return settled;
}

/** The public half stands in the file because computing it would cost every start more than reading all the others. */
async function loadLogSecrets(directory: DataDirectory, isNew: boolean): Promise<LogSecrets> {
  if (isNew) await vrfReady();
  const loss = isNew
    ? undefined
    : {
        neededBy: 'the entries of the key-transparency log',
        hint: 'Restore it from a backup; a log under another key is another log, and every client says so.',
      };
  const checkpointPrivateKey = loadSecret(
    directory,
    'log-key',
    CHECKPOINT_KEY_BYTES,
    () => nodeCrypto.random(CHECKPOINT_KEY_BYTES),
    loss,
  );
  const makeVrf = (): Uint8Array => {
    const { privateKey, publicKey } = generateVrfKeyPair(nodeCrypto);
    return concat(privateKey, publicKey);
  };
  const vrf = loadSecret(directory, LOG_VRF_KEY, VRF_PRIVATE_KEY_BYTES + VRF_PUBLIC_KEY_BYTES, makeVrf, loss);
  return {
    checkpointPrivateKey,
    vrf: { privateKey: vrf.subarray(0, VRF_PRIVATE_KEY_BYTES), publicKey: vrf.subarray(VRF_PRIVATE_KEY_BYTES) },
  };
}

async function blobFilesIn(directory: DataDirectory): Promise<BlobFiles> {
  const folder = directory.file('blobs');
  try {
    return await openBlobFiles(folder);
  } catch (error) {
    throw new StartupError('data', `${folder} cannot be used: ${reasonOf(error)}`, 'Check its owner and mode.', {
      cause: error,
    });
  }
}
