/**
 * A key-transparency log on a real store in a file, without a server around it: for tests that kill it, copy it, or change
 * bytes of it behind its back.
 */
import { create } from '@bufbuild/protobuf';
import {
  CERTIFICATE_LIFETIME_SECS,
  generateSigningKey,
  generateVrfKeyPair,
  HISTORY_START,
  parseAccountStatement,
  signAccountStatement,
  signDeviceCertificate,
  verifyAccountStatement,
  verifyResolve,
  vrfReady,
} from '@quicprochat/core';
import type { ResolveOutcome } from '@quicprochat/core';
import { nodeCrypto } from '@quicprochat/crypto/node';
import { KeyTransparencyProofSchema } from '@quicprochat/proto';
import type { ServerClock } from '../context.ts';
import { KeyTransparency } from '../key-transparency.ts';
import type { LogSecrets } from '../key-transparency.ts';
import { openSqliteStore } from '../store/sqlite.node.ts';
import type { Store } from '../store/store.ts';
import { TestClock, TestLog } from './world.node.ts';

const ORIGIN = 'chat.test';

export async function newLogSecrets(): Promise<LogSecrets> {
  await vrfReady();
  return {
    checkpointPrivateKey: generateSigningKey(nodeCrypto).privateKey,
    vrf: generateVrfKeyPair(nodeCrypto),
  };
}

export class LogOnDisk {
  readonly store: Store;
  readonly keyTransparency: KeyTransparency;
  readonly log: TestLog;

  private constructor(store: Store, keyTransparency: KeyTransparency, log: TestLog) {
    this.store = store;
    this.keyTransparency = keyTransparency;
    this.log = log;
  }

  /** @throws StartupError when file and secrets do not fit */
  static async open(path: string, secrets: LogSecrets, clock: ServerClock = new TestClock()): Promise<LogOnDisk> {
    const store = await openSqliteStore({ path });
    try {
      const log = new TestLog();
      const surroundings = { crypto: nodeCrypto, store, clock, log, origin: ORIGIN };
      return new LogOnDisk(store, await KeyTransparency.open({ ...surroundings, secrets }), log);
    } catch (error) {
      await store.close();
      throw error;
    }
  }

  /** An account whose statement is accepted; its entry is in the queue. */
  async accept(username: string): Promise<void> {
    const store = await this.prepare(username);
    await store();
  }

  /** Everything that costs time, beforehand; what it returns does nothing but store it. */
  async prepare(username: string): Promise<() => Promise<void>> {
    const identity = generateSigningKey(nodeCrypto);
    const device = { deviceId: nodeCrypto.random(16), deviceKey: generateSigningKey(nodeCrypto).publicKey };
    const head = { origin: ORIGIN, username, identityKey: identity.publicKey };
    const notBeforeSecs = Math.floor(Date.now() / 1_000);
    const certificate = signDeviceCertificate(nodeCrypto, identity.privateKey, {
      ...head,
      ...device,
      manager: true,
      serial: 1n,
      notBeforeSecs,
      notAfterSecs: notBeforeSecs + CERTIFICATE_LIFETIME_SECS,
    });
    const bytes = signAccountStatement(nodeCrypto, identity.privateKey, {
      ...head,
      kind: 'keys',
      version: 0,
      history: HISTORY_START,
      certificates: [certificate],
      revocations: [],
    });
    const checked = verifyAccountStatement(nodeCrypto, parseAccountStatement(bytes)!, { ...head, version: 0 });
    if (checked.kind === 'invalid') throw new Error(checked.reason);
    const account = {
      username,
      identityKey: identity.publicKey,
      opaqueRecord: nodeCrypto.random(192),
      registrationSignature: nodeCrypto.random(64),
      firstDevice: { ...device, certificate, name: '' },
      stated: await this.keyTransparency.enter(checked.statement, undefined, 0),
      nowMs: Date.now(),
    };
    return async () => {
      const outcome = await this.store.createAccount(account);
      if (outcome.kind !== 'created') throw new Error(outcome.kind);
    };
  }

  /** Accounts whose entries are in the log. */
  async register(...usernames: readonly string[]): Promise<void> {
    for (const username of usernames) await this.accept(username);
    await this.keyTransparency.flush();
  }

  /** As a client verifies what Resolve answers. */
  async resolve(username: string): Promise<ResolveOutcome> {
    const resolved = await this.keyTransparency.resolve({ username });
    if (resolved?.proof === undefined) throw new Error('no such account, or no entry of it');
    const proof = create(KeyTransparencyProofSchema, resolved.proof);
    await vrfReady();
    return verifyResolve(nodeCrypto, this.keyTransparency.pinned, username, proof);
  }

  entries(start: number): Promise<Uint8Array[]> {
    return this.store.readLogEntries({ start, limit: 1_000_000 });
  }

  async close(): Promise<void> {
    await this.keyTransparency.close();
    await this.store.close();
  }
}
