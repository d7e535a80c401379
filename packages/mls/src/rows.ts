/**
 * A group's state as small rows, and back.
 *
 *   core                     the epoch: context, secrets, own private keys        rewritten by a commit
 *   tree/<node>              one node of the public tree                          those a commit changes
 *   secret/<epoch>/<node>    an underived secret, or the two ratchets of a leaf   one per message
 *   unused/<epoch>           how many unused keys the epoch's ratchets hold       when that changes
 *   past/<epoch>             what late messages of a past epoch need              one per commit
 *   proposal/<n>             a proposal waiting for a commit                      one per proposal
 *
 * `diffRows` walks two states side by side and skips what they share. `restoreGroup` reads core, tree, past epochs and
 * proposals at once; rows of ratchets only when their sender is first heard of.
 */
import { type Reader, decode, encode, Writer } from './codec.ts';
import { MlsStateError, RuleViolation, violated } from './errors.ts';
import type { CachedProposal, GroupCore, GroupState, GroupStatus, PastEpoch } from './group-state.ts';
import { encodeGroupContext } from './key-schedule.ts';
import type { PendingCommit, TreeChanges } from './pending-commit.ts';
import { type RatchetTree, TREE_LEAVES_MAX, TreeHashes } from './ratchet-tree.ts';
import {
  type LeafRatchets,
  loadedNode,
  type Ratchet,
  type RatchetKey,
  type SecretNode,
  type SecretTree,
  type SecretTreeNode,
  storedSecretTree,
} from './secret-tree.ts';
import {
  readGroupContext,
  readLeafIndex,
  readLeafNode,
  readParentNode,
  readProposal,
  readReInit,
  readSender,
  writeGroupContext,
  writeLeafNode,
  writeParentNode,
  writeProposal,
  writeReInit,
  writeSender,
} from './structures.ts';
import { isLeaf, left, right, root } from './tree-math.ts';
import type { GroupConfig, LeafNode, MlsContext, ParentNode, Row, RowChange, RowReader, RowStore } from './types.ts';

const FORMAT = 1;

const CORE = 'core';
const TREE = 'tree/';
const PAST = 'past/';
const PROPOSAL = 'proposal/';

const hex = (value: number | bigint, digits: number): string => value.toString(16).padStart(digits, '0');
const treeKey = (node: number): string => TREE + hex(node, 8);
const pastKey = (epoch: bigint): string => PAST + hex(epoch, 16);
const secretPrefix = (epoch: bigint): string => `secret/${hex(epoch, 16)}/`;
const unusedKey = (epoch: bigint): string => `unused/${hex(epoch, 16)}`;
const proposalKey = (n: number): string => PROPOSAL + hex(n, 8);

// ---- Writing --------------------------------------------------------------------------------------------------------

/** All rows of a state. */
export function groupRows(state: GroupState): readonly Row[] {
  const rows: Row[] = [];
  for (const change of diffRows(undefined, state)) {
    if (change.kind === 'set') rows.push({ key: change.key, bytes: change.bytes });
  }
  return rows;
}

/** What changed from one stored state to its successor; with `undefined`, the rows of a new group. */
export function diffRows(previous: GroupState | undefined, next: GroupState): readonly RowChange[] {
  const changes: RowChange[] = [];
  const set = (key: string, bytes: Uint8Array): unknown => changes.push({ kind: 'set', key, bytes });
  const remove = (key: string): unknown => changes.push({ kind: 'delete', key });

  if (previous?.core !== next.core) set(CORE, encodeCoreRow(next));
  if (previous?.tree !== next.tree) diffTree(previous?.tree, next.tree, set, remove);
  if (previous?.pastEpochs !== next.pastEpochs) {
    const before = new Set(previous?.pastEpochs.map(({ epoch }) => epoch));
    for (const past of next.pastEpochs) if (!before.delete(past.epoch)) set(pastKey(past.epoch), encodePastEpoch(past));
    for (const epoch of before) remove(pastKey(epoch));
  }
  diffSecretTrees(previous, next, changes);
  if (previous?.proposals !== next.proposals) {
    const before = previous?.proposals ?? [];
    next.proposals.forEach((proposal, i) => {
      if (before[i] !== proposal) set(proposalKey(i), encodeCachedProposal(proposal));
    });
    for (let i = next.proposals.length; i < before.length; i++) remove(proposalKey(i));
  }
  return changes;
}

function diffTree(
  previous: RatchetTree | undefined,
  next: RatchetTree,
  set: (key: string, bytes: Uint8Array) => unknown,
  remove: (key: string) => unknown,
): void {
  const count = Math.max(previous?.leaves.length ?? 0, next.leaves.length);
  for (let i = 0; i < count; i++) {
    const leaf = next.leaves[i];
    if (previous?.leaves[i] !== leaf) {
      if (leaf === undefined) remove(treeKey(2 * i));
      else set(treeKey(2 * i), encode(writeLeafNode, leaf));
    }
    const parent = next.parents[i];
    if (previous?.parents[i] !== parent) {
      if (parent === undefined) remove(treeKey(2 * i + 1));
      else set(treeKey(2 * i + 1), encode(writeParentNode, parent));
    }
  }
}

function secretTreesByEpoch(state: GroupState | undefined): Map<bigint, SecretTree> {
  const trees = new Map<bigint, SecretTree>();
  if (state === undefined) return trees;
  trees.set(state.core.context.epoch, state.secretTree);
  for (const past of state.pastEpochs) trees.set(past.epoch, past.secretTree);
  return trees;
}

function diffSecretTrees(previous: GroupState | undefined, next: GroupState, changes: RowChange[]): void {
  if (previous?.core === next.core && previous.pastEpochs === next.pastEpochs) {
    diffSecretTree(next.core.context.epoch, previous.secretTree, next.secretTree, changes);
    return;
  }
  const before = secretTreesByEpoch(previous);
  for (const [epoch, tree] of secretTreesByEpoch(next)) {
    diffSecretTree(epoch, before.get(epoch), tree, changes);
    before.delete(epoch);
  }
  for (const epoch of before.keys()) {
    changes.push({ kind: 'deletePrefix', prefix: secretPrefix(epoch) }, { kind: 'delete', key: unusedKey(epoch) });
  }
}

function diffSecretTree(epoch: bigint, previous: SecretTree | undefined, next: SecretTree, changes: RowChange[]): void {
  if (previous === next) return;
  if ((previous?.unusedCount ?? 0) !== next.unusedCount) {
    const key = unusedKey(epoch);
    if (next.unusedCount === 0) changes.push({ kind: 'delete', key });
    else changes.push({ kind: 'set', key, bytes: new Writer().u32(next.unusedCount).finish() });
  }
  const prefix = secretPrefix(epoch);
  const visit = (before: SecretTreeNode | undefined, after: SecretTreeNode, index: number): void => {
    if (before === after) return;
    // Without a predecessor all is written, what was never read included; with one, unread rows are as they were.
    if (previous !== undefined && after.kind === 'stored') return;
    const old = before?.kind === 'stored' ? before.loaded : before;
    const now = loadedNode(next, after, index);
    if (old === now) return;
    const key = prefix + hex(index, 8);
    switch (now.kind) {
      case 'split':
        if (old?.kind === 'secret') changes.push({ kind: 'delete', key });
        visit(old?.kind === 'split' ? old.left : undefined, now.left, left(index));
        visit(old?.kind === 'split' ? old.right : undefined, now.right, right(index));
        break;
      case 'secret':
        if (old?.kind !== 'secret' || old.secret !== now.secret) {
          changes.push({ kind: 'set', key, bytes: encodeSecretNode(now) });
        }
        break;
      case 'leaf':
        changes.push({ kind: 'set', key, bytes: encodeSecretNode(now) });
    }
  };
  visit(previous?.root, next.root, root(next.leafCount));
}

// ---- Reading --------------------------------------------------------------------------------------------------------

/**
 * A group from its rows. Ratchets are read when their sender is first heard of, so the rows must stay as they are until
 * this state or a successor was stored.
 * @throws MlsStateError when rows are missing or damaged
 */
export function restoreGroup(_context: MlsContext, rows: RowReader): GroupState {
  return damageReported(() => {
    const coreBytes = rows.get(CORE) ?? missing(CORE);
    const { core, leafCount } = decode(readCoreRow, coreBytes);
    const tree = restoreTree(rows, leafCount);
    const restoreSecrets = (epoch: bigint, count: number): SecretTree => {
      const unused = rows.get(unusedKey(epoch));
      const prefix = secretPrefix(epoch);
      return storedSecretTree(count, unused === undefined ? 0 : decode((r) => r.u32(), unused), (index) => {
        const bytes = rows.get(prefix + hex(index, 8));
        return bytes && damageReported(() => decode(readSecretNode, bytes));
      });
    };
    const pastEpochs = [...rows.list(PAST)]
      .map(({ bytes }) => decode(readPastEpoch, bytes))
      .map(({ secretTreeLeafCount, ...past }) => ({
        ...past,
        secretTree: restoreSecrets(past.epoch, secretTreeLeafCount),
      }))
      .sort((a, b) => (a.epoch < b.epoch ? 1 : -1));
    const proposals = [...rows.list(PROPOSAL)]
      .sort((a, b) => (a.key < b.key ? -1 : 1))
      .map(({ bytes }) => decode(readCachedProposal, bytes));
    return { core, tree, secretTree: restoreSecrets(core.context.epoch, leafCount), proposals, pastEpochs };
  });
}

function restoreTree(rows: RowReader, leafCount: number): RatchetTree {
  const leaves: (LeafNode | undefined)[] = Array.from({ length: leafCount }, () => undefined);
  const parents: (ParentNode | undefined)[] = Array.from({ length: leafCount - 1 }, () => undefined);
  for (const { key, bytes } of rows.list(TREE)) {
    const node = Number.parseInt(key.slice(TREE.length), 16);
    if (!(node >= 0 && node < 2 * leafCount - 1)) missing(key);
    if (isLeaf(node)) leaves[node >>> 1] = decode(readLeafNode, bytes);
    else parents[node >>> 1] = decode(readParentNode, bytes);
  }
  return { leaves, parents, hashes: new TreeHashes() };
}

function missing(key: string): never {
  throw new MlsStateError(`group row ${key} is missing or out of place`);
}

function damageReported<T>(body: () => T): T {
  try {
    return body();
  } catch (error) {
    if (error instanceof RuleViolation) throw new MlsStateError('a group row is damaged');
    throw error;
  }
}

/** Rows held in memory. */
export function memoryRows(rows: Iterable<Row> = []): RowStore {
  const map = new Map<string, Uint8Array>();
  for (const { key, bytes } of rows) map.set(key, bytes);
  return {
    get: (key) => map.get(key),
    *list(prefix) {
      for (const [key, bytes] of map) if (key.startsWith(prefix)) yield { key, bytes };
    },
    apply(changes) {
      for (const change of changes) {
        if (change.kind === 'set') map.set(change.key, change.bytes);
        else if (change.kind === 'delete') map.delete(change.key);
        else for (const key of map.keys()) if (key.startsWith(change.prefix)) map.delete(key);
      }
    },
  };
}

// ---- Formats --------------------------------------------------------------------------------------------------------

function readFormat(reader: Reader): void {
  if (reader.u8() !== FORMAT) violated('malformed', 'unknown row format');
}

/** A damaged row must not make a tree of four thousand million leaves. */
function readLeafCount(reader: Reader): number {
  const count = reader.u32();
  if (count === 0 || count > TREE_LEAVES_MAX || (count & (count - 1)) !== 0) violated('malformed', 'tree size');
  return count;
}

const STATUSES: readonly GroupStatus[] = ['active', 'removed', 'reinitialized'];

function writeConfig(writer: Writer, config: GroupConfig): void {
  writer
    .u32(config.skipAheadMax)
    .u32(config.unusedKeysPerSenderMax)
    .u32(config.unusedKeysPerGroupMax)
    .u32(config.pastEpochsMax)
    .u32(config.pastEpochSecondsMax)
    .u32(config.resumptionEpochsMax)
    .u32(config.proposalsMax);
}

function readConfig(reader: Reader): GroupConfig {
  return {
    skipAheadMax: reader.u32(),
    unusedKeysPerSenderMax: reader.u32(),
    unusedKeysPerGroupMax: reader.u32(),
    pastEpochsMax: reader.u32(),
    pastEpochSecondsMax: reader.u32(),
    resumptionEpochsMax: reader.u32(),
    proposalsMax: reader.u32(),
  };
}

function encodeCoreRow(state: GroupState): Uint8Array {
  const writer = new Writer().u8(FORMAT).u32(state.tree.leaves.length);
  writeCore(writer, state.core);
  return writer.finish();
}

function readCoreRow(reader: Reader): { core: GroupCore; leafCount: number } {
  readFormat(reader);
  const leafCount = readLeafCount(reader);
  return { leafCount, core: readCore(reader) };
}

function writeCore(writer: Writer, core: GroupCore): void {
  const { secrets } = core;
  writer.u8(STATUSES.indexOf(core.status));
  if (core.reInit !== undefined) writeReInit(writer, core.reInit);
  writeConfig(writer, core.config);
  writeGroupContext(writer, core.context);
  writer
    .u32(core.ownLeaf)
    .opaque(core.signaturePrivateKey)
    .vector(core.privateKeys, (w, [node, key]) => w.u32(node).opaque(key))
    .opaque(secrets.senderDataSecret)
    .opaque(secrets.exporterSecret)
    .opaque(secrets.externalSecret)
    .opaque(secrets.confirmationKey)
    .opaque(secrets.membershipKey)
    .opaque(secrets.resumptionPsk)
    .opaque(secrets.epochAuthenticator)
    .opaque(secrets.initSecret)
    .opaque(core.confirmationTag)
    .opaque(core.interimTranscriptHash)
    .vector(core.resumptionPsks, (w, { epoch, psk }) => w.u64(epoch).opaque(psk));
}

function readCore(reader: Reader): GroupCore {
  const status = STATUSES[reader.u8()] ?? violated('malformed', 'status');
  const reInit = status === 'reinitialized' ? readReInit(reader) : undefined;
  const config = readConfig(reader);
  const context = readGroupContext(reader);
  return {
    status,
    reInit,
    config,
    context,
    contextBytes: encodeGroupContext(context),
    ownLeaf: readLeafIndex(reader),
    signaturePrivateKey: reader.opaque(),
    privateKeys: new Map(reader.vector((r) => [r.u32(), r.opaque()] as const)),
    secrets: {
      senderDataSecret: reader.opaque(),
      exporterSecret: reader.opaque(),
      externalSecret: reader.opaque(),
      confirmationKey: reader.opaque(),
      membershipKey: reader.opaque(),
      resumptionPsk: reader.opaque(),
      epochAuthenticator: reader.opaque(),
      initSecret: reader.opaque(),
    },
    confirmationTag: reader.opaque(),
    interimTranscriptHash: reader.opaque(),
    resumptionPsks: reader.vector((r) => ({ epoch: r.u64(), psk: r.opaque() })),
  };
}

function encodeSecretNode(node: SecretNode | LeafRatchets): Uint8Array {
  const writer = new Writer().u8(FORMAT);
  if (node.kind === 'secret') {
    writer.u8(1).opaque(node.secret);
  } else {
    writer.u8(2);
    writeRatchet(writer, node.handshake);
    writeRatchet(writer, node.application);
  }
  return writer.finish();
}

function readSecretNode(reader: Reader): SecretNode | LeafRatchets {
  readFormat(reader);
  if (reader.u8() === 1) return { kind: 'secret', secret: reader.opaque() };
  return { kind: 'leaf', handshake: readRatchet(reader), application: readRatchet(reader) };
}

function writeRatchet(writer: Writer, ratchet: Ratchet): void {
  writer
    .u32(ratchet.generation)
    .opaque(ratchet.secret)
    .vector(ratchet.unused, (w, key) => w.u32(key.generation).opaque(key.key).opaque(key.nonce));
}

function readRatchet(reader: Reader): Ratchet {
  return {
    generation: reader.u32(),
    secret: reader.opaque(),
    unused: reader.vector((r): RatchetKey => ({ generation: r.u32(), key: r.opaque(), nonce: r.opaque() })),
  };
}

function encodePastEpoch(past: PastEpoch): Uint8Array {
  return new Writer()
    .u8(FORMAT)
    .u64(past.epoch)
    .u64(BigInt(past.endedAt))
    .opaque(past.contextBytes)
    .opaque(past.senderDataSecret)
    .u32(past.secretTree.leafCount)
    .u32(past.ownLeaf)
    .vector(past.replacedLeaves, (w, [leaf, node]) => w.u32(leaf).optional(node, writeLeafNode))
    .finish();
}

function readPastEpoch(reader: Reader): Omit<PastEpoch, 'secretTree'> & { secretTreeLeafCount: number } {
  readFormat(reader);
  return {
    epoch: reader.u64(),
    endedAt: Number(reader.u64()),
    contextBytes: reader.opaque(),
    senderDataSecret: reader.opaque(),
    secretTreeLeafCount: readLeafCount(reader),
    ownLeaf: readLeafIndex(reader),
    replacedLeaves: new Map(reader.vector((r) => [r.u32(), r.optional(readLeafNode)] as const)),
  };
}

function encodeCachedProposal(cached: CachedProposal): Uint8Array {
  const writer = new Writer().u8(FORMAT).opaque(cached.ref);
  writeProposal(writer, cached.proposal);
  writeSender(writer, cached.sender);
  return writer
    .optional(cached.own, (w, own) => w.opaque(own.encryptionPrivateKey).opaque(own.signaturePrivateKey))
    .finish();
}

function readCachedProposal(reader: Reader): CachedProposal {
  readFormat(reader);
  return {
    ref: reader.opaque(),
    proposal: readProposal(reader),
    sender: readSender(reader),
    own: reader.optional((r) => ({ encryptionPrivateKey: r.opaque(), signaturePrivateKey: r.opaque() })),
  };
}

// ---- Pending commits ------------------------------------------------------------------------------------------------

/** A pending commit as bytes, which hold secrets: to be stored with the state it was made from. */
export function encodePendingCommit(pending: PendingCommit): Uint8Array {
  const writer = new Writer().u8(FORMAT).opaque(pending.base);
  writeCore(writer, pending.core);
  return writer
    .opaque(pending.encryptionSecret)
    .u32(pending.changes.leafCount)
    .vector(pending.changes.leaves, (w, [leaf, node]) => w.u32(leaf).optional(node, writeLeafNode))
    .vector(pending.changes.parents, (w, [at, node]) => w.u32(at).optional(node, writeParentNode))
    .finish();
}

/** @throws MlsStateError when the bytes are damaged. */
export function decodePendingCommit(_context: MlsContext, bytes: Uint8Array): PendingCommit {
  return damageReported(() =>
    decode((reader) => {
      readFormat(reader);
      const base = reader.opaque();
      const core = readCore(reader);
      const encryptionSecret = reader.opaque();
      const changes: TreeChanges = {
        leafCount: readLeafCount(reader),
        leaves: new Map(reader.vector((r) => [r.u32(), r.optional(readLeafNode)] as const)),
        parents: new Map(reader.vector((r) => [r.u32(), r.optional(readParentNode)] as const)),
      };
      return { base, core, encryptionSecret, changes, tree: undefined };
    }, bytes),
  );
}
