import { methods } from '@quicprochat/transport';
import { BLOB_CHUNK_BYTES, BLOB_ID_BYTES } from '../../blobs.ts';
import { exactBytes, safeInteger } from '../../checks.ts';
import { deviceHandler } from '../../handler.ts';
import { invalidArgument, notFound } from '../../refusals.ts';

/** Whoever knows the id of a blob may read it: it is the hash of a ciphertext, and told to those who have its key. */
export const downloadBlob = deviceHandler(methods.blob.downloadBlob, async ({ server, session }, request) => {
  const blobId = exactBytes(request.blobId, BLOB_ID_BYTES, 'a blob id');
  const offset = safeInteger(request.offset, 'an offset');
  if (request.length > BLOB_CHUNK_BYTES) throw invalidArgument(`a range has at most ${BLOB_CHUNK_BYTES} bytes`);
  const length = request.length === 0 ? BLOB_CHUNK_BYTES : request.length;
  server.rates.take('downloadKib', session.account, Math.ceil(length / 1024));
  const found = await server.blobs.download(blobId, offset, length);
  if (found === undefined) throw notFound('there is no such blob', 'It may have expired.');
  if (offset > found.sizeBytes) throw invalidArgument('the range begins behind the end of the blob');
  return { chunk: found.chunk, size: BigInt(found.sizeBytes) };
});
