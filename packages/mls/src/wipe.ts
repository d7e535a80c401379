/**
 * Overwriting secrets that are no longer part of a state.
 *
 * A step makes a new state and leaves the old one whole, so that a failed transaction can go back to it. Once the new
 * state is stored, `wipeReplaced` overwrites what the old one held and the new one does not: found by walking both values
 * side by side and skipping what they share, O(log n) for a message. After it the old state must not be used. All buffers
 * are the library's own copies; keys the application passed in are never touched.
 */
import type { CryptoProvider } from '@quicprochat/crypto';
import type { GroupCore, GroupState, PastEpoch } from './group-state.ts';
import type { PendingCommit } from './pending-commit.ts';
import {
  type LeafRatchets,
  type LoadedNode,
  type Ratchet,
  RATCHETS,
  type SecretTree,
  type SecretTreeNode,
} from './secret-tree.ts';
import type { MlsContext } from './types.ts';

/** Overwrites the secrets `previous` holds and `next` does not. Call it once `next` is safely stored. */
export function wipeReplaced(context: MlsContext, previous: GroupState, next: GroupState): void {
  const { crypto } = context;
  const kept = new Map(secretTrees(next));
  for (const [epoch, tree] of secretTrees(previous)) wipeNode(crypto, tree.root, kept.get(epoch)?.root);
  if (previous.core === next.core && previous.proposals === next.proposals && previous.pastEpochs === next.pastEpochs) {
    return;
  }
  const keptSecrets = new Set(plainSecrets(next));
  for (const secret of plainSecrets(previous)) if (!keptSecrets.has(secret)) crypto.wipe(secret);
}

/** Overwrites all secrets of a group that is no longer needed. */
export function wipeGroup(context: MlsContext, state: GroupState): void {
  for (const [, tree] of secretTrees(state)) wipeNode(context.crypto, tree.root, undefined);
  for (const secret of plainSecrets(state)) context.crypto.wipe(secret);
}

/** Overwrites what a dropped commit would have brought; `state` stays as it is. */
export function wipePendingCommit(context: MlsContext, state: GroupState, pending: PendingCommit): void {
  const kept = new Set(plainSecrets(state));
  for (const secret of [...coreSecrets(pending.core), pending.encryptionSecret]) {
    if (!kept.has(secret)) context.crypto.wipe(secret);
  }
}

/** Overwrites what a refused message's step derived; `kept` is the tree before it. */
export function wipeDiscarded(crypto: CryptoProvider, discarded: SecretTree, kept: SecretTree): void {
  wipeNode(crypto, discarded.root, kept.root);
}

function* secretTrees(state: GroupState): Generator<readonly [bigint, SecretTree]> {
  yield [state.core.context.epoch, state.secretTree];
  for (const past of state.pastEpochs) yield [past.epoch, past.secretTree];
}

function* plainSecrets(state: GroupState): Generator<Uint8Array> {
  yield* coreSecrets(state.core);
  for (const past of state.pastEpochs) yield* pastSecrets(past);
  for (const { own } of state.proposals) {
    if (own === undefined) continue;
    yield own.encryptionPrivateKey;
    yield own.signaturePrivateKey;
  }
}

function* coreSecrets(core: GroupCore): Generator<Uint8Array> {
  yield core.signaturePrivateKey;
  yield* core.privateKeys.values();
  yield* Object.values(core.secrets) as Uint8Array[];
  for (const { psk } of core.resumptionPsks) yield psk;
}

function* pastSecrets(past: PastEpoch): Generator<Uint8Array> {
  yield past.senderDataSecret;
}

function loaded(node: SecretTreeNode | undefined): LoadedNode | undefined {
  return node?.kind === 'stored' ? node.loaded : node;
}

function wipeNode(crypto: CryptoProvider, node: SecretTreeNode, kept: SecretTreeNode | undefined): void {
  const old = loaded(node);
  const rest = loaded(kept);
  if (node === kept || old === undefined || old === rest) return;
  switch (old.kind) {
    case 'split': {
      const split = rest?.kind === 'split' ? rest : undefined;
      wipeNode(crypto, old.left, split?.left);
      wipeNode(crypto, old.right, split?.right);
      break;
    }
    case 'secret':
      if (rest?.kind !== 'secret' || rest.secret !== old.secret) crypto.wipe(old.secret);
      break;
    case 'leaf':
      wipeRatchets(crypto, old, rest?.kind === 'leaf' ? rest : undefined);
  }
}

function wipeRatchets(crypto: CryptoProvider, old: LeafRatchets, kept: LeafRatchets | undefined): void {
  for (const kind of RATCHETS) wipeRatchet(crypto, old[kind], kept?.[kind]);
}

function wipeRatchet(crypto: CryptoProvider, old: Ratchet, kept: Ratchet | undefined): void {
  if (old.secret !== kept?.secret) crypto.wipe(old.secret);
  if (old.unused === kept?.unused) return;
  const stay = new Set(kept?.unused);
  for (const key of old.unused) {
    if (stay.has(key)) continue;
    crypto.wipe(key.key);
    crypto.wipe(key.nonce);
  }
}
