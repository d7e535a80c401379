import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Suite } from '../cipher-suites.ts';
import { decode, Writer } from '../codec.ts';
import {
  encodePublicMessage,
  openPrivateMessage,
  openPublicMessage,
  openSenderData,
  sealPrivateMessage,
  signContent,
  verifyContent,
} from '../framing.ts';
import { defaultConfig } from '../group-state.ts';
import { encodeGroupContext } from '../key-schedule.ts';
import { newSecretTree, takeKey } from '../secret-tree.ts';
import { type Content, readCommit, readMlsMessage, readProposal, writeContent } from '../structures.ts';
import { assertHex, loadVectors, providers, suiteCases, unhex, unhexPrivateKey } from '../testing/vectors.node.ts';
import { ContentType, type LeafIndex, WireFormat } from '../types.ts';

interface Vector {
  readonly cipher_suite: number;
  readonly group_id: string;
  readonly epoch: number;
  readonly tree_hash: string;
  readonly confirmed_transcript_hash: string;
  readonly signature_priv: string;
  readonly signature_pub: string;
  readonly encryption_secret: string;
  readonly sender_data_secret: string;
  readonly membership_key: string;
  readonly proposal: string;
  readonly proposal_priv: string;
  readonly proposal_pub: string;
  readonly commit: string;
  readonly commit_priv: string;
  readonly commit_pub: string;
  readonly application: string;
  readonly application_priv: string;
}

interface Keys {
  readonly suite: Suite;
  readonly groupContext: Uint8Array;
  readonly vector: Vector;
}

function unprotect({ suite, groupContext, vector }: Keys, bytes: Uint8Array): Content {
  const message = decode(readMlsMessage, bytes);
  if (message.wireFormat === WireFormat.PublicMessage) {
    const opened = openPublicMessage(suite, unhex(vector.membership_key), message.publicMessage, groupContext);
    verifyContent(suite, unhex(vector.signature_pub), opened, groupContext);
    return opened.content.content;
  }
  assert.ok(message.wireFormat === WireFormat.PrivateMessage);
  const { privateMessage } = message;
  const sender = openSenderData(suite, unhex(vector.sender_data_secret), privateMessage);
  assert.equal(sender.leafIndex, 1);
  const kind = privateMessage.contentType === ContentType.Application ? 'application' : 'handshake';
  const tree = newSecretTree(unhex(vector.encryption_secret), 2);
  const { key } = takeKey(suite, tree, sender.leafIndex, kind, sender.generation, defaultConfig, 1000);
  const opened = openPrivateMessage(suite, privateMessage, sender, key);
  verifyContent(suite, unhex(vector.signature_pub), opened, groupContext);
  return opened.content.content;
}

function protect(keys: Keys, content: Content, wireFormat: WireFormat): Uint8Array {
  const { suite, groupContext, vector } = keys;
  const signed = signContent(
    suite,
    unhexPrivateKey(suite, vector.signature_priv),
    wireFormat,
    {
      groupId: unhex(vector.group_id),
      epoch: BigInt(vector.epoch),
      sender: { kind: 'member', leafIndex: 1 as LeafIndex },
      authenticatedData: new Uint8Array(),
      content,
    },
    groupContext,
  );
  const confirmationTag = content.contentType === ContentType.Commit ? new Uint8Array(suite.hashLength) : undefined;
  const message = { ...signed, auth: { signature: signed.signature, confirmationTag } };
  if (wireFormat === WireFormat.PublicMessage) {
    return encodePublicMessage(suite, unhex(vector.membership_key), message, groupContext);
  }
  const kind = content.contentType === ContentType.Application ? 'application' : 'handshake';
  const tree = newSecretTree(unhex(vector.encryption_secret), 2);
  const { key } = takeKey(suite, tree, 1, kind, 0, defaultConfig, 1000);
  return sealPrivateMessage(suite, message, {
    key,
    senderDataSecret: unhex(vector.sender_data_secret),
    leafIndex: 1,
    reuseGuard: new Uint8Array([1, 2, 3, 4]),
    paddingLength: 7,
  });
}

function encodeContent(content: Content): Uint8Array {
  const writer = new Writer();
  writeContent(writer, content);
  return writer.finish();
}

for (const crypto of providers) {
  test(`message-protection (RFC 9420 section 6) on ${crypto.name}`, () => {
    const cases = suiteCases(loadVectors<Vector>('message-protection'), crypto);
    assert.equal(cases.length, 5);
    for (const { suite, vector } of cases) {
      const groupContext = encodeGroupContext({
        version: 1,
        cipherSuite: suite.id,
        groupId: unhex(vector.group_id),
        epoch: BigInt(vector.epoch),
        treeHash: unhex(vector.tree_hash),
        confirmedTranscriptHash: unhex(vector.confirmed_transcript_hash),
        extensions: [],
      });
      const keys = { suite, groupContext, vector };
      const proposal: Content = { contentType: 2, proposal: decode(readProposal, unhex(vector.proposal)) };
      const commit: Content = { contentType: 3, commit: decode(readCommit, unhex(vector.commit)) };
      const application: Content = { contentType: 1, applicationData: unhex(vector.application) };
      for (const [content, messages] of [
        [proposal, [vector.proposal_priv, vector.proposal_pub]],
        [commit, [vector.commit_priv, vector.commit_pub]],
        [application, [vector.application_priv]],
      ] as const) {
        for (const hex of messages) assert.deepEqual(unprotect(keys, unhex(hex)), content);
        const own = protect(keys, content, WireFormat.PrivateMessage);
        assert.deepEqual(unprotect(keys, own), content);
        if (content.contentType === ContentType.Application) continue;
        assert.deepEqual(unprotect(keys, protect(keys, content, WireFormat.PublicMessage)), content);
      }
      assertHex(encodeContent(proposal), vector.proposal);
      assertHex(encodeContent(commit), vector.commit);
    }
  });
}
