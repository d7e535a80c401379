/**
 * Keys by which others reach this device (PROTOCOL sections 1 and 8): one hybrid key, renewed weekly, and KeyPackages per
 * suite with one of last resort. Private halves are on disk before the public ones leave, so a Welcome made for any of them
 * finds its key, whatever happened in between.
 */
import { create, toBinary } from '@bufbuild/protobuf';
import { KemId } from '@quicprochat/crypto';
import { encodeCredentialIdentity, signHybridKey, signRequest } from '@quicprochat/core';
import { CredentialType, ExtensionType, generateKeyPackage } from '@quicprochat/mls';
import { Status, UploadHybridKeyBodySchema } from '@quicprochat/proto';
import { methods } from '@quicprochat/transport';
import type { Engine } from './engine.ts';
import { QpcExtensionType } from './profile/channel-extension.ts';
import { CAPABILITIES, KEY_PACKAGE_LIFETIME_SECS, keyPackageLifetime } from './profile/group-parameters.ts';
import { SUITES } from './profile/suites.ts';
import { statusOf } from './server-errors.ts';
import type { StoredHybridKey, StoredKeyPackage } from './store/index.ts';

const DAY_SECS = 86_400;
const HYBRID_RENEWAL_SECS = 7 * DAY_SECS;
const HYBRID_LIFETIME_SECS = 90 * DAY_SECS;
const HYBRID_PRIVATE_KEPT_MS = 30 * DAY_SECS * 1000;
const BACKDATE_SECS = 3_600;
const X_WING_SEED_BYTES = 32;

/** Topped up to the first when fewer than the second are left. */
const KEY_PACKAGES_WANTED = 32;
const KEY_PACKAGES_LOW = 16;
/** Below 256 KiB also in the post-quantum suite, whose KeyPackages have about 2.9 KiB. */
const KEY_PACKAGES_PER_UPLOAD = 64;
/** A KeyPackage is replaced at half of its life (PROTOCOL section 9). */
const KEY_PACKAGE_RENEWAL_SECS = KEY_PACKAGE_LIFETIME_SECS / 2;

/**
 * Brings everything up to date. One at a time. Returns how many KeyPackages were uploaded.
 * @param options `all`: KeyPackages anew whatever their age; `hybrid`: the hybrid key too
 */
export async function publishKeys(
  engine: Engine,
  options: { readonly all?: boolean; readonly hybrid?: boolean } = {},
): Promise<number> {
  return engine.queue.run('publish-keys', async () => {
    await publishHybridKey(engine, options.hybrid === true);
    return publishKeyPackages(engine, options.all === true);
  });
}

async function publishHybridKey(engine: Engine, anew: boolean): Promise<void> {
  const { keys } = engine.store;
  const nowSecs = engine.nowSecs();
  engine.change((change) => change.store.keys.deleteHybridKeysSuperseded(engine.nowMs() - HYBRID_PRIVATE_KEPT_MS));
  let newest = keys.newestHybridKey();
  if (anew || newest === undefined || nowSecs - (newest.notBeforeSecs + BACKDATE_SECS) >= HYBRID_RENEWAL_SECS) {
    const made = makeHybridKey(engine, (newest?.serial ?? 0n) + 1n);
    engine.change((change) => change.store.keys.saveHybridKey(made));
    newest = made;
  }
  if (newest.uploaded) return;
  const { statement, serial, notAfterSecs } = newest;
  const body = toBinary(
    UploadHybridKeyBodySchema,
    create(UploadHybridKeyBodySchema, { hybridKey: statement, serial, notAfter: BigInt(notAfterSecs) }),
  );
  const timeMs = BigInt(engine.nowMs());
  const { origin, devicePrivateKey } = engine.self;
  const signature = signRequest(engine.crypto, devicePrivateKey, {
    methodId: methods.keys.uploadHybridKey.id,
    origin,
    timeMs,
    body,
  });
  await engine.server.call(methods.keys.uploadHybridKey, { signed: { body, timeMs, signature } });
  engine.change((change) => change.store.keys.hybridKeyUploaded(serial, engine.nowMs()));
}

function makeHybridKey(engine: Engine, serial: bigint): StoredHybridKey {
  const seed = engine.ports.random(X_WING_SEED_BYTES);
  const { publicKey, privateKey } = engine.crypto.kem(KemId.XWing).deriveKeyPair(seed);
  engine.crypto.wipe(seed);
  const notBeforeSecs = engine.nowSecs() - BACKDATE_SECS;
  const notAfterSecs = notBeforeSecs + HYBRID_LIFETIME_SECS;
  const { origin, devicePrivateKey } = engine.self;
  const statement = signHybridKey(engine.crypto, devicePrivateKey, {
    origin,
    address: engine.address,
    publicKey,
    serial,
    notBeforeSecs,
    notAfterSecs,
  });
  return {
    serial,
    publicKey,
    privateKey,
    statement,
    notBeforeSecs,
    notAfterSecs,
    uploaded: false,
    supersededAtMs: undefined,
  };
}

async function publishKeyPackages(engine: Engine, all: boolean): Promise<number> {
  engine.change((change) => change.store.keys.deleteKeyPackagesExpired(engine.nowSecs()));
  const { counts } = await engine.server.call(methods.keys.countKeyPackages, {});
  // Made by an earlier run whose upload nobody confirmed.
  const unconfirmed = engine.store.keys.keyPackagesToUpload();
  const made: StoredKeyPackage[] = [];
  for (const suite of SUITES) {
    const count = counts.find((candidate) => candidate.suite === suite);
    const earlier = unconfirmed.filter((keyPackage) => keyPackage.suite === suite);
    const hasLastResort = count?.lastResort === true || earlier.some(({ lastResort }) => lastResort);
    const available = (count?.available ?? 0) + earlier.filter(({ lastResort }) => !lastResort).length;
    const lastResortIsOld = isOld(engine, suite);
    // The last-resort package is made with the others, so its age tells theirs.
    const renewAll = all || (lastResortIsOld && available > 0);
    const wanted = renewAll ? KEY_PACKAGES_WANTED : available < KEY_PACKAGES_LOW ? KEY_PACKAGES_WANTED - available : 0;
    for (let i = 0; i < wanted; i++) made.push(makeKeyPackage(engine, suite, false));
    if (all || !hasLastResort || count?.lastResortUsed === true || lastResortIsOld) {
      made.push(makeKeyPackage(engine, suite, true));
    }
  }
  if (made.length > 0) {
    engine.change((change) => {
      for (const keyPackage of made) change.store.keys.saveKeyPackage(keyPackage);
    });
  }
  // Uploading twice is harmless.
  const waiting = engine.store.keys.keyPackagesToUpload();
  const suites = new Set(waiting.map(({ suite }) => suite));
  const uploads = [...suites].map((suite) =>
    uploadSuite(
      engine,
      waiting.filter((keyPackage) => keyPackage.suite === suite),
    ),
  );
  return (await Promise.all(uploads)).reduce((sum, uploaded) => sum + uploaded, 0);
}

/** One suite by itself: what the server says when it has enough is about that suite alone. */
async function uploadSuite(engine: Engine, waiting: readonly StoredKeyPackage[]): Promise<number> {
  const ordinary = waiting.filter(({ lastResort }) => !lastResort);
  const lastResorts = waiting.filter(({ lastResort }) => lastResort).sort((a, b) => a.createdAtMs - b.createdAtMs);
  let uploaded = 0;
  // The server takes one of last resort at a time and keeps the last.
  for (const superseded of lastResorts.slice(0, -1)) uploaded += await upload(engine, [superseded]);
  const all = [...lastResorts.slice(-1), ...ordinary];
  for (let start = 0; start < all.length; start += KEY_PACKAGES_PER_UPLOAD) {
    uploaded += await upload(engine, all.slice(start, start + KEY_PACKAGES_PER_UPLOAD));
  }
  return uploaded;
}

async function upload(engine: Engine, part: readonly StoredKeyPackage[]): Promise<number> {
  try {
    await engine.server.call(methods.keys.uploadKeyPackage, {
      keyPackages: part.map(({ keyPackage, suite, notAfterSecs, lastResort }) => ({
        keyPackage,
        suite,
        notAfter: BigInt(notAfterSecs),
        lastResort,
      })),
    });
  } catch (error) {
    if (statusOf(error) !== Status.EXHAUSTED) throw error;
    // The server has as many as it keeps: these are not needed, those of last resort are.
    const lastResorts = part.filter(({ lastResort }) => lastResort);
    engine.change((change) => {
      for (const { keyPackageRef, lastResort } of part)
        if (!lastResort) change.store.keys.deleteKeyPackage(keyPackageRef);
    });
    return lastResorts.length === 0 || lastResorts.length === part.length ? 0 : upload(engine, lastResorts);
  }
  engine.change((change) => change.store.keys.keyPackagesUploaded(part.map(({ keyPackageRef }) => keyPackageRef)));
  return part.length;
}

function makeKeyPackage(engine: Engine, suite: number, lastResort: boolean): StoredKeyPackage {
  const { deviceKey, devicePrivateKey, certificate } = engine.self;
  const lifetime = keyPackageLifetime(engine.nowSecs());
  const bundle = generateKeyPackage(engine.mls(), {
    cipherSuite: suite,
    credential: { credentialType: CredentialType.Basic, identity: encodeCredentialIdentity(engine.address) },
    signatureKeyPair: { publicKey: deviceKey, privateKey: devicePrivateKey },
    lifetime,
    capabilities: CAPABILITIES,
    extensions: lastResort ? [{ extensionType: ExtensionType.LastResort, extensionData: new Uint8Array(0) }] : [],
    leafNodeExtensions: [{ extensionType: QpcExtensionType.DeviceCertificate, extensionData: certificate }],
  });
  return {
    keyPackage: bundle.keyPackage,
    keyPackageRef: bundle.keyPackageRef,
    initPrivateKey: bundle.initPrivateKey,
    encryptionPrivateKey: bundle.encryptionPrivateKey,
    suite,
    lastResort,
    notAfterSecs: Number(lifetime.notAfter),
    uploaded: false,
    usedAtMs: undefined,
    createdAtMs: engine.nowMs(),
  };
}

function isOld(engine: Engine, suite: number): boolean {
  const lastResort = engine.store.keys.lastResort(suite);
  if (lastResort === undefined) return true;
  return engine.nowSecs() > lastResort.notAfterSecs - KEY_PACKAGE_RENEWAL_SECS;
}
