import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Reader } from '../codec.ts';
import { confirmationTag, confirmedTranscriptHash, interimTranscriptHash } from '../key-schedule.ts';
import { readAuthData, readFramedContent } from '../structures.ts';
import { assertHex, loadVectors, providers, suiteCases, unhex } from '../testing/vectors.node.ts';

interface Vector {
  readonly cipher_suite: number;
  readonly confirmation_key: string;
  readonly authenticated_content: string;
  readonly interim_transcript_hash_before: string;
  readonly confirmed_transcript_hash_after: string;
  readonly interim_transcript_hash_after: string;
}

for (const crypto of providers) {
  test(`transcript-hashes (RFC 9420 section 8.2) on ${crypto.name}`, () => {
    const cases = suiteCases(loadVectors<Vector>('transcript-hashes'), crypto);
    assert.equal(cases.length, 5);
    for (const { suite, vector } of cases) {
      const reader = new Reader(unhex(vector.authenticated_content));
      const wireFormat = reader.u16();
      const start = reader.position;
      const content = readFramedContent(reader);
      const contentBytes = reader.since(start);
      const auth = readAuthData(reader, content.content.contentType);
      reader.finish();
      const confirmed = confirmedTranscriptHash(
        suite,
        unhex(vector.interim_transcript_hash_before),
        wireFormat,
        contentBytes,
        auth.signature,
      );
      assertHex(confirmed, vector.confirmed_transcript_hash_after);
      assert.deepEqual(confirmationTag(suite, unhex(vector.confirmation_key), confirmed), auth.confirmationTag);
      assert.ok(auth.confirmationTag);
      assertHex(interimTranscriptHash(suite, confirmed, auth.confirmationTag), vector.interim_transcript_hash_after);
    }
  });
}
