// The operator and the people: a report that only the operator reads, a ban that is felt at once and said why, a
// certificate replaced under a running conversation, and a server that comes back from its backup.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import type { ClientEvent } from '@quicprochat/client/node';
import { findRunning, readReport, readReportPrivateKey, writeReportKeyFiles } from '@quicprochat/server';
import { makeTestCertificate } from '../packages/server/src/testing/certificates.node.ts';
import { World } from './world.ts';

async function operatorOf(world: World) {
  const operator = await findRunning({ dataDir: world.dataDir });
  assert.ok(operator !== undefined);
  return operator;
}

test('a report reaches the operator, and a ban whom it was about', async () => {
  await using world = await World.start();
  const [alice, mallory] = await world.people('alice', 'mallory');
  const operator = await operatorOf(world);
  const chat = await mallory.client.openDirect('alice');
  for (const text of ['umbrella?', 'cheap umbrellas!', 'last offer']) await mallory.client.send(chat.id, text);
  await alice.joined('mallory');
  await alice.sees('mallory', ['umbrella?', 'cheap umbrellas!', 'last offer']);
  const received = await alice.client.history(chat.id);
  const ids = received.slice(1).map((message) => message.localId);

  await assert.rejects(alice.client.report(ids, 'sells umbrellas'), { kind: 'refused', code: 'no-report-key' });
  const file = path.join(world.folder, 'report-key');
  const { publicKey } = writeReportKeyFiles(file);
  await operator.call('setReportKey', { publicKey, replace: false });
  await assert.rejects(alice.client.report([], ''), { code: 'invalid-argument' });
  await assert.rejects(alice.client.report([999], ''), { code: 'invalid-argument' });
  await assert.rejects(alice.client.report(ids, 'x'.repeat(2_001)), { code: 'invalid-argument' });
  await alice.client.send(chat.id, 'go away');
  const own = (await alice.client.history(chat.id)).at(-1)!.localId;
  await assert.rejects(alice.client.report([own], ''), { code: 'invalid-argument' });
  await alice.client.report(ids.toReversed(), 'sells umbrellas');

  const [sealed, ...more] = await operator.call('reports', { afterId: 0 });
  assert.ok(sealed !== undefined && more.length === 0);
  const bytes = Buffer.from(sealed.report, 'base64url');
  for (const text of ['umbrella', 'alice', 'mallory']) assert.equal(bytes.includes(text), false, text);
  const { origin } = await operator.call('about', {});
  const accountOf = (account: string) => operator.call('account', { account });
  const read = await readReport(sealed, origin, readReportPrivateKey(file), accountOf);
  assert.ok(read.kind === 'read');
  assert.deepEqual(
    [read.report.reporter.username, read.report.signature, read.report.reason],
    ['alice', 'valid', 'sells umbrellas'],
  );
  assert.deepEqual(
    read.report.messages.map(({ sender, text }) => [sender, text]),
    [
      ['mallory', 'cheap umbrellas!'],
      ['mallory', 'last offer'],
    ],
  );

  await operator.call('ban', { account: 'mallory', reason: 'sells umbrellas', durationSecs: 3_600 });
  await mallory.until('hearing why', () =>
    mallory.events.some((event) => event.type === 'warning' && /is banned: sells umbrellas\..*until/.test(event.text)),
  );
  await mallory.client.send(chat.id, 'again');
  await assert.rejects(mallory.client.flush(), { code: 'session-refused' });
  await operator.call('unban', { account: 'mallory' });
  await mallory.client.login('mallory', mallory.password);
  await mallory.client.flush();
  await alice.sees('mallory', ['umbrella?', 'cheap umbrellas!', 'last offer', 'go away', 'again']);
});

test('a certificate is replaced under a conversation: everybody comes back, each message arrives once, in order', async () => {
  await using world = await World.start();
  const [alice, bob] = await world.people('alice', 'bob');
  const { id } = await alice.client.openDirect('bob');
  await bob.joined('alice');
  for (const one of [alice, bob]) await one.client.connect({ keepTrying: true });
  const said = Array.from({ length: 40 }, (_, n) => `message ${n}`);
  for (const text of said.slice(0, 20)) await alice.client.send(id, text);
  await bob.until('some arrived', async () => (await bob.texts('alice')).length > 5);
  const { certificate, privateKey } = await makeTestCertificate(['localhost']);
  writeFileSync(path.join(world.dataDir, 'cert.pem'), certificate);
  writeFileSync(path.join(world.dataDir, 'key.pem'), privateKey);
  const operator = await operatorOf(world);
  const replacing = operator.call('reloadCertificate', {});
  for (const text of said.slice(20)) await alice.client.send(id, text);
  assert.equal((await replacing).kind, 'replaced');
  await bob.sees('alice', said, 30_000);
  await alice.client.flush({ timeoutMs: 30_000 });
  assert.ok(
    bob.events.some((event) => event.type === 'connection' && event.state === 'offline'),
    'he was away in between',
  );
  assert.equal(bob.events.filter(({ type }) => type === 'gap').length, 0);
});

test('a backup made while people talk, restored: they come back to it and go on', async () => {
  await using world = await World.start();
  const [alice, bob] = await world.people('alice', 'bob');
  const { id } = await alice.client.openDirect('bob');
  await alice.client.send(id, 'before');
  await bob.joined('alice');
  await bob.sees('alice', ['before']);
  const backup = await world.backUp();
  for (const one of [alice, bob]) await one.client.connect({ keepTrying: true });
  const report = await world.putBack(backup);
  assert.deepEqual([report.accounts, report.secretsMissing], [2, []]);
  await bob.client.send(id, 'after');
  await alice.sees('bob', ['before', 'after'], 30_000);
  await bob.client.logout();
  await bob.client.login('bob', bob.password);
});

test('restored from before what somebody has read since: what comes next is told of, and none of it is lost', async () => {
  await using world = await World.start();
  const [alice, bob] = await world.people('alice', 'bob');
  const { id } = await alice.client.openDirect('bob');
  await alice.client.send(id, 'one');
  await bob.joined('alice');
  await bob.sees('alice', ['one']);
  const backup = await world.backUp();
  await alice.client.send(id, 'two');
  await bob.sees('alice', ['one', 'two']);
  await bob.close();
  await alice.client.connect({ keepTrying: true });
  await world.putBack(backup);
  // Takes the position in his inbox that "two" had, if the server counts on from the backup.
  await alice.until('alice to be back', () => alice.client.connection === 'online', 30_000);
  await alice.client.send(id, 'three');
  await alice.client.flush({ timeoutMs: 30_000 });
  await bob.open();
  await bob.client.connect();
  await bob.sees('alice', ['one', 'two', 'three']);
  const told = (event: ClientEvent): boolean => event.type === 'gap' && /put back/.test(JSON.stringify(event));
  for (const one of [alice, bob]) await one.until('hearing that something may be missing', () => one.events.some(told));
});

test('restored from before a group’s last change: another change is refused at once, and messages go on', async () => {
  await using world = await World.start();
  const [alice, bob] = await world.people('alice', 'bob');
  const { id } = await alice.client.createGroup('harbour');
  await alice.client.invite(id, ['bob']);
  await bob.joined('harbour');
  const backup = await world.backUp();
  await alice.client.setAdmin(id, 'bob', true);
  await bob.until('being an administrator', () => bob.events.some((event) => event.type === 'admin-changed'));
  for (const one of [alice, bob]) await one.client.connect({ keepTrying: true });
  await world.putBack(backup);
  for (const one of [alice, bob]) {
    await one.until(`${one.name} to be back`, () => one.client.connection === 'online', 30_000);
  }
  await assert.rejects(bob.client.setAdmin(id, 'alice', false), { kind: 'refused', code: 'log-went-back' });
  await alice.client.send(id, 'still here');
  await bob.sees('harbour', ['still here']);
});

test('THREATS 15: what a restored server might hand out a second time, it does not hand out', async () => {
  await using world = await World.start();
  const [alice, bob] = await world.people('alice', 'bob');
  await alice.client.resolve('bob');
  const backup = await world.backUp();
  const first = await alice.client.createGroup('before');
  await alice.client.invite(first.id, ['bob']);
  await bob.joined('before');
  await bob.close();
  await alice.client.connect({ keepTrying: true });
  await world.putBack(backup);
  await alice.until('alice to be back', () => alice.client.connection === 'online', 30_000);
  // While he is away, so with a KeyPackage that the backup has.
  const second = await alice.client.createGroup('after');
  await alice.client.invite(second.id, ['bob']);
  await bob.open();
  await bob.client.connect();
  await bob.joined('after');
});
