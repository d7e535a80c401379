/**
 * A second implementation: ts-mls 1.6.4 and ours in one group, in all suites that both have. KeyPackages, Welcomes,
 * proposals, commits and messages cross both ways, ours with GREASE and suites that ts-mls does not know; after every
 * epoch all members have one epoch authenticator. Where ts-mls has a fault, the test that meets it says so.
 * It has none of our post-quantum suites: its own with X-Wing hash with SHA-512.
 */
import assert from 'node:assert/strict';
import { suite as describe, test } from 'node:test';
import { encodeUtf8 } from '@quicprochat/crypto';
import { nodeCrypto } from '@quicprochat/crypto/node';
import * as mls from '@quicprochat/mls';
import { Peer, type PeerChange, peerPsk } from '../../bench/ts-mls-interop.ts';

type Suite = Awaited<ReturnType<typeof Peer.suite>>;
type SuiteName = Parameters<typeof Peer.suite>[0];

const SUITE: SuiteName = 'MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519';

const context: mls.MlsContext = {
  crypto: nodeCrypto,
  random: nodeCrypto.random,
  now: Math.floor(Date.now() / 1000),
  hooks: { externalJoin: () => ({ kind: 'accept' }), externalPsk: peerPsk },
};

/** Their members come to another group under another name. */
const sameClients: mls.MlsContext = { ...context, hooks: { ...context.hooks, sameClient: () => true } };

/** A member of either kind, as the test sees it. */
interface Someone {
  readonly kind: 'ours' | 'theirs';
  readonly name: string;
  authenticator(): Uint8Array;
  send(text: string): Promise<Uint8Array>;
  /** The text of a message; undefined for a handshake. */
  receive(message: Uint8Array): Promise<string | undefined>;
  propose(change: PeerChange, inPublic: boolean): Promise<Uint8Array>;
  commit(
    changes: readonly PeerChange[],
    inPublic: boolean,
  ): Promise<{ commit: Uint8Array; welcome: Uint8Array | undefined }>;
}

/** Someone who has published a KeyPackage. */
interface Candidate {
  readonly keyPackage: Uint8Array;
  join(welcome: Uint8Array): Promise<Someone>;
}

class Ours implements Someone {
  readonly kind = 'ours';
  readonly name: string;
  state: mls.GroupState;

  constructor(name: string, state: mls.GroupState) {
    this.name = name;
    this.state = state;
  }

  authenticator(): Uint8Array {
    return mls.epochAuthenticator(this.state);
  }

  async send(text: string): Promise<Uint8Array> {
    const { state, message } = mls.protectApplication(context, this.state, encodeUtf8(text), { paddingLength: 9 });
    this.state = state;
    return message;
  }

  async receive(message: Uint8Array): Promise<string | undefined> {
    const outcome = mls.processMessage(context, this.state, message);
    if (outcome.kind === 'rejected') throw new Error(`${this.name}: ${outcome.reason}`);
    this.state = outcome.state;
    return outcome.kind === 'application' ? Buffer.from(outcome.data).toString() : undefined;
  }

  async propose(change: PeerChange, inPublic: boolean): Promise<Uint8Array> {
    const outcome = mls.createProposal(context, this.state, inputOf(change), { wireFormat: wireFormat(inPublic) });
    if (outcome.kind === 'rejected') throw new Error(outcome.reason);
    this.state = outcome.state;
    return outcome.message;
  }

  async commit(changes: readonly PeerChange[], inPublic: boolean) {
    const outcome = mls.createCommit(context, this.state, {
      proposals: changes.map(inputOf),
      wireFormat: wireFormat(inPublic),
    });
    if (outcome.kind === 'rejected') throw new Error(outcome.reason);
    this.state = mls.mergePendingCommit(context, outcome.state, outcome.pending);
    return outcome;
  }
}

class Theirs implements Someone {
  readonly kind = 'theirs';
  readonly name: string;
  readonly peer: Peer;

  constructor(name: string, peer: Peer) {
    this.name = name;
    this.peer = peer;
  }

  authenticator(): Uint8Array {
    return this.peer.epochAuthenticator;
  }

  send(text: string): Promise<Uint8Array> {
    return this.peer.send(encodeUtf8(text));
  }

  async receive(message: Uint8Array): Promise<string | undefined> {
    const data = await this.peer.receive(message);
    return data && Buffer.from(data).toString();
  }

  propose(change: PeerChange, inPublic: boolean): Promise<Uint8Array> {
    return this.peer.propose(change, inPublic);
  }

  commit(changes: readonly PeerChange[], inPublic: boolean) {
    return this.peer.commit(changes, inPublic);
  }
}

const wireFormat = (inPublic: boolean) => (inPublic ? 'public' : 'private');

function inputOf(change: PeerChange): Exclude<mls.ProposalInput, { kind: 'update' }> {
  if (change.kind === 'remove') return { kind: 'remove', removed: change.removed as mls.LeafIndex };
  if (change.kind === 'psk') return { kind: 'externalPsk', pskId: change.pskId };
  const checked = mls.verifyKeyPackage(context, change.keyPackage);
  if (checked.kind === 'rejected') throw new Error(checked.reason);
  return { kind: 'add', keyPackage: checked.keyPackage };
}

function ourKeys(cipherSuite: number, name: string) {
  const signatureKeyPair = mls.generateSignatureKeyPair(context, cipherSuite);
  return {
    cipherSuite,
    credential: { credentialType: 1 as const, identity: encodeUtf8(name) },
    signatureKeyPair,
    grease: true,
  };
}

async function candidate(
  kind: Someone['kind'],
  [id, suite]: readonly [number, Suite],
  name: string,
): Promise<Candidate> {
  if (kind === 'theirs') {
    const keys = await Peer.keys(suite, name);
    return { keyPackage: keys.bytes, join: async (welcome) => new Theirs(name, await Peer.join(suite, welcome, keys)) };
  }
  const bundle = mls.generateKeyPackage(context, ourKeys(id, name));
  return {
    keyPackage: bundle.keyPackage,
    async join(welcome) {
      const outcome = mls.joinGroup(context, { welcome, keyPackage: bundle });
      if (outcome.kind === 'rejected') throw new Error(`${name}: ${outcome.reason}`);
      return new Ours(name, outcome.state);
    },
  };
}

async function founder(kind: Someone['kind'], [id, suite]: readonly [number, Suite], name: string): Promise<Someone> {
  const groupId = nodeCrypto.random(16);
  if (kind === 'ours') return new Ours(name, mls.createGroup(context, { groupId, ...ourKeys(id, name) }));
  return new Theirs(name, await Peer.create(suite, groupId, await Peer.keys(suite, name)));
}

/** Members by leaf index; undefined is a blank leaf. */
class Group {
  readonly members: (Someone | undefined)[];

  constructor(members: readonly Someone[]) {
    this.members = [...members];
  }

  /** `kinds[0]` founds the group and adds the others in one commit. */
  static async of(suite: readonly [number, Suite], kinds: readonly Someone['kind'][]): Promise<Group> {
    const first = await founder(kinds[0]!, suite, 'member 0');
    const others = await Promise.all(kinds.slice(1).map((kind, i) => candidate(kind, suite, `member ${i + 1}`)));
    const { welcome } = await first.commit(
      others.map(({ keyPackage }) => ({ kind: 'add', keyPackage })),
      false,
    );
    assert.ok(welcome);
    const group = new Group([first, ...(await Promise.all(others.map((each) => each.join(welcome))))]);
    group.assertAgree();
    return group;
  }

  get present(): Someone[] {
    return this.members.filter((each) => each !== undefined);
  }

  at(leaf: number): Someone {
    return this.members[leaf] ?? assert.fail(`leaf ${leaf} is blank`);
  }

  assertAgree(): void {
    const [first, ...others] = this.present;
    for (const each of others) assert.deepEqual(each.authenticator(), first!.authenticator(), each.name);
  }

  async deliver(from: Someone, message: Uint8Array): Promise<(string | undefined)[]> {
    return Promise.all(this.present.filter((each) => each !== from).map((each) => each.receive(message)));
  }

  async talk(leaf: number): Promise<void> {
    const from = this.at(leaf);
    const text = `hello from ${from.name}`;
    for (const heard of await this.deliver(from, await from.send(text))) assert.equal(heard, text);
  }

  /** Commits, and everyone who stays processes it. */
  async commit(leaf: number, changes: readonly PeerChange[], inPublic = false, joiner?: Candidate): Promise<void> {
    const from = this.at(leaf);
    const { commit, welcome } = await from.commit(changes, inPublic);
    for (const change of changes) if (change.kind === 'remove') this.members[change.removed] = undefined;
    await this.deliver(from, commit);
    if (joiner !== undefined) {
      const blank = this.members.indexOf(undefined);
      this.members[blank < 0 ? this.members.length : blank] = await joiner.join(welcome!);
    }
    this.assertAgree();
  }
}

describe('ts-mls and ours in groups of two', () => {
  for (const [first, second] of [
    ['ours', 'theirs'],
    ['theirs', 'ours'],
  ] as const) {
    test(`founded by ${first}: invitation, messages, commits both ways, in public and private`, async () => {
      const group = await Group.of([1, await Peer.suite(SUITE)], [first, second]);
      for (const inPublic of [false, true]) {
        for (const leaf of [0, 1]) {
          await group.talk(leaf);
          await group.commit(leaf, [], inPublic);
          await group.talk(1 - leaf);
        }
      }
    });
  }
});

describe('ts-mls and ours in larger groups', () => {
  const kinds = (count: number, first: Someone['kind']): Someone['kind'][] =>
    Array.from({ length: count }, (_, i) => ((i % 2 === 0) === (first === 'ours') ? 'ours' : 'theirs'));

  for (const [count, first] of [
    [3, 'ours'],
    [3, 'theirs'],
    [5, 'ours'],
    [8, 'theirs'],
    [20, 'ours'],
  ] as const) {
    test(`${count} members, founded by ${first}: everyone commits, some are removed and added`, async () => {
      const suite = [1, await Peer.suite(SUITE)] as const;
      const group = await Group.of(suite, kinds(count, first));
      for (let leaf = 0; leaf < count; leaf++) {
        await group.commit(leaf, [], leaf % 3 === 0);
        if (leaf % 4 === 0) await group.talk(leaf);
      }
      // Each kind removes one of the other, by value.
      await group.commit(0, [{ kind: 'remove', removed: 1 }]);
      await group.talk(count - 1);
      if (count > 3) {
        await group.commit(3, [{ kind: 'remove', removed: 2 }], true);
        await group.talk(0);
      }
      // Each kind adds one of the other, where a leaf is free.
      const ours = await candidate('ours', suite, 'new, ours');
      await group.commit(count - 1, [{ kind: 'add', keyPackage: ours.keyPackage }], false, ours);
      await group.talk(1);
      await group.commit(1, []);
      await group.talk(0);
    });
  }

  test('pre-shared keys, also in the Welcome of whom the same commit adds', async () => {
    const suite = [1, await Peer.suite(SUITE)] as const;
    const group = await Group.of(suite, ['ours', 'theirs']);
    for (const [leaf, kind] of [
      [0, 'theirs'],
      [1, 'ours'],
    ] as const) {
      const joiner = await candidate(kind, suite, `joins with a PSK, ${kind}`);
      const add = { kind: 'add', keyPackage: joiner.keyPackage } as const;
      await group.commit(leaf, [add, { kind: 'psk', pskId: encodeUtf8(`${leaf}`) }], false, joiner);
      await group.talk(leaf);
    }
  });

  test('proposals by reference, made by either and committed by the other', async () => {
    const suite = [1, await Peer.suite(SUITE)] as const;
    const group = await Group.of(suite, ['ours', 'theirs', 'ours', 'theirs', 'ours']);
    for (const [proposer, committer, removed, inPublic] of [
      [0, 1, 2, true],
      [1, 0, 3, false],
    ] as const) {
      await group.deliver(group.at(proposer), await group.at(proposer).propose({ kind: 'remove', removed }, inPublic));
      const { commit } = await group.at(committer).commit([], false);
      group.members[removed] = undefined;
      await group.deliver(group.at(committer), commit);
      group.assertAgree();
      await group.talk(proposer);
    }
  });
});

describe('ts-mls and ours in the other suites that both have', () => {
  for (const [id, name] of [
    [0x0002, 'MLS_128_DHKEMP256_AES128GCM_SHA256_P256'],
    [0x0003, 'MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519'],
    [0x0005, 'MLS_256_DHKEMP521_AES256GCM_SHA512_P521'],
    [0x0007, 'MLS_256_DHKEMP384_AES256GCM_SHA384_P384'],
  ] as const) {
    test(name, async () => {
      // With the fault in its ECDSA keys, which the tests of limits show, mended.
      const suite = [id, await (id === 0x0003 ? Peer.suite(name) : Peer.suiteOverNistCurve(name))] as const;
      const both = [
        ['ours', 'theirs', 'ours'],
        ['theirs', 'ours', 'theirs'],
      ] as const;
      // Curves over large fields are slow in ts-mls.
      for (const kinds of id < 0x0005 ? both : both.slice(1)) {
        const group = await Group.of(suite, kinds);
        for (const leaf of [0, 1, 2]) {
          await group.commit(leaf, [], leaf === 1);
          await group.talk(leaf);
        }
        await group.commit(1, [{ kind: 'remove', removed: 2 }]);
        const joiner = await candidate(kinds[2], suite, 'joiner');
        await group.commit(1, [{ kind: 'add', keyPackage: joiner.keyPackage }], false, joiner);
        await group.talk(2);
      }
    });
  }
});

describe('ts-mls and ours go on in another group', () => {
  const OTHER: SuiteName = 'MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519';

  async function pair(): Promise<{ group: Group; ours: Ours; theirs: Theirs; suite: Suite }> {
    const suite = await Peer.suite(SUITE);
    const group = await Group.of([1, suite], ['ours', 'theirs']);
    const [ours, theirs] = [group.at(0), group.at(1)];
    assert.ok(ours instanceof Ours && theirs instanceof Theirs);
    return { group, ours, theirs, suite };
  }

  const goOn = async (ours: mls.GroupState, theirs: Peer): Promise<void> => {
    const next = new Group([new Ours('ours', ours), new Theirs('theirs', theirs)]);
    next.assertAgree();
    for (const leaf of [0, 1]) {
      await next.talk(leaf);
      await next.commit(leaf, []);
    }
  };

  test('a ReInit of ours into another suite, and the new group made by us', async () => {
    const { group, ours, theirs } = await pair();
    const groupId = nodeCrypto.random(16);
    const closing = mls.createCommit(context, ours.state, {
      proposals: [{ kind: 'reInit', groupId, cipherSuite: 3 }],
    });
    assert.ok(closing.kind === 'committed');
    await theirs.receive(closing.commit);
    const closed = mls.mergePendingCommit(context, closing.state, closing.pending);
    group.members[0] = new Ours('ours', closed);
    group.assertAgree();
    const keys = await Peer.keys(await Peer.suite(OTHER), 'theirs, anew');
    const checked = mls.verifyKeyPackage(context, keys.bytes);
    assert.ok(checked.kind === 'verified');
    const { grease: _grease, ...us } = ourKeys(3, 'member 0');
    const opened = mls.createReinitializedGroup(sameClients, closed, { ...us, keyPackages: [checked.keyPackage] });
    assert.ok(opened.kind === 'created', reasonOf(opened));
    await goOn(opened.state, await theirs.peer.joinReinitialized(opened.welcome, OTHER, keys));
  });

  test('a ReInit of theirs into another suite, and the new group made by them', async () => {
    const { ours, theirs } = await pair();
    const groupId = nodeCrypto.random(16);
    const commit = await theirs.peer.commitReInit(groupId, OTHER);
    await ours.receive(commit);
    assert.equal(mls.reInitOf(ours.state)?.cipherSuite, 3);
    const bundle = mls.generateKeyPackage(context, ourKeys(3, 'member 0'));
    const keys = await Peer.keys(await Peer.suite(OTHER), 'theirs, anew');
    const { peer, welcome, ratchetTree } = await theirs.peer.reinitialized(groupId, OTHER, keys, [bundle.keyPackage]);
    const joined = mls.joinGroup(sameClients, { welcome, ratchetTree, keyPackage: bundle, previous: ours.state });
    assert.ok(joined.kind === 'joined', reasonOf(joined));
    await goOn(joined.state, peer);
  });

  test('a branch of ours', async () => {
    const { ours, theirs, suite } = await pair();
    const keys = await Peer.keys(suite, 'theirs, in the branch');
    const checked = mls.verifyKeyPackage(context, keys.bytes);
    assert.ok(checked.kind === 'verified');
    const { cipherSuite: _suite, ...us } = ourKeys(1, 'member 0');
    const branched = mls.createBranch(sameClients, ours.state, {
      ...us,
      groupId: nodeCrypto.random(16),
      keyPackages: [checked.keyPackage],
    });
    assert.ok(branched.kind === 'created', reasonOf(branched));
    await goOn(branched.state, await theirs.peer.joinBranch(branched.welcome, keys));
  });

  test('a branch of theirs', async () => {
    const { ours, theirs, suite } = await pair();
    const bundle = mls.generateKeyPackage(context, ourKeys(1, 'member 0'));
    const keys = await Peer.keys(suite, 'theirs, in the branch');
    const { peer, welcome, ratchetTree } = await theirs.peer.branch(nodeCrypto.random(16), keys, [bundle.keyPackage]);
    const joined = mls.joinGroup(sameClients, { welcome, ratchetTree, keyPackage: bundle, previous: ours.state });
    assert.ok(joined.kind === 'joined', reasonOf(joined));
    await goOn(joined.state, peer);
  });

  test('a client asks by a proposal of its own to be added, theirs and ours', async () => {
    for (const kind of ['theirs', 'ours'] as const) {
      const { group, ours, suite } = await pair();
      const groupInfo = mls.createGroupInfo(context, ours.state);
      const { groupId, epoch } = mls.groupContext(ours.state);
      let proposal: Uint8Array;
      let join: (welcome: Uint8Array) => Promise<Someone>;
      if (kind === 'theirs') {
        const keys = await Peer.keys(suite, 'outsider');
        proposal = await Peer.proposeItself(suite, groupInfo, keys);
        join = async (welcome) => new Theirs('outsider', await Peer.join(suite, welcome, keys));
      } else {
        const keyPackage = mls.generateKeyPackage(context, ourKeys(1, 'outsider'));
        const outcome = mls.createNewMemberProposal(context, { groupId, epoch, keyPackage });
        assert.ok(outcome.kind === 'proposed');
        proposal = outcome.message;
        join = async (welcome) => {
          const joined = mls.joinGroup(context, { welcome, keyPackage });
          assert.ok(joined.kind === 'joined');
          return new Ours('outsider', joined.state);
        };
      }
      for (const member of group.present) await member.receive(proposal);
      const committer = group.at(kind === 'theirs' ? 1 : 0);
      const { commit, welcome } = await committer.commit([], false);
      await group.deliver(committer, commit);
      group.members.push(await join(welcome!));
      group.assertAgree();
      await group.talk(2);
    }
  });
});

describe('known limits of ts-mls 1.6.4', () => {
  test('it compresses the public keys of ECDSA, against RFC 9420 section 5.1.2: no suite over a NIST curve', async () => {
    const suite = await Peer.suite('MLS_128_DHKEMP256_AES128GCM_SHA256_P256');
    const { bytes, publicPackage } = await Peer.keys(suite, 'Peter');
    assert.equal(publicPackage.leafNode.signaturePublicKey.length, 33);
    assertRefused(mls.verifyKeyPackage(context, bytes), 'leafKeysValid');
  });

  test('it writes external_pub without its length, and reads it so: no external commits either way', async () => {
    const suite = await Peer.suite(SUITE);
    const group = await Group.of([1, suite], ['theirs', 'ours']);
    const [theirs, ours] = [group.at(0), group.at(1)];
    assert.ok(theirs instanceof Theirs && ours instanceof Ours);
    const groupInfo = await theirs.peer.groupInfo();
    const { cipherSuite: _suite, ...outsider } = ourKeys(1, 'outsider');
    assertRefused(mls.joinByExternalCommit(context, { ...outsider, groupInfo }), 'malformed');
    const ourInfo = mls.createGroupInfo(context, ours.state, { externalPub: true });
    await assert.rejects(Peer.joinExternal(suite, ourInfo, await Peer.keys(suite, 'outsider')));
  });

  test('it writes external_senders as one sender, not a list: no proposals of external senders either way', () => {
    const { credential, signatureKeyPair } = ourKeys(1, 'bot');
    const theirs = Peer.externalSenders(signatureKeyPair.publicKey, 'bot');
    const ours = mls.encodeExternalSenders([{ signatureKey: signatureKeyPair.publicKey, credential }]);
    assert.deepEqual(ours, Uint8Array.of(theirs.length, ...theirs));
    const extension = { extensionType: mls.ExtensionType.ExternalSenders, extensionData: theirs };
    const parameters = { ...ourKeys(1, 'founder'), groupId: nodeCrypto.random(16), extensions: [extension] };
    assert.throws(() => mls.createGroup(context, parameters), { name: 'MlsUsageError' });
  });

  test('it refuses valid trees in which a leaf is unmerged in some of its ancestors', async () => {
    const suite = [1, await Peer.suite(SUITE)] as const;
    const group = await Group.of(suite, ['ours', 'theirs', 'ours', 'theirs', 'ours', 'theirs']);
    await group.commit(0, [{ kind: 'remove', removed: 3 }]);
    for (const leaf of [1, 2]) await group.commit(leaf, []);
    // The new leaf 3 is unmerged in the node above leaves 0 to 3, and merged in the root, which the committer renews.
    const joiner = await candidate('theirs', suite, 'joiner');
    const { welcome } = await group.at(4).commit([{ kind: 'add', keyPackage: joiner.keyPackage }], false);
    await assert.rejects(joiner.join(welcome!), /unmerged/);
  });

  test('its default lifetime never ends; ours accepts that, and leaves it to the application to refuse', async () => {
    const { bytes, publicPackage } = await Peer.keys(await Peer.suite(SUITE), 'forever');
    assert.ok(publicPackage.leafNode.lifetime.notAfter > 1n << 62n);
    assert.equal(mls.verifyKeyPackage(context, bytes).kind, 'verified');
  });
});

function reasonOf(outcome: object): string {
  return 'reason' in outcome ? String(outcome.reason) : '';
}

function assertRefused(outcome: { readonly kind: string; readonly name?: string }, rule: mls.RuleName): void {
  assert.deepEqual([outcome.kind, outcome.name], ['rejected', rule]);
}
