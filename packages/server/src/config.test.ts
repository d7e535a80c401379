import assert from 'node:assert/strict';
import { test } from 'node:test';
import { STATEMENT_CERTIFICATES_MAX } from '@quicprochat/core';
import { rateSettingsOf, resolveConfig, SETTINGS, storeLimitsOf } from './config.ts';
import type { ConfigSources, ServerConfig } from './config.ts';
import { DEFAULT_RATES } from './rate-limits.ts';
import { DEFAULT_STORE_LIMITS } from './store/store.ts';

function config(sources: ConfigSources): ServerConfig {
  const outcome = resolveConfig(sources);
  assert.ok(outcome.kind === 'config', JSON.stringify(outcome));
  return outcome.config;
}

function problems(sources: ConfigSources): string {
  const outcome = resolveConfig(sources);
  assert.ok(outcome.kind === 'invalid', JSON.stringify(outcome));
  return outcome.problems.join('; ');
}

const file = (content: Record<string, unknown>) => ({ name: 'qpc.toml', content });

test('without any source everything has its default', () => {
  const defaults = config({});
  assert.deepEqual(defaults.listen, { host: '0.0.0.0', port: 5001 });
  assert.equal(defaults.dataDir, './qpc-data');
  assert.deepEqual(storeLimitsOf(defaults), DEFAULT_STORE_LIMITS);
  assert.deepEqual(rateSettingsOf(defaults), DEFAULT_RATES);
});

test('a flag counts before a variable, a variable before the file, the file before the default', () => {
  const sources = {
    file: file({ log_level: 'error', data_dir: '/file', limits: { inbox_bytes: 100_000, roster_devices: 7 } }),
    environment: { QPC_DATA_DIR: '/environment', QPC_LIMITS_ROSTER_DEVICES: '8', QPC_PASSWORD: 'of the client' },
    flags: { dataDir: '/flag' },
  };
  const resolved = config(sources);
  assert.equal(resolved.dataDir, '/flag');
  assert.equal(resolved.logLevel, 'error');
  assert.equal(resolved.limits.inboxBytes, 100_000);
  assert.equal(resolved.limits.rosterDevices, 8);
  assert.equal(resolved.limits.inboxEnvelopes, 10_000);
  assert.equal(config({ ...sources, flags: {} }).dataDir, '/environment');
});

test('every setting has one name in three spellings', () => {
  const inbox = SETTINGS.find((setting) => setting.path === 'limits.inboxBytes');
  assert.equal(inbox?.flag, '--limits-inbox-bytes');
  assert.equal(inbox.variable, 'QPC_LIMITS_INBOX_BYTES');
  assert.equal(inbox.fileKey, 'limits.inbox_bytes');
  for (const key of ['path', 'flag', 'variable', 'fileKey'] as const) {
    assert.equal(new Set(SETTINGS.map((setting) => setting[key])).size, SETTINGS.length, key);
  }
  for (const setting of SETTINGS) assert.ok(setting.description.length > 5, setting.path);
});

test('addresses: an IP address and a port, in either family', () => {
  const listen = (value: string) => config({ flags: { listen: value } }).listen;
  assert.deepEqual(listen('127.0.0.1:0'), { host: '127.0.0.1', port: 0 });
  assert.deepEqual(listen('[::1]:6000'), { host: '::1', port: 6000 });
  assert.deepEqual(listen('localhost:1'), { host: '127.0.0.1', port: 1 });
  for (const bad of ['', '5001', '127.0.0.1', '127.0.0.1:65536', 'example.org:1', '::1:5', '1.2.3.4:x']) {
    assert.match(problems({ flags: { listen: bad } }), /--listen must be an IP address and a port/, bad);
  }
});

test('each problem names the setting as it was written, and all are listed', () => {
  const message = problems({
    file: file({ log_level: 'loud', colour: 'red', limits: { inbox_byte: 1 } }),
    environment: { QPC_CONNECTIONS_MAX: 'many', QPC_RATES_COMITS: '3' },
    flags: { shutdownGraceSecs: '99999', origin: 'no spaces please' },
  });
  for (const part of [
    'log_level in qpc.toml must be silent, error, warn, info or debug',
    'qpc.toml has an unknown setting "colour"',
    'qpc.toml has an unknown setting "limits.inbox_byte"',
    'QPC_CONNECTIONS_MAX must be a whole number',
    'QPC_RATES_COMITS is no setting',
    '--shutdown-grace-secs must be at most 600',
    '--origin must be a host name',
  ]) {
    assert.ok(message.includes(part), `${part} in: ${message}`);
  }
});

test('an account has no more devices than a statement of it can list', () => {
  const devices = (count: number) => ({ flags: { 'limits.devicesPerAccount': String(count) } });
  assert.equal(config(devices(STATEMENT_CERTIFICATES_MAX)).limits.devicesPerAccount, STATEMENT_CERTIFICATES_MAX);
  assert.match(problems(devices(STATEMENT_CERTIFICATES_MAX + 1)), /--limits-devices-per-account must be at most 16/);
});

test('settings that contradict each other are refused', () => {
  assert.match(problems({ flags: { tlsCert: 'cert.pem' } }), /belong together/);
  assert.match(problems({ flags: { limitsTtl: '1' } }), /no setting/);
  assert.match(problems({ flags: { 'limits.ttlDefaultSecs': '7776000', 'limits.ttlMaxSecs': '60' } }), /ttl/);
});

test('administrators are a list of identity keys', () => {
  const [one, two] = ['a'.repeat(64), 'B0'.repeat(32)];
  assert.deepEqual(config({ environment: { QPC_ADMINS: `${one}, ${two}` } }).admins, [one, two.toLowerCase()]);
  const file = { name: 'qpc.toml', content: { admins: [one] } };
  assert.deepEqual(config({ file }).admins, [one]);
  assert.equal(config({}).admins, undefined);
  const wrong = resolveConfig({ environment: { QPC_ADMINS: `${one},alice` } });
  assert.deepEqual(wrong.kind === 'invalid' && wrong.problems.map((problem) => problem.slice(0, 33)), [
    'QPC_ADMINS must be identity keys ',
  ]);
});

test('plugins are a list of files: repeated flags, a list in the file, or names with commas in between', () => {
  assert.equal(config({}).plugin, undefined);
  assert.deepEqual(config({ flags: { plugin: ['a,b.ts', 'c.mjs'] } }).plugin, ['a,b.ts', 'c.mjs']);
  assert.deepEqual(config({ file: file({ plugin: ['a.ts'] }) }).plugin, ['a.ts']);
  assert.deepEqual(config({ environment: { QPC_PLUGIN: 'a.ts, b.ts' } }).plugin, ['a.ts', 'b.ts']);
  assert.match(problems({ environment: { QPC_PLUGIN: 'a.ts,,b.ts' } }), /QPC_PLUGIN must not name an empty file/);
  assert.match(problems({ flags: { pluginDeadlineMs: '1' } }), /--plugin-deadline-ms must be at least 10/);
});

test('production refuses what is weak, and says what to set', () => {
  const message = problems({ environment: { QPC_PRODUCTION: '1' } });
  for (const flag of ['--tls-cert', '--store-key-file', '--origin']) assert.ok(message.includes(flag), flag);
  const flags = { tlsCert: 'c', tlsKey: 'k', storeKeyFile: 'f', origin: 'chat.example.org', production: true };
  assert.equal(config({ flags }).production, true);
  assert.equal(config({ environment: { QPC_PRODUCTION: '0' } }).production, false);
});

test('a rate of 0 is no limit, and a burst follows its rate', () => {
  const rates = rateSettingsOf(config({ flags: { 'rates.commits': '0', 'rates.registrations': '60' } }));
  assert.equal(rates.commits.perHour, 0);
  assert.deepEqual(rates.registrations, { perHour: 60, burst: 6 });
});
