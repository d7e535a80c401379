import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { PassThrough } from 'node:stream';
import { after, test } from 'node:test';
import { CliError } from './errors.ts';
import { LineReader } from './line-reader.ts';
import { Output } from './output.ts';
import { PasswordReader, takeSecrets, type PasswordSource } from './secrets.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'qpc-secrets-'));
after(() => rmSync(folder, { recursive: true }));

const nothing: PasswordSource = {
  flag: '--password',
  value: undefined,
  fromStdin: false,
  file: undefined,
  environment: undefined,
};
const isUsage = (error: unknown): boolean => error instanceof CliError && error.exitCode === 2;

function reader(stdin = ''): { passwords: PasswordReader; warnings: string[] } {
  const warnings: string[] = [];
  const input = new PassThrough();
  input.end(stdin);
  const out = new Output({
    stdout: { write: () => {} },
    stderr: { write: (text) => warnings.push(text) },
    json: true,
    color: false,
  });
  return { passwords: new PasswordReader(out, new LineReader(input), new AbortController().signal), warnings };
}

test('secrets leave the environment before anything else can inherit them', () => {
  const env: Record<string, string | undefined> = { QPC_PASSWORD: 'a', QPC_STATE_PASSWORD: 'b', QPC_SERVER: 'c' };
  assert.deepEqual(takeSecrets(env), { password: 'a', statePassword: 'b' });
  assert.deepEqual(env, { QPC_SERVER: 'c' });
});

test('the first given counts: pipe or file, flag, environment', async () => {
  const file = path.join(folder, 'password');
  writeFileSync(file, 'from file\nsecond line\n');
  const all = { ...nothing, value: 'from flag', environment: 'from environment' };
  assert.equal(await reader('from pipe\n').passwords.given({ ...all, fromStdin: true }), 'from pipe');
  assert.equal(await reader().passwords.given({ ...all, file }), 'from file');
  assert.equal(await reader().passwords.given(all), 'from flag');
  assert.equal(await reader().passwords.given({ ...all, value: undefined }), 'from environment');
  assert.equal(await reader().passwords.given(nothing), undefined);
});

test('a password on the command line warns, once', async () => {
  const { passwords, warnings } = reader();
  const source = { ...nothing, value: 'visible' };
  await passwords.given(source);
  await passwords.given(source);
  assert.equal(warnings.length, 1);
  assert.match(warnings[0] ?? '', /--password is visible/u);
  assert.ok(!warnings[0]?.includes('"visible"'));
});

test("the account's and the profile's password are different lines of one pipe, each read once", async () => {
  const { passwords } = reader('account\nprofile\n');
  const account = { ...nothing, fromStdin: true };
  const profile = { ...nothing, flag: '--state-password', fromStdin: true };
  assert.equal(await passwords.given(account), 'account');
  assert.equal(await passwords.given(profile), 'profile');
  assert.equal(await passwords.given(account), 'account');
});

test('blanks belong to a password, the line break does not', async () => {
  const file = path.join(folder, 'blanks');
  writeFileSync(file, '  two blanks  \r\n');
  assert.equal(await reader().passwords.given({ ...nothing, file }), '  two blanks  ');
});

test('what cannot be a password is refused with a next step', async () => {
  const empty = path.join(folder, 'empty');
  const huge = path.join(folder, 'huge');
  writeFileSync(empty, '\n');
  writeFileSync(huge, 'x'.repeat(5000));
  for (const source of [
    { ...nothing, fromStdin: true },
    { ...nothing, fromStdin: true, file: empty },
    { ...nothing, file: empty },
    { ...nothing, file: huge },
    { ...nothing, file: path.join(folder, 'absent') },
    { ...nothing, file: folder },
    { ...nothing, value: '' },
  ]) {
    await assert.rejects(reader().passwords.given(source), isUsage);
  }
});
