// `qpc group invite` while the server limits how often people are looked up. That it goes on in the end is shown, with
// shorter times than a configuration allows, in tests/invite-waits.test.ts.
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { type Person, World } from './world.ts';

/** Four look-ups at once, then one in some four minutes. */
const world = new World(['--rates-resolves', '14', '--metrics-listen', 'off']);
const NOBODY = Array.from({ length: 5 }, (_, i) => `nobody${i}`);
const INVITE = ['group', 'invite', 'team', ...NOBODY];
let alice: Person;

before(async () => {
  await world.startServer();
  [alice] = await world.people('alice');
  await alice.result(['group', 'create', 'team']);
});

test('it says that it waits, how long and why; Ctrl+C ends it', async () => {
  const inviting = alice.start(INVITE);
  const waiting = await inviting.event('a wait', ({ type }) => type === 'waiting');
  assert.ok(Number(waiting['ms']) > 60_000 && Number(waiting['ms']) <= 300_000, String(waiting['ms']));
  assert.match(String(waiting['reason']), /too many look-ups/u);
  inviting.kill('SIGINT');
  assert.equal((await inviting.failure()).exitCode, 130);

  const screen = world.terminal(alice, [...world.connection, ...INVITE]);
  await screen.shows('s, the server limits this: too many look-ups');
});
