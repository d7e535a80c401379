// The log's redaction: secrets of every kind we have, planted in every field and every depth, never come out; what
// operators need does.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { createLog } from './log.node.ts';
import { redactText } from './redact.ts';

/** A log that keeps its lines. */
function keeping() {
  const lines: string[] = [];
  return { lines, log: createLog('debug', { write: (line) => void lines.push(line) }) };
}

const last = (lines: string[]) => JSON.parse(lines.at(-1) ?? '{}') as Record<string, unknown>;

// Fields that lines of the server have, and some that one could come upon.
const FIELDS = [
  'call connection method status durationMs account device network reason host port origin notifier outcome plugin',
  'hooks removed request response value details x password token key payload privateKey sessionToken identityKey',
  'recovery_phrase ke3',
].flatMap((names) => names.split(' '));

test('THREATS 13, 41: keys, tokens and payloads come out of no field, however they are written', () => {
  const { lines, log } = keeping();
  for (const bytes of [16, 20, 24, 32, 64, 192, 1_216]) {
    // The same each time: of random ones a few in a hundred thousand look like words.
    const secret = crypto.hkdfExpand('sha256', new Uint8Array(32), new Uint8Array([bytes & 0xff]), bytes);
    const buffer = Buffer.from(secret);
    const spellings: unknown[] = [
      secret,
      buffer,
      secret.buffer,
      [...secret],
      [...secret].join(','),
      [...secret].join(', '),
      buffer.toString('hex'),
      buffer.toString('hex').toUpperCase(),
      buffer.toString('base64'),
      buffer.toString('base64url'),
      `before ${buffer.toString('hex')} and after`,
      { inner: { most: secret } },
      { inner: [buffer.toString('base64url')] },
      { [buffer.toString('hex')]: 1 },
      new Map([['x', secret]]),
      new Set([buffer.toString('hex')]),
      BigInt(`0x${buffer.toString('hex')}`),
      new Error(`failed with ${buffer.toString('hex')}`),
      Object.assign(new Error('failed'), { secret, text: buffer.toString('hex') }),
      new Error('outer', { cause: new Error(`inner ${buffer.toString('base64url')}`) }),
      new DataView(secret.buffer),
    ];
    const traces = [
      ...['hex', 'base64', 'base64url'].map((encoding) => buffer.toString(encoding as 'hex').slice(0, 14)),
      [...secret].slice(0, 6).join(','),
      [...secret].slice(0, 6).join(', '),
      String(BigInt(`0x${buffer.toString('hex')}`)).slice(0, 12),
    ];
    for (const spelling of spellings) {
      for (const field of [...FIELDS, 'err']) {
        log.info({ [field]: spelling }, 'a line');
        const line = (lines.at(-1) ?? '').toLowerCase();
        for (const trace of traces) assert.ok(!line.includes(trace.toLowerCase()), `${field}: ${line}`);
      }
      if (typeof spelling !== 'string') continue;
      log.warn({}, `a message with ${spelling}`);
      if (spelling === buffer.toString('base64')) continue;
      const line = (lines.at(-1) ?? '').toLowerCase();
      for (const trace of traces) assert.ok(!line.includes(trace.toLowerCase()), line);
    }
  }
});

test('a password, a phrase or a name comes out of no field that is called so', () => {
  const { lines, log } = keeping();
  const words = 'correct horse battery staple';
  for (const field of ['password', 'newPassword', 'passphrase', 'phrase', 'username', 'userName', 'token', 'peer']) {
    log.info({ [field]: words, nested: { [field]: [words] } }, 'a line');
    assert.ok(!(lines.at(-1) ?? '').includes('horse'), field);
  }
});

test('what operators need comes out as it is', () => {
  const { lines, log } = keeping();
  const fields = {
    call: '9f3a1c2e-1042',
    connection: 7,
    method: 'qpc.v1.DeliveryService/BatchEnqueue',
    status: 0,
    durationMs: 1.25,
    account: '29ffa9e59bf2a422',
    host: '2001:db8::1',
    port: 5001,
    origin: 'chat.example.org:5001',
    generatedCertificate: true,
  };
  log.debug(fields, 'answered');
  const { level, pid, time, msg, ...rest } = last(lines);
  assert.deepEqual(rest, fields);
  assert.deepEqual([level, pid, msg, typeof time], ['debug', process.pid, 'answered', 'string']);

  log.error({ err: new TypeError('a fault of ours') }, 'failed');
  const { err } = last(lines) as { err: { type: string; message: string; stack: string } };
  assert.deepEqual([err.type, err.message], ['TypeError', 'a fault of ours']);
  assert.match(err.stack, /log\.test\.ts:\d+/);
  assert.equal(
    redactText('/srv/node_modules/packages/server/src/handlers/submit-commit.ts:31'),
    '/srv/node_modules/packages/server/src/handlers/submit-commit.ts:31',
  );
});

test('a line is bounded, whatever it is given', () => {
  const { lines, log } = keeping();
  const loop: Record<string, unknown> = {};
  loop['self'] = loop;
  const deep = Array.from({ length: 50 }).reduce<object>((inner) => ({ inner }), {});
  const wide = Object.fromEntries(Array.from({ length: 10_000 }, (_, i) => [`f${i}`, i]));
  for (const value of [loop, deep, wide, 'word '.repeat(100_000), Array.from({ length: 100_000 }, () => 'x')]) {
    log.info({ value }, 'a line');
    assert.ok((lines.at(-1) ?? '').length < 20_000);
  }
});
