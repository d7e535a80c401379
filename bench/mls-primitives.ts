// The least that an application message costs (RFC 9420 sections 6.3 and 9.1, suite 0x0001): node:crypto called with
// nothing around it, keys imported beforehand, inputs of the lengths that occur.
//
//   send     1 Ed25519 signature over FramedContentTBS
//            3 HKDF-Expand of one block (one HMAC-SHA256 each): key, nonce and next secret of the ratchet
//            1 AES-128-GCM seal of the content
//            2 HKDF-Expand: key and nonce of the sender data, which come from a sample of the ciphertext
//            1 AES-128-GCM seal of the 12 bytes of sender data
//   receive  the same with opening for sealing and one verification for the signature
//
// Not counted, though a message cannot do without: the random reuse guard, encoding and decoding, wiping.
//
// And the public-key operations of an empty commit (sections 7.4–7.6, 12.4), in a suite over X25519 or X-Wing:
//
//   commit   for each node above the committer one key pair, and one encapsulation to the other side's key
//            2 Ed25519 signatures: leaf, FramedContentTBS
//   process  2 verifications, 1 decapsulation, 1 key pair: that of the root, which everybody derives
//
// Not counted: hashing the changed nodes, the key schedule, the AEADs, key pairs below the root.
import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  decapsulate,
  diffieHellman,
  encapsulate,
  generateKeyPairSync,
  randomBytes,
  sign,
  verify,
} from 'node:crypto';

const AEAD = { authTagLength: 16 };

export interface BarePrimitives {
  send(): void;
  receive(): void;
  verify(): void;
}

/** `groupContextLength` is that of the encoded GroupContext, which every signature covers. */
export function barePrimitives(dataLength: number, groupContextLength: number): BarePrimitives {
  const groupId = 1 + 32;
  const sender = 5;
  const framedContent = groupId + 8 + sender + 1 + 1 + 2 + dataLength;
  const label = 1 + 'MLS 1.0 FramedContentTBS'.length + 2;
  const toBeSigned = randomBytes(label + 4 + framedContent + groupContextLength);
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  const signature = sign(null, toBeSigned, privateKey);

  const secret = randomBytes(32);
  const kdfLabel = 2 + 1 + 'MLS 1.0 secret'.length;
  const ratchetInfo = randomBytes(kdfLabel + 1 + 4 + 1);
  const senderDataInfo = randomBytes(kdfLabel + 1 + 32 + 1);

  const key = randomBytes(16);
  const nonce = randomBytes(12);
  const content = { plaintext: randomBytes(2 + dataLength + 2 + 64), aad: randomBytes(groupId + 8 + 1 + 1) };
  const senderData = { plaintext: randomBytes(12), aad: randomBytes(groupId + 8 + 1) };

  const expand = (info: Uint8Array): unknown => createHmac('sha256', secret).update(info).digest();
  const seal = ({ plaintext, aad }: typeof content): { body: Buffer; tag: Buffer } => {
    const cipher = createCipheriv('aes-128-gcm', key, nonce, AEAD);
    cipher.setAAD(aad);
    const body = cipher.update(plaintext);
    cipher.final();
    return { body, tag: cipher.getAuthTag() };
  };
  const open = ({ body, tag }: ReturnType<typeof seal>, aad: Uint8Array): void => {
    const decipher = createDecipheriv('aes-128-gcm', key, nonce, AEAD);
    decipher.setAuthTag(tag);
    decipher.setAAD(aad);
    decipher.update(body);
    decipher.final();
  };
  const sealed = { content: seal(content), senderData: seal(senderData) };

  const derive = (): void => {
    for (let i = 0; i < 3; i += 1) expand(ratchetInfo);
    for (let i = 0; i < 2; i += 1) expand(senderDataInfo);
  };
  return {
    send() {
      sign(null, toBeSigned, privateKey);
      derive();
      seal(content);
      seal(senderData);
    },
    receive() {
      derive();
      open(sealed.senderData, senderData.aad);
      open(sealed.content, content.aad);
      verify(null, toBeSigned, publicKey, signature);
    },
    verify() {
      verify(null, toBeSigned, publicKey, signature);
    },
  };
}

export interface BareCommit {
  commit(): void;
  process(): void;
}

/** `depth`: nodes above the committer's leaf. */
export function bareCommitPrimitives(kem: 'x25519' | 'x-wing', depth: number): BareCommit {
  const message = randomBytes(300);
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  const signature = sign(null, message, privateKey);
  const x25519 = generateKeyPairSync('x25519');
  const mlKem = generateKeyPairSync('ml-kem-768');
  const { ciphertext } = encapsulate(mlKem.publicKey);

  const newKeys = (): void => {
    generateKeyPairSync('x25519');
    if (kem === 'x-wing') generateKeyPairSync('ml-kem-768');
  };
  const seal = (): void => {
    diffieHellman({ privateKey: generateKeyPairSync('x25519').privateKey, publicKey: x25519.publicKey });
    if (kem === 'x-wing') encapsulate(mlKem.publicKey);
  };
  return {
    commit() {
      for (let i = 0; i < depth; i += 1) {
        newKeys();
        seal();
      }
      for (let i = 0; i < 2; i += 1) sign(null, message, privateKey);
    },
    process() {
      for (let i = 0; i < 2; i += 1) verify(null, message, publicKey, signature);
      diffieHellman({ privateKey: x25519.privateKey, publicKey: x25519.publicKey });
      if (kem === 'x-wing') decapsulate(mlKem.privateKey, ciphertext);
      newKeys();
    },
  };
}
