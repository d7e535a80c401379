// The fault run in short, and the proof that its checker sees what it is there to see.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { describe, test } from 'node:test';
import { type Accepted, type Delivered, type HashChain, type History, violations } from './history.ts';
import { killAgainAndAgain } from './kill-again-and-again.ts';

test('a server killed again and again under load keeps every promise (THREATS 11, 15, 32)', async () => {
  const seed = process.env['SEED'] ?? String(Date.now() % 1_000_000);
  const lines: string[] = [];
  const say = (line: string): void => void lines.push(line);
  // People with the real client survive it in server-restart.test.ts, and here in the long run.
  const { violations: broken, counts } = await killAgainAndAgain({ kills: 2, seed, people: false, say });
  assert.deepEqual(broken, [], `npm run fault -- --kills 2 --seed ${seed}\n${lines.join('\n')}`);
  for (const name of ['envelopes delivered', 'commits accepted', 'KeyPackages handed out', 'answers lost']) {
    assert.ok((counts[name] ?? 0) > 0, `${name}: nothing was tried (seed ${seed})`);
  }
});

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');
const CHAIN: HashChain = {
  genesis: (channel) => sha256(channel),
  next: (previous, position, payloadHash) => sha256(`${previous} ${position} ${payloadHash}`),
};

const hashOf = (messageId: string): string => sha256(`payload of ${messageId}`);
const row = (seq: number, messageId: string, rest: Partial<Delivered> = {}): Delivered => ({
  inbox: 'bob',
  reading: 1,
  seq,
  messageId,
  payloadHash: hashOf(messageId),
  ...rest,
});
const promised = (seq: number, messageId: string) => ({
  sender: 'alice',
  inbox: 'bob',
  messageId,
  payloadHash: hashOf(messageId),
  seq,
});
const LOG: readonly Accepted[] = ['c1', 'c2', 'c3'].reduce<Accepted[]>((log, messageId, at) => {
  const position = at + 1;
  const payloadHash = hashOf(messageId);
  const logHash = CHAIN.next(log.at(-1)?.logHash ?? CHAIN.genesis('team'), position, payloadHash);
  return [...log, { channel: 'team', messageId, payloadHash, position, logHash }];
}, []);
const entryRow = (seq: number, { messageId, position, logHash }: Accepted): Delivered =>
  row(seq, messageId, { channel: 'team', entry: { position, logHash } });

/** Two messages and three commits, all promised and all there; a KeyPackage taken; a ban lifted. */
const GOOD: History = {
  promised: [promised(1, 'm1'), promised(2, 'm2'), promised(3, 'c1'), promised(4, 'c2'), promised(5, 'c3')],
  sent: new Map(['m1', 'm2', 'c1', 'c2', 'c3', 'unanswered'].map((id) => [id, hashOf(id)])),
  delivered: [
    row(1, 'm1'),
    row(2, 'm2'),
    ...LOG.map((entry, at) => entryRow(3 + at, entry)),
    // After a kill: the same once more, and something that was stored without an answer.
    row(2, 'm2', { reading: 2 }),
    row(6, 'unanswered', { reading: 2 }),
  ],
  accepted: LOG,
  keyPackages: {
    uploaded: ['k1', 'k2'],
    offered: ['k1', 'k2', 'k3'],
    handedOut: [
      { keyPackage: 'k1', to: 'bob' },
      { keyPackage: 'k3', to: 'carol' },
    ],
    lostFetches: 1,
    emptied: true,
  },
  registers: [
    {
      name: 'ban',
      operations: [
        { kind: 'read', value: 'none' },
        { kind: 'write', value: 'banned', answered: true },
        { kind: 'read', value: 'banned' },
        { kind: 'write', value: 'none', answered: false },
        { kind: 'read', value: 'none' },
      ],
    },
  ],
  observations: [],
};

describe('the checker of histories', () => {
  test('finds nothing wrong with what the protocol allows', () => {
    assert.deepEqual(violations(GOOD, CHAIN), []);
  });

  const [first, second, third] = LOG;
  assert.ok(first !== undefined && second !== undefined && third !== undefined);
  const CASES: readonly [name: string, broken: Partial<History>, expected: RegExp][] = [
    ['a lost envelope', { delivered: GOOD.delivered.slice(1) }, /acknowledged and lost: message m1/],
    ['a hole', { delivered: GOOD.delivered.filter(({ seq }) => seq !== 2) }, /inbox bob has no seq 2 of 6/],
    [
      'one message at two places',
      { delivered: [...GOOD.delivered, row(7, 'm1', { reading: 3 })] },
      /m1 is in .* twice/,
    ],
    [
      'another message at the same place',
      { delivered: [...GOOD.delivered, row(1, 'm2', { reading: 3 })] },
      /seq 1 held message m1 and then m2/,
    ],
    [
      'other bytes than were sent',
      { delivered: GOOD.delivered.map((each) => (each.seq === 1 ? { ...each, payloadHash: hashOf('x') } : each)) },
      /nobody sent message m1 with these bytes/,
    ],
    ['a repeat in one reading', { delivered: [row(1, 'm1'), ...GOOD.delivered] }, /seq 1 came after seq 1/],
    ['what nobody sent', { delivered: [...GOOD.delivered, row(7, 'forged')] }, /nobody sent message forged/],
    ['a worthless receipt', { promised: [{ ...promised(1, 'm1'), badReceipt: 'forged' }] }, /receipt of message m1/],
    ['two answers', { promised: [...GOOD.promised, promised(6, 'm1')] }, /m1 was answered with seq 1 and then 6/],
    [
      'a sender overtaken by itself',
      { promised: [promised(2, 'm2'), promised(1, 'm1')] },
      /alice sent m2 and then m1: seq 2 and 1/,
    ],
    [
      'two commits at one position',
      { accepted: [...LOG, { ...third, messageId: 'other', position: 2 }] },
      /position 2 is commit c2 and commit other/,
    ],
    [
      'one commit at two positions',
      { accepted: [...LOG, { ...third, messageId: 'c1', position: 4 }] },
      /commit c1 has positions 1 and 4/,
    ],
    [
      'a log that was forgotten and begun anew',
      {
        accepted: [first, second],
        delivered: [
          ...GOOD.delivered.slice(0, 4),
          entryRow(5, { ...third, logHash: CHAIN.next(first.logHash, 3, '') }),
        ],
      },
      /log hash at position 3 does not follow/,
    ],
    [
      'a position that nobody has',
      { accepted: [first, third], delivered: GOOD.delivered.filter(({ messageId }) => messageId !== 'c2') },
      /has a head of 3 and no position 2/,
    ],
    [
      'a commit delivered as a mere message',
      { delivered: GOOD.delivered.map((each) => (each.seq === 3 ? row(3, 'c1') : each)) },
      /commit c1 was accepted at 1 and is not that entry in inbox bob/,
    ],
    [
      'a KeyPackage twice',
      {
        keyPackages: {
          ...GOOD.keyPackages,
          handedOut: [...GOOD.keyPackages.handedOut, { keyPackage: 'k1', to: 'eve' }],
        },
      },
      /k1 was handed out twice: to bob and to eve/,
    ],
    [
      'a KeyPackage of nobody',
      { keyPackages: { ...GOOD.keyPackages, handedOut: [{ keyPackage: 'forged', to: 'eve' }] } },
      /forged, handed out to eve, was never uploaded/,
    ],
    [
      'KeyPackages that vanished',
      { keyPackages: { ...GOOD.keyPackages, lostFetches: 0 } },
      /1 acknowledged KeyPackages were never handed out/,
    ],
    [
      'a ban that was forgotten',
      {
        registers: [
          {
            name: 'ban',
            operations: [
              { kind: 'write', value: 'banned', answered: true },
              { kind: 'read', value: 'none' },
            ],
          },
        ],
      },
      /ban: expected banned, found none/,
    ],
    [
      'a state that goes back without a write',
      {
        registers: [
          {
            name: 'ban',
            operations: [
              { kind: 'write', value: 'none', answered: true },
              { kind: 'write', value: 'banned', answered: false },
              { kind: 'read', value: 'banned' },
              { kind: 'read', value: 'none' },
            ],
          },
        ],
      },
      /ban: expected banned, found none/,
    ],
    ['what the load itself saw', { observations: ['something else'] }, /something else/],
  ];
  for (const [name, broken, expected] of CASES) {
    test(`sees ${name}`, () => {
      const found = violations({ ...GOOD, ...broken }, CHAIN);
      assert.ok(
        found.some((line) => expected.test(line)),
        found.join('\n') || 'it found nothing',
      );
    });
  }
});
