/**
 * Ratchet trees too large for their Welcome go by way of a blob (PROTOCOL section 9):
 *
 *   pending commit ─▶ upload its tree, as far as that has not been done ─▶ SubmitCommit (commit/submit-commit.ts)
 *   Welcome in the inbox, its channel held up ─▶ download, compare with hash and key ─▶ what waited, in order
 *
 * A tree that cannot be had any more lets nobody in: the device asks to be added again. Without a connection, or when the
 * server has a bad moment, the channel waits; nothing of it is lost, and the rest of the inbox goes on.
 */
import { encodeHex, equal } from '@quicprochat/crypto';
import { Status } from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import type { Engine } from './engine.ts';
import { ClientError, toClientError } from './errors.ts';
import { decodeTreeReference, openTree, treeBlobLength, type TreeReference } from './message/index.ts';
import { receiveHeld } from './receive-message.ts';
import { statusOf } from './server-errors.ts';

const CHUNK_BYTES = 256 * 1024;
const RETRY_MS = 10_000;

/** Brings the tree of a channel's pending commit to the server, if it has one that is not there yet. */
export async function uploadPendingTree(engine: Engine, channelId: Uint8Array): Promise<void> {
  const upload = engine.store.trees.pendingUpload(channelId);
  if (upload === undefined) return;
  const { blobId, blob } = upload;
  const size = BigInt(blob.length);
  // An empty chunk asks how far an earlier attempt has come.
  let { nextOffset, complete } = await engine.server.call(methods.blob.uploadBlob, { blobId, size });
  while (!complete) {
    const offset = Number(nextOffset);
    const chunk = blob.subarray(offset, offset + CHUNK_BYTES);
    const answer = await engine.server.call(methods.blob.uploadBlob, { blobId, size, offset: nextOffset, chunk });
    if (!answer.complete && answer.nextOffset <= nextOffset) {
      throw new ClientError('refused', 'refused', 'the server takes no more of a file', { hint: 'Try again later.' });
    }
    ({ nextOffset, complete } = answer);
  }
  if (engine.closed) return;
  engine.change(({ store }) => {
    // Another commit may be pending by now, with a tree of its own.
    const now = store.trees.pendingUpload(channelId);
    if (now !== undefined && equal(now.blobId, blobId)) store.trees.uploaded(channelId);
  });
}

export class TreeDownloads {
  readonly #engine: Engine;
  #running = false;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  get busy(): boolean {
    return this.#running;
  }

  /** Fetches what channels wait for. Returns at once. */
  kick(): void {
    const { closed, server, hasSession, store } = this.#engine;
    if (this.#running || closed || server.state !== 'online' || !hasSession) return;
    if (store.trees.channels().length === 0) return;
    this.#running = true;
    void this.#run().finally(() => {
      this.#running = false;
      if (!this.#engine.closed) this.#engine.conditions.check();
    });
  }

  async #run(): Promise<void> {
    const engine = this.#engine;
    // One that cannot be had just now must not keep the others from their conversations.
    const putOff = new Set<string>();
    for (let next = this.#next(putOff); next !== undefined; next = this.#next(putOff)) {
      const { channelId, reference } = next;
      try {
        const tree = await download(engine, channelId, reference);
        if (engine.closed) return;
        engine.trees = new Map([[encodeHex(reference.blobId), tree]]);
        try {
          receiveHeld(engine, channelId);
        } finally {
          engine.trees = new Map();
        }
      } catch (error) {
        if (engine.closed) return;
        engine.ports.log.debug('a tree could not be fetched', { reason: toClientError(error).code });
        // Being online again asks for all of them.
        if (engine.server.state !== 'online') return;
        putOff.add(encodeHex(channelId));
      }
    }
    if (putOff.size > 0) engine.later(() => this.kick(), RETRY_MS);
  }

  #next(
    putOff: ReadonlySet<string>,
  ): { readonly channelId: Uint8Array; readonly reference: TreeReference } | undefined {
    const { trees } = this.#engine.store;
    const channelId = trees.channels().find((held) => !putOff.has(encodeHex(held)));
    const encoded = channelId && trees.wanted(channelId);
    if (channelId === undefined || encoded === undefined) return undefined;
    const reference = decodeTreeReference(encoded);
    if (reference === undefined) throw new ClientError('bug', 'bug', 'a stored tree reference is malformed');
    return { channelId, reference };
  }
}

/** Undefined when the server does not have the tree, or has something else. @throws ClientError when it may be asked again */
async function download(
  engine: Engine,
  channelId: Uint8Array,
  reference: TreeReference,
): Promise<Uint8Array | undefined> {
  const { blobId } = reference;
  const size = treeBlobLength(reference.length);
  let blob: Uint8Array | undefined;
  try {
    for (let offset = 0; offset < size; offset += CHUNK_BYTES) {
      const length = Math.min(CHUNK_BYTES, size - offset);
      const { chunk, size: told } = await engine.server.call(methods.blob.downloadBlob, {
        blobId,
        offset: BigInt(offset),
        length,
      });
      // Neither more than was announced, nor less at a time than was asked for, which would take for ever.
      if (told !== BigInt(size) || chunk.length !== length) return undefined;
      blob ??= new Uint8Array(size);
      blob.set(chunk, offset);
    }
  } catch (error) {
    const status = statusOf(error);
    if (status === Status.NOT_FOUND || status === Status.INVALID_ARGUMENT || status === Status.FORBIDDEN) {
      return undefined;
    }
    throw error;
  }
  return blob && openTree(engine.crypto, channelId, reference, blob);
}
