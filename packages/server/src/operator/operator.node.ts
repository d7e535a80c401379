/**
 * The operator's way to a server (decision 0015): through its control socket when it runs; else the data folder itself is
 * opened, under the same lock as a server takes, so that two processes never write one database.
 */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { decodeBase64Url, isReportKey } from '@quicprochat/core';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { Status } from '@quicprochat/proto';
import { RpcError, statusName } from '@quicprochat/transport';
import { z } from 'zod';
import packageJson from '../../package.json' with { type: 'json' };
import { storeLimitsOf } from '../config.ts';
import type { ServerConfig } from '../config.ts';
import type { Log, ServerClock } from '../context.ts';
import { openDataDirectory, reasonOf } from '../data-directory.node.ts';
import type { DataDirectory } from '../data-directory.node.ts';
import { LiveDevices } from '../live-devices.ts';
import { ORIGIN_SETTING, openStore } from '../open-store.node.ts';
import { StartupError } from '../startup-error.ts';
import { StoreError } from '../store/store.ts';
import type { Store } from '../store/store.ts';
import { backUpServer } from './back-up.node.ts';
import type { BackUpReport } from './back-up.node.ts';
import { callControl, OperatorRefusal } from './control-socket.node.ts';
import type { ControlCallOptions, ControlHandlers } from './control-socket.node.ts';
import { createOperations, operationHandlers, parseOperatorRequest } from './operations.ts';
import type { Operations } from './operations.ts';
import { openReportKey, reportKeyHandlers } from './report-key.ts';
import type { ReportKeyHolder, ReportKeyReport } from './report-key.ts';
import type { ServerStatus } from './status.node.ts';
import type { ReloadOutcome } from '../certificate-keeper.node.ts';

/** Everything that can be asked, with its answer. */
type OperatorCalls = Operations & {
  readonly reportKey: (request: object) => Promise<ReportKeyReport>;
  readonly setReportKey: (request: { publicKey: string; replace: boolean }) => Promise<ReportKeyReport>;
  readonly backUp: (request: { target: string; withSecrets: boolean }) => Promise<BackUpReport>;
  readonly about: (request: object) => Promise<{ origin: string }>;
  /** Of a running server only. */
  readonly status: (request: object) => Promise<ServerStatus>;
  readonly reloadCertificate: (request: object) => Promise<ReloadOutcome>;
};

export interface Operator {
  /** Whether a server runs on the data folder. */
  readonly running: boolean;
  /** @throws OperatorRefusal, ControlError, StartupError */
  call<K extends keyof OperatorCalls>(
    operation: K,
    request: Parameters<OperatorCalls[K]>[0],
    options?: ControlCallOptions,
  ): Promise<Awaited<ReturnType<OperatorCalls[K]>>>;
  close(): Promise<void>;
}

/** What a server and a folder without one offer alike. */
export interface OfflineParts {
  readonly store: Store;
  readonly clock: Pick<ServerClock, 'wallMs'>;
  readonly directory: DataDirectory;
  readonly version: string;
  readonly origin: string;
  readonly reportKey: ReportKeyHolder;
  readonly reportKeyConfigured: boolean;
  readonly operations: Operations;
  readonly hold: () => Promise<() => void>;
  readonly log: Log;
  /** Of a running server: the audit log is its own. */
  readonly audit?: (event: 'report_key_set' | 'backup_made') => void;
}

const backUpRequest = z.strictObject({ target: z.string().max(4_096), withSecrets: z.boolean() });

export function controlHandlers(parts: OfflineParts): ControlHandlers {
  const { store, clock, directory, version, origin, hold, log } = parts;
  return new Map<
    string,
    (input: unknown, call: { progress(progress: object): void; signal: AbortSignal }) => Promise<unknown>
  >([
    ...operationHandlers(parts.operations),
    ...reportKeyHandlers(nodeCrypto, store, parts.reportKey, parts.reportKeyConfigured, (keyId) => {
      parts.audit?.('report_key_set');
      log.info({ keyId }, 'reports are sealed to a new key');
    }),
    ['about', () => Promise.resolve({ origin })],
    [
      'backUp',
      async (input, call) => {
        const request = parseOperatorRequest(backUpRequest, input);
        const from = { store, directory, version, origin, nowMs: clock.wallMs(), hold };
        const report = await backUpServer(from, request, (done) => call.progress(done), call.signal);
        parts.audit?.('backup_made');
        log.info({ files: report.files, bytes: report.bytes, withSecrets: report.withSecrets }, 'backup made');
        return report;
      },
    ],
  ]);
}

/**
 * Finds the server of a data folder, or opens the folder.
 * @throws StartupError when there is neither
 */
export async function openOperator(config: ServerConfig, signal?: AbortSignal): Promise<Operator> {
  const dataDir = path.resolve(config.dataDir);
  const probe = await callControl(dataDir, 'about', {}, { signal });
  if (probe.kind === 'answer') return throughSocket(dataDir);
  return onFolder(config, dataDir);
}

/** Only a server that runs; undefined when none does. */
export async function findRunning(
  config: Pick<ServerConfig, 'dataDir'>,
  signal?: AbortSignal,
): Promise<Operator | undefined> {
  const dataDir = path.resolve(config.dataDir);
  const probe = await callControl(dataDir, 'about', {}, { signal });
  return probe.kind === 'answer' ? throughSocket(dataDir) : undefined;
}

function throughSocket(dataDir: string): Operator {
  return {
    running: true,
    call: async (operation, request, options) => {
      const outcome = await callControl(dataDir, operation, request, options);
      // Each answer is what the operation of the same name returns, on a server of this version.
      if (outcome.kind === 'answer') return outcome.answer as never;
      throw new StartupError('data', 'the server has stopped meanwhile', 'Run the command again.');
    },
    close: () => Promise.resolve(),
  };
}

const SILENT: Log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

async function onFolder(config: ServerConfig, dataDir: string): Promise<Operator> {
  if (!existsSync(path.join(dataDir, 'qpc.db'))) {
    throw new StartupError('data', `there is no server in ${dataDir}`, 'Name its data folder with --data-dir.');
  }
  const directory = openDataDirectory(dataDir);
  const store = await openStore(config, directory, storeLimitsOf(config));
  try {
    const origin = await store.getSetting(ORIGIN_SETTING);
    if (origin === undefined) {
      throw new StartupError('data', `the server in ${dataDir} has never been started`, 'Start it once.');
    }
    const clock: ServerClock = {
      now: () => performance.now(),
      wallMs: () => Date.now(),
      setTimer: (callback, ms) => setTimeout(callback, ms),
      clearTimer: (timer) => clearTimeout(timer as NodeJS.Timeout),
    };
    const handlers = controlHandlers({
      store,
      clock,
      directory,
      version: packageJson.version,
      origin: new TextDecoder().decode(origin),
      reportKey: await openReportKey(store, readReportKey(config)),
      reportKeyConfigured: config.reportKeyFile !== undefined,
      operations: createOperations({
        store,
        clock,
        live: new LiveDevices(),
        admins: new Set(config.admins),
        log: SILENT,
      }),
      // Nothing is collected where nobody serves.
      hold: () => Promise.resolve(() => {}),
      log: SILENT,
    });
    return {
      running: false,
      call: async (operation, request, options = {}) => {
        const handler = handlers.get(operation);
        if (handler === undefined) {
          throw new StartupError('data', `no server runs on ${dataDir}`, 'Start it first: this asks a running one.');
        }
        const call = {
          progress: (progress: object) => options.onProgress?.({ ...progress }),
          signal: options.signal ?? new AbortController().signal,
        };
        try {
          return (await handler(request, call)) as never;
        } catch (error) {
          throw refused(error);
        }
      },
      close: () => store.close(),
    };
  } catch (error) {
    await store.close();
    throw error;
  }
}

/** As a running server would say it. */
function refused(error: unknown): unknown {
  if (error instanceof RpcError && error.status !== Status.INTERNAL) {
    return new OperatorRefusal(statusName(error.status).replaceAll(' ', '-'), error.message, error.hint);
  }
  if (error instanceof StoreError && error.kind !== 'internal' && error.kind !== 'misuse') {
    return new OperatorRefusal(
      error.kind.replaceAll('_', '-'),
      error.message.replace(/\.$/, ''),
      'Check the data folder.',
    );
  }
  return error;
}

/** The public key in the file that the configuration names. @throws StartupError when it is none */
export function readReportKey(config: Pick<ServerConfig, 'reportKeyFile'>): Uint8Array | undefined {
  const file = config.reportKeyFile;
  if (file === undefined) return undefined;
  let content: string;
  try {
    content = readFileSync(file, 'utf8');
  } catch (error) {
    throw new StartupError('config', `${file} cannot be read: ${reasonOf(error)}`, 'Check --report-key-file.', {
      cause: error,
    });
  }
  const key = decodeBase64Url(content.trim());
  if (key === undefined || !isReportKey(nodeCrypto, key)) {
    throw new StartupError(
      'config',
      `${file} does not hold a report key`,
      'Name the .pub file that qpc-server admin report-key wrote.',
    );
  }
  return key;
}
