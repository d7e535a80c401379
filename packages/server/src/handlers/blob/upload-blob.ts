import { methods } from '@quicprochat/transport';
import { BLOB_BYTES_MAX, BLOB_CHUNK_BYTES, BLOB_ID_BYTES } from '../../blobs.ts';
import { exactBytes, safeInteger } from '../../checks.ts';
import { deviceHandler } from '../../handler.ts';
import { deviceGone, exhausted, invalidArgument, tooLarge } from '../../refusals.ts';

/** Answers where to go on: also to a chunk that was there already, or came too early. */
export const uploadBlob = deviceHandler(methods.blob.uploadBlob, async ({ server, session, writes }, request) => {
  const { chunk } = request;
  const blobId = exactBytes(request.blobId, BLOB_ID_BYTES, 'a blob id');
  const sizeBytes = safeInteger(request.size, 'a size');
  const offset = safeInteger(request.offset, 'an offset');
  if (sizeBytes === 0) throw invalidArgument('a blob has at least one byte');
  if (sizeBytes > BLOB_BYTES_MAX) throw tooLarge(`a blob has at most ${BLOB_BYTES_MAX} bytes`);
  if (chunk.length > 0) {
    if (offset % BLOB_CHUNK_BYTES !== 0) throw invalidArgument(`a chunk begins at a multiple of ${BLOB_CHUNK_BYTES}`);
    if (chunk.length !== Math.min(BLOB_CHUNK_BYTES, sizeBytes - offset)) {
      throw invalidArgument(`every chunk but the last has ${BLOB_CHUNK_BYTES} bytes`);
    }
  }
  const nowMs = server.clock.wallMs();
  const upload = { identityKey: session.address.identityKey, blobId, sizeBytes, nowMs };
  const outcome = await server.blobs.upload(upload, offset, chunk, writes);
  switch (outcome.kind) {
    case 'open':
      return { nextOffset: BigInt(outcome.nextOffset), complete: false };
    case 'complete':
      return { nextOffset: request.size, complete: true };
    case 'wrong_bytes':
      throw invalidArgument('the bytes are not those that the blob id names', 'Upload again from the beginning.');
    case 'wrong_size':
      throw invalidArgument('the blob with this id has another size');
    case 'over_quota':
      throw exhausted(
        `an account has at most ${outcome.maxBytes} bytes of blobs here`,
        'Wait until older ones expire.',
      );
    case 'unknown_account':
      throw deviceGone();
  }
});
