// Whatever `--production` refuses, one weakness at a time, each with a message that says what to set.
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { encodeHex } from '@quicprochat/crypto';
import { resolveConfig, startServer, StartupError } from './index.node.ts';
import { makeTestCertificate } from './testing/certificates.node.ts';

let folder: string;
const file = (name: string): string => path.join(folder, name);
const good = (): Record<string, unknown> => ({
  production: true,
  origin: 'chat.example.org',
  dataDir: file('data'),
  tlsCert: file('cert'),
  tlsKey: file('tls-key'),
  storeKeyFile: file('store-key'),
  listen: '127.0.0.1:0',
  metricsListen: 'off',
  logLevel: 'silent',
});

before(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'qpc-production-'));
  mkdirSync(file('data'), { mode: 0o700 });
  const made = await makeTestCertificate(['chat.example.org']);
  write('cert', made.certificate, 0o644);
  write('tls-key', made.privateKey);
  write('store-key', encodeHex(crypto.random(32)));
});
after(() => rmSync(folder, { recursive: true, force: true }));

function write(name: string, content: string, mode = 0o600): string {
  writeFileSync(file(name), content);
  chmodSync(file(name), mode);
  return file(name);
}

/** What a start says that is refused, by the settings or by the files behind them. */
async function refusal(change: Record<string, unknown>): Promise<string> {
  const outcome = resolveConfig({ flags: { ...good(), ...change } });
  if (outcome.kind === 'invalid') return outcome.problems.join('; ');
  const error = await startServer(outcome.config).then(
    async (server) => {
      await server.close();
      assert.fail('started');
    },
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof StartupError, String(error));
  assert.equal(error.kind, 'config');
  return error.message;
}

test('what is as it should be starts, also with a key that the group may read', async () => {
  chmodSync(file('tls-key'), 0o640);
  const outcome = resolveConfig({ flags: good() });
  assert.ok(outcome.kind === 'config', JSON.stringify(outcome));
  await (await startServer(outcome.config)).close();
});

test('settings that are missing, and names that nobody can reach', async () => {
  assert.match(await refusal({ tlsCert: undefined, tlsKey: undefined }), /needs a certificate: set --tls-cert/);
  assert.match(await refusal({ storeKeyFile: undefined }), /needs an encrypted database: set --store-key-file/);
  assert.match(await refusal({ origin: undefined }), /needs a name for the server: set --origin/);
  for (const origin of ['localhost', 'localhost:5001', 'chat.localhost', '127.0.0.1', '0.0.0.0:5001']) {
    assert.match(await refusal({ origin }), /a name that others can reach .*set --origin/, origin);
  }
});

test('secrets and folders that others can open', async () => {
  for (const [name, mode] of [
    ['store-key', 0o604],
    ['store-key', 0o620],
    ['tls-key', 0o644],
    ['tls-key', 0o660],
    ['data', 0o755],
    ['data', 0o770],
  ] as const) {
    const before = name === 'data' ? 0o700 : 0o600;
    chmodSync(file(name), mode);
    assert.match(await refusal({}), /is open to other users: chmod [67]00 /, `${name} ${mode.toString(8)}`);
    chmodSync(file(name), before);
  }
});

test('a store key that can be guessed', async () => {
  const weak: [string, string][] = [
    ['zeros', '00'.repeat(32)],
    ['two bytes over and over', 'a53c'.repeat(16)],
    ['one half twice', encodeHex(crypto.random(16)).repeat(2)],
    ['a sequence', Array.from({ length: 32 }, (_, i) => i.toString(16).padStart(2, '0')).join('')],
    [
      'a sequence downwards',
      Array.from({ length: 32 }, (_, i) => (250 - 7 * i) & 0xff)
        .map((b) => b.toString(16).padStart(2, '0'))
        .join(''),
    ],
    ['text', Buffer.from('correct horse battery staple, 12').toString('hex')],
    ['digits', '3141592653589793238462643383279502884197169399375105820974944592'],
  ];
  for (const [what, hex] of weak) {
    const message = await refusal({ storeKeyFile: write('weak-key', hex) });
    assert.match(message, /the store key is not random.*openssl rand -hex 32.*--store-key-file/, what);
    assert.ok(!message.includes(hex), 'no message carries a key');
  }
});

test('a certificate that was made here, is for another name, has expired or is not valid yet', async () => {
  const pair = async (name: string, made: Promise<{ certificate: string; privateKey: string }>) => {
    const { certificate, privateKey } = await made;
    return { tlsCert: write(`${name}-cert`, certificate, 0o644), tlsKey: write(`${name}-key`, privateKey) };
  };
  const otherName = await pair('other', makeTestCertificate(['other.example.org']));
  assert.match(await refusal(otherName), /the certificate is not for chat\.example\.org: set --tls-cert/);
  const expired = await pair('expired', makeTestCertificate(['chat.example.org'], { fromDays: -90, days: -1 }));
  assert.match(await refusal(expired), /has expired on \d{4}-/);
  assert.match(await refusal({ ...expired, production: false }), /has expired on/, 'in no mode');
  const early = await pair('early', makeTestCertificate(['chat.example.org'], { fromDays: 2 }));
  assert.match(await refusal(early), /is not valid before/);

  const own = resolveConfig({
    flags: { ...good(), production: false, dataDir: file('own'), tlsCert: undefined, tlsKey: undefined },
  });
  assert.ok(own.kind === 'config');
  const server = await startServer(own.config);
  await server.close();
  const reused = { dataDir: file('own'), tlsCert: file('own/cert.pem'), tlsKey: file('own/key.pem') };
  assert.match(await refusal(reused), /is the one that qpc-server made: set --tls-cert/);
  const renamed = {
    tlsCert: write('r-cert', readFileSync(file('own/cert.pem'), 'utf8')),
    tlsKey: write('r-key', readFileSync(file('own/key.pem'), 'utf8')),
  };
  assert.match(await refusal({ ...renamed, dataDir: file('own') }), /is the one that qpc-server made/);
});

test('everything that is wrong is said at once', async () => {
  const key = write('bad-key', '11'.repeat(32), 0o644);
  const message = await refusal({ storeKeyFile: key });
  assert.match(message, /open to other users.*; the store key is not random/);
});
