// Bytes flipped in pages of the real database, page by page: a start either succeeds or says what is wrong and what to do;
// a server that runs answers what it can read and `unavailable` for the rest; it never dies of it, and its log names the
// store and nobody's data.
//
// SQLCipher authenticates each page, so nothing altered is ever answered. Plain SQLite has no checksums: it notices what
// does not fit together, and what does it takes for true. Then the ends notice (AEAD, signatures, hashes).
import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { fromBinary } from '@bufbuild/protobuf';
import { decodeHex, encodeHex } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import {
  EnvelopesEventSchema,
  type InboxGap,
  InboxGap_Reason,
  InboxGapEventSchema,
  PushEvent,
  Status,
} from '@quicprochat/proto';
import { resolveConfig, type RunningServer, startServer, StartupError } from '@quicprochat/server';
import { methods, type RpcClient, RpcError } from '@quicprochat/transport';
import { openDatabase } from '../packages/server/src/store/sqlite-database.node.ts';
import { Random } from './random.ts';
import { flagsFor, ServerProcess } from './server-process.ts';
import { connect, login, newPerson, type Person, register, resume } from './wire.ts';

const ORIGIN = 'corrupt.test';
const PAGE_BYTES = 4096;
const SUITE = 1;
const SETTINGS = { listen: '127.0.0.1:0', origin: ORIGIN, metricsListen: 'off', shutdownGraceSecs: 1 };

const root = mkdtempSync(path.join(tmpdir(), 'qpc-corrupt-'));
after(() => rmSync(root, { recursive: true, force: true }));

interface Truth {
  readonly folder: string;
  readonly settings: Readonly<Record<string, unknown>>;
  readonly alice: Person;
  readonly token: Uint8Array;
  /** Payload hashes by message id, hex. */
  readonly envelopes: ReadonlyMap<string, string>;
  readonly keyPackages: ReadonlySet<string>;
}

class Lines {
  readonly lines: string[] = [];
  readonly #keep = (fields: object, message: string): void => {
    const plain = Object.entries(fields).map(([name, value]) => [
      name,
      value instanceof Error ? value.stack : (value as unknown),
    ]);
    this.lines.push(JSON.stringify({ message, ...Object.fromEntries(plain) }));
  };
  readonly debug = (): void => {};
  readonly info = (): void => {};
  readonly warn = this.#keep;
  readonly error = this.#keep;
}

async function start(folder: string, settings: Readonly<Record<string, unknown>>, log: Lines): Promise<RunningServer> {
  const outcome = resolveConfig({ flags: { ...SETTINGS, ...settings, dataDir: folder }, environment: {} });
  assert.ok(outcome.kind === 'config', JSON.stringify(outcome));
  return startServer(outcome.config, { log });
}

const hashOf = (bytes: Uint8Array): string => encodeHex(crypto.hash('sha256', bytes));

/** A server with something in most of its tables, stopped in order. */
async function prepare(name: string, isEncrypted: boolean): Promise<Truth> {
  const folder = path.join(root, name);
  const keyFile = path.join(root, `${name}.key`);
  writeFileSync(keyFile, encodeHex(crypto.random(32)));
  const settings = isEncrypted ? { storeKeyFile: keyFile } : {};
  const server = await start(folder, settings, new Lines());
  const rpc = await connect({ port: server.port, trustAnchor: readFileSync(server.certificatePath) });
  const alice = newPerson(ORIGIN, 'alice');
  await register(rpc, ORIGIN, alice, 'a password');
  const token = await login(rpc, ORIGIN, alice, 'a password');
  const envelopes = new Map<string, string>();
  for (let n = 0; n < 40; n++) {
    const messageId = crypto.random(16);
    const payload = crypto.random(n % 4 === 0 ? 20_000 : 1_200);
    payload[0] = 1;
    await rpc.call(methods.delivery.enqueue, { ...inboxOf(alice), messageId, payload });
    envelopes.set(encodeHex(messageId), hashOf(payload));
  }
  const notAfter = BigInt(Math.floor(Date.now() / 1000) + 86_400);
  const packages = Array.from({ length: 20 }, () => crypto.random(700));
  await rpc.call(methods.keys.uploadKeyPackage, {
    keyPackages: packages.map((keyPackage) => ({ keyPackage, suite: SUITE, notAfter, lastResort: false })),
  });
  const kind = { case: 'group', value: { channelId: crypto.random(16) } } as const;
  await rpc.call(methods.channel.createChannel, { kind });
  rpc.close();
  await server.close();
  return { folder, settings, alice, token, envelopes, keyPackages: new Set(packages.map(hashOf)) };
}

function inboxOf({ address }: Person): { recipientKey: Uint8Array; deviceId: Uint8Array } {
  return { recipientKey: address.identityKey, deviceId: address.deviceId };
}

interface Tally {
  refused: number;
  whole: number;
  partly: number;
  altered: number;
}

/** Damages one page of a copy and sees what becomes of it. */
async function damage(truth: Truth, page: number, random: Random, tally: Tally): Promise<void> {
  const folder = `${truth.folder}-copy`;
  rmSync(folder, { recursive: true, force: true });
  cpSync(truth.folder, folder, { recursive: true });
  const file = path.join(folder, 'qpc.db');
  const bytes = readFileSync(file);
  const from = page * PAGE_BYTES + random.below(PAGE_BYTES - 64);
  for (let at = from; at < from + 64; at++) bytes[at] = (bytes[at] ?? 0) ^ (1 + random.below(255));
  writeFileSync(file, bytes);
  const log = new Lines();
  let server: RunningServer;
  try {
    server = await start(folder, truth.settings, log);
  } catch (error) {
    assert.ok(error instanceof StartupError, `page ${page}: ${error instanceof Error ? error.stack : String(error)}`);
    assert.ok(error.kind === 'data' && error.hint !== '', `page ${page}: ${error.message}`);
    tally.refused += 1;
    return;
  }
  try {
    const outcomes = await useIt(truth, server, page).catch((error: unknown) => {
      throw new Error(log.lines.join('\n'), { cause: error });
    });
    if (outcomes.has('altered')) tally.altered += 1;
    else if (outcomes.has('unavailable')) tally.partly += 1;
    else tally.whole += 1;
  } finally {
    await server.close();
  }
  for (const line of log.lines) {
    for (const secret of ['alice', encodeHex(truth.alice.address.identityKey)]) {
      assert.ok(!line.includes(secret), `page ${page}: ${line}`);
    }
  }
}

/** What cannot be found any more is refused like what was never there. */
const CLEAR: readonly number[] = [Status.UNAVAILABLE, Status.UNAUTHENTICATED, Status.NOT_FOUND];

/** `unavailable`: refused with a reason, or left out of an inbox and said so. */
type Outcome = 'whole' | 'altered' | 'unavailable';

async function useIt(truth: Truth, server: RunningServer, page: number): Promise<Set<Outcome>> {
  const { alice, token } = truth;
  const rpc = await connect({ port: server.port, trustAnchor: readFileSync(server.certificatePath) });
  const outcomes = new Set<Outcome>();
  const call = async (name: string, run: (rpc: RpcClient) => Promise<boolean | Outcome>): Promise<boolean> => {
    try {
      const outcome = await run(rpc);
      outcomes.add(typeof outcome === 'string' ? outcome : outcome ? 'whole' : 'altered');
      return true;
    } catch (error) {
      const where = `page ${page}, ${name}: ${String(error)}`;
      assert.ok(error instanceof RpcError, where);
      assert.ok(CLEAR.includes(error.status), where);
      assert.ok(error.status !== Status.UNAVAILABLE || error.hint !== '', where);
      outcomes.add(error.status === Status.UNAVAILABLE ? 'unavailable' : 'altered');
      return false;
    }
  };
  await call('health', async (rpc) => (await rpc.call(methods.p2p.health, {})).origin === ORIGIN);
  const isIn = await call('resume', async (rpc) => resume(rpc, ORIGIN, alice, token).then(() => true));
  if (isIn) {
    await call('peek', async (rpc) => {
      // An answer ends before what cannot be read; the next one says that something is missing, and goes on behind it.
      let afterSeq = 0n;
      let read = 0;
      let isGapTold = false;
      for (;;) {
        const request = { ...inboxOf(alice), afterSeq, maxBytes: 4_000_000 };
        const { envelopes, gap } = await rpc.call(methods.delivery.peek, request);
        isGapTold ||= gap?.reason === InboxGap_Reason.DAMAGED;
        for (const { seq, messageId, data } of envelopes) {
          if (seq <= afterSeq || truth.envelopes.get(encodeHex(messageId)) !== hashOf(data)) return false;
          afterSeq = seq;
        }
        if (envelopes.length === 0) break;
        read += envelopes.length;
      }
      return isGapTold ? 'unavailable' : read === truth.envelopes.size;
    });
    await call('resolve', async (rpc) => {
      const { outcome } = await rpc.call(methods.user.resolveUser, { username: 'alice' });
      return outcome.case === 'found' && hashOf(outcome.value.identityKey) === hashOf(alice.address.identityKey);
    });
    await call('fetch', async (rpc) => {
      const request = { identityKey: alice.address.identityKey, suite: SUITE };
      const { keyPackages } = await rpc.call(methods.keys.fetchKeyPackage, request);
      return keyPackages.length === 1 && keyPackages.every((each) => truth.keyPackages.has(hashOf(each.keyPackage)));
    });
    await call('enqueue', async (rpc) => {
      const payload = crypto.random(1_200);
      payload[0] = 1;
      const request = { ...inboxOf(alice), messageId: crypto.random(16), payload };
      return Number((await rpc.call(methods.delivery.enqueue, request)).seq) === truth.envelopes.size + 1;
    });
    await call('ack', async (rpc) => {
      await rpc.call(methods.delivery.ack, { ...inboxOf(alice), seqUpTo: 40n });
      return true;
    });
  }
  // Whatever it was, the server is there.
  const { version } = await rpc.call(methods.p2p.health, {});
  assert.notEqual(version, '');
  rpc.close();
  return outcomes;
}

const SEED = process.env['SEED'] ?? String(Date.now() % 1_000_000);
/** Every page with `PAGES=all`. */
const PAGES = process.env['PAGES'] === 'all' ? 'all' : 3;

for (const [name, isEncrypted] of [
  ['SQLite', false],
  ['SQLCipher', true],
] as const) {
  test(`pages of a ${name} database, one at a time`, async (t) => {
    const truth = await prepare(name, isEncrypted);
    const pages = statSync(path.join(truth.folder, 'qpc.db')).size / PAGE_BYTES;
    const choice = new Random(SEED);
    const some =
      PAGES === 'all'
        ? Array.from({ length: pages }, (_, page) => page)
        : [0, ...Array.from({ length: PAGES - 1 }, () => choice.below(pages))];
    const tally: Tally = { refused: 0, whole: 0, partly: 0, altered: 0 };
    const failures: string[] = [];
    for (const page of some) {
      try {
        await damage(truth, page, new Random(`${SEED}/${page}`), tally);
      } catch (error) {
        failures.push(error instanceof Error ? `${error.message}\n${String(error.cause)}` : String(error));
      }
    }
    t.diagnostic(`seed ${SEED}, ${some.length} of ${pages} pages: ${JSON.stringify(tally)}`);
    assert.deepEqual(failures, []);
    if (isEncrypted) await overDamage(truth);
    if (isEncrypted) await withoutFirstPage(truth);
    if (isEncrypted) assert.equal(tally.altered, 0, 'an altered page was taken for true');
  });
}

/** A device that is pushed its inbox hears of the damage once, and all that lies behind it. */
async function overDamage({ folder: whole, settings, alice, token, envelopes }: Truth): Promise<void> {
  const folder = `${whole}-copy`;
  rmSync(folder, { recursive: true, force: true });
  cpSync(whole, folder, { recursive: true });
  const file = path.join(folder, 'qpc.db');
  const key = decodeHex(readFileSync(String(settings['storeKeyFile']), 'utf8'));
  const db = openDatabase({ path: file, key }, { cacheKiB: 1_000 });
  const page = db
    .prepare<[], number>("SELECT pageno FROM dbstat WHERE name = 'message' AND pagetype = 'leaf' ORDER BY path")
    .pluck()
    .get();
  db.close();
  assert.ok(page !== undefined);
  const bytes = readFileSync(file);
  bytes.fill(0xff, (page - 1) * PAGE_BYTES, (page - 1) * PAGE_BYTES + 64);
  writeFileSync(file, bytes);
  const server = await start(folder, settings, new Lines());
  const gaps: InboxGap[] = [];
  const seqs: number[] = [];
  const last = Promise.withResolvers<void>();
  const onPush = (event: number, payload: Uint8Array): void => {
    const { gap } = event === PushEvent.INBOX_GAP ? fromBinary(InboxGapEventSchema, payload) : {};
    if (gap !== undefined) gaps.push(gap);
    if (event !== PushEvent.ENVELOPES) return;
    for (const { seq, messageId, data } of fromBinary(EnvelopesEventSchema, payload).envelopes) {
      assert.equal(envelopes.get(encodeHex(messageId)), hashOf(data));
      seqs.push(Number(seq));
    }
    if (seqs.at(-1) === envelopes.size) last.resolve();
  };
  const rpc = await connect({ port: server.port, trustAnchor: readFileSync(server.certificatePath) }, { onPush });
  await resume(rpc, ORIGIN, alice, token);
  await rpc.call(methods.delivery.subscribe, { afterSeq: 0n });
  await last.promise;
  assert.ok(seqs.length < envelopes.size);
  assert.deepEqual(
    gaps.map(({ reason }) => reason),
    [InboxGap_Reason.DAMAGED],
  );
  rpc.close();
  await server.close();
}

/** The program ends with one clear line. */
async function withoutFirstPage({ folder, settings }: Truth): Promise<void> {
  const file = path.join(folder, 'qpc.db');
  const bytes = readFileSync(file);
  bytes.fill(0, 0, PAGE_BYTES);
  writeFileSync(file, bytes);
  const server = new ServerProcess({
    args: flagsFor({ ...SETTINGS, ...settings, dataDir: folder, logLevel: 'warn' }),
  });
  const outcome = await server.started;
  assert.equal(await server.exited, 6);
  assert.ok(outcome.kind === 'refused', JSON.stringify(outcome));
  assert.equal(outcome.code, 'data');
  assert.match(outcome.message, /the database in .* cannot be used: .* or restore a backup if the file is damaged/);
  assert.deepEqual(server.log, []);
}
