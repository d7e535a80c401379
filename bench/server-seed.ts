// Accounts put into the server's store directly: registering a thousand devices through OPAQUE would take minutes and
// measure Argon2id. The sessions are real ones, and so is everything that happens after.
import { createHash, randomBytes } from 'node:crypto';
import { SignatureSchemeId } from '@quicprochat/crypto';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { openSqliteStore } from '../packages/server/src/store/sqlite.node.ts';
import { type Address, DEFAULT_STORE_LIMITS, type Store } from '../packages/server/src/store/store.ts';

/** A device and its session: what ResumeSession needs. */
export interface SeededDevice extends Address {
  readonly devicePrivateKey: Uint8Array;
  readonly token: Uint8Array;
}

const DAY_MS = 86_400_000;

/** Opens the store of a server that is not running. */
export async function withStore<T>(path: string, use: (store: Store) => Promise<T>): Promise<T> {
  const limits = { ...DEFAULT_STORE_LIMITS, devicesPerAccount: 100_000 };
  const store = await openSqliteStore({ path, limits });
  try {
    return await use(store);
  } finally {
    await store.close();
  }
}

/** Devices of one account, each with a session. */
export async function seedDevices(store: Store, username: string, count: number): Promise<SeededDevice[]> {
  const nowMs = Date.now();
  const identityKey = bytes(32);
  const seeded = Array.from({ length: count }, () => {
    const { privateKey, publicKey } = nodeCrypto.signature(SignatureSchemeId.Ed25519).deriveKeyPair(bytes(32));
    const device = { deviceId: bytes(16), deviceKey: publicKey, certificate: bytes(64), name: 'bench' };
    return { device, devicePrivateKey: privateKey, token: bytes(32) };
  });
  const [first, ...others] = seeded;
  if (first === undefined) return [];
  const account = { username, identityKey, opaqueRecord: bytes(192), registrationSignature: bytes(64), nowMs };
  expectKind('created', await store.createAccount({ ...account, firstDevice: first.device }));
  await Promise.all(
    others.map(async ({ device }) =>
      expectKind('registered', await store.registerDevice({ identityKey, device, nowMs })),
    ),
  );
  return Promise.all(
    seeded.map(async ({ device, devicePrivateKey, token }) => {
      const address = { identityKey, deviceId: device.deviceId };
      const session = { tokenHash: sha256(token), address, expiresAtMs: nowMs + DAY_MS, nowMs };
      expectKind('stored', await store.putSession(session));
      return { ...address, devicePrivateKey, token };
    }),
  );
}

/** A group whose roster is these devices; its id. */
export async function seedGroup(store: Store, roster: readonly Address[]): Promise<Uint8Array> {
  const [creator] = roster;
  if (creator === undefined) throw new RangeError('a group needs a member');
  const channelId = bytes(16);
  const nowMs = Date.now();
  expectKind('created', await store.createGroup({ channelId, creator, nowMs }));
  const data = bytes(64);
  const submitted = await store.submitCommit({
    channelId,
    submitter: creator,
    after: 0,
    messageId: bytes(16),
    payload: { data, hash: sha256(data) },
    welcomes: [],
    rosterAdd: roster,
    rosterRemove: [],
    adminsAdd: [],
    adminsRemove: [],
    nowMs,
  });
  expectKind('accepted', submitted);
  return channelId;
}

function expectKind(wanted: string, outcome: { readonly kind: string }): void {
  if (outcome.kind !== wanted) throw new Error(`the store answered ${outcome.kind}`);
}

function bytes(length: number): Uint8Array {
  return new Uint8Array(randomBytes(length));
}

function sha256(data: Uint8Array): Uint8Array {
  return new Uint8Array(createHash('sha256').update(data).digest());
}
