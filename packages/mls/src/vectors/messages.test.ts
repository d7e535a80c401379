import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decode, type Reader, Writer } from '../codec.ts';
import { decodeRatchetTree, encodeRatchetTree } from '../ratchet-tree.ts';
import {
  messageWriter,
  type MlsMessage,
  readCommit,
  readGroupSecrets,
  readMlsMessage,
  readProposal,
  writeAuthData,
  writeCommit,
  writeFramedContent,
  writeGroupInfo,
  writeGroupSecrets,
  writeKeyPackage,
  writeProposal,
  writeWelcome,
} from '../structures.ts';
import { assertHex, loadVectors, unhex } from '../testing/vectors.node.ts';

type Vector = Readonly<Record<string, string>>;

function encodeMessage(message: MlsMessage): Uint8Array {
  const writer = messageWriter(message.wireFormat);
  switch (message.wireFormat) {
    case 1: {
      const { content, auth, membershipTag } = message.publicMessage;
      writeFramedContent(writer, content);
      writeAuthData(writer, auth);
      if (membershipTag !== undefined) writer.opaque(membershipTag);
      break;
    }
    case 2: {
      const m = message.privateMessage;
      writer.opaque(m.groupId).u64(m.epoch).u8(m.contentType).opaque(m.authenticatedData);
      writer.opaque(m.encryptedSenderData).opaque(m.ciphertext);
      break;
    }
    case 3:
      writeWelcome(writer, message.welcome);
      break;
    case 4:
      writeGroupInfo(writer, message.groupInfo);
      break;
    case 5:
      writeKeyPackage(writer, message.keyPackage);
  }
  return writer.finish();
}

test('messages: every structure decodes and encodes to the same bytes', () => {
  const cases = loadVectors<Vector>('messages');
  assert.equal(cases.length, 300);
  const messages = [
    'mls_welcome',
    'mls_group_info',
    'mls_key_package',
    'public_message_application',
    'public_message_proposal',
    'public_message_commit',
    'private_message',
  ];
  const proposals = [
    ['add', 'add_proposal', 1],
    ['update', 'update_proposal', 2],
    ['remove', 'remove_proposal', 3],
    ['preSharedKey', 'pre_shared_key_proposal', 4],
    ['reInit', 're_init_proposal', 5],
    ['externalInit', 'external_init_proposal', 6],
    ['groupContextExtensions', 'group_context_extensions_proposal', 7],
  ] as const;
  const roundTrip = <T>(
    name: string,
    hex: string,
    read: (reader: Reader) => T,
    write: (writer: Writer, value: T) => void,
  ): void => {
    const writer = new Writer();
    write(writer, decode(read, unhex(hex)));
    assertHex(writer.finish(), hex, name);
  };
  for (const vector of cases) {
    for (const name of messages) {
      const hex = vector[name]!;
      assertHex(encodeMessage(decode(readMlsMessage, unhex(hex))), hex, name);
    }
    assertHex(encodeRatchetTree(decodeRatchetTree(unhex(vector['ratchet_tree']!))), vector['ratchet_tree']!);
    roundTrip('group_secrets', vector['group_secrets']!, readGroupSecrets, writeGroupSecrets);
    roundTrip('commit', vector['commit']!, readCommit, writeCommit);
    for (const [kind, name, type] of proposals) {
      // The vector is the body of the proposal alone.
      const bytes = new Writer().u16(type).bytes(unhex(vector[name]!)).finish();
      const proposal = decode(readProposal, bytes);
      assert.equal(proposal.kind, kind);
      const writer = new Writer();
      writeProposal(writer, proposal);
      assert.deepEqual(writer.finish(), bytes, name);
    }
  }
});
