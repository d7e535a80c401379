/**
 * Checkpoints: what the log's key signs (PROTOCOL 7). C2SP tlog-checkpoint inside C2SP signed-note, as text:
 *
 *   origin ⏎ size in decimal ⏎ base64(root hash) ⏎ [extension lines ⏎] ⏎
 *   — key name, a space, base64(key id 4 ‖ Ed25519 signature over the text up to the blank line) ⏎     (one or more)
 *
 * key id = SHA-256(key name ‖ 0a ‖ 01 ‖ public key), the first 4 bytes; our logs name their key like their origin.
 *
 *   bytes ── parseCheckpoint (layout and bounds) ──▶ UnverifiedCheckpoint ── verifyCheckpoint (pinned log) ──▶ Checkpoint
 */
import { concat, decodeUtf8, encodeUtf8, equal, SignatureSchemeId } from '@quicprochat/crypto';
import type { CryptoProvider } from '@quicprochat/crypto';
import { decodeBase64Url, encodeBase64Url } from '../base64url.ts';
import { Misuse } from '../errors.ts';
import { exactly, SIGNATURE_BYTES } from '../statement.ts';
import { isTreeSize, TREE_HASH_BYTES, verifyConsistency } from './merkle.ts';

/** Longest signed note we read or make: GetTreeHead's answer and a commit's authenticated_data both carry one. */
export const CHECKPOINT_BYTES_MAX = 4_000;
/** Longest origin line. */
export const LOG_ORIGIN_CHARS_MAX = 255;

const SIGNATURES_MAX = 16;
const KEY_ID_BYTES = 4;
const ED25519 = new Uint8Array([0x01]);
const SIGNATURE_LINE_START = '— ';

/** How a client knows a log: pinned at first contact (PROTOCOL 7, 10), one and the same for every user of a server. */
export interface LogKey {
  /** The origin line, which is also the name of the key. */
  readonly origin: string;
  /** Ed25519, 32 bytes: the checkpoint key. */
  readonly key: Uint8Array;
}

/** The origin line of a server's key-transparency log. */
export function logOriginOf(serverOrigin: string): string {
  return `${serverOrigin}/key-transparency`;
}

declare const verified: unique symbol;

interface TreeHead {
  readonly origin: string;
  /** Number of entries. */
  readonly size: number;
  /** Root of the tree of that size, 32 bytes. */
  readonly root: Uint8Array;
  /** The signed note as received. */
  readonly bytes: Uint8Array;
}

/** A checkpoint whose signature nobody has checked. */
export interface UnverifiedCheckpoint {
  readonly kind: 'unverified';
  readonly claims: TreeHead;
  readonly note: SignedNote;
}

/** A checkpoint that the pinned log has signed. Two of them that contradict each other prove that it lied. */
export type Checkpoint = TreeHead & { readonly [verified]: true };

export type CheckpointOutcome =
  | { readonly kind: 'verified'; readonly checkpoint: Checkpoint }
  | { readonly kind: 'invalid'; readonly reason: string };

/** Signs a tree head. @throws Misuse when a part cannot stand in a checkpoint. */
export function signCheckpoint(
  crypto: CryptoProvider,
  logPrivateKey: Uint8Array,
  head: { readonly origin: string; readonly size: number; readonly root: Uint8Array },
): Uint8Array {
  if (!isTreeSize(head.size)) throw new Misuse('the size of a tree is out of range');
  const root = encodeBase64(exactly(head.root, TREE_HASH_BYTES, 'a root hash'));
  return signNote(crypto, `${head.origin}\n${head.size}\n${root}\n`, { name: head.origin, privateKey: logPrivateKey });
}

/** The layout read, nothing checked; undefined when it is not a checkpoint. */
export function parseCheckpoint(bytes: Uint8Array): UnverifiedCheckpoint | undefined {
  const note = parseNote(bytes);
  if (note === undefined) return undefined;
  const [origin, sizeText, rootText, ...rest] = note.text.split('\n');
  // The text ends in a newline, so the last piece is empty, and no other may be.
  if (rest.length === 0 || rest.slice(0, -1).includes('')) return undefined;
  if (!origin || origin.length > LOG_ORIGIN_CHARS_MAX || !/^(?:0|[1-9][0-9]{0,15})$/.test(sizeText ?? '')) {
    return undefined;
  }
  const size = Number(sizeText);
  const root = decodeBase64(rootText ?? '');
  if (!isTreeSize(size) || root?.length !== TREE_HASH_BYTES) return undefined;
  return { kind: 'unverified', claims: { origin, size, root, bytes: bytes.slice() }, note };
}

/** Checks origin and signature. Lines of other keys are ignored, as witnesses may have added theirs. */
export function verifyCheckpoint(
  crypto: CryptoProvider,
  untrusted: UnverifiedCheckpoint,
  log: LogKey,
): CheckpointOutcome {
  if (untrusted.claims.origin !== log.origin) return { kind: 'invalid', reason: 'the checkpoint is of another log' };
  if (!verifyNote(crypto, untrusted.note, { name: log.origin, publicKey: log.key })) {
    return { kind: 'invalid', reason: 'the checkpoint is not signed by the log' };
  }
  return { kind: 'verified', checkpoint: untrusted.claims as Checkpoint };
}

/** `parseCheckpoint` and `verifyCheckpoint` in one. */
export function openCheckpoint(crypto: CryptoProvider, bytes: Uint8Array, log: LogKey): CheckpointOutcome {
  const untrusted = parseCheckpoint(bytes);
  if (untrusted === undefined) return { kind: 'invalid', reason: 'the checkpoint cannot be read' };
  return verifyCheckpoint(crypto, untrusted, log);
}

export type CheckpointConsistency =
  | { readonly kind: 'consistent' }
  /** Both are signed and of one size, but differ: these two notes alone prove the split view to anyone. */
  | { readonly kind: 'split-view'; readonly one: Uint8Array; readonly other: Uint8Array }
  /** The log has not shown that the larger one continues the smaller; it cannot if it lied. */
  | { readonly kind: 'unproven'; readonly older: Uint8Array; readonly newer: Uint8Array };

/**
 * Whether two checkpoints of one log agree, by the log's consistency proof from the smaller size to the larger
 * (GetConsistencyProof). For clients without a mirror; `LogMirror.witness` needs no proof.
 */
export function compareCheckpoints(
  crypto: CryptoProvider,
  a: Checkpoint,
  b: Checkpoint,
  proof: readonly Uint8Array[],
): CheckpointConsistency {
  if (a.origin !== b.origin) throw new Misuse('checkpoints of two logs cannot agree or disagree');
  const [older, newer] = a.size <= b.size ? [a, b] : [b, a];
  const emptyRoot = crypto.hash('sha256', new Uint8Array(0));
  if (older.size === newer.size || older.size === 0) {
    const agrees = older.size === newer.size ? equal(older.root, newer.root) : equal(older.root, emptyRoot);
    return agrees ? { kind: 'consistent' } : { kind: 'split-view', one: older.bytes, other: newer.bytes };
  }
  const claim = { first: older.size, firstRoot: older.root, second: newer.size, secondRoot: newer.root };
  return verifyConsistency(crypto, claim, proof)
    ? { kind: 'consistent' }
    : { kind: 'unproven', older: older.bytes, newer: newer.bytes };
}

// Signed notes

interface SignedNote {
  /** With its last newline, without the blank line. */
  readonly text: string;
  readonly signatures: readonly NoteSignature[];
}

interface NoteSignature {
  readonly name: string;
  readonly keyId: Uint8Array;
  readonly signature: Uint8Array;
}

/** SHA-256(name ‖ newline ‖ 01 ‖ public key), its first 4 bytes. */
export function noteKeyId(crypto: CryptoProvider, name: string, publicKey: Uint8Array): Uint8Array {
  return crypto.hash('sha256', concat(encodeUtf8(`${name}\n`), ED25519, publicKey)).slice(0, KEY_ID_BYTES);
}

/** Signs `text`, which ends in a newline. @throws Misuse when text or name cannot stand in a note, or it is too long. */
export function signNote(
  crypto: CryptoProvider,
  text: string,
  signer: { readonly name: string; readonly privateKey: Uint8Array },
): Uint8Array {
  if (!isNoteText(text)) throw new Misuse('the text of a note ends in a newline and has no other control characters');
  if (!isKeyName(signer.name)) throw new Misuse('the name of a note key has neither spaces nor "+"');
  const ed25519 = crypto.signature(SignatureSchemeId.Ed25519);
  const keyId = noteKeyId(crypto, signer.name, ed25519.publicKey(signer.privateKey));
  const signature = encodeBase64(concat(keyId, ed25519.sign(signer.privateKey, encodeUtf8(text))));
  const note = encodeUtf8(`${text}\n${SIGNATURE_LINE_START}${signer.name} ${signature}\n`);
  if (note.length > CHECKPOINT_BYTES_MAX) throw new Misuse(`a note has at most ${CHECKPOINT_BYTES_MAX} bytes`);
  return note;
}

/** The layout of a note of at most CHECKPOINT_BYTES_MAX bytes and 16 signatures; undefined when it is none. */
export function parseNote(bytes: Uint8Array): SignedNote | undefined {
  if (bytes.length > CHECKPOINT_BYTES_MAX) return undefined;
  const whole = decodeUtf8(bytes);
  const blank = whole?.lastIndexOf('\n\n') ?? -1;
  if (whole === undefined || blank < 1 || !whole.endsWith('\n')) return undefined;
  const text = whole.slice(0, blank + 1);
  const lines = whole.slice(blank + 2, -1).split('\n');
  if (!isNoteText(text) || lines.length > SIGNATURES_MAX) return undefined;
  const signatures: NoteSignature[] = [];
  for (const line of lines) {
    if (!line.startsWith(SIGNATURE_LINE_START)) return undefined;
    const [name, encoded, ...more] = line.slice(SIGNATURE_LINE_START.length).split(' ');
    const decoded = decodeBase64(encoded ?? '');
    if (!isKeyName(name ?? '') || more.length > 0 || decoded === undefined || decoded.length <= KEY_ID_BYTES) {
      return undefined;
    }
    signatures.push({
      name: name!,
      keyId: decoded.slice(0, KEY_ID_BYTES),
      signature: decoded.slice(KEY_ID_BYTES),
    });
  }
  return { text, signatures };
}

/** Whether this key has signed the note. One bad signature of a known key spoils the note, as signed-note advises. */
export function verifyNote(
  crypto: CryptoProvider,
  note: SignedNote,
  verifier: { readonly name: string; readonly publicKey: Uint8Array },
): boolean {
  const keyId = noteKeyId(crypto, verifier.name, verifier.publicKey);
  const own = note.signatures.filter((line) => line.name === verifier.name && equal(line.keyId, keyId));
  const ed25519 = crypto.signature(SignatureSchemeId.Ed25519);
  const text = encodeUtf8(note.text);
  return (
    own.length > 0 &&
    own.every(
      ({ signature }) => signature.length === SIGNATURE_BYTES && ed25519.verify(verifier.publicKey, text, signature),
    )
  );
}

function isNoteText(text: string): boolean {
  // oxlint-disable-next-line no-control-regex -- these are what signed-note forbids
  return text.endsWith('\n') && !/[\u0000-\u0009\u000b-\u001f]/.test(text);
}

function isKeyName(name: string): boolean {
  // oxlint-disable-next-line no-control-regex -- as above
  return name.length > 0 && name.length <= LOG_ORIGIN_CHARS_MAX && !/[\s+\u0000-\u001f\u0085]/u.test(name);
}

/** Standard base64 (RFC 4648 section 4), padded. */
function encodeBase64(bytes: Uint8Array): string {
  const text = encodeBase64Url(bytes).replaceAll('-', '+').replaceAll('_', '/');
  return text.padEnd(Math.ceil(text.length / 4) * 4, '=');
}

/** The bytes, or undefined unless this is their one encoding. */
function decodeBase64(text: string): Uint8Array | undefined {
  if (text.length % 4 !== 0 || /[-_]/.test(text)) return undefined;
  return decodeBase64Url(
    text
      .replace(/={1,2}$/, '')
      .replaceAll('+', '-')
      .replaceAll('/', '_'),
  );
}
