// A disk without space, for the real server: what needs space is refused with words that say so, reads go on, nothing that
// was acknowledged is lost, and when there is space again everything works without a restart.
//
// The disk is a tmpfs of a few megabytes in a mount namespace of its own, so that nothing of it can outlive the test. It
// takes either root or user namespaces. Where there are neither, RLIMIT_FSIZE stands in, which needs no rights: the kernel
// refuses to let a file of the server grow, with EFBIG instead of ENOSPC, which SQLite calls an error of the medium instead
// of a full disk. `DISK=limit` chooses that one.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { encodeHex } from '@quicprochat/crypto';
import { nodeCrypto as crypto } from '@quicprochat/crypto/node';
import { Status, StoreState } from '@quicprochat/proto';
import { methods, RpcClient, RpcError } from '@quicprochat/transport';
import { flagsFor, ServerProcess, type ServerProcessOptions } from './server-process.ts';
import { connect, login, newPerson, register, resume } from './wire.ts';

const ORIGIN = 'full.test';
const SETTINGS = {
  listen: '127.0.0.1:0',
  origin: ORIGIN,
  metricsListen: 'off',
  logLevel: 'warn',
  shutdownGraceSecs: 1,
};
const DISK_BYTES = 12 * 1024 * 1024;
const FILE_BYTES_MAX = 2 * 1024 * 1024;
// What the log of the database holds is written once more into the database: room has to be for both.
const FILLER_BYTES = 8 * 1024 * 1024;
const CHUNK_BYTES = 256 * 1024;

interface Disk {
  /** As the server sees it. */
  readonly dataDir: string;
  /** As this process sees it. */
  readonly outside: string;
  /** Runs a program that sees the disk. */
  readonly under: readonly string[];
  /** Words for a client when it is full. */
  readonly refusal: RegExp;
  /** Gives a running server its space back. */
  makeRoom(server: ServerProcess): void;
}

/** A tmpfs that only those see who are run under it; undefined where that is not permitted. */
async function smallDisk(t: TestContext): Promise<Disk | undefined> {
  const folder = mkdtempSync(path.join(tmpdir(), 'qpc-full-'));
  const isRoot = process.getuid?.() === 0;
  const mount = `mount -t tmpfs -o size=${DISK_BYTES},mode=700 tmpfs "$0" && echo ready && exec cat`;
  const holder = spawn('unshare', [isRoot ? '-m' : '-Urm', 'sh', '-c', mount, folder], {
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  t.after(async () => {
    holder.stdin.end();
    if (holder.exitCode === null && holder.pid !== undefined) await once(holder, 'exit');
    rmSync(folder, { recursive: true, force: true });
  });
  const isMounted = await Promise.race([
    once(holder.stdout, 'data').then(() => true),
    once(holder, 'exit').then(() => false),
    once(holder, 'error').then(() => false),
  ]).catch(() => false);
  if (!isMounted) return undefined;
  const outside = path.join(`/proc/${holder.pid}/root`, folder);
  writeFileSync(path.join(outside, 'filler'), new Uint8Array(FILLER_BYTES));
  return {
    dataDir: path.join(folder, 'server'),
    outside: path.join(outside, 'server'),
    under: ['nsenter', '-t', String(holder.pid), ...(isRoot ? [] : ['-U', '--preserve-credentials']), '-m', '--'],
    refusal: /the disk of the server is full/,
    makeRoom: () => rmSync(path.join(outside, 'filler')),
  };
}

/** No file of the server grows beyond a limit, until that is raised. */
function limitedFiles(t: TestContext): Disk {
  const folder = mkdtempSync(path.join(tmpdir(), 'qpc-limited-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return {
    dataDir: folder,
    outside: folder,
    under: ['prlimit', `--fsize=${FILE_BYTES_MAX}:unlimited`, '--'],
    // SQLite does not say which error of the medium it was.
    refusal: /the server cannot read or write its data now/,
    makeRoom: ({ child }) => {
      const { status, stderr } = spawnSync('prlimit', ['--pid', String(child.pid), '--fsize=unlimited:unlimited']);
      assert.equal(status, 0, String(stderr));
    },
  };
}

test('full, and room again', async (t) => {
  const mounted = process.env['DISK'] === 'limit' ? undefined : await smallDisk(t);
  t.diagnostic(mounted === undefined ? 'files that may not grow' : 'a disk of a few megabytes');
  await fillAndRecover(t, mounted ?? limitedFiles(t));
});

async function fillAndRecover(t: TestContext, disk: Disk): Promise<void> {
  const options: ServerProcessOptions = {
    under: disk.under,
    args: flagsFor({ ...SETTINGS, dataDir: disk.dataDir }),
  };
  let { server, ready } = await ServerProcess.start(options);
  t.after(() => server.end('SIGKILL'));
  const trustAnchor = new Uint8Array(readFileSync(path.join(disk.outside, 'cert.pem')));
  const person = newPerson(ORIGIN, 'alice');
  let rpc = await connect({ port: ready.port, trustAnchor });
  await register(rpc, ORIGIN, person, 'a password');
  const token = await login(rpc, ORIGIN, person, 'a password');
  const inbox = { recipientKey: person.address.identityKey, deviceId: person.address.deviceId };

  // Until the disk is full.
  const stored = new Map<string, bigint>();
  const enqueue = async (bytes: number): Promise<void> => {
    const messageId = crypto.random(16);
    const payload = crypto.random(bytes);
    payload[0] = 1;
    const { seq } = await rpc.call(methods.delivery.enqueue, { ...inbox, messageId, payload });
    stored.set(encodeHex(messageId), seq);
  };
  const refusals = async (attempt: () => Promise<unknown>): Promise<RpcError> => {
    for (let n = 0; n < 200; n++) {
      try {
        await attempt();
      } catch (error) {
        assert.ok(error instanceof RpcError, String(error));
        return error;
      }
    }
    return assert.fail('it was never full');
  };
  const isRefusal = (error: RpcError): void => {
    assert.equal(error.status, Status.UNAVAILABLE, error.message);
    assert.match(error.message, disk.refusal);
    assert.match(error.hint, /nothing was kept of this request/);
    assert.ok(error.retryAfterMs > 0);
  };

  // A file of somebody, half of it before the disk is full.
  const file = crypto.random(4 * CHUNK_BYTES);
  const blobId = crypto.hash('sha256', file);
  let uploaded = 0;
  const upload = async (): Promise<boolean> => {
    const { nextOffset, complete } = await rpc.call(methods.blob.uploadBlob, {
      blobId,
      size: BigInt(file.length),
      offset: BigInt(uploaded),
      chunk: file.subarray(uploaded, uploaded + CHUNK_BYTES),
    });
    assert.ok(Number(nextOffset) >= uploaded, 'an upload goes back');
    uploaded = Number(nextOffset);
    return complete;
  };
  assert.equal(await upload(), false);

  isRefusal(await refusals(() => enqueue(200_000)));
  isRefusal(await refusals(() => enqueue(2_000)));
  assert.ok(stored.size > 3, `${stored.size} envelopes`);
  const { store } = await rpc.call(methods.p2p.health, {});
  assert.equal(store, StoreState.READ_ONLY);

  // Reading goes on, for who is here and for who comes.
  const readAll = async (from: RpcClient): Promise<Map<string, bigint>> => {
    const found = new Map<string, bigint>();
    for (let afterSeq = 0n; ;) {
      const { envelopes } = await from.call(methods.delivery.peek, { ...inbox, afterSeq });
      for (const { messageId, seq } of envelopes) found.set(encodeHex(messageId), seq);
      const last = envelopes.at(-1);
      if (last === undefined) return found;
      afterSeq = last.seq;
    }
  };
  assert.deepEqual(await readAll(rpc), stored);
  const { outcome } = await rpc.call(methods.user.resolveUser, { username: 'alice' });
  assert.equal(outcome.case, 'found');
  const second = await connect({ port: ready.port, trustAnchor });
  await resume(second, ORIGIN, person, token);
  assert.deepEqual(await readAll(second), stored);
  second.close();
  const isOfTheDisk = (line: string): boolean => /"store":"(?:disk_full|io)"/.test(line);
  assert.ok(server.log.some(isOfTheDisk), server.log.join('\n'));
  for (const line of server.log) {
    assert.ok(!line.includes('"level":"error"'), line);
    for (const secret of ['alice', encodeHex(inbox.recipientKey)]) assert.ok(!line.includes(secret), line);
  }

  // Killed and started again while it is full: who had a session reads on.
  await server.end('SIGKILL');
  rpc.close();
  ({ server, ready } = await ServerProcess.start(options));
  rpc = await connect({ port: ready.port, trustAnchor });
  await resume(rpc, ORIGIN, person, token);
  assert.deepEqual(await readAll(rpc), stored);
  isRefusal(await refusals(() => enqueue(200_000)));

  // Space again, without a restart.
  disk.makeRoom(server);
  await enqueue(200_000);
  // Health asks the store once a second.
  while ((await rpc.call(methods.p2p.health, {})).store !== StoreState.OK) await setTimeout(100);
  while (!(await upload()));
  await enqueue(2_000);
  assert.deepEqual(await readAll(rpc), stored);
  const { chunk } = await rpc.call(methods.blob.downloadBlob, { blobId, offset: 0n, length: CHUNK_BYTES });
  assert.deepEqual(Buffer.from(chunk), Buffer.from(file.subarray(0, CHUNK_BYTES)));
  rpc.close();
  await server.end('SIGTERM');
  assert.equal(await server.exited, 0, server.log.join('\n'));
}

test('a first start without space says so, and what to do', async (t) => {
  const { dataDir } = limitedFiles(t);
  const server = new ServerProcess({
    under: ['prlimit', '--fsize=40000', '--'],
    args: flagsFor({ ...SETTINGS, dataDir }),
  });
  const outcome = await server.started;
  assert.equal(await server.exited, 6);
  assert.ok(outcome.kind === 'refused', JSON.stringify(outcome));
  assert.equal(outcome.code, 'data');
  assert.match(outcome.message, /the database in .* could not be read or written: check the disk/);
  assert.notEqual(outcome.hint, '');
});

test('a log that cannot be written changes nothing for anybody', async (t) => {
  const { dataDir } = limitedFiles(t);
  const { server, ready } = await ServerProcess.start({
    under: ['sh', '-c', 'exec "$0" "$@" 2>/dev/full'],
    args: ['--data-dir', dataDir, '--listen', '127.0.0.1:0', '--origin', ORIGIN, '--metrics-listen', 'off'].concat([
      '--log-level',
      'debug',
    ]),
  });
  t.after(() => server.end('SIGKILL'));
  const trustAnchor = new Uint8Array(readFileSync(path.join(dataDir, 'cert.pem')));
  const rpc = await connect({ port: ready.port, trustAnchor });
  const alice = newPerson(ORIGIN, 'alice');
  await register(rpc, ORIGIN, alice, 'a password');
  await login(rpc, ORIGIN, alice, 'a password');
  // Every answer is a line; what is kept of them is bounded.
  for (let n = 0; n < 300; n++) await rpc.call(methods.p2p.health, {});
  rpc.close();
  await server.end('SIGTERM');
  assert.equal(await server.exited, 0);
});
