/**
 * TreeKEM (RFC 9420 sections 7.4–7.6): a committer's fresh path secrets, its UpdatePath, and a receiver's way from the
 * one ciphertext it can open up to the root.
 */
import { EMPTY, equal, type KeyPair } from '@quicprochat/crypto';
import { decryptWithLabel, deriveSecret, encryptWithLabel, type Suite } from './cipher-suites.ts';
import { demand, violated } from './errors.ts';
import { encryptionKeyAt, type PathStep, type RatchetTree, resolution } from './ratchet-tree.ts';
import type { UpdatePath, UpdatePathNode } from './structures.ts';
import { inSubtree, nodeOfLeaf } from './tree-math.ts';

/** Secrets of a path from some node up to the root. */
export interface PathSecrets {
  /** By position in the filtered direct path, from the first one known. */
  readonly keyPairs: readonly KeyPair[];
  readonly pathSecrets: readonly Uint8Array[];
  readonly commitSecret: Uint8Array;
}

/** Derives `count` nodes' secrets upwards, starting with the first path secret. */
export function derivePathSecrets(suite: Suite, first: Uint8Array, count: number): PathSecrets {
  const keyPairs: KeyPair[] = [];
  const pathSecrets: Uint8Array[] = [];
  let secret = first;
  for (let i = 0; i < count; i++) {
    const nodeSecret = deriveSecret(suite, secret, 'node');
    keyPairs.push(suite.kem.deriveKeyPair(nodeSecret));
    suite.crypto.wipe(nodeSecret);
    pathSecrets.push(secret);
    secret = deriveSecret(suite, secret, 'path');
  }
  return { keyPairs, pathSecrets, commitSecret: secret };
}

/** Encrypts each node's path secret to the resolution of its copath; `added` leaves get theirs by Welcome. */
export function encryptPath(
  suite: Suite,
  tree: RatchetTree,
  path: readonly PathStep[],
  secrets: PathSecrets,
  groupContext: Uint8Array,
  added: ReadonlySet<number>,
): UpdatePathNode[] {
  return path.map(({ copath }, i) => ({
    encryptionKey: secrets.keyPairs[i]!.publicKey,
    encryptedPathSecret: resolution(tree, copath, added).map((node) =>
      encryptWithLabel(suite, encryptionKeyAt(tree, node)!, 'UpdatePathNode', groupContext, secrets.pathSecrets[i]!),
    ),
  }));
}

/** ValSem202: one node for each step, one ciphertext for each key it has to reach. `tree` has the proposals applied. */
export function checkPathShape(
  tree: RatchetTree,
  path: readonly PathStep[],
  updatePath: UpdatePath,
  added: ReadonlySet<number>,
): void {
  demand(updatePath.nodes.length === path.length, 'pathLength');
  path.forEach(({ copath }, i) => {
    const count = updatePath.nodes[i]!.encryptedPathSecret.length;
    demand(count === resolution(tree, copath, added).length, 'pathLength');
  });
}

/**
 * Opens the path secret meant for us and derives everything above it. `tree` has the path's public keys;
 * `privateKeys` are those of its nodes that we have.
 */
export function decryptPath(
  suite: Suite,
  tree: RatchetTree,
  path: readonly PathStep[],
  updatePath: UpdatePath,
  privateKeys: ReadonlyMap<number, Uint8Array>,
  ownLeaf: number,
  groupContext: Uint8Array,
  added: ReadonlySet<number>,
): { readonly from: number; readonly secrets: PathSecrets } {
  const from = path.findIndex(({ copath }) => inSubtree(copath, ownLeaf));
  const step = path[from];
  if (step === undefined) return violated('pathDecrypts', 'no ciphertext is ours');
  const nodes = resolution(tree, step.copath, added);
  const position = nodes.findIndex((node) => privateKeys.has(node));
  const ciphertext = updatePath.nodes[from]!.encryptedPathSecret[position];
  const privateKey = privateKeys.get(nodes[position] ?? nodeOfLeaf(ownLeaf));
  if (ciphertext === undefined || privateKey === undefined) return violated('pathDecrypts', 'no ciphertext is ours');
  const first = decryptWithLabel(suite, privateKey, 'UpdatePathNode', groupContext, ciphertext);
  if (first === undefined || first.length !== suite.hashLength) return violated('pathDecrypts');
  const secrets = derivePathSecrets(suite, first, path.length - from);
  const match = secrets.keyPairs.every(({ publicKey }, i) =>
    equal(publicKey, encryptionKeyAt(tree, path[from + i]!.node) ?? EMPTY),
  );
  if (!match) {
    for (const { privateKey } of secrets.keyPairs) suite.crypto.wipe(privateKey);
    wipePathSecrets(suite, secrets);
    return violated('pathKeysMatch');
  }
  return { from, secrets };
}

export function wipePathSecrets(suite: Suite, secrets: PathSecrets): void {
  for (const secret of secrets.pathSecrets) suite.crypto.wipe(secret);
  suite.crypto.wipe(secrets.commitSecret);
}
