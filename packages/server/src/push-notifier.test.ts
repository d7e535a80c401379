// Who is away is knocked at, whatever the places are like that others want to be knocked at.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ManualClock } from '../../transport/src/testing/manual-clock.ts';
import { PushWakeUps } from './push-notifier.ts';
import type { PushNotifier } from './push-notifier.ts';
import type { Address } from './store/store.ts';
import { TestLog } from './testing/world.node.ts';

/** The n-th device of somebody; its token is its name. */
const deviceOf = (name: string, n: number): Address => ({
  identityKey: new Uint8Array(32).fill(name.charCodeAt(0)),
  deviceId: new Uint8Array(16).fill(n),
});
const tokenOf = ({ identityKey, deviceId }: Address): string =>
  `${String.fromCharCode(identityKey[0] ?? 0)}${deviceId[0]}`;

/** Tokens that begin with `t` lead to a tarpit: it takes a connection and never answers, until the test says so. */
class Places implements PushNotifier {
  readonly knocks: string[] = [];
  readonly #held: (() => void)[] = [];
  #woken: (() => void)[] = [];

  objectionTo(): undefined {
    return undefined;
  }
  async notify(token: string): Promise<'sent' | 'failed'> {
    this.knocks.push(token);
    for (const wake of this.#woken.splice(0)) wake();
    if (!token.startsWith('t')) return 'sent';
    await new Promise<void>((resolve) => this.#held.push(resolve));
    return 'failed';
  }
  async until(count: number): Promise<void> {
    while (this.knocks.length < count) await new Promise<void>((resolve) => this.#woken.push(resolve));
  }
  giveUp(): void {
    for (const resolve of this.#held.splice(0)) resolve();
  }
}

function setUp(): { readonly places: Places; readonly clock: ManualClock; readonly wakeUps: PushWakeUps } {
  const places = new Places();
  const clock = new ManualClock();
  const store = {
    findPushTokens: (addresses: readonly Address[]) =>
      Promise.resolve(addresses.map((address) => ({ address, kind: 'test', token: tokenOf(address) }))),
    dropPushToken: () => Promise.resolve(),
  };
  const notifiers = new Map([['test', places]]);
  return { places, clock, wakeUps: new PushWakeUps({ store, clock, log: new TestLog(), notifiers }) };
}

test('THREATS 24: places that take a knock and never answer hold up nobody else’s', async () => {
  const { places, wakeUps } = setUp();
  for (let n = 0; n < 100; n++) wakeUps.knock(deviceOf('t', n));
  wakeUps.knock(deviceOf('a', 0));
  await places.until(101);
  // Nor those that come while these are waited for.
  wakeUps.knock(deviceOf('b', 0));
  await places.until(102);
  assert.deepEqual(places.knocks.slice(-2), ['a0', 'b0']);
});

test('THREATS 27: so many at once; the others wait their turn, and none is left out', async () => {
  const { places, wakeUps } = setUp();
  for (let n = 0; n < 200; n++) wakeUps.knock(deviceOf('t', n));
  await places.until(128);
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(places.knocks.length, 128);
  places.giveUp();
  await places.until(200);
  assert.equal(new Set(places.knocks).size, 200);
});

test('a place that failed is left alone for longer, also by a device that comes and goes', async () => {
  const { places, clock, wakeUps } = setUp();
  const [tarpit, good] = [deviceOf('t', 1), deviceOf('a', 1)];
  const both = (): void => [tarpit, good].forEach((address) => wakeUps.knock(address));
  both();
  await places.until(2);
  places.giveUp();
  await new Promise((resolve) => setImmediate(resolve));
  wakeUps.forget(tarpit);
  wakeUps.forget(good);
  both();
  await places.until(3);
  clock.advance(119_000);
  both();
  await places.until(4);
  assert.deepEqual(places.knocks.slice(2), ['a1', 'a1']);
  clock.advance(1_001);
  both();
  await places.until(5);
  assert.equal(places.knocks[4], 't1');
});
