/**
 * The server's configuration: one schema, one precedence. Every setting is a flag, a QPC_* variable and a key of the TOML
 * file under the same name; the first of flag, environment, file and default counts.
 *
 *   schema leaf          flag                     environment               file
 *   dataDir              --data-dir               QPC_DATA_DIR              data_dir
 *   limits.inboxBytes    --limits-inbox-bytes     QPC_LIMITS_INBOX_BYTES    [limits] inbox_bytes
 *
 * Unknown keys are refused. In the environment only under QPC_LIMITS_ and QPC_RATES_: the client has QPC_* variables of
 * its own.
 */
import { z } from 'zod';
import { DEFAULT_RATES } from './rate-limits.ts';
import type { Rate, RateName, RateSettings } from './rate-limits.ts';
import { DEFAULT_STORE_LIMITS } from './store/store.ts';
import type { StoreLimits } from './store/store.ts';

/** An account statement lists no more certificates than this (`STATEMENT_CERTIFICATES_MAX`). */
const DEVICES_MAX = 16;

const text = z.string().min(1, 'must not be empty');

/** A whole number, as TOML writes it or as text. */
function whole(min: number, max: number, standard: number) {
  return z
    .union([z.number(), z.string().regex(/^\d+$/).transform(Number)], { error: 'must be a whole number' })
    .pipe(
      z.number().int('must be a whole number').min(min, `must be at least ${min}`).max(max, `must be at most ${max}`),
    )
    .default(standard);
}

const yesOrNo = z
  .union([z.boolean(), z.enum(['1', 'true', '0', 'false'])], { error: 'must be true or false' })
  .transform((value) => value === true || value === '1' || value === 'true')
  .default(false);

const address = z.string().transform((value, context) => {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+|localhost)):(\d{1,5})$/.exec(value);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535) {
    context.addIssue('must be an IP address and a port, such as 127.0.0.1:5001 or [::]:5001');
    return z.NEVER;
  }
  const host = match[1] ?? match[2] ?? '';
  return { host: host === 'localhost' ? '127.0.0.1' : host, port };
});

const listen = address.prefault('0.0.0.0:5001');
export const METRICS_LISTEN = '127.0.0.1:9090';
const metricsListen = z.union([z.literal('off').transform(() => undefined), address]).prefault(METRICS_LISTEN);

const origin = z
  .string()
  .max(255, 'has at most 255 characters')
  .regex(
    /^[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::\d{1,5})?$/,
    'must be a host name, with a port if it has one of its own',
  );

/** A list of files: an array in the file or of repeated flags, or text with commas. */
const files = z
  .union([z.string().transform((value) => value.split(',')), z.array(z.string())], { error: 'must be a list of files' })
  .pipe(z.array(z.string().trim().min(1, 'must not name an empty file')));

/** A list of identity keys: an array in the file, or text with commas. */
const identityKeys = z
  .union([z.string().transform((value) => value.split(',')), z.array(z.string())], {
    error: 'must be a list of identity keys',
  })
  .pipe(
    z.array(
      z
        .string()
        .trim()
        .toLowerCase()
        .regex(/^[0-9a-f]{64}$/, 'must be identity keys of 64 hex digits each, with commas in between'),
    ),
  );

const HOURLY_MAX = 1_000_000_000;
const DAY_SECS = 86_400;

function rate(name: RateName, what: string) {
  const { perHour } = DEFAULT_RATES[name];
  return whole(0, HOURLY_MAX, perHour).describe(`${what} an hour; 0 = without limit`);
}

const limitsSchema = z.strictObject({
  inboxEnvelopes: whole(1, 10_000_000, DEFAULT_STORE_LIMITS.inboxEnvelopes).describe('envelopes an inbox holds'),
  inboxBytes: whole(65_536, 2 ** 40, DEFAULT_STORE_LIMITS.inboxBytes).describe('bytes an inbox holds'),
  devicesPerAccount: whole(1, DEVICES_MAX, DEFAULT_STORE_LIMITS.devicesPerAccount).describe('devices of an account'),
  keyPackagesPerSuite: whole(1, 10_000, DEFAULT_STORE_LIMITS.keyPackagesPerSuite).describe(
    'unused KeyPackages of a device and suite',
  ),
  rosterDevices: whole(2, 60_000, DEFAULT_STORE_LIMITS.rosterDevices).describe('devices of a channel'),
  blobQuotaBytes: whole(0, 2 ** 50, DEFAULT_STORE_LIMITS.blobQuotaBytes).describe('bytes of files of an account'),
  blobTtlSecs: whole(3_600, 3_650 * DAY_SECS, DEFAULT_STORE_LIMITS.blobTtlMs / 1000).describe(
    'how long a file is kept',
  ),
  ttlDefaultSecs: whole(60, 90 * DAY_SECS, DEFAULT_STORE_LIMITS.ttlDefaultMs / 1000).describe(
    'how long an envelope waits unless its sender says otherwise',
  ),
  ttlMaxSecs: whole(60, 90 * DAY_SECS, DEFAULT_STORE_LIMITS.ttlMaxMs / 1000).describe('how long one waits at most'),
});

const ratesSchema = z.strictObject({
  connects: rate('connects', 'connections from a network address'),
  calls: rate('calls', 'calls on a connection'),
  sends: rate('sends', 'messages of a device'),
  anonymous: rate('anonymous', 'calls without a session from a network address'),
  registrations: rate('registrations', 'registrations from a network address'),
  passwords: rate('passwords', 'password attempts from a network address'),
  passwordsOfOne: rate('passwordsOfOne', 'password attempts at one name from a network address'),
  resumes: rate('resumes', 'resumed sessions from a network address'),
  resolves: rate('resolves', 'look-ups by an account'),
  logReads: rate('logReads', 'reads of the key-transparency log from a network address'),
  statements: rate('statements', 'changes of the devices of an account'),
  resolvesFromAddress: rate('resolvesFromAddress', 'look-ups from a network address'),
  reads: rate('reads', 'reads of keys, revocations and rosters by an account'),
  enqueues: rate('enqueues', 'messages of an account'),
  enqueueKib: rate('enqueueKib', 'KiB of messages of an account'),
  uploadKib: rate('uploadKib', 'KiB of files uploaded by an account'),
  downloadKib: rate('downloadKib', 'KiB of files downloaded by an account'),
  changes: rate('changes', 'changes of an account, its devices and keys'),
  channels: rate('channels', 'channels opened by an account'),
  commits: rate('commits', 'commits of a device'),
  commitKib: rate('commitKib', 'KiB of commits and Welcomes by an account'),
  keyPackagesOfOne: rate('keyPackagesOfOne', 'fetches of one account’s KeyPackages by another'),
  keyPackages: rate('keyPackages', 'fetches of KeyPackages by an account'),
  keyPackageUploads: rate('keyPackageUploads', 'uploads of KeyPackages by a device'),
  reports: rate('reports', 'reports by an account'),
  hints: rate('hints', 'hints to channels by a device'),
  sealedPerChannel: rate('sealedPerChannel', 'sealed messages in a channel'),
  sealedPerAddress: rate('sealedPerAddress', 'sealed messages from a network address'),
});

const configSchema = z.strictObject({
  dataDir: text.default('./qpc-data').describe('folder of the database, the certificate and the server’s secrets'),
  listen: listen.describe('IP address and UDP port; port 0 = any free one'),
  metricsListen: metricsListen.describe('IP address and TCP port of /metrics, /healthz and /readyz; or off'),
  origin: origin
    .optional()
    .describe('name in every signed statement, fixed at the first start (default: localhost:<port>)'),
  tlsCert: text.optional().describe('certificate chain, PEM (default: one made in the data folder)'),
  tlsKey: text.optional().describe('its private key, PEM'),
  storeKeyFile: text.optional().describe('file with 64 hex digits that encrypt the database (default: not encrypted)'),
  logLevel: z
    .enum(['silent', 'error', 'warn', 'info', 'debug'], { error: 'must be silent, error, warn, info or debug' })
    .default('info')
    .describe('silent, error, warn, info or debug; logs go to standard error'),
  connectionsMax: whole(1, 1_000_000, 10_000).describe('connections at once'),
  connectionsPerAddress: whole(1, 1_000_000, 1_000).describe('connections at once from a network address'),
  loginDeadlineSecs: whole(5, 86_400, 120).describe('how long a connection may be idle on which nobody has logged in'),
  shutdownGraceSecs: whole(0, 600, 10).describe('how long calls in flight may take when the server stops'),
  production: yesOrNo.describe('refuse weak or open secrets, a generated certificate and an unencrypted database'),
  allowSealedSender: yesOrNo.describe('take messages to channels from senders who do not say who they are'),
  admins: identityKeys
    .optional()
    .describe('identity keys (hex, with commas in between) of those who may ban and read reports'),
  reportKeyFile: text
    .optional()
    .describe('file with the key that reports are sealed to (default: the one of qpc-server admin report-key)'),
  auditLog: text.optional().describe('file of the audit log, or off (default: audit.log in the data folder)'),
  auditLogBytes: whole(65_536, 2 ** 40, 16 * 2 ** 20).describe('bytes after which a new audit log is begun'),
  auditLogFiles: whole(1, 1_000, 8).describe('audit logs kept, the current one among them'),
  plugin: files.optional().describe('module of a plugin; may be given several times'),
  pluginDeadlineMs: whole(10, 10_000, 250).describe('how long a plugin may think about a call'),
  pushPrivate: yesOrNo.describe('let push webhooks use plain HTTP and addresses of private networks'),
  limits: limitsSchema.prefault({}),
  rates: ratesSchema.prefault({}),
});

export type ServerConfig = z.output<typeof configSchema>;

/** One setting, for `--help`, for reading the environment and for messages. */
export interface Setting {
  /** `limits.inboxBytes` */
  readonly path: string;
  /** `--limits-inbox-bytes` */
  readonly flag: string;
  /** `QPC_LIMITS_INBOX_BYTES` */
  readonly variable: string;
  /** `limits.inbox_bytes` */
  readonly fileKey: string;
  readonly description: string;
  /** As one would write it; undefined where there is none, or the description says it. */
  readonly standard: string | undefined;
}

export const SETTINGS: readonly Setting[] = settingsOf(configSchema.shape, []);

function settingsOf(shape: Readonly<Record<string, z.ZodType>>, above: readonly string[]): Setting[] {
  return Object.entries(shape).flatMap(([name, schema]) => {
    const path = [...above, name];
    if (name === 'limits') return settingsOf(limitsSchema.shape, path);
    if (name === 'rates') return settingsOf(ratesSchema.shape, path);
    const words = path.map((part) => part.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`));
    return [
      {
        path: path.join('.'),
        flag: `--${words.join('-').replaceAll('_', '-')}`,
        variable: `QPC_${words.join('_').toUpperCase()}`,
        fileKey: words.join('.'),
        description: schema.description ?? '',
        standard: standardOf(schema),
      },
    ];
  });
}

function standardOf(schema: z.ZodType): string | undefined {
  const { defaultValue } = schema.def as { readonly defaultValue?: unknown };
  return defaultValue === undefined || defaultValue === false ? undefined : String(defaultValue);
}

/** Where settings come from. */
export interface ConfigSources {
  /** Flags that were given, by `Setting.path`. */
  readonly flags?: Readonly<Record<string, unknown>>;
  readonly environment?: Readonly<Record<string, string | undefined>>;
  /** The parsed TOML file, and its name for messages. */
  readonly file?: { readonly name: string; readonly content: Readonly<Record<string, unknown>> } | undefined;
}

export type ConfigOutcome =
  | { readonly kind: 'config'; readonly config: ServerConfig }
  /** One clause per problem, naming the setting as the user wrote it. */
  | { readonly kind: 'invalid'; readonly problems: readonly string[] };

/** Merges the sources and checks every value. */
export function resolveConfig(sources: ConfigSources = {}): ConfigOutcome {
  const problems: string[] = [];
  const values = new Map<string, { readonly value: unknown; readonly writtenAs: string }>();

  const { file, environment = {}, flags = {} } = sources;
  if (file !== undefined) {
    for (const [fileKey, value] of leaves(file.content, [])) {
      const setting = SETTINGS.find((candidate) => candidate.fileKey === fileKey);
      if (setting === undefined) problems.push(`${file.name} has an unknown setting "${fileKey}"`);
      else values.set(setting.path, { value, writtenAs: `${setting.fileKey} in ${file.name}` });
    }
  }
  for (const [variable, value] of Object.entries(environment)) {
    if (value === undefined || !variable.startsWith('QPC_')) continue;
    const setting = SETTINGS.find((candidate) => candidate.variable === variable);
    if (setting !== undefined) values.set(setting.path, { value, writtenAs: variable });
    else if (/^QPC_(?:LIMITS|RATES)_/.test(variable)) problems.push(`${variable} is no setting`);
  }
  for (const [path, value] of Object.entries(flags)) {
    const setting = SETTINGS.find((candidate) => candidate.path === path);
    if (value === undefined) continue;
    if (setting === undefined) problems.push(`"${path}" is no setting`);
    else values.set(path, { value, writtenAs: setting.flag });
  }

  const parsed = configSchema.safeParse(nest([...values].map(([path, { value }]) => [path, value])));
  if (!parsed.success) {
    for (const issue of parsed.error.issues) {
      // An element of a list is named by the list.
      const path = issue.path.filter((part) => typeof part === 'string').join('.');
      problems.push(`${values.get(path)?.writtenAs ?? path} ${issue.message}`);
    }
  } else {
    problems.push(...contradictions(parsed.data));
  }
  return parsed.success && problems.length === 0
    ? { kind: 'config', config: parsed.data }
    : { kind: 'invalid', problems };
}

function contradictions(config: ServerConfig): string[] {
  const problems: string[] = [];
  if ((config.tlsCert === undefined) !== (config.tlsKey === undefined)) {
    problems.push('--tls-cert and --tls-key belong together; give both or neither');
  }
  if (config.limits.ttlDefaultSecs > config.limits.ttlMaxSecs) {
    problems.push('--limits-ttl-default-secs is more than --limits-ttl-max-secs');
  }
  if (config.production) {
    if (config.tlsCert === undefined) problems.push('--production needs a certificate: set --tls-cert and --tls-key');
    if (config.storeKeyFile === undefined)
      problems.push('--production needs an encrypted database: set --store-key-file');
    if (config.origin === undefined) problems.push('--production needs a name for the server: set --origin');
    else if (/^(?:localhost|127\.[0-9.]+|0\.0\.0\.0|.*\.localhost)(?::\d+)?$/.test(config.origin)) {
      problems.push(
        '--production needs a name that others can reach the server by: set --origin to its public host name',
      );
    }
  }
  return problems;
}

function leaves(table: Readonly<Record<string, unknown>>, above: readonly string[]): [string, unknown][] {
  return Object.entries(table).flatMap(([name, value]): [string, unknown][] => {
    const path = [...above, name];
    // Arrays and dates have prototypes of their own.
    const prototype: unknown = typeof value === 'object' && value !== null ? Object.getPrototypeOf(value) : undefined;
    const isTable = prototype === Object.prototype || prototype === null;
    return isTable ? leaves(value as Record<string, unknown>, path) : [[path.join('.'), value]];
  });
}

function nest(entries: readonly (readonly [string, unknown])[]): Record<string, unknown> {
  const root: Record<string, unknown> = {};
  for (const [path, value] of entries) {
    const [first = '', second] = path.split('.');
    if (second === undefined) root[first] = value;
    else root[first] = { ...(root[first] as object | undefined), [second]: value };
  }
  return root;
}

/** The store's bounds as configured. */
export function storeLimitsOf({ limits }: ServerConfig): StoreLimits {
  const { ttlDefaultSecs, ttlMaxSecs, blobTtlSecs, ...others } = limits;
  const times = {
    ttlDefaultMs: ttlDefaultSecs * 1000,
    ttlMaxMs: ttlMaxSecs * 1000,
    blobTtlMs: blobTtlSecs * 1000,
  };
  return { ...DEFAULT_STORE_LIMITS, ...others, ...times };
}

/** The rates as configured; a burst grows and shrinks with its rate. */
export function rateSettingsOf({ rates }: ServerConfig): RateSettings {
  const entries = (Object.keys(DEFAULT_RATES) as RateName[]).map((name): [RateName, Rate] => {
    const standard = DEFAULT_RATES[name];
    const perHour = rates[name];
    return [name, { perHour, burst: Math.max(1, Math.ceil((standard.burst * perHour) / standard.perHour)) }];
  });
  return Object.fromEntries(entries) as Record<RateName, Rate>;
}
