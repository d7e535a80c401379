import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { freshKemKeyPair } from '../cipher-suites.ts';
import { decode } from '../codec.ts';
import { encodeGroupContext } from '../key-schedule.ts';
import { isLeafSignatureValid, signLeafNode } from '../leaf-node.ts';
import {
  blankDirectPath,
  decodeRatchetTree,
  editTree,
  encryptionKeyAt,
  filteredDirectPath,
  leafAt,
  type RatchetTree,
  setLeaf,
  setPathKeys,
  treeHash,
} from '../ratchet-tree.ts';
import { readUpdatePath, type UpdatePath } from '../structures.ts';
import { assertHex, loadVectors, suiteCases, unhex, unhexPrivateKey } from '../testing/vectors.node.ts';
import { commonAncestor, nodeOfLeaf } from '../tree-math.ts';
import { checkPathShape, decryptPath, derivePathSecrets, encryptPath } from '../update-path.ts';
import type { Suite } from '../cipher-suites.ts';

interface Vector {
  readonly cipher_suite: number;
  readonly group_id: string;
  readonly epoch: number;
  readonly confirmed_transcript_hash: string;
  readonly ratchet_tree: string;
  readonly leaves_private: readonly {
    index: number;
    encryption_priv: string;
    signature_priv: string;
    path_secrets: readonly { node: number; path_secret: string }[];
  }[];
  readonly update_paths: readonly {
    sender: number;
    update_path: string;
    path_secrets: readonly (string | null)[];
    commit_secret: string;
    tree_hash_after: string;
  }[];
}

function privateKeysOf(
  suite: Suite,
  tree: RatchetTree,
  leaf: Vector['leaves_private'][number],
): Map<number, Uint8Array> {
  const keys = new Map<number, Uint8Array>([[nodeOfLeaf(leaf.index), unhex(leaf.encryption_priv)]]);
  for (const { node, path_secret: secret } of leaf.path_secrets) {
    const pair = derivePathSecrets(suite, unhex(secret), 1).keyPairs[0]!;
    assert.deepEqual(pair.publicKey, encryptionKeyAt(tree, node));
    keys.set(node, pair.privateKey);
  }
  return keys;
}

test('treekem (RFC 9420 sections 7.4–7.6)', () => {
  const cases = suiteCases(loadVectors<Vector>('treekem'));
  assert.equal(cases.length, 55);
  for (const { suite, vector } of cases) {
    const tree = decodeRatchetTree(unhex(vector.ratchet_tree));
    const groupId = unhex(vector.group_id);
    const contextFor = (treeHashAfter: Uint8Array): Uint8Array =>
      encodeGroupContext({
        version: 1,
        cipherSuite: suite.id,
        groupId,
        epoch: BigInt(vector.epoch),
        treeHash: treeHashAfter,
        confirmedTranscriptHash: unhex(vector.confirmed_transcript_hash),
        extensions: [],
      });
    const nobody = new Set<number>();
    for (const update of vector.update_paths) {
      const path: UpdatePath = decode(readUpdatePath, unhex(update.update_path));
      // Only the signature: these leaves claim capabilities without regard to the suite.
      assert.ok(isLeafSignatureValid(suite, path.leafNode, { groupId, leafIndex: update.sender }));
      const after = editTree(tree);
      const steps = filteredDirectPath(after, update.sender);
      checkPathShape(after, steps, path, nobody);
      blankDirectPath(after, update.sender);
      const keys = path.nodes.map((node) => node.encryptionKey);
      const parentHash = setPathKeys(suite, after, steps, keys);
      assert.deepEqual(path.leafNode.source, { kind: 'commit', parentHash });
      setLeaf(after, update.sender, path.leafNode);
      assertHex(treeHash(suite, after), update.tree_hash_after);

      const context = contextFor(treeHash(suite, after));
      for (const leaf of vector.leaves_private) {
        if (leaf.index === update.sender) continue;
        const privateKeys = privateKeysOf(suite, tree, leaf);
        const { from, secrets } = decryptPath(suite, after, steps, path, privateKeys, leaf.index, context, nobody);
        assert.equal(steps[from]!.node, commonAncestor(leaf.index, update.sender));
        assertHex(secrets.pathSecrets[0], update.path_secrets[leaf.index]!);
        assertHex(secrets.commitSecret, update.commit_secret);
      }

      // And a path of our own from the same sender, which everyone opens; over the slow curves from the first sender only.
      if (update !== vector.update_paths[0] && suite.signature.privateKeyLength > 32) continue;
      const own = editTree(tree);
      const secrets = derivePathSecrets(suite, nodeCrypto.random(suite.hashLength), steps.length);
      blankDirectPath(own, update.sender);
      const ownParentHash = setPathKeys(
        suite,
        own,
        steps,
        secrets.keyPairs.map((pair) => pair.publicKey),
      );
      const signer = vector.leaves_private.find(({ index }) => index === update.sender)!;
      const leafNode = signLeafNode(suite, unhexPrivateKey(suite, signer.signature_priv), groupId, update.sender, {
        ...leafAt(tree, update.sender)!,
        encryptionKey: freshKemKeyPair(suite, nodeCrypto.random).publicKey,
        source: { kind: 'commit', parentHash: ownParentHash },
      });
      setLeaf(own, update.sender, leafNode);
      const ownContext = contextFor(treeHash(suite, own));
      const ownPath = { leafNode, nodes: encryptPath(suite, own, steps, secrets, ownContext, nobody) };
      for (const leaf of vector.leaves_private) {
        if (leaf.index === update.sender) continue;
        const privateKeys = privateKeysOf(suite, tree, leaf);
        const opened = decryptPath(suite, own, steps, ownPath, privateKeys, leaf.index, ownContext, nobody);
        assert.deepEqual(opened.secrets.commitSecret, secrets.commitSecret);
      }
    }
  }
});
