import assert from 'node:assert/strict';
import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { CliError } from './errors.ts';
import {
  findTrustAnchor,
  formatServer,
  isLoopback,
  parseDuration,
  parseServer,
  serverName,
  stateFolder,
} from './settings.ts';

const isUsage = (error: unknown): boolean => error instanceof CliError && error.exitCode === 2 && error.hint !== '';
const folder = mkdtempSync(path.join(tmpdir(), 'qpc-settings-'));
after(() => rmSync(folder, { recursive: true }));

test('server addresses', () => {
  assert.deepEqual(parseServer('127.0.0.1:7000'), { host: '127.0.0.1', port: 7000 });
  assert.deepEqual(parseServer('chat.example.org'), { host: 'chat.example.org', port: 5001 });
  assert.deepEqual(parseServer('[::1]:7000'), { host: '::1', port: 7000 });
  assert.equal(formatServer(parseServer('[::1]')), '[::1]:5001');
  for (const bad of [
    '',
    ':5001',
    'a b:1',
    'host:0',
    'host:65536',
    'host:x',
    '::1:5001',
    'https://host',
    'h\u001b[2J',
    '[]:1',
  ]) {
    assert.throws(() => parseServer(bad), isUsage, bad);
  }
});

test('the name in the certificate: localhost for loopback, the host for names, asked for with other addresses', () => {
  assert.equal(serverName('127.0.0.1', undefined), 'localhost');
  assert.equal(serverName('127.8.9.1', undefined), 'localhost');
  assert.equal(serverName('::1', undefined), 'localhost');
  assert.equal(serverName('chat.example.org', undefined), 'chat.example.org');
  assert.equal(serverName('192.0.2.1', 'chat.example.org'), 'chat.example.org');
  assert.throws(() => serverName('192.0.2.1', undefined), isUsage);
  assert.throws(() => serverName('2001:db8::1', undefined), isUsage);
  assert.ok(!isLoopback('localhost.example.org') && !isLoopback('128.0.0.1'));
});

test('the profile folder: --state, --profile, QPC_STATE, then the data folder of the system', () => {
  const env = { HOME: '/people/a', QPC_STATE: '/from/env' };
  assert.equal(stateFolder({ state: '/flag' }, env, 'linux'), '/flag');
  assert.equal(stateFolder({}, env, 'linux'), '/from/env');
  assert.equal(stateFolder({ profile: 'work' }, env, 'linux'), '/people/a/.local/share/quicprochat/work');
  assert.equal(stateFolder({}, { HOME: '/people/a', XDG_DATA_HOME: '/data' }, 'linux'), '/data/quicprochat/default');
  assert.equal(
    stateFolder({}, { HOME: '/people/a', XDG_DATA_HOME: 'relative' }, 'linux'),
    '/people/a/.local/share/quicprochat/default',
  );
  assert.equal(
    stateFolder({}, { HOME: '/Users/a' }, 'darwin'),
    '/Users/a/Library/Application Support/quicprochat/default',
  );
  assert.ok(path.isAbsolute(stateFolder({}, { HOME: '' }, 'linux')), 'never relative to where one is');
  assert.throws(() => stateFolder({}, { HOME: 'somewhere' }, 'linux'), { code: 'no-home' });
  assert.equal(stateFolder({}, { HOME: '/h', QPC_PROFILE: 'two' }, 'linux'), '/h/.local/share/quicprochat/two');
  for (const bad of ['..', '.hidden', 'a/b', '', 'x'.repeat(65), 'a\u0000b']) {
    assert.throws(() => stateFolder({ profile: bad }, env, 'linux'), isUsage, bad);
  }
});

test('the certificate: named, remembered, that of the server on this machine, else the system roots', async () => {
  const local = parseServer('127.0.0.1');
  const remote = parseServer('chat.example.org');
  const named = path.join(folder, 'named.pem');
  writeFileSync(named, CERTIFICATES.named);
  mkdirSync(path.join(folder, 'data'));
  const env = { QPC_DATA_DIR: path.join(folder, 'data') };
  const text = async (...args: Parameters<typeof findTrustAnchor>): Promise<string | undefined> => {
    const anchor = await findTrustAnchor(...args);
    return anchor && Buffer.from(anchor.certificate).toString();
  };

  assert.equal(await text(local, undefined, undefined, env), undefined);
  writeFileSync(path.join(folder, 'data', 'cert.pem'), CERTIFICATES.local);
  assert.equal(await text(local, undefined, undefined, env), CERTIFICATES.local);
  assert.equal(await text(remote, undefined, undefined, env), undefined);
  assert.equal(await text(local, undefined, Buffer.from('REMEMBERED'), env), 'REMEMBERED');
  assert.equal(await text(local, named, Buffer.from('REMEMBERED'), env), CERTIFICATES.named);
  assert.equal(await text(remote, undefined, undefined, { ...env, QPC_CA_CERT: named }), CERTIFICATES.named);
  await assert.rejects(findTrustAnchor(local, path.join(folder, 'absent.pem'), undefined, env), isUsage);
  await assert.rejects(findTrustAnchor(local, folder, undefined, env), isUsage);
  writeFileSync(named, 'not a certificate');
  await assert.rejects(findTrustAnchor(local, named, undefined, env), isUsage);
});

test('durations', () => {
  assert.equal(parseDuration('30'), 30_000);
  assert.equal(parseDuration('0.5s'), 500);
  assert.equal(parseDuration('250ms'), 250);
  assert.equal(parseDuration('2m'), 120_000);
  assert.equal(parseDuration('1h'), 3_600_000);
  for (const bad of ['', '0', '-1', '1d', '1e3', 'soon', '999h999', '999999999h']) {
    assert.throws(() => parseDuration(bad), isUsage, bad);
  }
});

const CERTIFICATES = {
  named: `-----BEGIN CERTIFICATE-----
MIIBNjCB6aADAgECAhQW05goawWAuofGcRjjpzHwDvRJLDAFBgMrZXAwEDEOMAwG
A1UEAwwFbmFtZWQwIBcNMjYxMTIxMTIxMTA4WhgPMjEyNjEwMjgxMjExMDhaMBAx
DjAMBgNVBAMMBW5hbWVkMCowBQYDK2VwAyEAFFyaUc6IPq6d1Cjgp6o+wssbPTuO
vr2xk/7ICV/ke/+jUzBRMB0GA1UdDgQWBBSkSoR57M/+/yShR+GArwtA8dM6uTAf
BgNVHSMEGDAWgBSkSoR57M/+/yShR+GArwtA8dM6uTAPBgNVHRMBAf8EBTADAQH/
MAUGAytlcANBAJqe8fhAW0FtZtqK6e6BEVx55m/3Yf81mDXaDYJxjxQ6R0EkfkKt
/QM2c5/hIqT1jSdyWc7Yl5aow3W8ecsJjQw=
-----END CERTIFICATE-----
`,
  local: `-----BEGIN CERTIFICATE-----
MIIBNjCB6aADAgECAhR5fqWonVi7dr1cCMA5KSOqraeZaTAFBgMrZXAwEDEOMAwG
A1UEAwwFbG9jYWwwIBcNMjYxMTIxMTIxMTA4WhgPMjEyNjEwMjgxMjExMDhaMBAx
DjAMBgNVBAMMBWxvY2FsMCowBQYDK2VwAyEAVFFgcpiuKajZrf141G4zFd3gl5nJ
pHASCxvYRbf7nZSjUzBRMB0GA1UdDgQWBBSLffrR08BU8tnq+aaJ7wH2RZyaODAf
BgNVHSMEGDAWgBSLffrR08BU8tnq+aaJ7wH2RZyaODAPBgNVHRMBAf8EBTADAQH/
MAUGAytlcANBAP/ZSszfxJ9+EN+nOQQ0pILZeIUkhq/sW+sV8mikDobb9HBt9M7c
PVrh6pFx2YAXxWsF3fm/vR/NFMCRfFM7RwI=
-----END CERTIFICATE-----
`,
};
